"""Files of many kinds → records. What cannot be read at all comes as a fault, with its file and line.

A value that is no text (null, a number) is a record all the same, with its error: only what leaves unclear which
records there are counts as a fault.
"""

from __future__ import annotations

import codecs
import csv
import glob
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from ..formats.conll.faults import ConversionError, Fault, FaultList
from ..formats.conll.source import SUFFIXES as CONLL_SUFFIXES
from .records import Record

SUFFIXES = {
    **dict.fromkeys(CONLL_SUFFIXES, "conll"),
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".spacy": "spacy",
}
_UNDECODED = re.compile("[\udc80-\udcff]")
_ROWS = 256  # rows of Parquet at once


@dataclass(frozen=True)
class ReadSettings:
    """How to read the input.

    input_format: a key of `READERS`; None: by the ending of each file.
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


@dataclass(frozen=True)
class Input:
    """A file of the input, or standard input (path None)."""

    path: Path | None
    kind: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return "<stdin>" if self.path is None else str(self.path)

    @property
    def is_file(self) -> bool:
        """Whether it can be read more than once, other than standard input and pipes."""
        return self.path is not None and self.path.is_file()

    def size(self) -> int:
        """Bytes in it; 0 where that is not known."""
        return self.path.stat().st_size if self.path is not None and self.is_file else 0

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Open it; standard input is read where it stands, and stays open."""
        return nullcontext(sys.stdin.buffer) if self.path is None else self.path.open("rb")


def find_inputs(
    given: Iterable[str | Path], settings: ReadSettings, outputs: Iterable[Path] = ()
) -> tuple[list[Input], list[str]]:
    """Find the files behind names, folders, globs and `-`.

    given: what the user named; folders are searched with all their folders for known endings, hidden files aside.
    outputs: files that the run writes: passed over in folders and globs.

    Returns the files in the order named, each once, and those of the folders that were left out. Raises
    ConversionError naming all that leads nowhere, has an unknown ending, is empty or would be overwritten.
    """
    faults = FaultList()
    found: list[Input] = []
    left_out: list[str] = []
    own = {path.resolve() for path in outputs}
    seen: set[Path] = set()
    for name in map(str, given):
        if name == "-":
            if not any(item.path is None for item in found):
                found.append(Input(None, settings.input_format or "auto"))
            continue
        try:
            paths, is_named = _expand(name, left_out)
        except OSError as err:
            faults.add(Fault(name, None, err.strerror or str(err)))
            continue
        if not paths:
            faults.add(Fault(name, None, _why_nothing(name)))
        for path in paths:
            place = path.resolve()
            if place in own:
                if is_named:
                    faults.add(Fault(str(path), None, "is the output too: name another file for one of them"))
                continue
            if place in seen:
                continue
            seen.add(place)
            kind = settings.input_format or SUFFIXES.get(path.suffix.lower())
            if kind is None:
                endings = "txt, jsonl, csv, tsv, parquet, spacy, conll and the like"
                what = f"unknown ending {path.suffix!r}; known are {endings}. Or set --input-format"
                faults.add(Fault(str(path), None, what))
                continue
            item = Input(path, kind)
            if item.is_file and item.size() == 0:
                faults.add(Fault(str(path), None, "the file is empty"))
            found.append(item)
    if faults.total:
        raise faults.error()
    if not found:
        raise ConversionError([Fault("annotate", None, "no input named")])
    return found, left_out


def _expand(name: str, left_out: list[str]) -> tuple[list[Path], bool]:
    """The files behind a name, and whether it names one itself."""
    path = Path(name)
    if path.is_dir():
        paths: list[Path] = []
        for p in sorted(path.rglob("*")):
            if any(part.startswith(".") for part in p.relative_to(path).parts) or not p.is_file():
                continue
            if p.suffix.lower() in SUFFIXES:
                paths.append(p)
            else:
                left_out.append(str(p))
        return paths, False
    if path.exists():
        return [path], True
    if glob.has_magic(name):
        names = glob.glob(name, recursive=True)  # noqa: PTH207 (may be absolute)
        return sorted(p for p in map(Path, names) if p.is_file()), False
    return [], True


def _why_nothing(name: str) -> str:
    if Path(name).is_dir():
        return "no file with a known ending in this folder"
    return "no file matches this pattern" if glob.has_magic(name) else "no such file or folder"


def check(inputs: Iterable[Input], settings: ReadSettings) -> None:
    """Read all files once; raise ConversionError with the faults, if there are any. Pipes can be read only once."""
    faults = FaultList()
    for item in inputs:
        if not item.is_file:
            continue
        for found in _read(item, settings):
            if isinstance(found, Fault):
                faults.add(found)
            elif item.kind in ("conll", "parquet"):  # these look at the whole file before the first record
                break
    if faults.total:
        raise faults.error()


def read(inputs: Iterable[Input], settings: ReadSettings) -> Iterator[Record]:
    """Read all records, in order. Raises ConversionError at the first fault."""
    before = 0
    for item in inputs:
        for found in _read(item, settings):
            if isinstance(found, Fault):
                raise ConversionError([found])
            found.at += before
            yield found
        before += item.size()


def _read(item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    try:
        with item.open() as file:
            if item.kind == "auto":
                # Standard input: JSONL where it begins as an object does, else a text a line
                head = file.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")  # type: ignore[attr-defined]
                item = replace(item, kind="jsonl" if head.startswith(b"{") else "lines")
            n = 0
            for n, found in enumerate(READERS[item.kind](file, item, settings), 1):  # noqa: B007
                yield found
            if not n:
                yield Fault(item.name, None, "no records in this file")
    except OSError as err:
        yield Fault(item.name, None, err.strerror or str(err))
    except ConversionError as err:
        yield from err.faults


# A file, opened, its name and the settings → its records
Reader = Callable[[IO[bytes], Input, ReadSettings], Iterator[Record | Fault]]


def _read_text(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """A text a file."""
    data = file.read()
    text, fault = _decode(data, settings.encoding)
    if fault:
        line = data[: fault[0]].count(b"\n") + 1
        yield Fault(item.name, line, fault[1])
    else:
        yield Record(item.name, 0, text, {"source": item.name}, at=len(data))


def _lines(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[tuple[int, int, str | Fault]]:
    """Each line without its end, with its number and the bytes up to its end."""
    at = 0
    for number, raw in enumerate(file, 1):
        at += len(raw)
        if raw.endswith(b"\n"):
            raw = raw[: -2 if raw.endswith(b"\r\n") else -1]
        if number == 1 and settings.encoding == "utf-8":
            raw = raw.removeprefix(codecs.BOM_UTF8)
        text, fault = _decode(raw, settings.encoding)
        yield number, at, Fault(item.name, number, fault[1]) if fault else text


def _decode(data: bytes, encoding: str) -> tuple[str, tuple[int, str] | None]:
    """The text, or where it goes wrong and how."""
    try:
        return data.decode("utf-8-sig" if encoding == "utf-8" else encoding), None
    except UnicodeDecodeError as err:
        return "", (err.start, f"not {encoding}: byte 0x{data[err.start]:02x}; set --encoding")


def _read_lines(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """A text a line."""
    for number, at, line in _lines(file, item, settings):
        yield line if isinstance(line, Fault) else Record(item.name, number, line, at=at)


def _read_jsonl(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """A JSON object a line; empty lines are passed over."""
    for number, at, line in _lines(file, item, settings):
        if isinstance(line, Fault):
            yield line
            continue
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as err:
            reason = f"{err.msg}, column {err.colno}" if isinstance(err, json.JSONDecodeError) else str(err)
            yield Fault(item.name, number, f"invalid JSON: {reason}", line)
            continue
        if not isinstance(fields, dict):
            yield Fault(item.name, number, "not a JSON object", line)
        elif settings.text_key not in fields:
            yield Fault(item.name, number, _no_key(settings.text_key, fields), line)
        else:
            yield _record(item, number, fields, settings.text_key, at)


def _no_key(key: str, there: Iterable[str], what: str = "key") -> str:
    return f"no {what} {key!r}; there are {', '.join(map(repr, there)) or 'none'}. Set --text-key"


def _columns_fault(names: Sequence[str], key: str) -> str | None:
    """What is wrong with the columns of a table, if anything."""
    if key not in names:
        return _no_key(key, names, "column")
    twice = [name for name, n in Counter(names).items() if n > 1]
    return f"there is more than one column {twice[0]!r}" if twice else None


def _record(item: Input, position: int, fields: dict[str, Any], key: str, at: int) -> Record:
    """The record of a row, whose text may turn out to be none."""
    text = fields.pop(key)
    if isinstance(text, str):
        return Record(item.name, position, text, fields, at=at)
    kind = "null" if text is None else type(text).__name__
    return Record(item.name, position, None, fields, f"{key}: {kind}, not a text", at)


def _read_csv(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """A row a record, under a header."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    encoding = "utf-8-sig" if settings.encoding == "utf-8" else settings.encoding
    text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter="\t" if item.kind == "tsv" else ",", strict=True)
    names: list[str] | None = None
    try:
        while True:
            number = rows.line_num + 1
            row = next(rows, None)
            if row is None:
                break
            if any(_UNDECODED.search(value) for value in row):
                yield Fault(item.name, number, f"not {settings.encoding}; set --encoding")
            elif names is None:
                if fault := _columns_fault(row, settings.text_key):
                    yield Fault(item.name, number, fault)
                    return
                names = row
            elif row:
                if len(row) != len(names):
                    yield Fault(item.name, number, f"{len(row)} columns, the header has {len(names)}", ",".join(row))
                    continue
                at = file.tell() if item.path is not None else 0
                yield _record(item, number, dict(zip(names, row, strict=True)), settings.text_key, at)
    except csv.Error as err:
        yield Fault(item.name, rows.line_num, f"invalid CSV: {err}")
    finally:
        text.detach()


def _read_parquet(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """A row a record."""
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as err:
        raise ConversionError(
            [Fault(item.name, None, f'Parquet needs pyarrow: pip install "spacy-bertner[parquet]" ({err})')]
        ) from None
    try:
        table = ParquetFile(_seekable(file, item))
    except ArrowInvalid:
        yield Fault(item.name, None, "not a Parquet file")
        return
    if fault := _columns_fault(table.schema_arrow.names, settings.text_key):
        yield Fault(item.name, None, fault)
        return
    n_rows, size, position = table.metadata.num_rows, item.size(), 0
    for batch in table.iter_batches(batch_size=_ROWS):
        for fields in batch.to_pylist():
            position += 1
            yield _record(item, position, fields, settings.text_key, size * position // n_rows)


def _seekable(file: IO[bytes], item: Input) -> IO[bytes]:
    return io.BytesIO(file.read()) if item.path is None else file


def _read_docbin(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """A Doc a record. The DocBin is in memory as a whole, as spaCy reads it."""
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    try:
        docs = DocBin(store_user_data=True).from_bytes(file.read())
    except Exception as err:  # zlib, msgpack and NumPy have one each
        yield Fault(item.name, None, f"not a DocBin: {err}")
        return
    size = item.size()
    for position, doc in enumerate(docs.get_docs(Vocab()), 1):
        yield Record(item.name, position, doc.to_bytes(), at=size * position // len(docs))


def _read_conll(file: IO[bytes], item: Input, settings: ReadSettings) -> Iterator[Record | Fault]:
    """A document a record, as `convert` has them."""
    from spacy.vocab import Vocab

    from ..formats.convert import ReadOptions, read_conll

    source = file if item.path is None else item.path
    size = item.size()
    options = ReadOptions(encoding=settings.encoding)
    for position, doc in enumerate(read_conll(source, options, vocab=Vocab()), 1):  # type: ignore[arg-type]
        yield Record(item.name, position, doc.to_bytes(), at=size)


READERS: dict[str, Reader] = {
    "text": _read_text,
    "lines": _read_lines,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_csv,
    "parquet": _read_parquet,
    "spacy": _read_docbin,
    "conll": _read_conll,
}
