"""Blocks of tokens → Docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from spacy.tokens import Doc, Span
from spacy.util import get_lang_class
from spacy.vocab import Vocab, create_vocab

from .detokenize import guess_spaces
from .options import ReadOptions
from .reader import Block, Report, Scan
from .schemes import Tag, TagParser, begins, check

# Values of the attribute ENT_IOB.
_MISSING, _INSIDE, _OUTSIDE, _BEGINS = range(4)


def make_vocab(lang: str) -> Vocab:
    """The vocabulary of a blank pipeline.

    lang (str): Code of a language.
    RETURNS (Vocab): A new one. Raises ValueError if spaCy does not know the language.
    """
    try:
        return create_vocab(lang, get_lang_class(lang).Defaults)
    except ImportError as err:
        raise ValueError(f"lang={lang!r}: not a language that spaCy knows") from err


def report_tags(block: Block, tags: Sequence[str], parse: TagParser, scheme: str | None, report: Report) -> None:
    """Report each tag of a block that is malformed or that breaks the scheme's rules.

    block (Block): With the texts of its lines.
    tags (Sequence[str]): Its tags, of the layer in question.
    parse (TagParser): Takes tags apart.
    scheme (str | None): The scheme; None if there are no entities.
    report (Report): Told of each.
    """
    prev: Tag | None = None
    for i, text in enumerate([*tags, None]):
        tag = None if text is None else parse[text]
        if tag is not None and tag.fault:
            report(block.lines[i], tag.fault, f"read as {tag.mended}", block.texts[i])
        found = check(prev, tag, scheme) if scheme else None
        if found:
            what, mended, which = found
            report(block.lines[i + which], what, mended, block.texts[i + which])
        prev = tag


class DocMaker:
    """Makes Docs of the blocks of one source.

    vocab (Vocab): Shared by all Docs.
    scan (Scan): What is known about the source.
    parse (TagParser): Takes tags apart.
    options (ReadOptions): What the user asked for.
    """

    def __init__(self, vocab: Vocab, scan: Scan, parse: TagParser, options: ReadOptions) -> None:
        self.vocab = vocab
        self.parse = parse
        self.options = options
        self.scan = scan
        self.has_pos = scan.layout.pos is not None
        self.has_layer = scan.layout.layer is not None
        self._strings: dict[str, int] = {"": 0}
        self._codes: dict[tuple[str | None, str], tuple[int, int]] = {}

    def docs(self, blocks: Iterable[Block]) -> Iterator[Doc]:
        """Group blocks into documents.

        blocks (Iterable[Block]): All blocks of the source, in order.
        YIELDS (Doc): At the document marks if the source has any, else `n_sents` sentences each,
            else one for all.
        """
        marked, n_sents = self.scan.counts.marks > 0, self.options.n_sents
        group: list[Block] = []
        n_in_group = 0
        for block in blocks:
            ends = block.new_doc if marked else 0 < n_sents <= n_in_group
            if ends and group:
                yield self.doc(group)
                group, n_in_group = [], 0
            group.append(block)
            n_in_group += len(block.starts)
        if group:
            yield self.doc(group)

    def doc(self, blocks: Sequence[Block]) -> Doc:
        """One Doc.

        blocks (Sequence[Block]): Its tokens, at least one.
        RETURNS (Doc): With entities, sentence starts, and whatever else the source has.
        """
        words = [word for block in blocks for word in block.words]
        spaces = self._spaces(blocks)
        # Without spaces the Doc says that they are unknown, and `spacy.Corpus.v1` then keeps its
        # tokens; with made-up ones it would tokenise again and lose what does not fit.
        doc = Doc(self.vocab, words=words) if spaces is None else Doc(self.vocab, words, spaces)
        codes = [code for block in blocks for code in self._decode(block.tags)]
        attrs = ["ENT_IOB", "ENT_TYPE"]
        columns = [np.array(codes, dtype=np.uint64)]  # (n_tokens, 2)
        if self.scan.sentences_known:
            attrs.append("SENT_START")
            columns.append(_sentence_starts(blocks, len(words)))
        if self.has_pos:
            attrs.append("TAG")
            hashes = [self._hash(tag) for block in blocks for tag in block.pos]
            columns.append(np.array(hashes, dtype=np.uint64).reshape(-1, 1))
        doc.from_array(attrs, np.hstack(columns))  # type: ignore[arg-type]
        if self.has_layer:
            doc.spans[self.options.spans_key] = self._layer(doc, blocks)
        return doc

    def _hash(self, string: str) -> int:
        found = self._strings.get(string)
        if found is None:
            found = self._strings[string] = self.vocab.strings.add(string)
        return found

    def _decode(self, tags: Sequence[str]) -> Iterator[tuple[int, int]]:
        """ENT_IOB and ENT_TYPE of each tag."""
        codes = self._codes
        prev: str | None = None
        for text in tags:
            code = codes.get((prev, text))
            if code is None:
                tag = self.parse[text]
                if not tag.label:
                    code = (_MISSING if tag.prefix == "_" else _OUTSIDE, 0)
                elif begins(None if prev is None else self.parse[prev], tag):
                    code = (_BEGINS, self._hash(tag.label))
                else:
                    code = (_INSIDE, self._hash(tag.label))
                codes[prev, text] = code
            yield code
            prev = text

    def _spaces(self, blocks: Sequence[Block]) -> list[bool] | None:
        if self.scan.spaces_given:
            spaces = [space for block in blocks for space in block.spaces]
        elif self.options.detokenize:
            spaces = []
            for block in blocks:
                bounds = [*block.starts, len(block.words)]
                for start, end in pairwise(bounds):
                    spaces.extend(guess_spaces(block.words[start:end]))
        else:
            return None
        spaces[-1] = False
        return spaces

    def _layer(self, doc: Doc, blocks: Sequence[Block]) -> list[Span]:
        spans: list[Span] = []
        offset = 0
        for block in blocks:
            start, label = -1, 0
            for i, (iob, type_) in enumerate([*self._decode(block.layer), (_OUTSIDE, 0)]):
                if iob == _INSIDE:
                    continue
                if start >= 0:
                    spans.append(Span(doc, start + offset, i + offset, label=label))
                start, label = (i, type_) if iob == _BEGINS else (-1, 0)
            offset += len(block.words)
        return spans


def _sentence_starts(blocks: Sequence[Block], n_tokens: int) -> np.ndarray:
    starts = np.full((n_tokens, 1), -1, dtype=np.int64)  # (n_tokens, 1)
    offset = 0
    for block in blocks:
        for start in block.starts:
            starts[offset + start] = 1
        offset += len(block.words)
    return starts.astype(np.uint64)
