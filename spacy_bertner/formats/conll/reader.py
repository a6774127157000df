"""Lines → blocks of tokens: one block is what lies between two blank lines or document marks.

Every line that does not fit is reported and mended on the way, always in the same manner; whether
that is a fault or a note in the ledger is for the caller to say.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from .layout import (
    DOC_COMMENT,
    MISC_KEYS,
    Layout,
    LayoutError,
    detect_layout,
    is_blank,
    is_comment,
    is_mark,
    starts_mark,
)
from .options import ReadOptions
from .schemes import MISSING, OUTSIDE, Bigrams, TagParser
from .source import Progress, Source

SAMPLE_LINES = 5000
ABSENT = "\n"  # The tag of a token whose MISC column has none; no tag can hold a line feed.
_UNDECODED = re.compile("[\ud800-\udfff]")
_RANGE = re.compile(r"\d+-(\d+)")
_EMPTY_NODE = re.compile(r"\d+\.\d+")


class Report(Protocol):
    """Told of every line that does not fit, and of how it is mended."""

    def __call__(self, line: int, what: str, mended: str, text: str) -> None:
        """Take a note of one."""


class Block:
    """The tokens between two bounds, as lists of the same length.

    `lines` are the numbers of their lines; `texts` the lines themselves, if asked for; `starts`
    the places where a sentence starts; `new_doc` says that a document mark came before.
    """

    __slots__ = (
        "layer",
        "lines",
        "new_doc",
        "pos",
        "spaces",
        "starts",
        "tags",
        "texts",
        "words",
    )

    def __init__(self, new_doc: bool = False) -> None:
        self.words: list[str] = []
        self.tags: list[str] = []
        self.lines: list[int] = []
        self.pos: list[str] = []
        self.layer: list[str] = []
        self.spaces: list[bool] = []
        self.starts: list[int] = [0]
        self.texts: list[str] = []
        self.new_doc = new_doc


@dataclass
class Counts:
    """What was met on the way besides tokens."""

    marks: int = 0
    comments: int = 0
    ranges: int = 0
    empty_nodes: int = 0
    no_space: int = 0
    sentence_ends: int = 0
    notes: list[tuple[int, str, str]] = field(default_factory=list)


# What a line does to the tokens before it.
_GOES_ON, _ENDS_SENTENCE, _ENDS_DOCUMENT = range(3)


def iter_blocks(
    source: Source,
    layout: Layout,
    encoding: str,
    parse: TagParser,
    report: Report,
    counts: Counts,
    *,
    keep_texts: bool = False,
    progress: Progress | None = None,
) -> Iterator[Block]:
    """The blocks of a source, none of them empty.

    source (Source), encoding (str): The lines.
    layout (Layout): Which column is what.
    parse (TagParser): Takes tags apart.
    report (Report): Called for every line that has to be mended.
    counts (Counts): Counted up on the way.
    keep_texts (bool): Whether blocks keep the lines themselves.
    progress (Progress | None): Told of the bytes read.
    YIELDS (Block): The blocks. Raises UnreadableError.
    """
    lines = source.lines(encoding, progress)
    walk = _Walk(layout, encoding, parse, report, counts, keep_texts)
    return walk.inline(lines) if layout.kind == "inline" else walk.columns(lines)


class _Walk:
    """One walk over the lines of a source."""

    def __init__(
        self,
        layout: Layout,
        encoding: str,
        parse: TagParser,
        report: Report,
        counts: Counts,
        keep_texts: bool,
    ) -> None:
        self.layout = layout
        self.encoding = encoding
        self.parse = parse
        self.report = report
        self.counts = counts
        self.keep_texts = keep_texts
        self.block = Block()
        self.range_end = ""
        self.range_space = True
        self.at_end = False  # behind a token marked EndOfSentence

    def columns(self, lines: Iterator[str]) -> Iterator[Block]:
        """One token a line."""
        layout = self.layout
        word_at, tag_at, pos_at, n_columns = layout.word, layout.tag, layout.pos, layout.most
        tabs = layout.delimiter == "tab"
        # The plain case, which is most lines of most files, takes the short way; whatever is out
        # of the ordinary in a line sends it the long way round, to the same end.
        plain = layout.kind == "columns" and layout.layer is None
        ends = "\r\n" if layout.kind in ("conllu", "table") else " \t\r\n"
        keep_texts = self.keep_texts
        block = self.block
        for number, raw in enumerate(lines, 1):
            line = raw.rstrip(ends)
            if plain and line:
                if tabs:
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
                        block.lines.append(number)
                        if pos_at is not None:
                            block.pos.append(fields[pos_at])
                        if keep_texts:
                            block.texts.append(line)
                        continue
            bound = self._line(number, line)
            if bound == _GOES_ON:
                continue
            if block.words:
                yield block
                block = self.block = Block()
            if bound == _ENDS_DOCUMENT:
                block.new_doc = True
            self.at_end = False
            self.range_end = ""
        if block.words:
            yield block

    def inline(self, lines: Iterator[str]) -> Iterator[Block]:
        """One sentence a line, its words as `word|tag` or `word|POS|tag`."""
        n_fields = self.layout.most
        for number, raw in enumerate(lines, 1):
            line = self._decoded(number, raw.rstrip("\r\n"))
            if is_blank(line):
                continue
            items = self.layout.split(line)
            if starts_mark(items[0]):
                self.counts.marks += 1
                self.block.new_doc = True
                continue
            if line[0] == "#" and is_comment(line, items, self.layout, self.parse):
                self._comment(line)
                self.block.new_doc |= DOC_COMMENT.match(line) is not None
                continue
            for item in items:
                fields = item.rsplit("|", n_fields - 1)
                word, tag = fields[0], fields[-1]
                if len(fields) < n_fields:
                    what = f"'{item}' has {len(fields)} of {n_fields} fields"
                    if len(fields) == 1 or not self.parse.is_tag(tag):
                        word, tag = item, "_"
                    self.report(number, what, _read_as(word, tag), line)
                if not word:
                    self.report(number, f"'{item}' has no word", "dropped", line)
                    continue
                pos = fields[1] if len(fields) == 3 else ""
                self._add(number, line, word, tag, pos)
            if self.block.words:
                yield self.block
                self.block = Block()

    def _decoded(self, number: int, line: str) -> str:
        """A line whose undecodable bytes, if any, are reported and replaced."""
        if line.isascii() or not _UNDECODED.search(line):
            return line
        bad = ord(_UNDECODED.findall(line)[0])
        byte = f"0x{bad - 0xDC00:02x}" if 0xDC80 <= bad <= 0xDCFF else f"U+{bad:04X}"
        what = f"not {self.encoding}: byte {byte}"
        self.report(number, what, "undecodable bytes replaced by U+FFFD", line)
        return _UNDECODED.sub("\ufffd", line)

    def _comment(self, line: str) -> None:
        self.counts.comments += 1
        if DOC_COMMENT.match(line):
            self.counts.marks += 1

    def _line(self, number: int, line: str) -> int:
        """Take in a line of any kind, and say what it does to the tokens before it."""
        text, layout = line, self.layout
        line = self._decoded(number, line)
        if is_blank(line):
            return _ENDS_SENTENCE
        fields = layout.split(line)
        if is_mark(fields, layout.word):
            self.counts.marks += 1
            return _ENDS_DOCUMENT
        if line[0] == "#" and is_comment(line, fields, layout, self.parse):
            self._comment(line)
            return _ENDS_DOCUMENT if DOC_COMMENT.match(line) else _GOES_ON
        if layout.header and tuple(fields) == layout.names:
            return _GOES_ON
        misc = fields[layout.misc] if layout.misc is not None and layout.misc < len(fields) else ""
        if layout.index is not None:
            index = fields[layout.index] if layout.index < len(fields) else ""
            if not index.isdecimal():
                match = _RANGE.fullmatch(index)
                if match or _EMPTY_NODE.fullmatch(index):
                    self._not_a_word(number, text, fields, misc, match[1] if match else None)
                    return _GOES_ON
                if len(fields) >= layout.least:
                    self.report(number, f"'{index}' is no index of a token", "read as one", text)
        if layout.least <= len(fields) <= layout.most:
            word = fields[layout.word]
            tag = self._misc_tag(misc) if layout.tag is None else fields[layout.tag]
            at = len(fields)
        else:
            word, tag, at = self._odd(number, text, fields, misc)
        if not word.strip(" \t"):
            self.report(number, "no word in this line", "dropped", text)
            return _GOES_ON
        pos = fields[layout.pos] if layout.pos is not None and layout.pos < at else ""
        layer = fields[layout.layer] if layout.layer is not None and layout.layer < at else "_"
        self._add(number, text, word, tag, pos, layer)
        if layout.misc is not None:
            self._flags(misc, fields[layout.index] if layout.index is not None else "")
        return _GOES_ON

    def _add(self, number: int, text: str, word: str, tag: str, pos: str, layer: str = "_") -> None:
        block = self.block
        if self.at_end:
            if block.words:
                block.starts.append(len(block.words))
            self.at_end = False
        block.words.append(word)
        block.tags.append(tag)
        block.lines.append(number)
        if self.layout.pos is not None:
            block.pos.append("" if pos == "_" else pos)
        if self.layout.layer is not None:
            block.layer.append(layer)
        if self.keep_texts:
            block.texts.append(text)

    def _misc_tag(self, misc: str) -> str:
        prefix = f"{self.layout.misc_key}="
        for item in misc.split("|"):
            if item.startswith(prefix):
                return item[len(prefix) :]
        return ABSENT

    def _flags(self, misc: str, index: str) -> None:
        """Take from MISC whether a space follows the token just added, or its sentence ends."""
        items = misc.split("|")
        space = "SpaceAfter=No" not in items and "NoSpaceAfter" not in items
        if self.range_end:
            # The words of a multi-word token stand apart; what follows it is said in its line.
            last = index == self.range_end
            space = self.range_space if last else True
            if last:
                self.range_end = ""
        self.counts.no_space += not space
        self.block.spaces.append(space)
        if "EndOfSentence" in items:
            self.counts.sentence_ends += 1
            self.at_end = True

    def _not_a_word(self, number: int, text: str, fields: list[str], misc: str, range_end: str | None) -> None:
        """Pass over the line of a multi-word token or of an empty node."""
        if range_end is None:
            self.counts.empty_nodes += 1
            what = "empty node"
        else:
            self.counts.ranges += 1
            self.range_end = range_end
            self.range_space = "SpaceAfter=No" not in misc.split("|")
            what = "multi-word token"
        at = self.layout.tag
        tag = self._misc_tag(misc) if at is None else fields[at] if at < len(fields) else "_"
        if tag != ABSENT and self.parse[tag].label:
            self.counts.notes.append((number, f"{what}: its tag {tag} is dropped", text))

    def _odd(self, number: int, text: str, fields: list[str], misc: str) -> tuple[str, str, int]:
        """The word and the tag of a line with too few or too many columns, and how many of its
        columns are where they should be."""
        layout, is_tag = self.layout, self.parse.is_tag
        n = len(fields)
        tag_at = layout.least - 1 if layout.tag is None else layout.tag
        in_place = n
        if n < layout.least:
            n_wanted = layout.least
            what = f"too few columns: {n}, not {n_wanted}"
            word = fields[layout.word] if layout.word < n else ""
            tag = "_"
            if layout.tag is None:
                tag = self._misc_tag(misc) if (layout.misc or 0) < n else "_"
            elif layout.tag < n:
                tag = fields[layout.tag]
            elif layout.kind == "columns" and n - 1 != layout.word and is_tag(fields[-1]):
                tag, in_place = fields[-1], 0
        else:
            what = f"too many columns: {n}, not {layout.most}"
            word, tag, in_place = fields[layout.word], fields[tag_at], 0
            shift = n - layout.most
            if is_tag(fields[tag_at + shift]) and layout.kind == "columns":
                tag = fields[tag_at + shift]
                if layout.delimiter == "space" and tag_at > layout.word:
                    word = " ".join(fields[layout.word : layout.word + shift + 1])
        if not is_tag(tag):
            tag = "_" if tag != ABSENT else tag
        if word.strip(" \t"):
            self.report(number, what, _read_as(word, tag), text)
        return word, tag, in_place


def _read_as(word: str, tag: str) -> str:
    return f"word '{word}', " + ("missing annotation" if tag in ("_", ABSENT) else f"tag {tag}")


@dataclass
class Scan:
    """What the first walk over a whole source found.

    n_faults counts the lines that do not fit the layout; tags and their succession are judged
    from `bigrams`. `words_crc` is a checksum over all words in order.
    """

    layout: Layout
    counts: Counts
    tokens: int = 0
    blocks: int = 0
    missing: int = 0
    n_faults: int = 0
    words_crc: int = 0
    bigrams: Bigrams = field(default_factory=Counter)
    layer_bigrams: Bigrams = field(default_factory=Counter)

    @property
    def spaces_given(self) -> bool:
        """Whether the file says where spaces are."""
        return self.counts.no_space > 0

    @property
    def sentences_known(self) -> bool:
        """Whether the file says where sentences start: a table whose MISC column never does, and
        whose blank lines part documents only, does not."""
        table = self.layout.kind == "table" and self.layout.misc is not None
        return not table or self.counts.sentence_ends > 0 or self.blocks > max(1, self.counts.marks)


def words_checksum(words: list[str], crc: int = 0) -> int:
    """Go on with a checksum over words in order.

    words (list[str]): The next words.
    crc (int): The checksum up to here.
    RETURNS (int): The checksum with them.
    """
    return zlib.crc32("\n".join([*words, ""]).encode("utf-8", "surrogatepass"), crc)


def scan_source(
    source: Source,
    options: ReadOptions,
    parse: TagParser,
    progress: Progress | None = None,
) -> Scan:
    """Find the layout of a source and walk over all of it once.

    source (Source), options (ReadOptions): What to read, and what the user said about it.
    parse (TagParser): Takes tags apart; afterwards it also knows what no tag at all means.
    progress (Progress | None): Told of the bytes read.
    RETURNS (Scan): What was found. Raises LayoutError, UnreadableError.
    """
    encoding = options.encoding
    sample = [line.rstrip("\r\n") for line in islice(source.lines(encoding), SAMPLE_LINES)]
    layout = detect_layout(sample, options, parse)
    if layout.tag is None and layout.misc_key is None:
        layout = replace(layout, misc_key=_find_misc_key(source, layout, encoding, parse))
    scan = Scan(layout, Counts())

    def report(line: int, what: str, mended: str, text: str) -> None:
        scan.n_faults += 1

    parse[ABSENT] = OUTSIDE
    for block in iter_blocks(source, layout, encoding, parse, report, scan.counts, progress=progress):
        tags = block.tags
        scan.blocks += 1
        scan.tokens += len(tags)
        scan.words_crc = words_checksum(block.words, scan.words_crc)
        scan.bigrams.update(zip([None, *tags], [*tags, None], strict=True))
        if layout.layer is not None:
            scan.layer_bigrams.update(zip([None, *block.layer], [*block.layer, None], strict=True))
    if not scan.tokens:
        raise LayoutError("the file holds no tokens")
    used = {tag for _, tag in scan.bigrams if tag is not None}
    if all(parse[tag].prefix == "_" for tag in used if tag != ABSENT):
        some = ", ".join(sorted(tag for tag in used if tag != ABSENT)[:5])
        column = layout.column(layout.tag) or f"MISC ({layout.misc_key}=)"
        raise LayoutError(f"column {column} holds no tags, only {some}", _first_line(sample))
    if layout.tag is None and "O" in used:
        # Where the file says O, what says nothing is not annotated.
        parse[ABSENT] = MISSING
    for (_, tag), count in scan.bigrams.items():
        if tag is not None:
            scan.n_faults += count * (parse[tag].fault is not None)
            scan.missing += count * (parse[tag].prefix == "_")
    return scan


def _first_line(sample: list[str]) -> int:
    lines = (i for i, s in enumerate(sample, 1) if not is_blank(s) and s[0] not in "#-")
    return next(lines, 1)


def _find_misc_key(source: Source, layout: Layout, encoding: str, parse: TagParser) -> str:
    """The key of the tags in the MISC column, out of the whole file."""
    assert layout.misc is not None
    found: Counter[str] = Counter()
    for line in source.lines(encoding):
        if line.startswith("#"):
            continue
        fields = line.rstrip("\r\n").split("\t")
        for item in fields[layout.misc].split("|") if layout.misc < len(fields) else ():
            key, equals, value = item.partition("=")
            if equals and (key in MISC_KEYS or parse.is_tag(value)):
                found[key] += 1
    for key in MISC_KEYS:
        if key in found:
            return key
    if found:
        return found.most_common(1)[0][0]
    raise LayoutError("no named entities: neither a column of tags nor name=B-PER in MISC")
