"""Whole records on disk, one after another, so that a run that was killed can be gone on with.

Records go to a journal, a line each: for JSONL that is the output itself, for other formats `OUTPUT.part`, out of which
the output is made at the end and moved to its place. A kill can leave the last line of the journal unfinished; it is
cut off before the run goes on. `OUTPUT.run` says, while a run is unfinished, what it is a run of; what it does not name
is left as it is.

Written data is given to the system with every chunk, so a killed process loses none of it; it is forced to the disk
every ten seconds and at the end, so a machine that loses its power loses no more than that.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .formats import Format
from .records import Record

SYNC_SECONDS = 10.0


def written_files(output: Path, form: Format) -> list[Path]:
    """All files that a run with this output may write."""
    return [output, journal_of(output, form), run_file_of(output)]


def journal_of(output: Path, form: Format) -> Path:
    """Where the records go first."""
    return output if form.is_journal else output.with_name(f"{output.name}.part")


def run_file_of(output: Path) -> Path:
    """What says that a run is unfinished."""
    return output.with_name(f"{output.name}.run")


def check_free(output: Path, form: Format, *, force: bool, resume: bool) -> None:
    """Raise ValueError where the output cannot be written, FileExistsError where it would be overwritten unasked."""
    if force and resume:
        raise ValueError("--force starts again, --resume goes on: set one of them")
    if output.is_dir():
        raise ValueError(f"{output}: is a folder; name a file")
    if force or resume:
        return
    if run_file_of(output).exists():
        raise FileExistsError(f"{output}: a run is unfinished: go on with --resume, or start again with --force")
    for path in written_files(output, form):
        if path.exists():
            raise FileExistsError(f"{path}: exists already; --force overwrites it")


class Output:
    """An output that grows by whole records.

    path: the file. form: its format. state: what tells this run from others, as JSON has it; a run is only gone on
    with where it is the same. force: overwrite what is there. resume: go on after the last whole record.

    n_done: records that are there already. is_complete: nothing is left to do, if `check_complete` does not raise.
    last: the last record there, None without any.

    Raises ValueError for a run with another state, and OSError.
    """

    def __init__(self, path: Path, form: Format, state: dict[str, Any], *, force: bool, resume: bool) -> None:
        check_free(path, form, force=force, resume=resume)
        self.path, self.form, self.state = path, form, state
        self.journal_path, self.run_path = journal_of(path, form), run_file_of(path)
        self.n_done, self.end = 0, 0  # whole records in the journal, and bytes up to the end of the last
        self.last: bytes | None = None
        self.has_begun = False
        # The journal is there for as long as the output is not complete
        self.is_complete = resume and not form.is_journal and path.exists() and not self.journal_path.exists()
        if self.is_complete:
            self._compare_state()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a chunk is one write
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self.file = open(os.open(self.journal_path, flags, 0o666), "r+b", buffering=0)  # noqa: SIM115, PTH123
        try:
            self._lock()
            if resume and self._size():
                self.was_unfinished = self._compare_state()
                self._count()  # and touch nothing: it may yet turn out to be the output of another input
            else:
                self._start()
        except BaseException:
            self.file.close()
            raise
        self.synced = time.monotonic()

    def _lock(self) -> None:
        """Keep other runs off; the system lets go of the lock with the process."""
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path}: another run is writing it at this moment") from None
        except OSError:  # not every file system has locks
            pass

    def _size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def _start(self) -> None:
        """Begin with nothing; the records go before what says which run they are of."""
        self.run_path.unlink(missing_ok=True)
        self.file.truncate(0)
        os.fsync(self.file.fileno())
        temporary = self.run_path.with_name(f"{self.run_path.name}.tmp")
        temporary.write_text(json.dumps(self.state, indent=1) + "\n", encoding="ascii")
        os.replace(temporary, self.run_path)  # noqa: PTH105
        sync_folder(self.path.parent)
        self.has_begun = True

    def _compare_state(self) -> bool:
        """Whether there is a state; raises ValueError where it is another one."""
        try:
            before = json.loads(self.run_path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return False
        changed = [name for name in sorted({*before, *self.state}) if before.get(name) != self.state.get(name)]
        if changed:
            what = "; ".join(f"{name}: {before.get(name)!r}, now {self.state.get(name)!r}" for name in changed)
            raise ValueError(f"{self.path}: --resume: the run was another one ({what}). --force starts again")
        return True

    def _journal(self) -> Iterator[bytes]:
        """The whole lines of the journal, up to the first that is not.

        Where the power went, lines may have their length and not their content.
        """
        with self.journal_path.open("rb") as file:
            for line in file:
                if not (line.endswith(b"\n") and self._is_whole(line)):
                    return
                yield line

    def _is_whole(self, line: bytes) -> bool:
        try:
            if self.form.is_journal:
                return isinstance(json.loads(line), dict)
            base64.b64decode(line[:-1], validate=True)
        except ValueError:
            return False
        return True

    def _count(self) -> None:
        line = b""
        for line in self._journal():
            self.n_done += 1
            self.end += len(line)
        self.last = self._decode(line) if self.n_done else None

    def _encode(self, data: bytes) -> bytes:
        return data if self.form.is_journal else base64.b64encode(data) + b"\n"

    def _decode(self, line: bytes) -> bytes:
        return line if self.form.is_journal else base64.b64decode(line)

    def _go_on(self) -> None:
        """Cut off what is not whole, where it is known to be of this run."""
        if not self.was_unfinished:
            raise ValueError(
                f"{self.journal_path}: --resume: has {self.n_done} records, and no {self.run_path.name} says of which "
                "run. --force starts again"
            )
        self.file.truncate(self.end)
        self.file.seek(self.end)
        self.has_begun = True

    def check_complete(self, records: Iterable[Record]) -> None:
        """Raise ValueError where what is there, and is taken for complete, is not of these records."""
        with self.path.open("rb") as file:
            if not self.form.is_of(file, records):
                raise ValueError(
                    f"{self.path}: --resume: is there, and was not written by a run over these inputs. "
                    "--force overwrites it"
                )
        self.run_path.unlink(missing_ok=True)

    def write(self, rendered: Sequence[bytes]) -> None:
        """Add records. Raises ValueError where those that are there may not be of this run."""
        if not self.has_begun:
            self._go_on()
        data = memoryview(b"".join(map(self._encode, rendered)))
        while data:
            data = data[self.file.write(data) :]
        if time.monotonic() - self.synced > SYNC_SECONDS:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    def finish(self) -> None:
        """Make the output out of the journal; the run is complete."""
        if not self.has_begun and (self._size() > self.end or not self.form.is_journal):
            self._go_on()
        os.fsync(self.file.fileno())
        if not self.form.is_journal:
            temporary = self.path.with_name(f"{self.path.name}.tmp")
            with temporary.open("wb") as file:
                self.form.write(map(self._decode, self._journal()), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)  # noqa: PTH105
            self.file.close()  # Windows unlinks no open file
            self.journal_path.unlink()
        self.run_path.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Leave it as it is."""
        if not self.is_complete:
            self.file.close()


class StandardOutput:
    """Records to standard output, as they come; `n_done`, `last`, `is_complete` are those of a new `Output`."""

    n_done = 0
    last: bytes | None = None
    is_complete = False

    def __init__(self, form: Format) -> None:
        self.form = form
        self.file = sys.stdout.buffer
        self.file.write(form.header)

    def write(self, rendered: Sequence[bytes]) -> None:
        """Add records."""
        self.file.write(b"".join(rendered))
        self.file.flush()

    def finish(self) -> None:
        """End it."""
        self.file.write(self.form.footer)
        self.file.flush()

    def check_complete(self, records: Iterable[Record]) -> None:
        """It never is."""

    def close(self) -> None:
        """Leave it as it is."""


def sync_folder(folder: Path) -> None:
    """Force names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
