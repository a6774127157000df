"""The formats of annotation tools: which one a file has, and from its records to a DocBin."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from spacy.attrs import ENT_IOB, ENT_TYPE, ORTH
from spacy.tokens import Doc
from spacy.vocab import Vocab

from . import argilla, brat, doccano, hf, label_studio, parquet, prodigy, spacy_json
from .conll.options import ReadOptions
from .conll.schemes import TagParser
from .docbin import DocSpool
from .faults import ConversionError, Fault
from .json_files import Place, read_values, starts_like_json
from .ledger import Entry, FileRecord
from .records import Record, make_doc, units_note
from .source import Source

OnRead = Callable[[int], None]
JSON_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})


@dataclass(frozen=True)
class Format:
    """What a format can hold, and how it is written; reading and writing go by this table.

    suffix: of its files; none for a folder. holds_overlaps: entities that overlap. is_array: one array of JSON, not one
        value on each line.
    """

    suffix: str
    holds_overlaps: bool = True
    is_array: bool = False


FORMATS = {
    "prodigy": Format(".jsonl"),
    "label-studio": Format(".json", is_array=True),
    "doccano": Format(".jsonl"),
    "spacy-json": Format(".json", is_array=True),
    "argilla": Format(".json", is_array=True),
    "hf": Format(".jsonl", holds_overlaps=False),
    "parquet": Format(".parquet", holds_overlaps=False),
    "brat": Format(""),
    "conll": Format(".conll", holds_overlaps=False),
}
# In the order in which they are tried: a task of Label Studio may have a text and labels too
_JSON = {
    "label-studio": (label_studio.recognise, label_studio.parse),
    "prodigy": (prodigy.recognise, prodigy.parse),
    "doccano": (doccano.recognise, doccano.parse),
    "spacy-json": (spacy_json.recognise, spacy_json.parse),
    "argilla": (argilla.recognise, argilla.parse),
    "hf": (hf.recognise, None),
}


def find_format(source: Source, options: ReadOptions) -> str | None:
    """Return the key of `FORMATS` that a file has, by `options.layout` or its content; None for CoNLL.

    Raises ConversionError for JSON of no known form.
    """
    if options.layout != "auto":
        return options.layout if options.layout in FORMATS else None
    suffix = "" if source.path is None else source.path.suffix.lower()
    if suffix == ".ann":
        return "brat"
    if suffix == ".parquet":
        return "parquet"
    try:
        if not starts_like_json(source, options.encoding):
            return None
    except ConversionError:  # bytes that are no text: reported by who reads the file
        return None
    faults = ConversionError()
    value: Any = None
    for _, value in read_values(source, options.encoding, faults):
        for name, (recognise, _) in _JSON.items():
            if recognise(value):
                return name
        break
    if suffix not in JSON_SUFFIXES:
        return None
    if value is None and faults.total:
        raise faults
    what = (
        "an empty array" if value is None else f"keys {', '.join(map(repr, value))}" if isinstance(value, dict) else ""
    )
    raise source.error(
        f"is JSON of no known form ({what or 'no objects'}); --layout says which: {', '.join(FORMATS)}", None
    )


def is_annotated(path: Path) -> bool:
    """Say whether a file in a folder is of an annotation tool, by its name and how it starts."""
    suffix = path.suffix.lower()
    try:
        known = suffix in JSON_SUFFIXES and find_format(Source.from_path(path), ReadOptions()) is not None
    except ConversionError:
        known = suffix != ".json"  # there may be any other JSON beside data
    return known or suffix == ".ann" or (suffix == ".parquet" and parquet.recognise(Source.from_path(path)))


def read_texts(source: Source, options: ReadOptions) -> Iterator[str] | None:
    """Read the texts of a file, annotated or not; None if it has none of the formats here.

    Raises ConversionError, at the end, for records that cannot be read.
    """
    try:
        name = find_format(source, options)
    except ConversionError:
        name = None
    if name == "parquet" and not parquet.recognise(source):
        name = None
    return None if name is None else _texts(source, name, options)


def _texts(source: Source, name: str, options: ReadOptions) -> Iterator[str]:
    faults = ConversionError()
    for _, record in _records(source, name, options, faults, None, has_tags=False):
        yield record.text if record.words is None else " ".join(record.words)
    if faults.total:
        raise faults


def fill(
    docs: DocSpool,
    source: Source,
    name: str,
    options: ReadOptions,
    tokenizer: Callable[[str], Doc],
    output: Path,
    on_read: OnRead | None,
) -> FileRecord:
    """Add the documents of a file to others.

    name: a key of `FORMATS`. tokenizer: of the texts, with the vocabulary of the Docs.
    Raises ConversionError for whatever is wrong with the file, and if anything is lost, compared with what was read.
    """
    are_rows = name in ("hf", "parquet")
    spaces = "unknown" if are_rows else "given"
    ledger = FileRecord(source.name, name, {}, None, "records", spaces, str(output), sentences=None)
    vocab: Vocab = tokenizer.vocab  # type: ignore[attr-defined]
    faults, first = ConversionError(), docs.cut()
    read_crc, n_wrong, n_fit = 0, 0, Counter[str]()
    for (line, number), record in _choose(
        _records(source, name, options, faults, on_read), source, options, ledger, faults
    ):
        within = "" if number is None else f"record {number}: "
        try:
            "".join(label for _, _, label, _ in record.entities).encode()
            # There are words or a text
            read_crc = zlib.crc32(("\n".join(record.words or ()) + record.text).encode(), read_crc)
        except UnicodeEncodeError:
            what = f"{within}the text or a label has bytes that are not {options.encoding}, or half of a surrogate pair"
            faults.add(Fault(source.name, line, what))
            continue
        if record.is_partial and options.spans_key is not None:
            what = "only single entities were accepted or rejected; doc.spans cannot hold tokens that are not annotated"
            faults.add(Fault(source.name, line, within + what))
            continue
        made = make_doc(
            record, tokenizer, alignment=options.alignment, units=options.offsets, spans_key=options.spans_key
        )
        if made.other_units is not None:
            n_wrong += 1
            n_fit.update(made.other_units)
        for problem in made.problems:
            if options.repair:
                action = "left out" + ("; its tokens are not annotated" if options.spans_key is None else "")
                ledger.entries.append(Entry(line or 0, within + problem.what, action, ""))
            else:
                faults.add(Fault(source.name, line, within + problem.what))
        ledger.entries += [Entry(line or 0, within + what, action, "") for what, action in made.moved]
        (ledger.entities if options.spans_key is None else ledger.layer).update(made.counts)
        n_lost = len(record.entities) + len(record.problems) - made.counts.total() - len(made.problems)
        if n_lost:
            raise source.error(f"{within}{len(record.entities)} entities read, {made.counts.total()} written", line)
        ledger.documents += 1
        ledger.tokens += len(made.doc)
        ledger.missing += sum(token.ent_iob == 0 for token in made.doc) if record.is_partial or made.problems else 0
        ledger.skipped.update({key: n for key, n in record.left_out.items() if n})
        docs.add(made.doc)
    if n_wrong and (note := units_note(source.name, n_wrong, n_fit)):
        faults.notes.append(note)
    if not faults.total and not ledger.documents:
        reasons = ", ".join(f"{n} {reason}" for reason, n in ledger.skipped.items())
        faults.add(Fault(source.name, None, f"no document to read{': ' + reasons if reasons else ''}"))
    if faults.total:
        raise faults
    crc, entities = _count(docs, first, vocab, are_rows)
    if crc != read_crc:
        raise source.error("the words written are not the ones read", None)
    if entities != ledger.entities:
        raise source.error(
            f"{ledger.entities.total()} entities read, {entities.total()} written, or not the same ones", None
        )
    return ledger


def _count(docs: DocSpool, first: int, vocab: Vocab, are_words: bool) -> tuple[int, Counter[str]]:
    """Make a checksum of the texts from one part on, or of their words, and count the entities by label.

    Both from the very arrays that are written.
    """
    string: Callable[[int], str] = vocab.strings.__getitem__
    crc, entities = 0, Counter[str]()
    arrays = chain.from_iterable(zip(b.tokens, b.spaces, repeat(b.attrs)) for b in docs.bins(first))
    for array, spaces, attrs in arrays:
        orth, iob, type_ = map(attrs.index, (ORTH, ENT_IOB, ENT_TYPE))
        entities.update(map(string, array[array[:, iob] == 3, type_].tolist()))
        words = list(map(string, array[:, orth].tolist()))
        if are_words:
            text = "\n".join(words)
        else:
            text = "".join(
                chain.from_iterable(zip(words, (" " if s else "" for s in spaces.ravel().tolist()), strict=True))
            )
        crc = zlib.crc32(text.encode("utf-8", "surrogatepass"), crc)
    return crc, entities


def _choose(
    records: Iterable[tuple[Place, Record]],
    source: Source,
    options: ReadOptions,
    ledger: FileRecord,
    faults: ConversionError,
) -> Iterator[tuple[Place, Record]]:
    """Leave out what was rejected or is by other annotators, and count it."""
    known: dict[Hashable, tuple[str | None, int]] = {}
    names: Counter[str] = Counter()
    for place, record in records:
        if record.annotator is not None:
            names[record.annotator] += 1
        if options.annotator is not None and record.annotator not in (None, options.annotator):
            ledger.skipped["by other annotators"] += 1
        elif record.skip is not None:
            ledger.skipped[record.skip] += 1
        else:
            entities = 0 if record.is_partial else hash(tuple(record.entities))
            given = record.annotator, entities
            other = given if record.task is None else known.setdefault(record.task, given)
            if other == given:
                yield place, record
                continue
            what = f"annotated by {other[0]} and {record.annotator}: choose with --annotator NAME"
            if other[0] == record.annotator:
                what = "annotated twice, with other entities: keep one annotation"
            faults.add(Fault(source.name, place[0], f"the same task is {what}"))
    if options.annotator is not None and options.annotator not in names:
        who = f"by {', '.join(sorted(names))}" if names else "which does not say by whom"
        faults.add(Fault(source.name, None, f"nothing by --annotator {options.annotator} in this file, {who}"))


def _read_words(value: Any) -> list[Record]:
    """Return the record of a row, without its tags; raise ValueError for what is none."""
    return [Record("", words=hf.read_words(value))]


def _records(
    source: Source,
    name: str,
    options: ReadOptions,
    faults: ConversionError,
    on_read: OnRead | None,
    has_tags: bool = True,
) -> Iterator[tuple[Place, Record]]:
    """Read the records of a file; what cannot be read is added to the faults.

    has_tags: whether the tags of rows are read, which may be numbers without names.
    """
    if name == "brat":
        yield from _read_brat(source, options, faults)
        return
    if name in ("hf", "parquet"):
        parse = _make_row_parser(source, name, options) if has_tags else _read_words
    else:
        tool = _JSON[name][1]
        assert tool is not None
        parse = lambda value: tool(value, options.text_key)  # noqa: E731
    for (line, number), value in _values(source, name, options, faults, on_read):
        try:
            for record in parse(value):
                yield (line, number), record
        except ValueError as err:
            faults.add(Fault(source.name, line, f"{'' if number is None else f'record {number} '}{err}"))


def _values(
    source: Source, name: str, options: ReadOptions, faults: ConversionError, on_read: OnRead | None
) -> Iterable[tuple[Place, Any]]:
    if name == "parquet":
        return parquet.read_rows(source)
    return read_values(source, options.encoding, faults, on_read)


def _make_row_parser(source: Source, name: str, options: ReadOptions) -> Callable[[Any], list[Record]]:
    """Return the function that makes the record of a row; the file is read once for it, to find the tag scheme."""
    names = options.labels or (parquet.tag_names(source) if name == "parquet" else ())
    parse = TagParser(options.missing, options.scheme == "IO", options.label)

    def tags() -> Iterator[list[str]]:
        for _, value in _values(source, name, options, ConversionError(), None):
            try:
                yield hf.read_row(value, names)[1]
            except ValueError:  # reported when it is read again
                continue

    scheme = options.scheme or hf.find_scheme(tags(), parse)
    return lambda value: [hf.make_record(*hf.read_row(value, names), parse, scheme)]


def _read_brat(source: Source, options: ReadOptions, faults: ConversionError) -> Iterator[tuple[Place, Record]]:
    text_path = None if source.path is None else source.path.with_suffix(".txt")
    if text_path is None or not text_path.is_file():
        named = "standard input" if text_path is None else str(text_path)
        raise source.error(f"the text of this annotation is missing: {named} is no file", None)
    text = "".join(Source.from_path(text_path).chunks(options.encoding))
    n_before = faults.total
    record = brat.parse(source.name, text, source.lines(options.encoding), faults)
    if faults.total == n_before:
        yield (None, None), record
