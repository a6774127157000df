"""Files: errors for checkpoints and data that cannot be used, checksums, atomic writing, .spacy files, outputs."""

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import srsly
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab


class CheckpointError(ValueError):
    """A checkpoint, or the model folder of a saved pipeline, that cannot be used."""


class DataError(ValueError):
    """Annotated data that cannot be used; the message names the file."""


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256, in hexadecimal, of each file in a folder and those below, by its path from there.

    Hidden files and compiled Python code are left out.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and "__pycache__" not in path.parts
    )
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def _checksum(path: Path) -> str:
    digest, block = hashlib.sha256(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(block):
            digest.update(memoryview(block)[:n])
    return digest.hexdigest()


@contextlib.contextmanager
def verified(folder: Path, expected: dict[str, str]) -> Iterator[None]:
    """Compare the files of a folder with the checksums they had, while the body of the `with` loads them.

    Raises CheckpointError, also in place of an error from the body, for files that are missing or have changed.
    """

    def faults() -> list[str]:
        found = {name: folder / name for name in expected}
        missing = [f"{path}: is missing" for path in found.values() if not path.is_file()]
        changed = [
            f"{path}: is not the file that was saved with this pipeline; it is damaged or belongs to another one"
            for name, path in found.items()
            if path.is_file() and _checksum(path) != expected[name]
        ]
        return missing + changed

    # In a thread of its own: hashing, like most of loading, holds no lock
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(faults)
        try:
            yield
        except Exception as err:
            if found := future.result():
                raise CheckpointError("; ".join(found)) from err
            raise
        if found := future.result():
            raise CheckpointError("; ".join(found))


def sync(*paths: Path) -> None:
    """Wait until the disk holds these files (their content) and folders (the names in them)."""
    for path in paths:
        if path.is_dir() and os.name == "nt":  # cannot be opened there
            continue
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that takes its place at `path`, whole and on the disk, when the body of the `with` ends.

    Missing folders are made. If the body raises, `path` stays as it was, and neither the new file nor those folders
    remain. Several of these in one `contextlib.ExitStack` take their places only after all have been written.

    Raises OSError.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # a folder that holds anything stays
            temporary.unlink(missing_ok=True)
            for folder in missing:
                folder.rmdir()
        raise
    with contextlib.suppress(OSError):  # not every file system can sync a folder
        sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a new folder that takes its place at `path`, with all its files on the disk, when the body of the `with` ends.

    As `atomic_write`; there must be nothing at `path`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync(*temporary.iterdir(), temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # a folder that holds anything stays
            for folder in missing:
                folder.rmdir()
        raise
    with contextlib.suppress(OSError):  # not every file system can sync a folder
        sync(path.parent)


def pack_files(to_disk: Callable[[str], None]) -> bytes:
    """Return the files that `to_disk` writes into the folder it is given, as one msgpack map from name to content."""
    with tempfile.TemporaryDirectory() as folder:
        to_disk(folder)
        return srsly.msgpack_dumps({p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())})


@contextlib.contextmanager
def unpacked_files(data: bytes) -> Iterator[str]:
    """Return a temporary folder, as a context, with the files from `pack_files`; raises CheckpointError."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in srsly.msgpack_loads(data).items():
            if Path(name).name != name or name in ("", ".."):
                raise CheckpointError(f"model bytes: a file name that leaves its folder: {name!r}")
            (Path(folder) / name).write_bytes(content)
        yield folder


def docbin_files(path: Path) -> list[Path]:
    """Return the .spacy file at a path, in a list, or those in a folder and the ones below.

    Raises DataError for a path that is missing, or has no such files, or others than `DocBin.to_disk` writes: spaCy's
    `Corpus` reads nothing from some of these, and warns at best.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = sorted(path.rglob("*.spacy")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no .spacy file in this folder; {_CONVERT}")
    for file in files:
        with file.open("rb") as opened:
            head = opened.read(1024)
        if not head:
            raise DataError(f"{file}: the file is empty")
        if head.startswith(b"PK"):
            raise DataError(f"{file}: is not a .spacy file, but a ZIP archive")
        try:
            zlib.decompressobj().decompress(head)
        except zlib.error:
            raise DataError(f"{file}: is not a .spacy file; {_CONVERT}") from None
        if file.suffix != ".spacy":
            raise DataError(f"{file}: spaCy reads only files with the extension .spacy; rename it")
    return files


_CONVERT = "`python -m spacy bertner convert` makes one from CoNLL files"


def read_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Read the Docs of a .spacy file, or of all .spacy files in a folder.

    Raises DataError for a file that is missing, empty, damaged or not a DocBin.
    """
    for file in docbin_files(path):
        try:
            yield from DocBin().from_disk(file).get_docs(vocab)
        except Exception as err:  # zlib, msgpack and NumPy each raise their own
            raise DataError(f"{file}: is a damaged .spacy file ({err})") from None


def check_output_folder(path: Path, *, force: bool = False) -> None:
    """Raise FileExistsError if a folder must not be written to: it is a file, or holds anything (unless `force`)."""
    _check_parents(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path}: is a file; give a folder")
    if not force and path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"{path}: exists already; --force overwrites it")


def check_output_file(path: Path, *, force: bool = False, inputs: Iterable[str | Path] = ()) -> None:
    """Raise FileExistsError if a file must not be written: it is a folder, an input, or exists already (unless `force`)."""
    _check_parents(path)
    if path.is_dir():
        raise FileExistsError(f"{path}: is a folder; give the name of a file")
    if path.resolve() in {Path(name).resolve() for name in inputs}:
        raise FileExistsError(f"{path}: would overwrite an input")
    if not force and path.exists():
        raise FileExistsError(f"{path}: exists already; --force overwrites it")


def _check_parents(path: Path) -> None:
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise FileExistsError(f"{path}: cannot be written, as {parent} is a file")
