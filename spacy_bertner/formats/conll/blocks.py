"""Lines to blocks of tokens: one block is what stands between two blank lines or document marks.

Every line that does not fit is repaired, always in the same way; whether that is a fault or an entry of the ledger is for
the caller to say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from ..ledger import Entry
from .layout import DOC_COMMENT, Layout, is_comment, starts_mark
from .schemes import EDGE, UNANNOTATED, TagParser, begins
from .stateful import DECODERS

# The tag of a token whose MISC column has none; no tag can hold a line feed
ABSENT = "\n"
# The prefix of the first token of an entity, by that of a later one
_FIRST = {"I": "B", "M": "B", "L": "U", "E": "S"}
_UNDECODED = re.compile("[\ud800-\udfff]")
_RANGE = re.compile(r"\d+-(\d+)")
_EMPTY_NODE = re.compile(r"\d+\.\d+")
_SENTENCE_AND_TOKEN = re.compile(r"\d+[.-]\d+")
_PART_OF_TOKEN = re.compile(r"\d+-\d+\.\d+")  # of WebAnno


@dataclass(slots=True)
class Block:
    """The tokens of a block, as lists of the same length.

    layers: the tags of each further layer. pos, spaces: empty where the file has none.
    lines: each with its number, where asked for.
    starts: where sentences start. is_new_doc: whether a document mark stands before it.
    """

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    layers: tuple[list[str], ...] = ()
    pos: list[str] = field(default_factory=list)
    spaces: list[bool] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    is_new_doc: bool = False

    def tag_columns(self) -> list[list[str]]:
        """Return the tags of each layer, the first one first."""
        return [self.tags, *self.layers]


@dataclass
class BlockReader:
    """One pass over the lines of a file.

    encoding: for messages.
    report: called for each line that is repaired; blocks then keep their lines.
    counts: what the file has besides tokens, filled while reading. dropped: tags of lines that are no words, likewise.
    """

    layout: Layout
    encoding: str
    parse: TagParser
    report: Callable[[Entry], None] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[Entry] = field(default_factory=list)

    def read(self, lines: Iterator[str]) -> Iterator[Block]:
        """Yield the blocks, none of them empty."""
        layout, keep_lines = self.layout, self.report is not None
        word_at, tag_at, pos_at, n_columns = layout.word, layout.tag, layout.pos, layout.most
        is_tab = layout.delimiter == "tab"
        # Most lines of most files take this short way; what is unusual goes the long way, with the same result
        is_odd = layout.layers or layout.groups or layout.decode or layout.prefix or layout.delimiter == "comma"
        is_plain = layout.kind == "columns" and not is_odd
        ends = " \t\r\n" if layout.kind in ("columns", "indexed", "germeval") else "\r\n"
        is_short = is_plain
        self._finished: Block | None = None  # ended by the id of another sentence or document
        self._ids: list[str] = [""] * len(layout.groups)
        block = self._start_block()
        for number, raw in enumerate(lines, 1):
            line = raw.rstrip(ends)
            if is_short and line:
                if is_tab:
                    fields = line.split("\t")
                elif "  " in line or "\t" in line:
                    fields = []
                else:
                    fields = line.split(" ")
                if (
                    len(fields) == n_columns
                    and line[0] not in "#- \t"
                    and (line.isascii() or not _UNDECODED.search(line))
                ):
                    word = fields[word_at]
                    if word and word[0] not in " -":
                        block.words.append(word)
                        block.tags.append(fields[tag_at])  # type: ignore[index]
                        if pos_at is not None:
                            block.pos.append(fields[pos_at])
                        if keep_lines:
                            block.lines.append((number, line))
                        continue
            is_new_doc = self._line(number, line)
            is_short = is_plain and not self._dropped
            if self._finished is not None:
                yield self._finished
                self._finished, block = None, self._block
            if is_new_doc is not None:
                if block.words:
                    yield block
                    block = self._start_block()
                block.is_new_doc |= is_new_doc
                self._is_sentence_end, self._range_end = False, ""
        if block.words:
            yield block

    def _start_block(self) -> Block:
        self._block = Block()
        if self.layout.layers:
            self._block.layers = tuple([] for _ in self.layout.layers)
        self._dropped: list[str] = []  # the tags of lines without a word since the last token
        self._decode = DECODERS[self.layout.decode]() if self.layout.decode else None
        self._is_sentence_end = False  # after a token marked EndOfSentence
        self._range_end = ""  # the index of the last word of a multi-word token
        return self._block

    def _line(self, number: int, text: str) -> bool | None:
        """Read a line of any kind. Returns None if the block continues after it, else whether a document starts there."""
        layout = self.layout
        line = self._decoded(number, text)
        if not line.strip():
            return False
        fields = layout.split(line)
        if starts_mark(fields[0]) or (layout.word < len(fields) and starts_mark(fields[layout.word])):
            self.counts["marks"] += 1
            return True
        if line[0] == "#" and is_comment(line, fields, layout, self.parse):
            is_mark = DOC_COMMENT.match(line) is not None
            self.counts["comments"] += 1
            self.counts["marks"] += is_mark
            return is_mark or None
        if layout.kind == "inline":
            for item in fields:
                self._inline_token(number, line, item)
            return False
        is_header = layout.kind == "table" and tuple(fields) == layout.names
        if not is_header and not self._is_skipped(number, text, fields):
            if layout.groups:
                self._enter_group(fields)
            self._token(number, text, fields)
        return None

    def _enter_group(self, fields: list[str]) -> None:
        """Start a new block where the id of a sentence or document changes."""
        for i, (at, is_document) in enumerate(self.layout.groups):
            value = self.layout.group(fields, at)
            if value in ("", self._ids[i]):
                continue
            self._ids[i:] = [value, *[""] * (len(self._ids) - i - 1)]
            if self._block.words:
                self._finished = self._block
                self._start_block()
            self._block.is_new_doc |= is_document
            self.counts["marks"] += is_document

    def _inline_token(self, number: int, line: str, item: str) -> None:
        """Add a token written `word|tag` or `word|POS|tag`."""
        n_fields = self.layout.most
        fields = item.rsplit("|", n_fields - 1)
        word, tag = fields[0], fields[-1]
        if len(fields) < n_fields:
            if len(fields) == 1 or not self.parse.is_tag(tag):
                word, tag = item, UNANNOTATED
            self._repair(number, f"'{item}' has {len(fields)} of {n_fields} fields", _read_as(word, tag), line)
        if word:
            self._add(number, line, word, tag, fields[1] if len(fields) == 3 else "")
        else:
            self._repair(number, f"'{item}' has no word", "dropped", line)

    def _repair(self, number: int, reason: str, action: str, text: str) -> None:
        self.counts["repaired"] += 1
        if self.report is not None:
            self.report(Entry(number, reason, action, text))

    def _decoded(self, number: int, line: str) -> str:
        """Return a line with undecodable bytes replaced."""
        if line.isascii() or not (match := _UNDECODED.search(line)):
            return line
        bad = ord(match[0])
        byte = f"0x{bad - 0xDC00:02x}" if 0xDC80 <= bad <= 0xDCFF else f"U+{bad:04X}"
        self._repair(number, f"not {self.encoding}: byte {byte}", "undecodable bytes replaced by U+FFFD", line)
        return _UNDECODED.sub("\ufffd", line)

    def _is_skipped(self, number: int, text: str, fields: list[str]) -> bool:
        """Say by its index whether a line is a multi-word token or an empty node; count it, and drop its tag."""
        layout = self.layout
        index = _column(fields, layout.index)
        if layout.index is None or index.isdecimal():
            return False
        if layout.has_token_ids and _SENTENCE_AND_TOKEN.fullmatch(index):
            return False
        if match := _RANGE.fullmatch(index):
            what = "multi-word token"
            self.counts["multi_word_tokens"] += 1
            self._range_end = match[1]
            self._is_space_after_range = "SpaceAfter=No" not in _column(fields, layout.misc).split("|")
        elif _EMPTY_NODE.fullmatch(index):
            what = "empty node"
            self.counts["empty_nodes"] += 1
        elif _PART_OF_TOKEN.fullmatch(index):
            what = "part of a token"
        else:
            if len(fields) >= layout.least:
                self._repair(number, f"'{index}' is no index of a token", "read as one", text)
            return False
        tag = self._tag(fields)
        if self._decode is not None:
            tag = self._decode(tag)
        if self.parse[tag].label:
            self.dropped.append(Entry(number, f"{what}: its tag {tag} is dropped", "dropped", text))
        return True

    def _tag(self, fields: list[str]) -> str:
        """Return the tag as written, out of its column or out of MISC."""
        if self.layout.tag is not None:
            return _column(fields, self.layout.tag)
        prefix = f"{self.layout.misc_key}="
        for item in _column(fields, self.layout.misc, prefix + UNANNOTATED).split("|"):
            if item.startswith(prefix):
                return item[len(prefix) :]
        return ABSENT

    def _token(self, number: int, text: str, fields: list[str]) -> None:
        """Add the token of a line."""
        layout = self.layout
        if layout.least <= len(fields) <= layout.most:
            word, tag, in_place = fields[layout.word], self._tag(fields), fields
        else:
            word, tag, in_place = self._misfit(number, text, fields)
        if self._decode is not None:
            tag = self._decode(tag)
        if not word.strip(" \t"):
            self._repair(number, "no word in this line", "dropped", text)
            self._dropped.append(tag)
            return
        if layout.prefix:
            word = word.removeprefix(layout.prefix) or word
        self._add(number, text, word, tag, _column(in_place, layout.pos))
        if layout.layers:
            for column, at in zip(self._block.layers, layout.layers, strict=True):
                column.append(_column(in_place, at, UNANNOTATED))
        if layout.misc is not None:
            self._read_flags(_column(fields, layout.misc).split("|"), _column(fields, layout.index))

    def _add(self, number: int, text: str, word: str, tag: str, pos: str) -> None:
        block = self._block
        if self._dropped:
            tag = self._apart(number, text, tag)
        if self._is_sentence_end:
            if block.words:
                block.starts.append(len(block.words))
            self._is_sentence_end = False
        block.words.append(word)
        block.tags.append(tag)
        if self.layout.pos is not None:
            block.pos.append(pos)
        if self.report is not None:
            block.lines.append((number, text))

    def _apart(self, number: int, text: str, written: str) -> str:
        """Return the tag after lines that were dropped, so that no two entities become one."""
        before = self._block.tags[-1] if self._block.words else EDGE
        tags = [self.parse[tag] for tag in (before, *self._dropped, written)]
        self._dropped = []
        is_one = all(tag.label and not begins(previous, tag) for previous, tag in pairwise(tags))
        first, last = tags[0], tags[-1]
        if is_one or not last.label or begins(first, last):
            return written
        self._repair(number, f"{last} follows a dropped line that separates two entities", "begins an entity", text)
        return f"{_FIRST[last.prefix]}-{last.label}"

    def _read_flags(self, misc: list[str], index: str) -> None:
        """Read off MISC whether a space follows the token just added, and whether its sentence ends."""
        is_space = "SpaceAfter=No" not in misc and "NoSpaceAfter" not in misc
        if self._range_end:
            # The words of a multi-word token are separated by spaces; what follows it is said in its own line
            is_last = index == self._range_end
            is_space = self._is_space_after_range if is_last else True
            if is_last:
                self._range_end = ""
        self.counts["no_space"] += not is_space
        self._block.spaces.append(is_space)
        if "EndOfSentence" in misc:
            self.counts["sentence_ends"] += 1
            self._is_sentence_end = True

    def _misfit(self, number: int, text: str, fields: list[str]) -> tuple[str, str, list[str]]:
        """Read a line with too few or too many columns.

        Returns the word, the tag, and the columns if the others of them are in their places, else none.
        """
        layout, is_tag = self.layout, self.parse.is_tag
        is_columns = layout.kind == "columns"
        word, tag, in_place = _column(fields, layout.word), self._tag(fields), fields
        n = len(fields)
        if n < layout.least:
            what = f"too few columns: {n}, not {layout.least}"
            if is_columns and not tag and n - 1 != layout.word and is_tag(fields[-1]):
                tag, in_place = fields[-1], []
        else:
            what = f"too many columns: {n}, not {layout.most}"
            in_place, excess = [], n - layout.most
            if layout.tag is None:
                tag = fields[layout.least - 1]
            elif (
                is_columns and layout.delimiter == "space" and layout.tag == layout.least - 1 and self.parse[tag].label
            ):
                tag = " ".join(fields[layout.tag :])  # a label that holds blanks: `B-Full Name`
            elif is_columns and is_tag(fields[layout.tag + excess]):
                tag = fields[layout.tag + excess]
                if layout.delimiter == "space" and layout.tag > layout.word:
                    word = " ".join(fields[layout.word : layout.word + excess + 1])
        if tag != ABSENT and not is_tag(tag):
            tag = UNANNOTATED
        if word.strip(" \t"):
            self._repair(number, what, _read_as(word, tag), text)
        return word, tag, in_place


def _column(fields: list[str], at: int | None, default: str = "") -> str:
    return fields[at] if at is not None and at < len(fields) else default


def _read_as(word: str, tag: str) -> str:
    return f"word '{word}', " + ("missing annotation" if tag in (UNANNOTATED, ABSENT) else f"tag {tag}")
