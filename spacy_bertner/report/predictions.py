"""Run a pipeline over documents with gold entities.

Predictions on the pipeline's own tokens are projected onto the tokens of the gold annotation, as in `spacy evaluate`
(`spacy.scorer.get_ner_prf`), so that the figures are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import minibatch
from thinc.api import Model

from ..annotate.worker import docs_or_reasons, prepared
from ..files import read_docs
from ..model.interface import interface_of
from ..model.orthography import is_blank
from ..span_groups import scored_spans
from .documents import Document, Entity, Lost, as_document, shorten


@dataclass
class Predicted:
    """Documents with their predicted entities, and what is left out.

    pipeline: name and version of the pipeline. labels: the labels that it can predict; None if unknown.
    skipped: documents that are not in the figures.
    misaligned: gold entities that begin or end inside a token of the pipeline, so that it cannot predict them.
    blank_ends: gold entities that begin or end with whitespace, and are not predicted.
    cut: words of which the model sees only the first pieces.
    ignored: predictions on tokens without annotation, neither right nor wrong.
    """

    pipeline: str
    labels: set[str] | None
    documents: list[Document] = field(default_factory=list)
    skipped: list[Lost] = field(default_factory=list)
    misaligned: list[Lost] = field(default_factory=list)
    blank_ends: list[Lost] = field(default_factory=list)
    cut: list[Lost] = field(default_factory=list)
    ignored: list[Lost] = field(default_factory=list)


def predict(
    nlp: Language, path: Path, *, spans_key: str | None = None, gold_tokens: bool = False, batch_size: int | None = None
) -> Predicted:
    """Run a pipeline over the documents of a .spacy file, without their annotation.

    nlp: the pipeline. path: the file, or a folder of them.
    spans_key: take gold and predictions from this group of `doc.spans`; None: from `doc.ents`.
    gold_tokens: give the pipeline the tokens of the gold annotation. Otherwise it tokenizes the text, where spaces are
        known, as in `spacy evaluate`.
    batch_size: documents per batch; None: the pipeline's setting.

    A document that the pipeline cannot process is skipped, with the reason. Raises DataError as `read_docs` does.
    """
    result = Predicted(pipeline_name(nlp), known_labels(nlp))
    batch_size = batch_size or nlp.batch_size
    with prepared(nlp):
        for batch in minibatch(enumerate(read_docs(path, nlp.vocab), 1), batch_size):
            scored = []
            for number, reference in batch:
                document = as_document(number, reference, spans_key)
                if isinstance(document, Lost):
                    result.skipped.append(document)
                else:
                    scored.append((document, reference))
            docs = docs_or_reasons(nlp, scored, lambda item: _unannotated(nlp, item[1], gold_tokens))
            for (document, reference), doc in zip(scored, docs, strict=True):
                if isinstance(doc, str):
                    n = len(document.gold)
                    reason = f"could not be processed, so that its {n} entities are not in the figures: {doc}"
                    result.skipped.append(Lost(document.number, shorten(reference.text), None, reason))
                else:
                    _add_predictions(result, document, Example(doc, reference), spans_key)
                    result.cut += _cut_words(nlp, document.number, doc)
                    result.documents.append(document)
    return result


def _unannotated(nlp: Language, doc: Doc, gold_tokens: bool) -> Doc:
    """Return the document without its annotation, as `spacy.Corpus.v1` makes it."""
    if gold_tokens or doc.has_unknown_spaces:
        return Doc(nlp.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc])
    return nlp.make_doc(doc.text)


def _add_predictions(result: Predicted, document: Document, example: Example, spans_key: str | None) -> None:
    doc, reference, number = example.predicted, example.reference, document.number
    has_gold_tokens = len(doc) == len(reference) and all(a.orth == b.orth for a, b in zip(doc, reference, strict=True))
    for span, score in scored_spans(doc, spans_key):
        start, end = span.start, span.end
        if not has_gold_tokens:
            tokens = example.alignment.x2y[start:end]
            if not len(tokens):
                result.ignored.append(Lost(number, span.text, span.label_, "is on no token of the gold annotation"))
                continue
            start, end = int(tokens[0]), int(tokens[-1]) + 1
        if document.is_annotated is not None and not all(document.is_annotated[start:end]):
            result.ignored.append(Lost(number, span.text, span.label_, "is on tokens without gold annotation"))
        else:
            document.predicted.append(Entity(start, end, span.label_, _probability(score)))
    document.predicted.sort(key=lambda entity: entity.key)
    predicted = {entity.key for entity in document.predicted}
    for span in reference.ents if spans_key is None else reference.spans[spans_key]:
        lost = partial(Lost, number, span.text, span.label_)
        if not has_gold_tokens and not example.get_aligned_spans_y2x([span]):
            result.misaligned.append(lost("starts or ends inside a token of the pipeline"))
        elif (span.start, span.end, span.label_) not in predicted and any(
            is_blank(t.text) for t in (*span[:1], *span[-1:])
        ):
            result.blank_ends.append(lost("starts or ends with whitespace or an invisible character"))


def _cut_words(nlp: Language, number: int, doc: Doc) -> Iterator[Lost]:
    for _, component in nlp.pipeline:
        model = getattr(component, "model", None)
        for i in interface_of(model).cut_words(model, doc) if isinstance(model, Model) else ():
            reason = f"a word of {len(doc[i].text)} characters, longer than a window: the model sees only its start"
            yield Lost(number, shorten(doc[i].text), None, reason)


def _probability(value: Any) -> float | None:
    """Return a score as a float; None if it is no probability, as where another package uses the extension's name."""
    try:
        score = float(value)
    except (TypeError, ValueError):
        return None
    return score if 0 <= score <= 1 else None  # NaN is not


def pipeline_name(nlp: Language) -> str:
    """Return the path that a pipeline was loaded from, if any, its name and its version."""
    name = f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']}"
    return f"{nlp.path} ({name})" if nlp.path is not None else name


def known_labels(nlp: Language) -> set[str] | None:
    """Return the entity labels that a pipeline can predict; None if one of its components does not say."""
    labels: set[str] = set()
    for name in nlp.pipe_names:
        if {"doc.ents", "doc.spans"} & set(nlp.get_pipe_meta(name).assigns):
            component = nlp.get_pipe(name)
            if not hasattr(component, "labels"):
                return None
            labels.update(component.labels)
    return labels or None
