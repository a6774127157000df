"""Blocks of tokens to Docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from spacy.tokens import Doc, Span
from spacy.util import get_lang_class
from spacy.vocab import Vocab, create_vocab

from ..detokenize import guess_spaces
from .blocks import Block
from .scan import Scan
from .schemes import UNANNOTATED, begins

# Values of the attribute ENT_IOB
_UNANNOTATED, _INSIDE, _OUTSIDE, _BEGINS = range(4)


def make_vocab(lang: str) -> Vocab:
    """Make the vocabulary of a blank pipeline; raise ValueError if spaCy does not know the language."""
    try:
        return create_vocab(lang, get_lang_class(lang).Defaults)
    except ImportError as err:
        raise ValueError(f"lang={lang!r}: not a language that spaCy knows") from err


class DocMaker:
    """Makes Docs, which share a vocabulary, of the blocks of one file."""

    def __init__(self, vocab: Vocab, scan: Scan) -> None:
        self.vocab = vocab
        self.scan = scan
        self._strings: dict[str, int] = {"": 0}
        self._codes: dict[tuple[str | None, str], tuple[int, int]] = {}

    def docs(self, blocks: Iterable[Block]) -> Iterator[Doc]:
        """Make Docs of all blocks of the file: one per document mark if there are any, else one per `n_sents` sentences."""
        is_marked, n_sents = self.scan.counts.marks > 0, self.scan.options.n_sents
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
        layout = self.scan.layout
        words = [word for block in blocks for word in block.words]
        spaces = self._spaces(blocks)
        # With spaces unknown, `spacy.Corpus.v1` keeps the tokens; with made-up ones it would tokenise again and lose what
        # does not align
        doc = Doc(self.vocab, words) if spaces is None else Doc(self.vocab, words, spaces)
        attrs = ["ENT_IOB", "ENT_TYPE"]
        codes = [code for block in blocks for code in self._codes_of(block.tags)]
        columns = [np.array(codes, dtype=np.uint64)]  # (n_tokens, 2)
        if self.scan.are_sentences_known:
            attrs.append("SENT_START")
            starts = np.full((len(words), 1), -1, dtype=np.int64)  # (n_tokens, 1)
            offset = 0
            for block in blocks:
                starts[[offset + start for start in block.starts]] = 1
                offset += len(block.words)
            columns.append(starts.astype(np.uint64))
        if layout.pos is not None:
            attrs.append("TAG")
            hashes = [self._hash(tag) for block in blocks for tag in block.pos]
            columns.append(np.array(hashes, dtype=np.uint64).reshape(-1, 1))
        doc.from_array(attrs, np.hstack(columns))  # type: ignore[arg-type]
        if layout.layer is not None:
            doc.spans[self.scan.options.spans_key] = self._layer(doc, blocks)
        return doc

    def _hash(self, string: str) -> int:
        key = self._strings.get(string)
        if key is None:
            key = self._strings[string] = self.vocab.strings.add(string)
        return key

    def _codes_of(self, tags: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield ENT_IOB and ENT_TYPE of each tag of a block."""
        codes = self._codes
        before: str | None = None
        for text in tags:
            code = codes.get((before, text))
            if code is None:
                code = codes[before, text] = self._code(before, text)
            yield code
            before = text

    def _code(self, before: str | None, text: str) -> tuple[int, int]:
        parse = self.scan.parse
        tag = parse[text]
        if not tag.label:
            return _UNANNOTATED if tag.prefix == UNANNOTATED else _OUTSIDE, 0
        is_first = begins(None if before is None else parse[before], tag)
        return _BEGINS if is_first else _INSIDE, self._hash(tag.label)

    def _spaces(self, blocks: Sequence[Block]) -> list[bool] | None:
        """Return whether a space follows each token; None where that is unknown."""
        if self.scan.are_spaces_given:
            spaces = [space for block in blocks for space in block.spaces]
        elif self.scan.options.detokenize:
            spaces = []
            for block in blocks:
                for start, end in pairwise([*block.starts, len(block.words)]):
                    spaces.extend(guess_spaces(block.words[start:end]))
        else:
            return None
        spaces[-1] = False
        return spaces

    def _layer(self, doc: Doc, blocks: Sequence[Block]) -> list[Span]:
        """Make the entities of the second layer."""
        spans: list[Span] = []
        offset = 0
        for block in blocks:
            start, label = -1, 0
            for i, (iob, type_) in enumerate([*self._codes_of(block.layer), (_OUTSIDE, 0)], offset):
                if iob == _INSIDE:
                    continue
                if start >= 0:
                    spans.append(Span(doc, start, i, label=label))
                start, label = (i, type_) if iob == _BEGINS else (-1, 0)
            offset += len(block.words)
        return spans
