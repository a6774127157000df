"""The first pass over a file: how to read it, and how much is wrong with it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ...tags import OUTSIDE
from ..faults import MAX_SHOWN, ConversionError, Fault
from ..ledger import Entry, FileRecord
from ..source import Source
from .blocks import ABSENT, Block, BlockReader
from .detect import detect_layout
from .layout import Layout
from .options import ReadOptions
from .sample import Sample
from .schemes import (
    EDGE,
    UNANNOTATED,
    Bigrams,
    Tag,
    TagParser,
    count_entities,
    count_violations,
    detect_spelling,
    find_violation,
    rank_schemes,
)

_SAMPLE_LINES = 5000
_HARMLESS = 0.005  # the share of the tags up to which exceptions to a scheme are repaired with a warning
# Keys in MISC that are taken for tags, in order of preference
_MISC_KEYS = ("name", "NER", "NE", "ner", "ne")

OnRead = Callable[[int], None]


@dataclass
class Scan:
    """How to read a file, and what the first pass found.

    schemes: of each layer, the first one first; None if it has no entities.
    n_faults: the lines and tags that are repaired.
    record: what there is, for the ledger; `documents`, `output` and what happens while writing are yet to be added.
    words_crc: a checksum of all words in order.
    """

    source: Source
    options: ReadOptions
    parse: TagParser
    layout: Layout
    schemes: list[str | None]
    n_faults: int
    record: FileRecord
    words_crc: int

    def blocks(self, on_read: OnRead | None = None, report: Callable[[Entry], None] | None = None) -> Iterator[Block]:
        """Read the file again; `report` is called for whatever is repaired, tags included."""
        reader = BlockReader(self.layout, self.options.encoding, self.parse, report)
        for block in reader.read(self.source.lines(self.options.encoding, on_read)):
            if report is not None:
                for tags, scheme in zip(block.tag_columns(), self.schemes, strict=True):
                    for entry in _check_tags(tags, block.lines, self.parse, scheme):
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
    sample = [line.rstrip("\r\n") for line in islice(source.lines(encoding), _SAMPLE_LINES)]
    filled = [line for line in sample if line.strip() and line[0] not in "#-"]
    spelling = detect_spelling(filled[:: 1 + len(filled) // 1000])
    parse = TagParser(options.missing, options.scheme == "IO", options.label, spelling)
    layout = detect_layout(Sample(source, sample, options, parse))
    if layout.tag is None and layout.misc_key is None:
        layout = replace(layout, misc_key=_find_misc_key(source, layout, encoding, parse))
    parse[ABSENT] = Tag(OUTSIDE)
    bigrams: list[Bigrams] = [Counter() for _ in range(1 + len(layout.layers))]
    reader = BlockReader(layout, encoding, parse)
    counts, words_crc = reader.counts, 0
    for block in reader.read(source.lines(encoding, on_read)):
        counts["blocks"] += 1
        counts["sentences"] += len(block.starts)
        counts["tokens"] += len(block.words)
        words_crc = words_checksum(block.words, words_crc)
        for pairs, tags in zip(bigrams, block.tag_columns(), strict=True):
            pairs.update(zip([EDGE, *tags], [*tags, EDGE], strict=True))
    if not counts["tokens"]:
        raise source.error("the file holds no tokens")
    used = {tag for _, tag in bigrams[0]} - {EDGE, ABSENT}
    if all(parse[tag].prefix == UNANNOTATED for tag in used):
        column = f"MISC ({layout.misc_key}=)" if layout.tag is None else layout.title(layout.tag)
        first = next((i for i, line in enumerate(sample, 1) if line.strip() and line[0] not in "#-"), 1)
        raise source.error(f"column {column} holds no tags, only {', '.join(sorted(used)[:5])}", first)
    if layout.tag is None and OUTSIDE in used:
        # Where the file writes O, a token without a tag is not annotated
        parse[ABSENT] = Tag(UNANNOTATED)
    rankings = [[(options.scheme, 0)] if options.scheme else rank_schemes(pairs, parse) for pairs in bigrams]
    schemes = [ranking[0][0] if ranking else None for ranking in rankings]
    n_malformed = sum(n for pairs in bigrams for (_, tag), n in pairs.items() if parse[tag].fault)
    n_violations = sum(count_violations(p, parse, scheme) for p, scheme in zip(bigrams, schemes, strict=True) if scheme)
    record = _record(source, options, layout, counts, schemes[0])
    record.missing = sum(n for (_, tag), n in bigrams[0].items() if parse[tag].prefix == UNANNOTATED)
    record.entities = count_entities(bigrams[0], parse)
    record.layer = sum((count_entities(pairs, parse) for pairs in bigrams[1:]), Counter[str]())
    record.entries = reader.dropped
    n_faults = counts["repaired"] + n_malformed + n_violations
    found = Scan(source, options, parse, layout, schemes, n_faults, record, words_crc)
    if layout.prefix:
        record.warnings.append(f"{layout.prefix} before each word is dropped")
    is_unread = n_malformed > 0 and not record.entities
    unread = sorted(tag for tag in used if is_unread and parse[tag].repaired == "missing annotation")
    _judge(found, rankings[0], n_violations, unread)
    return found


def _judge(found: Scan, ranking: list[tuple[str, int]], n_violations: int, unread: list[str]) -> None:
    """Raise ConversionError unless all faults of a file are to be repaired; add a warning where they are harmless.

    ranking: of the first layer. n_violations: of the schemes. unread: tags that cannot be read, where no entity can.
    """
    source, options, record, error = found.source, found.options, found.record, ConversionError()
    exceptions = f"{n_violations:,} of {record.tokens:,} tags violate the scheme {record.scheme}"
    others = "".join(f" ({name} would have {n:,})" for name, n in ranking[1:2])
    how = "--scheme IO reads labels without B- and I-, --label NAME names plain B and I"
    lost = f"no entity can be read, only the tags {', '.join(unread[:5])}: {how}"
    if not options.strict and found.n_faults == n_violations and _are_harmless(ranking, n_violations, record.tokens):
        record.warnings.append(f"{exceptions}{others} and are repaired; --strict stops at them")
    elif found.n_faults and not options.repair:
        for _ in found.blocks(report=lambda entry: error.add(Fault(source.name, entry.line, entry.reason, entry.text))):
            pass
        if unread:
            error.notes.append(f"{source.name}: {lost}")
        elif n_violations > MAX_SHOWN and others:
            error.notes.append(f"{source.name}: {exceptions}{others}: choose with --scheme, or --repair")
        raise error
    elif unread:
        raise source.error(lost, None)


def _are_harmless(ranking: list[tuple[str, int]], n_violations: int, n_tokens: int) -> bool:
    """Say whether violations of the scheme detected are few, and none of them can change what is read.

    Where the file is of IOB2 or IOB1, a violation of the one is legal in the other, and reads alike.
    """
    names = [name for name, _ in ranking]
    is_first_layer = bool(ranking) and n_violations == ranking[0][1]
    return sorted(names) == ["IOB1", "IOB2"] and is_first_layer and 0 < n_violations <= _HARMLESS * n_tokens


def _record(
    source: Source, options: ReadOptions, layout: Layout, counts: Counter[str], scheme: str | None
) -> FileRecord:
    """Make the record of a file, except for what depends on its tags."""
    by_number = {0: "file", 1: "sentence"}.get(options.n_sents, f"every {options.n_sents} sentences")
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
