"""Inputs: files found by name, folder or pattern, and their lines, which can be read more than once."""

from __future__ import annotations

import codecs
import contextlib
import glob
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from .faults import ConversionError, Fault

_WIDE = {  # the longer byte order marks first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_REPORT_EVERY = 20_000  # lines


class Source:
    """Lines that can be read as often as needed.

    name: what messages call it. stem: what the output is named after. path: the file, if it is one.
    chunks: the bytes of what can be read only once; a temporary file keeps a copy of them until `close`.
    """

    def __init__(self, name: str, stem: str, path: Path | None = None, chunks: Iterable[bytes] | None = None) -> None:
        self.name = name
        self.stem = stem
        self.path = path
        self._copy: IO[bytes] | None = None
        if chunks is not None:
            self._copy = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
            self._copy.writelines(chunks)

    @classmethod
    def from_path(cls, path: Path) -> Source:
        """Make a source of a file or a pipe."""
        if path.is_file():
            return cls(str(path), path.stem, path)
        with path.open("rb") as stream:
            return cls(str(path), path.stem, path, _chunks(stream))

    @classmethod
    def from_stream(cls, stream: IO[bytes], name: str, stem: str = "stdin") -> Source:
        """Make a source of a binary stream."""
        return cls(name, stem, chunks=_chunks(stream))

    @classmethod
    def from_lines(cls, lines: Iterable[str], encoding: str) -> Source:
        """Make a source of lines of text, with or without their ends."""
        ended = (line if line.endswith("\n") else line + "\n" for line in lines)
        return cls("<lines>", "lines", chunks=(line.encode(encoding, "surrogateescape") for line in ended))

    def error(self, what: str, line: int | None = 1, text: str | None = None) -> ConversionError:
        """Return the exception to raise for one thing that is wrong."""
        return ConversionError([Fault(self.name, line, what, text)])

    def size(self) -> int:
        """Return the number of bytes."""
        with self.open() as file:
            return file.seek(0, io.SEEK_END)

    def close(self) -> None:
        """Delete the temporary file, if there is one."""
        if self._copy is not None:
            self._copy.close()

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open it for reading bytes."""
        if self._copy is not None:
            self._copy.seek(0)
            yield self._copy
        else:
            assert self.path is not None
            with self.path.open("rb") as file:
                yield file

    def lines(self, encoding: str, on_read: Callable[[int], None] | None = None) -> Iterator[str]:
        """Read the lines, each with its end.

        A line ends at LF (or CR, if there is no LF at all) and nowhere else: U+2028, U+0085 and form feeds are part of a
        line. Bytes that cannot be decoded become lone surrogates. The byte order mark of UTF-8 is dropped.

        on_read: called now and then with the number of bytes read since.
        Raises ConversionError for bytes that are no text at all.
        """
        with self.open() as file, self._decoded(file, encoding) as text:
            # Not `yield from text`, which would close the file of a reader that stops early
            yield from map(str, text) if on_read is None else _reporting(text, file, on_read)

    def chunks(self, encoding: str, on_read: Callable[[int], None] | None = None) -> Iterator[str]:
        """Read the text in pieces of any length, for files that may be one long line; otherwise as `lines`."""
        with self.open() as file, self._decoded(file, encoding, any_newline=False) as text:
            pieces = iter(lambda: text.read(1 << 20), "")
            yield from pieces if on_read is None else _reporting(pieces, file, on_read, every=1)

    @contextlib.contextmanager
    def _decoded(self, file: IO[bytes], encoding: str, any_newline: bool = True) -> Iterator[IO[str]]:
        if codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"
        head = file.read(1 << 16)
        if encoding == "utf-8-sig" and (name := wide_encoding(head)):
            raise self.error(f"looks like {name.upper()}: read it with --encoding {name}", line=None)
        file.seek(0)
        newline = "\r" if any_newline and b"\r" in head and b"\n" not in head else "\n"
        text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline=newline)
        try:
            yield text
        except UnicodeError as err:
            raise self.error(f"cannot be read as {encoding}: {err}", line=None) from err
        finally:
            with contextlib.suppress(ValueError):
                text.detach()


def wide_encoding(head: bytes) -> str | None:
    """Return the encoding of a text in UTF-16 or UTF-32 by its byte order mark, or by the zeros of half its bytes."""
    for mark, name in _WIDE.items():
        if head.startswith(mark):
            return name
    for offset, name in enumerate(("utf-16-be", "utf-16-le")):
        if head[offset::2].count(0) > 0.3 * len(head) > 1 and 0 not in head[1 - offset :: 2]:
            return name
    return None


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(1 << 20):
        yield chunk


def _reporting(
    lines: Iterable[str], file: IO[bytes], on_read: Callable[[int], None], every: int = _REPORT_EVERY
) -> Iterator[str]:
    before = 0
    for i, line in enumerate(lines):
        if i % every == 0:
            now = file.tell()
            on_read(now - before)
            before = now
        yield line
    on_read(file.tell() - before)


def find_files(
    inputs: Iterable[str | Path],
    is_wanted: Callable[[Path], bool],
    faults: ConversionError,
    outputs: Iterable[Path] = (),
) -> tuple[list[Path | None], list[str]]:
    """Find the files behind names, folders, glob patterns and `-`.

    inputs: what the user gave. Folders are searched with their subfolders; hidden files are skipped.
    is_wanted: whether to take a file that is found in a folder; others are taken whatever their name.
    faults: inputs that lead nowhere are added to it.
    outputs: files that the run writes: skipped in folders and patterns, a fault where given themselves.
    Returns the files in the order given, each once, None for standard input, and the names of the files in folders that
    were left out.
    """
    found: dict[Path | None, Path | None] = {}  # by their resolved paths
    left_out: list[str] = []
    written = {path.resolve() for path in outputs}
    for name in map(str, inputs):
        if name == "-":
            found[None] = None
            continue
        try:
            paths = _expand(name, is_wanted, left_out)
            if not paths:
                faults.add(Fault(name, None, _why_none(name)))
            for path in paths:
                place = path.resolve()
                if place not in written:
                    found.setdefault(place, path)
                elif path == Path(name):
                    faults.add(Fault(name, None, "is the output too: name another file for one of them"))
        except (OSError, ValueError) as err:
            faults.add(Fault(name, None, getattr(err, "strerror", None) or str(err)))
    return list(found.values()), left_out


def _expand(name: str, is_wanted: Callable[[Path], bool], left_out: list[str]) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        files = [p for p in sorted(path.rglob("*")) if p.is_file()]
        shown = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        left_out += [str(p) for p in shown if not is_wanted(p)]
        return [p for p in shown if is_wanted(p)]
    if path.exists():
        return [path]
    names = glob.glob(name, recursive=True) if glob.has_magic(name) else []  # noqa: PTH207 (may be absolute)
    return sorted(p for p in map(Path, names) if p.is_file())


def _why_none(name: str) -> str:
    if Path(name).is_dir():
        return "no file with a known ending in this folder"
    return "no file matches this pattern" if glob.has_magic(name) else "no such file or folder"
