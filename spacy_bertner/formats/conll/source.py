"""Where lines come from: files, standard input or memory, each readable more than once."""

from __future__ import annotations

import codecs
import contextlib
import glob
import io
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from .faults import Fault, FaultList

# What a folder is searched for; a file that is named is read whatever its name.
SUFFIXES = frozenset(
    {
        *(".conll", ".conllu", ".conllup", ".conllubio", ".conll02", ".conll03", ".cupt"),
        *(".iob", ".iob1", ".iob2", ".iobes", ".bio", ".bio2", ".bioes", ".bilou", ".biluo"),
        *(".bmes", ".bmewo", ".ner", ".tsv", ".txt", ".tok", ".tags", ".col", ".data"),
        *(".train", ".dev", ".devel", ".valid", ".test", ".testa", ".testb"),
    }
)
# Texts that lie beside data in folders.
NOT_DATA = ("readme", "license", "licence", "copying", "notice", "changelog", "requirements")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_REPORT_EVERY = 20_000  # lines

Progress = Callable[[int], None]


class UnreadableError(Exception):
    """The bytes do not decode at all, or not as text: the message says why."""


class Source:
    """Lines that can be read as often as needed.

    name (str): What messages call it.
    stem (str): What the output is called after.
    """

    def __init__(self, name: str, stem: str, path: Path | None = None) -> None:
        self.name = name
        self.stem = stem
        self.path = path
        self._spool: IO[bytes] | None = None

    @classmethod
    def from_path(cls, path: Path) -> Source:
        """A file. What cannot be read twice (a pipe) is copied to a temporary file first."""
        source = cls(str(path), path.stem, path)
        if not stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as raw:
                source._fill(raw)
        return source

    @classmethod
    def from_stream(cls, raw: IO[bytes], name: str = "<stdin>", stem: str = "stdin") -> Source:
        """A stream of bytes, copied to a temporary file, which goes with the source."""
        source = cls(name, stem)
        source._fill(raw)
        return source

    @classmethod
    def from_lines(cls, lines: Iterable[str], encoding: str, name: str = "<lines>") -> Source:
        """Lines of text, with or without their ends."""
        source = cls(name, "lines")
        spool = source._spool = tempfile.TemporaryFile()  # noqa: SIM115
        for line in lines:
            ended = line if line.endswith("\n") else line + "\n"
            spool.write(ended.encode(encoding, "surrogateescape"))
        return source

    def _fill(self, raw: IO[bytes]) -> None:
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(raw, self._spool, 1 << 20)

    def size(self) -> int:
        """Bytes in it."""
        if self._spool is not None:
            return self._spool.seek(0, io.SEEK_END)
        assert self.path is not None
        return self.path.stat().st_size

    def close(self) -> None:
        """Drop the temporary file, if there is one."""
        if self._spool is not None:
            self._spool.close()

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if self._spool is not None:
            self._spool.seek(0)
            yield self._spool
        else:
            assert self.path is not None
            with self.path.open("rb") as raw:
                yield raw

    def lines(self, encoding: str, progress: Progress | None = None) -> Iterator[str]:
        r"""Its lines, from the first, each with its end.

        Lines end at LF (or CR, if there is no LF at all) and nowhere else: U+2028, U+0085 and
        form feeds are part of a line. Bytes that do not decode come as lone surrogates.

        encoding (str): The encoding; the byte order mark of UTF-8 is dropped.
        progress (Callable[[int], None] | None): Called now and then with the bytes read since.
        YIELDS (str): The lines. Raises UnreadableError.
        """
        if codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"
        with self._open() as raw:
            head = raw.read(1 << 16)
            if encoding == "utf-8-sig" and head.startswith(_UTF16):
                raise UnreadableError("starts with the byte order mark of UTF-16: set the encoding")
            raw.seek(0)
            newline = "\r" if b"\r" in head and b"\n" not in head else "\n"
            text = io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline=newline)
            try:
                if progress is None:
                    yield from text
                else:
                    yield from _reporting(text, raw, progress)
            except UnicodeError as err:
                raise UnreadableError(f"cannot be read as {encoding}: {err}") from err
            finally:
                with contextlib.suppress(ValueError):
                    text.detach()


def _reporting(text: Iterable[str], raw: IO[bytes], progress: Progress) -> Iterator[str]:
    seen = 0
    for i, line in enumerate(text):
        if i % _REPORT_EVERY == 0:
            at = raw.tell()
            progress(at - seen)
            seen = at
        yield line
    progress(raw.tell() - seen)


def find_sources(inputs: Iterable[str | Path]) -> tuple[list[Source], list[str]]:
    """Files behind names, folders, globs and `-`.

    inputs (Iterable[str | Path]): What the user named. A folder is searched with all its folders
        for the suffixes of CoNLL files; hidden files are passed over. A file found twice is
        taken once. `-` is standard input.
    RETURNS (tuple[list[Source], list[str]]): The sources, in the order named, and the files of
        the folders that were left out. Raises ConversionError naming all that leads nowhere.
    """
    faults = FaultList()
    sources: list[Source] = []
    left_out: list[str] = []
    seen: set[Path] = set()
    for given in inputs:
        try:
            if str(given) == "-":
                if not any(source.path is None for source in sources):
                    sources.append(Source.from_stream(sys.stdin.buffer))
                continue
            for path in _expand(str(given), faults, left_out):
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    sources.append(Source.from_path(path))
        except (OSError, ValueError) as err:
            reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
            faults.add(Fault(str(given), None, reason))
    if not sources and not faults.total:
        faults.add(Fault("convert", None, "no input named"))
    if faults.total:
        for source in sources:
            source.close()
        raise faults.error()
    return sources, left_out


def _expand(given: str, faults: FaultList, left_out: list[str]) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        found = []
        for p in sorted(path.rglob("*")):
            if any(part.startswith(".") for part in p.relative_to(path).parts) or not p.is_file():
                continue
            if p.suffix.lower() in SUFFIXES and not p.stem.lower().startswith(NOT_DATA):
                found.append(p)
            else:
                left_out.append(str(p))
        if not found:
            empty = next(path.iterdir(), None) is None
            what = "the folder is empty" if empty else "no CoNLL file in this folder, by suffix"
            faults.add(Fault(given, None, what))
        return found
    if path.exists():
        return [path]
    if glob.has_magic(given):
        names = glob.glob(given, recursive=True)  # noqa: PTH207 (may be absolute)
        found = sorted(Path(name) for name in names if Path(name).is_file())
        if not found:
            faults.add(Fault(given, None, "no file matches this pattern"))
        return found
    faults.add(Fault(given, None, "no such file or folder"))
    return []
