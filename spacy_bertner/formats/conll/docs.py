"""Blocks of tokens to Docs, and Docs to words with tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.language import create_tokenizer
from spacy.tokens import Doc, Span, Token
from spacy.util import get_lang_class
from spacy.vocab import Vocab, create_vocab

from ..detokenize import guess_spaces
from .blocks import Block
from .scan import Scan
from .schemes import EDGE, UNANNOTATED, begins

# Values of the attribute ENT_IOB
_UNANNOTATED, _INSIDE, _OUTSIDE, _BEGINS = range(4)


def make_vocab(lang: str) -> Vocab:
    """Make the vocabulary of a blank pipeline; raise ValueError if spaCy does not know the language."""
    try:
        return create_vocab(lang, get_lang_class(lang).Defaults)
    except ImportError as err:
        raise ValueError(f"lang={lang!r}: not a language that spaCy knows") from err


def make_tokenizer(lang: str, vocab: Vocab) -> Callable[[str], Doc]:
    """Make the tokenizer of a blank pipeline.

    Without the pipeline, if the language has spaCy's own tokenizer: a pipeline imports every installed plugin of spaCy.
    """
    cls = get_lang_class(lang)
    if cls.default_config["nlp"]["tokenizer"] == {"@tokenizers": "spacy.Tokenizer.v1"}:
        make: Any = create_tokenizer()
        return make(SimpleNamespace(vocab=vocab, Defaults=cls.Defaults))
    return cls(vocab=vocab).tokenizer


def tagged_words(doc: Doc, spans: Iterable[Span]) -> Iterator[tuple[Token, str, bool]]:
    """Yield the tokens of a Doc that are not white space, each with its tag (IOB2), and whether a sentence starts there.

    A sentence that starts inside an entity is not counted: in two sentences, the entity would be two.

    spans: the entities, which do not overlap.
    """
    span_of = {i: span for span in spans for i in range(span.start, span.end)}
    last = None  # the entity of the word before
    for token in doc:
        if token.is_space or not token.text:
            continue
        span = span_of.get(token.i)
        is_inside = span is not None and span is last
        tag = "O" if span is None else f"{'I' if is_inside else 'B'}-{span.label_}"
        yield token, tag, bool(token.is_sent_start) and not is_inside
        last = span


class DocMaker:
    """Makes Docs, which share a vocabulary, of the blocks of one file."""

    def __init__(self, vocab: Vocab, scan: Scan) -> None:
        self.vocab = vocab
        self.scan = scan
        self._hash = cache(vocab.strings.add)
        self._hash_pos = cache(lambda tag: vocab.strings.add("" if tag == "_" else tag))
        self._code = cache(self._make_code)

    def docs(self, blocks: Iterable[Block]) -> Iterator[Doc]:
        """Make Docs of all blocks of the file: one per document mark if there are any, else one per `n_sents` sentences."""
        is_marked, n_sents = self.scan.record.documents_by == "marks", self.scan.options.n_sents
        group: list[Block] = []
        n_in_group = 0
        for block in blocks:
            if group and (block.is_new_doc if is_marked else 0 < n_sents <= n_in_group):
                yield self._doc(group)
                group, n_in_group = [], 0
            group.append(block)
            n_in_group += len(block.starts)
        if group:
            yield self._doc(group)

    def _doc(self, blocks: Sequence[Block]) -> Doc:
        scan = self.scan
        words = [word for block in blocks for word in block.words]
        # With spaces unknown, `spacy.Corpus.v1` keeps the tokens; with made-up ones it would tokenise again and lose what
        # does not align
        doc = Doc(self.vocab, words, self._spaces(blocks))
        attrs, columns = ["ENT_IOB", "ENT_TYPE"], [self._entities(block.tags for block in blocks)]
        if scan.record.sentences is not None:
            starts = np.full((len(words), 1), -1, dtype=np.int64)  # (n_tokens, 1)
            offsets = accumulate((len(block.words) for block in blocks), initial=0)
            starts[
                [offset + start for offset, block in zip(offsets, blocks, strict=False) for start in block.starts]
            ] = 1
            attrs.append("SENT_START")
            columns.append(starts.astype(np.uint64))
        if scan.layout.pos is not None:
            hashes = [self._hash_pos(tag) for block in blocks for tag in block.pos]
            attrs.append("TAG")
            columns.append(np.array(hashes, dtype=np.uint64).reshape(-1, 1))
        doc.from_array(attrs, np.hstack(columns))  # type: ignore[arg-type]
        if scan.layout.layers:
            doc.spans[scan.options.layer_key] = [
                Span(doc, ent.start, ent.end, label=ent.label)
                for i in range(len(scan.layout.layers))
                for ent in Doc(self.vocab, words)
                .from_array(attrs[:2], self._entities(block.layers[i] for block in blocks))  # type: ignore[arg-type]
                .ents
            ]
        return doc

    def _entities(self, tags_of_blocks: Iterable[Sequence[str]]) -> NDArray[np.uint64]:
        """Return ENT_IOB and ENT_TYPE of each token, (n_tokens, 2)."""
        codes: list[tuple[int, int]] = []
        for tags in tags_of_blocks:
            codes.extend(map(self._code, [EDGE, *tags[:-1]], tags))
        return np.array(codes, dtype=np.uint64)

    def _make_code(self, before: str, text: str) -> tuple[int, int]:
        tag = self.scan.parse[text]
        if not tag.label:
            return _UNANNOTATED if tag.prefix == UNANNOTATED else _OUTSIDE, 0
        return _BEGINS if begins(self.scan.parse[before], tag) else _INSIDE, self._hash(tag.label)

    def _spaces(self, blocks: Sequence[Block]) -> list[bool] | None:
        """Return whether a space follows each token; None where that is unknown."""
        if self.scan.record.spaces == "given":
            spaces = [space for block in blocks for space in block.spaces]
        elif self.scan.record.spaces == "rules":
            spaces = []
            for block in blocks:
                for start, end in pairwise([*block.starts, len(block.words)]):
                    spaces.extend(guess_spaces(block.words[start:end]))
        else:
            return None
        spaces[-1] = False
        return spaces
