"""What a report is made of: documents with their gold entities, those that a pipeline finds, and what was lost between.

Entities are counted in tokens of the gold annotation, onto which those of the pipeline's own tokens are projected, as
`spacy evaluate` does (`spacy.scorer.get_ner_prf`): its figures are the report's.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Model

from ..annotate.worker import prepared
from ..formats.detokenize import guess_spaces
from ..model.interface import interface_of


class Entity(NamedTuple):
    """An entity. start, end: first token and last + 1. score: how sure the pipeline is, None where it does not say."""

    start: int
    end: int
    label: str
    score: float | None = None

    @property
    def span(self) -> tuple[int, int]:
        """First token and last + 1."""
        return self.start, self.end

    @property
    def key(self) -> tuple[int, int, str]:
        """What makes two entities the same."""
        return self.start, self.end, self.label


@dataclass
class Document:
    """One document.

    number: its place in the data, from 1.
    words: its tokens. spaces: whether one follows each of them.
    sentence_starts: the first token of each sentence; only the first token where sentences are not known.
    is_annotated: whether each token has an annotation, `O` or other; None where all have.
    gold, predicted: the entities, by their start.
    """

    number: int
    words: list[str]
    spaces: list[bool]
    sentence_starts: list[int]
    is_annotated: list[bool] | None
    gold: list[Entity]
    predicted: list[Entity] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.words)

    def text(self, start: int, end: int) -> str:
        """The text of the tokens from `start` up to `end`, without the space behind."""
        words = zip(self.words[start:end], self.spaces[start:end], strict=True)
        return "".join(word + " " * space for word, space in words).rstrip(" ")

    def mention(self, entity: Entity) -> str:
        """The words of an entity, parted by spaces: what makes two mentions the same wherever they stand."""
        return " ".join(self.words[entity.start : entity.end])


class Lost(NamedTuple):
    """Something that does not count as it should: document (0 for none in particular), words or text, label, reason."""

    document: int
    text: str
    label: str | None
    reason: str


@dataclass
class Predicted:
    """The documents with what a pipeline found, and what was lost.

    pipeline: name and version of the pipeline.
    labels: the labels it can give; None where its components do not say.
    skipped: documents that are not in the figures.
    misaligned: gold entities whose ends are inside tokens of the pipeline, which hence cannot be found.
    cut: words of which the model sees the first pieces alone.
    ignored: predictions on tokens without annotation, neither right nor wrong.
    """

    pipeline: str
    labels: set[str] | None
    documents: list[Document] = field(default_factory=list)
    skipped: list[Lost] = field(default_factory=list)
    misaligned: list[Lost] = field(default_factory=list)
    cut: list[Lost] = field(default_factory=list)
    ignored: list[Lost] = field(default_factory=list)


class DataError(ValueError):
    """Data that no report can be made of; the message names the file."""


def read_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Read the Docs of a .spacy file, or of all in a folder.

    Raises DataError for what is missing, empty or no DocBin.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = sorted(path.rglob("*.spacy")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no .spacy file in this folder")
    for file in files:
        data = file.read_bytes()
        if not data:
            raise DataError(f"{file}: the file is empty")
        try:
            docs = DocBin().from_bytes(data)
        except Exception as err:  # zlib, msgpack and NumPy have one each
            raise DataError(f"{file}: is no DocBin{_looks_like(data)} ({err})") from None
        try:
            yield from docs.get_docs(vocab)
        except (KeyError, ValueError, IndexError) as err:
            raise DataError(f"{file}: is a damaged DocBin ({err})") from None


def _looks_like(data: bytes) -> str:
    if data[:2] == b"PK":
        return ", but a ZIP archive"
    try:
        zlib.decompress(data)
    except zlib.error:
        return "; `python -m spacy bertner convert` makes one of CoNLL files"
    return ""


def read_gold(path: Path, vocab: Vocab, spans_key: str | None = None) -> Iterator[Document | Lost]:
    """Read documents with their gold entities; as Lost those without tokens or annotation. Raises DataError."""
    for number, doc in enumerate(read_docs(path, vocab), 1):
        yield _document(number, doc, spans_key)


def _document(number: int, doc: Doc, spans_key: str | None) -> Document | Lost:
    if not len(doc):
        return Lost(number, "", None, "has no tokens")
    if spans_key is not None and spans_key not in doc.spans:
        groups = ", ".join(map(repr, doc.spans)) or "none"
        return Lost(number, _shorten(doc.text), None, f"has no doc.spans[{spans_key!r}]; its span groups are: {groups}")
    if spans_key is None and not doc.has_annotation("ENT_IOB"):
        return Lost(number, _shorten(doc.text), None, "has no entity annotation")
    words = [sys.intern(token.text) for token in doc]
    has_sentences = doc.has_annotation("SENT_START")
    starts = [token.i for token in doc if token.i == 0 or (has_sentences and token.is_sent_start)]
    if doc.has_unknown_spaces:  # those that running text would have are easier to read
        bounds = zip(starts, [*starts[1:], len(doc)], strict=True)
        spaces = list(chain.from_iterable(guess_spaces(words[start:end]) for start, end in bounds))
    else:
        spaces = [bool(token.whitespace_) for token in doc]
    is_annotated = [token.ent_iob != 0 for token in doc] if spans_key is None else []
    spans = doc.ents if spans_key is None else doc.spans[spans_key]
    gold = sorted(Entity(span.start, span.end, span.label_) for span in spans)
    return Document(number, words, spaces, starts, None if all(is_annotated) else is_annotated, gold)


def predict(
    nlp: Language,
    path: Path,
    *,
    spans_key: str | None = None,
    gold_tokens: bool = False,
    batch_size: int | None = None,
) -> Predicted:
    """Run a pipeline over the documents of a .spacy file, without their annotation.

    nlp: the pipeline.
    path: the file, or a folder of them.
    spans_key: take gold and predictions from this group of `doc.spans`; None: from `doc.ents`.
    gold_tokens: give the pipeline the tokens of the gold annotation. If not, it makes its own of the text, where the
        spaces in it are known, as `spacy evaluate` does.
    batch_size: documents in a batch; None: the pipeline's own.

    A document that the pipeline cannot process is among those skipped, with the reason. Raises DataError.
    """
    result = Predicted(pipeline_name(nlp), known_labels(nlp))
    batch_size = batch_size or nlp.batch_size
    docs = enumerate(read_docs(path, nlp.vocab), 1)
    with prepared(nlp):
        while batch := list(islice(docs, batch_size)):
            scored = []
            for number, reference in batch:
                document = _document(number, reference, spans_key)
                if isinstance(document, Lost):
                    result.skipped.append(document)
                else:
                    scored.append((document, reference))
            for (document, reference), doc in _pipe(nlp, scored, gold_tokens, batch_size):
                if isinstance(doc, str):
                    n = len(document.gold)
                    reason = f"could not be processed, so that its {n} entities are not in the figures: {doc}"
                    result.skipped.append(Lost(document.number, _shorten(reference.text), None, reason))
                else:
                    _add(result, nlp, document, Example(doc, reference), spans_key)
    return result


def _pipe(
    nlp: Language, todo: Sequence[tuple[Document, Doc]], gold_tokens: bool, batch_size: int
) -> Iterator[tuple[tuple[Document, Doc], Doc | str]]:
    """What the pipeline makes of the documents, or why it made nothing; a batch that fails is tried again by halves."""
    if not todo:
        return
    try:
        docs = list(nlp.pipe((_blank(nlp, doc, gold_tokens) for _, doc in todo), batch_size=batch_size))
        if len(docs) == len(todo):
            yield from zip(todo, docs, strict=True)
            return
        reason = f"the pipeline gave {len(docs)} documents for {len(todo)}"
    except Exception as err:  # a component may raise anything
        reason = f"{type(err).__name__}: {err}"
    if len(todo) == 1:
        yield todo[0], reason
        return
    half = len(todo) // 2
    yield from _pipe(nlp, todo[:half], gold_tokens, batch_size)
    yield from _pipe(nlp, todo[half:], gold_tokens, batch_size)


def _blank(nlp: Language, doc: Doc, gold_tokens: bool) -> Doc:
    """The document without its annotation, as `spacy.Corpus.v1` makes it."""
    if gold_tokens or doc.has_unknown_spaces:
        return Doc(nlp.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc])
    return nlp.make_doc(doc.text)


def _add(result: Predicted, nlp: Language, document: Document, example: Example, spans_key: str | None) -> None:
    doc, reference, number = example.predicted, example.reference, document.number
    is_same = len(doc) == len(reference) and all(a.orth == b.orth for a, b in zip(doc, reference, strict=True))
    for span, score in _found(doc, spans_key):
        start, end = span.start, span.end
        if not is_same:
            places = example.alignment.x2y[start:end]
            if not len(places):
                result.ignored.append(Lost(number, span.text, span.label_, "is on no token of the gold annotation"))
                continue
            start, end = int(places[0]), int(places[-1]) + 1
        if document.is_annotated is not None and not all(document.is_annotated[start:end]):
            result.ignored.append(Lost(number, span.text, span.label_, "is on tokens without gold annotation"))
        else:
            document.predicted.append(Entity(start, end, span.label_, score))
    document.predicted.sort(key=lambda entity: entity.key)
    if not is_same:
        for span in reference.ents if spans_key is None else reference.spans[spans_key]:
            if not example.get_aligned_spans_y2x([span]):
                result.misaligned.append(
                    Lost(number, span.text, span.label_, "starts or ends inside a token of the pipeline")
                )
    for _, component in nlp.pipeline:
        model = getattr(component, "model", None)
        for i in interface_of(model).cut_words(model, doc) if isinstance(model, Model) else ():
            reason = f"a word of {len(doc[i].text)} characters, longer than a window: the model sees its start alone"
            result.cut.append(Lost(number, _shorten(doc[i].text), None, reason))
    result.documents.append(document)


def _found(doc: Doc, spans_key: str | None) -> Iterator[tuple[Span, float | None]]:
    """The entities that a pipeline found, each with its score."""
    if spans_key is None:
        has_score = Span.has_extension("score")
        for ent in doc.ents:
            yield ent, _score(ent._.score) if has_score else None
    elif spans_key in doc.spans:
        group = doc.spans[spans_key]
        scores: Any = group.attrs.get("scores", ())  # spaCy's spancat has them there
        scores = scores if len(scores) == len(group) else [None] * len(group)
        for span, score in zip(group, scores, strict=True):
            yield span, _score(score)


def _score(value: Any) -> float | None:
    """A probability, or None for what another's extension of the name may hold."""
    try:
        score = float(value)
    except (TypeError, ValueError):
        return None
    return score if math.isfinite(score) and 0 <= score <= 1 else None


def pipeline_name(nlp: Language) -> str:
    """What to call a pipeline: where it was loaded from, if it was, its name and version."""
    name = f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']}"
    return f"{nlp.path} ({name})" if nlp.path is not None else name


def known_labels(nlp: Language) -> set[str] | None:
    """The entity labels that a pipeline can give; None where one of its components does not say."""
    labels: set[str] = set()
    for name in nlp.pipe_names:
        if {"doc.ents", "doc.spans"} & set(nlp.get_pipe_meta(name).assigns):
            component = nlp.get_pipe(name)
            if not hasattr(component, "labels"):
                return None
            labels.update(component.labels)
    return labels or None


def _shorten(text: str, n: int = 80) -> str:
    return text if len(text) <= n else text[: n - 1] + "…"
