"""Files of many formats → records. What cannot be read at all is a fault, with its file and line.

A value that is not a text (null, a number) is a record with an error, not a fault: a fault is what leaves unclear which
records there are.
"""

import codecs
import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import IO, Any

from spacy.tokens import DocBin
from spacy.vocab import Vocab

from ..formats.conll.docs import DocMaker
from ..formats.conll.options import ReadOptions
from ..formats.conll.scan import scan
from ..formats.faults import ConversionError, Fault
from ..formats.source import Source
from .inputs import Input
from .records import Record

_UNDECODED = re.compile("[\udc80-\udcff]")
_PARQUET_ROWS = 256  # read at once
_CHECKED_FIRST = ("conll", "parquet", "spacy")  # their readers check the whole file before the first record


@dataclass(frozen=True)
class ReadSettings:
    """How to read the input.

    input_format: a key of `READERS`; None to go by each file's ending.
    text_key: the key or column of the text in JSONL, CSV, TSV and Parquet.
    encoding: of text files.

    Raises ValueError for values outside their range.
    """

    input_format: str | None = None
    text_key: str = "text"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if self.input_format is not None and self.input_format not in READERS:
            raise ValueError(f"--input-format: {self.input_format!r} is unknown; allowed are {', '.join(READERS)}")
        try:
            is_ascii = "\n".encode(self.encoding) == b"\n"
        except (LookupError, UnicodeError, ValueError):
            raise ValueError(f"--encoding: {self.encoding!r} is not a known text encoding") from None
        if codecs.lookup(self.encoding).name == "utf-8":
            object.__setattr__(self, "encoding", "utf-8")
        elif not is_ascii:
            raise ValueError(f"--encoding: {self.encoding!r}: lines cannot be told apart in it; convert to UTF-8 first")

    @property
    def codec(self) -> str:
        """The encoding, in the variant that drops a byte order mark."""
        return "utf-8-sig" if self.encoding == "utf-8" else self.encoding


def check(inputs: Iterable[Input], settings: ReadSettings) -> None:
    """Read all files once, pipes aside; raise ConversionError with all their faults, if there are any."""
    faults = ConversionError()
    for item in inputs:
        try:
            for found in _read(item, settings) if item.is_file else ():
                if isinstance(found, Fault):
                    faults.add(found)
                elif item.format in _CHECKED_FIRST:
                    break
        except ConversionError as err:
            faults.extend(err)
    if faults.total:
        raise faults


def read(inputs: Iterable[Input], settings: ReadSettings) -> Iterator[Record]:
    """Yield all records, in order. Raises ConversionError at the first fault."""
    before = 0
    for item in inputs:
        for found in _read(item, settings):
            if isinstance(found, Fault):
                raise ConversionError([found])
            found.at += before
            yield found
        before += item.size


def _read(item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    try:
        with item.open() as file:
            reader = READERS[_guess_format(file) if item.format == "auto" else item.format]
            n = 0
            for n, found in enumerate(reader(file, item, settings), 1):  # noqa: B007
                if isinstance(found, Record) and not found.at and item.is_file:
                    found.at = file.tell()
                yield found
            if not n:
                yield Fault(item.name, None, "no records in this file")
    except OSError as err:
        yield Fault(item.name, None, err.strerror or str(err))


def _guess_format(file: IO[bytes]) -> str:
    """JSONL if it starts like an object, else one text per line."""
    head = file.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")  # type: ignore[attr-defined]
    return "jsonl" if head.startswith(b"{") else "lines"


def _read_text(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """One text per file."""
    text = _decode(file.read(), item, 1, settings)
    yield text if isinstance(text, Fault) else Record(item.name, 0, text, {"source": item.name})


def _read_lines(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """One text per line."""
    for number, line in _lines(file, item, settings):
        yield line if isinstance(line, Fault) else Record(item.name, number, line)


def _lines(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[tuple[int, str | Fault]]:
    """Each line without its end, with its number."""
    for number, line in enumerate(file, 1):
        if line.endswith(b"\n"):
            line = line[: -2 if line.endswith(b"\r\n") else -1]
        yield number, _decode(line, item, number, settings)


def _decode(data: bytes, item: Input, line: int, settings: ReadSettings) -> str | Fault:
    """Decode what starts at a line."""
    try:
        return data.decode(settings.codec)
    except UnicodeDecodeError as err:
        reason = f"not {settings.encoding}: byte 0x{err.object[err.start]:02x}; set --encoding"
        return Fault(item.name, line + err.object.count(b"\n", 0, err.start), reason)


def _read_jsonl(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """One JSON object per line; empty lines are skipped."""
    for number, line in _lines(file, item, settings):
        if isinstance(line, Fault):
            yield line
        elif line.strip():
            yield _parse_json(line, item, number, settings)


def _parse_json(line: str, item: Input, number: int, settings: ReadSettings) -> Record | Fault:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as err:
        reason = f"{err.msg}, column {err.colno}" if isinstance(err, json.JSONDecodeError) else str(err)
        return Fault(item.name, number, f"invalid JSON: {reason}", line)
    if not isinstance(fields, dict):
        return Fault(item.name, number, "not a JSON object", line)
    if settings.text_key not in fields:
        return Fault(item.name, number, _no_key(settings.text_key, fields), line)
    return _record(item, number, fields, settings.text_key)


def _no_key(key: str, keys: Iterable[str], kind: str = "key") -> str:
    return f"no {kind} {key!r}; there are {', '.join(map(repr, keys)) or 'none'}. Set --text-key"


def _record(item: Input, position: int, fields: dict[str, Any], key: str) -> Record:
    """The record of an object or a row; one with an error if its text is not a string."""
    text = fields.pop(key)
    if isinstance(text, str):
        return Record(item.name, position, text, fields)
    kind = "null" if text is None else type(text).__name__
    return Record(item.name, position, None, fields, f"{key}: {kind}, not a text")


def _columns_fault(names: Sequence[str], key: str) -> str | None:
    """What is wrong with the columns of a table, if anything."""
    if key not in names:
        return _no_key(key, names, "column")
    twice = [name for name, n in Counter(names).items() if n > 1]
    return f"there is more than one column {twice[0]!r}" if twice else None


def _read_csv(file: IO[bytes], item: Input, settings: ReadSettings, delimiter: str = ",") -> Iterator[Record | Fault]:
    """One record per row, below a header."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    text = io.TextIOWrapper(file, settings.codec, errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    number = 1  # the line where a row starts
    try:
        for row in rows:
            if any(map(_UNDECODED.search, row)):
                yield Fault(item.name, number, f"not {settings.encoding}; set --encoding")
            elif names is None:
                if fault := _columns_fault(row, settings.text_key):
                    hint = "; for a CoNLL file, --input-format conll" if delimiter == "\t" else ""
                    yield Fault(item.name, number, fault + hint)
                    return
                names = row
            elif row and len(row) != len(names):
                yield Fault(item.name, number, f"{len(row)} columns, the header has {len(names)}", ",".join(row))
            elif row:
                yield _record(item, number, dict(zip(names, row, strict=True)), settings.text_key)
            number = rows.line_num + 1
    except csv.Error as err:
        yield Fault(item.name, rows.line_num, f"invalid CSV: {err}")
    finally:
        text.detach()


def _read_parquet(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """One record per row."""
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as err:
        reason = f'Parquet needs pyarrow: pip install "spacy-bertner[parquet]" ({err})'
        raise ConversionError([Fault(item.name, None, reason)]) from None
    try:
        table = ParquetFile(file if item.is_file else io.BytesIO(file.read()))
    except ArrowInvalid:
        yield Fault(item.name, None, "not a Parquet file")
        return
    if fault := _columns_fault(table.schema_arrow.names, settings.text_key):
        yield Fault(item.name, None, fault)
        return
    rows = chain.from_iterable(batch.to_pylist() for batch in table.iter_batches(batch_size=_PARQUET_ROWS))
    for position, fields in enumerate(rows, 1):
        record = _record(item, position, fields, settings.text_key)
        record.at = item.size * position // table.metadata.num_rows
        yield record


def _read_docbin(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """One record per Doc. The DocBin is in memory as a whole, as spaCy reads it."""
    try:
        docs = DocBin(store_user_data=True).from_bytes(file.read())
    except Exception as err:  # zlib, msgpack and NumPy have one each
        yield Fault(item.name, None, f"not a DocBin: {err}")
        return
    for position, doc in enumerate(docs.get_docs(Vocab()), 1):
        yield Record(item.name, position, doc.to_bytes(), at=item.size * position // len(docs))


def _read_conll(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """One record per document, as `convert` reads them. The scan that `check` has made is not repeated."""
    if item.scan is None:
        source = Source(item.name, "", item.path) if item.is_file else Source.from_stream(file, item.name)
        item.scan = scan(source, ReadOptions(encoding=settings.encoding))
    with closing(item.scan.source):
        for position, doc in enumerate(DocMaker(Vocab(), item.scan).docs(item.scan.blocks()), 1):
            yield Record(item.name, position, doc.to_bytes())


# From an open file, what it is, and the settings to its records
Reader = Callable[[IO[bytes], Input, ReadSettings], Iterator[Record | Fault]]

READERS: dict[str, Reader] = {
    "text": _read_text,
    "lines": _read_lines,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": partial(_read_csv, delimiter="\t"),
    "parquet": _read_parquet,
    "spacy": _read_docbin,
    "conll": _read_conll,
}
