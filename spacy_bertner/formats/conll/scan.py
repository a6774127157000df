"""The first pass over a file: how to read it, and how much is wrong with it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ...tags import OUTSIDE
from ..faults import ConversionError, Fault
from ..ledger import Entry, FileRecord
from ..source import Source
from .blocks import ABSENT, Block, BlockReader
from .detect import Sample, detect_layout
from .layout import Layout
from .options import ReadOptions
from .schemes import (
    EDGE,
    UNANNOTATED,
    Bigrams,
    Tag,
    TagParser,
    count_entities,
    count_violations,
    detect_scheme,
    find_violation,
)

_SAMPLE_LINES = 5000
# Keys in MISC that are taken for tags, in order of preference
_MISC_KEYS = ("name", "NER", "NE", "ner", "ne")

OnRead = Callable[[int], None]


@dataclass
class Scan:
    """How to read a file, and what the first pass found.

    schemes: of each column of tags, by its name in `Block`.
    n_faults: the lines and tags that are repaired.
    record: what there is, for the ledger; `documents`, `output` and what happens while writing are yet to be added.
    words_crc: a checksum of all words in order.
    """

    source: Source
    options: ReadOptions
    parse: TagParser
    layout: Layout
    schemes: dict[str, str | None]
    n_faults: int
    record: FileRecord
    words_crc: int

    def blocks(self, on_read: OnRead | None = None, report: Callable[[Entry], None] | None = None) -> Iterator[Block]:
        """Read the file again; `report` is called for whatever is repaired, tags included."""
        reader = BlockReader(self.layout, self.options.encoding, self.parse, report)
        for block in reader.read(self.source.lines(self.options.encoding, on_read)):
            if report is not None:
                for name, scheme in self.schemes.items():
                    for entry in _check_tags(getattr(block, name), block.lines, self.parse, scheme):
                        report(entry)
            yield block


def _check_tags(tags: list[str], lines: list[tuple[int, str]], parse: TagParser, scheme: str | None) -> Iterator[Entry]:
    """Find the tags of a block that are malformed or violate the scheme."""
    before = parse[EDGE]
    for i, text in enumerate([*tags, EDGE]):
        tag = parse[text]
        if tag.fault:
            number, line = lines[i]
            yield Entry(number, tag.fault, f"read as {tag.repaired}", line)
        if scheme and (violation := find_violation(before, tag, scheme)):
            what, repair, is_earlier = violation
            number, line = lines[i - is_earlier]
            yield Entry(number, what, repair, line)
        before = tag


def words_checksum(words: list[str], crc: int = 0) -> int:
    """Return the checksum of words in order; `crc` is that of the words before them."""
    return zlib.crc32("\n".join([*words, ""]).encode("utf-8", "surrogatepass"), crc)


def scan(source: Source, options: ReadOptions, on_read: OnRead | None = None) -> Scan:
    """Find out how to read a file, and check all of it.

    on_read: called now and then with the number of bytes read since.
    Raises ConversionError if the file cannot be read, or holds anything that has to be repaired and `repair` is not set.
    """
    encoding = options.encoding
    parse = TagParser(options.missing, is_bare=options.scheme == "IO")
    sample = [line.rstrip("\r\n") for line in islice(source.lines(encoding), _SAMPLE_LINES)]
    layout = detect_layout(Sample(source, sample, options, parse))
    if layout.tag is None and layout.misc_key is None:
        layout = replace(layout, misc_key=_find_misc_key(source, layout, encoding, parse))
    parse[ABSENT] = Tag(OUTSIDE)
    bigrams: dict[str, Bigrams] = {"tags": Counter()}
    if layout.layer is not None:
        bigrams["layer"] = Counter()
    reader = BlockReader(layout, encoding, parse)
    counts, words_crc = reader.counts, 0
    for block in reader.read(source.lines(encoding, on_read)):
        counts["blocks"] += 1
        counts["sentences"] += len(block.starts)
        counts["tokens"] += len(block.words)
        words_crc = words_checksum(block.words, words_crc)
        for name, pairs in bigrams.items():
            tags = getattr(block, name)
            pairs.update(zip([EDGE, *tags], [*tags, EDGE], strict=True))
    if not counts["tokens"]:
        raise source.error("the file holds no tokens")
    used = {tag for _, tag in bigrams["tags"]} - {EDGE, ABSENT}
    if all(parse[tag].prefix == UNANNOTATED for tag in used):
        column = f"MISC ({layout.misc_key}=)" if layout.tag is None else layout.title(layout.tag)
        first = next((i for i, line in enumerate(sample, 1) if line.strip() and line[0] not in "#-"), 1)
        raise source.error(f"column {column} holds no tags, only {', '.join(sorted(used)[:5])}", first)
    if layout.tag is None and OUTSIDE in used:
        # Where the file writes O, a token without a tag is not annotated
        parse[ABSENT] = Tag(UNANNOTATED)
    schemes = {name: options.scheme or detect_scheme(pairs, parse) for name, pairs in bigrams.items()}
    n_faults = counts["repaired"] + sum(n for (_, tag), n in bigrams["tags"].items() if parse[tag].fault)
    n_faults += sum(count_violations(bigrams[name], parse, scheme) for name, scheme in schemes.items() if scheme)
    record = _record(source, options, layout, counts, schemes["tags"])
    record.missing = sum(n for (_, tag), n in bigrams["tags"].items() if parse[tag].prefix == UNANNOTATED)
    record.entities, record.layer = (count_entities(bigrams.get(name, {}), parse) for name in ("tags", "layer"))
    record.entries = reader.dropped
    found = Scan(source, options, parse, layout, schemes, n_faults, record, words_crc)
    if n_faults and not options.repair:
        error = ConversionError()
        for _ in found.blocks(report=lambda entry: error.add(Fault(source.name, entry.line, entry.reason, entry.text))):
            pass
        raise error
    return found


def _record(
    source: Source, options: ReadOptions, layout: Layout, counts: Counter[str], scheme: str | None
) -> FileRecord:
    """Make the record of a file, without what is told by its tags."""
    by_number = f"every {options.n_sents} sentences" if options.n_sents else "file"
    # A table may have blank lines only between documents, and then says where sentences start in MISC or not at all
    is_table = layout.kind == "table" and layout.misc is not None
    are_sentences_known = not is_table or counts["sentence_ends"] or counts["blocks"] > max(1, counts["marks"])
    return FileRecord(
        input=source.name,
        layout=layout.kind,
        columns=layout.titles(),
        scheme=scheme,
        documents_by="marks" if counts["marks"] else by_number,
        spaces="given" if counts["no_space"] else "rules" if options.detokenize else "unknown",
        sentences=counts["sentences"] if are_sentences_known else None,
        tokens=counts["tokens"],
        comments=counts["comments"],
        multi_word_tokens=counts["multi_word_tokens"],
        empty_nodes=counts["empty_nodes"],
    )


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
        raise source.error("no named entities: neither a column of tags nor name=B-PER in MISC")
    return next((key for key in _MISC_KEYS if key in counts), counts.most_common(1)[0][0])
