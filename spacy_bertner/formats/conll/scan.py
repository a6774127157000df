"""The first pass over a file: how to read it, and how much is wrong with it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from ...tags import OUTSIDE
from ..faults import Fault, FaultList, UnreadableError
from ..ledger import Entry
from ..source import Source
from .blocks import ABSENT, Block, BlockReader
from .detect import detect_layout
from .layout import Layout
from .options import ReadOptions
from .schemes import EDGE, UNANNOTATED, Bigrams, Tag, TagParser, count_violations, detect_scheme, find_violation

_SAMPLE_LINES = 5000
# Keys in MISC that are taken for tags, in order of preference
_MISC_KEYS = ("name", "NER", "NE", "ner", "ne")

OnRead = Callable[[int], None]


@dataclass
class Scan:
    """How to read a file, and what the first pass found.

    n_faults: lines and tags that are repaired.
    words_crc: a checksum of all words in order.
    bigrams, schemes: of each column of tags, by its name in `Block`.
    """

    source: Source
    options: ReadOptions
    parse: TagParser
    layout: Layout
    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[Entry] = field(default_factory=list)
    tokens: int = 0
    n_blocks: int = 0
    missing: int = 0
    n_faults: int = 0
    words_crc: int = 0
    bigrams: dict[str, Bigrams] = field(default_factory=dict)
    schemes: dict[str, str | None] = field(default_factory=dict)

    @property
    def are_spaces_given(self) -> bool:
        """Whether the file says where spaces are."""
        return self.counts["no_space"] > 0

    @property
    def are_sentences_known(self) -> bool:
        """Whether the file says where sentences start; not a table whose blank lines only separate documents."""
        is_table = self.layout.kind == "table" and self.layout.misc is not None
        return not is_table or self.counts["sentence_ends"] > 0 or self.n_blocks > max(1, self.counts["marks"])

    def blocks(self, on_read: OnRead | None = None, report: Callable[[Entry], None] | None = None) -> Iterator[Block]:
        """Read the file again; `report` is called for whatever is repaired, tags included."""
        reader = BlockReader(self.layout, self.options.encoding, self.parse, report)
        for block in reader.read(self.source.lines(self.options.encoding, on_read)):
            for name, scheme in self.schemes.items() if report is not None else ():
                for entry in self._check_tags(block, getattr(block, name), scheme):
                    report(entry)
            yield block

    def _check_tags(self, block: Block, tags: list[str], scheme: str | None) -> Iterator[Entry]:
        before = self.parse[EDGE]
        for i, text in enumerate([*tags, EDGE]):
            tag = self.parse[text]
            if tag.fault:
                number, line = block.lines[i]
                yield Entry(number, tag.fault, f"read as {tag.repaired}", line)
            if scheme and (violation := find_violation(before, tag, scheme)):
                what, repair, is_earlier = violation
                number, line = block.lines[i - is_earlier]
                yield Entry(number, what, repair, line)
            before = tag


def words_checksum(words: list[str], crc: int = 0) -> int:
    """Return the checksum of words in order; `crc` is that of the words before them."""
    return zlib.crc32("\n".join([*words, ""]).encode("utf-8", "surrogatepass"), crc)


def scan(source: Source, options: ReadOptions, faults: FaultList, on_read: OnRead | None = None) -> Scan | None:
    """Find out how to read a file.

    faults: what is wrong with it is added, unless it can be repaired and is to be.
    on_read: called now and then with the number of bytes read since.
    Returns None if the file cannot be read as it is.
    """
    try:
        found = _scan(source, options, on_read)
    except UnreadableError as err:
        faults.add(Fault(source.name, err.line, str(err), err.text))
        return None
    except OSError as err:
        faults.add(Fault(source.name, None, str(err)))
        return None
    if found.n_faults == 0 or options.repair:
        return found
    for _ in found.blocks(report=lambda entry: faults.add(Fault(source.name, entry.line, entry.reason, entry.text))):
        pass
    return None


def _scan(source: Source, options: ReadOptions, on_read: OnRead | None) -> Scan:
    encoding = options.encoding
    parse = TagParser(options.missing, is_bare=options.scheme == "IO")
    sample = [line.rstrip("\r\n") for line in islice(source.lines(encoding), _SAMPLE_LINES)]
    layout = detect_layout(sample, options, parse)
    if layout.tag is None and layout.misc_key is None:
        layout = replace(layout, misc_key=_find_misc_key(source, layout, encoding, parse))
    parse[ABSENT] = Tag(OUTSIDE)
    reader = BlockReader(layout, encoding, parse)
    found = Scan(source, options, parse, layout, reader.counts, reader.dropped)
    found.bigrams = {name: Counter() for name in (("tags",) if layout.layer is None else ("tags", "layer"))}
    for block in reader.read(source.lines(encoding, on_read)):
        found.n_blocks += 1
        found.tokens += len(block.words)
        found.words_crc = words_checksum(block.words, found.words_crc)
        for name, bigrams in found.bigrams.items():
            tags = getattr(block, name)
            bigrams.update(zip([EDGE, *tags], [*tags, EDGE], strict=True))
    if not found.tokens:
        raise UnreadableError("the file holds no tokens")
    used = {tag for _, tag in found.bigrams["tags"]} - {EDGE, ABSENT}
    if all(parse[tag].prefix == UNANNOTATED for tag in used):
        some = ", ".join(sorted(used)[:5])
        column = f"MISC ({layout.misc_key}=)" if layout.tag is None else layout.title(layout.tag)
        first = next((i for i, line in enumerate(sample, 1) if line.strip() and line[0] not in "#-"), 1)
        raise UnreadableError(f"column {column} holds no tags, only {some}", first)
    if layout.tag is None and OUTSIDE in used:
        # Where the file writes O, a token without a tag is not annotated
        parse[ABSENT] = Tag(UNANNOTATED)
    found.n_faults = reader.counts["repaired"]
    for (_, tag), n in found.bigrams["tags"].items():
        found.n_faults += n * (parse[tag].fault is not None)
        found.missing += n * (parse[tag].prefix == UNANNOTATED)
    for name, bigrams in found.bigrams.items():
        scheme = found.schemes[name] = options.scheme or detect_scheme(bigrams, parse)
        found.n_faults += count_violations(bigrams, parse, scheme) if scheme else 0
    return found


def _find_misc_key(source: Source, layout: Layout, encoding: str, parse: TagParser) -> str:
    """Find the key of the tags in the MISC column, from the whole file."""
    assert layout.misc is not None
    counts: Counter[str] = Counter()
    for line in source.lines(encoding):
        fields = line.rstrip("\r\n").split("\t")
        if line.startswith("#") or len(fields) <= layout.misc:
            continue
        for item in fields[layout.misc].split("|"):
            key, equals, value = item.partition("=")
            if equals and (key in _MISC_KEYS or parse.is_tag(value)):
                counts[key] += 1
    if not counts:
        raise UnreadableError("no named entities: neither a column of tags nor name=B-PER in MISC")
    return next((key for key in _MISC_KEYS if key in counts), counts.most_common(1)[0][0])
