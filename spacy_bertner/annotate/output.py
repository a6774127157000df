"""Whole records on disk, one after another, so that a run that was killed can be resumed.

Records go to a journal, one line each: for JSONL that is the output itself, for other formats `OUTPUT.part`, from which the
output is made at the end. A kill can leave the last line of the journal incomplete; it is cut off when the run is resumed.
While a run is incomplete, `OUTPUT.run` says which run it is; files that it does not vouch for are left untouched.

Every chunk is written to the operating system, so a killed process loses none of it; it is forced to the disk every ten
seconds and at the end, so a power failure loses no more than that.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..files import atomic_write, sync
from .records import Record
from .writers import Writer

SYNC_SECONDS = 10.0


class Output:
    """An output file that grows by whole records.

    path: the file. writer: its format. force: overwrite what is there. resume: continue after the last whole record.

    paths: all files that a run may write. n_done: records already there, and `last`, the last of them, once it is open.

    Raises ValueError if it cannot be written, FileExistsError if it would be overwritten without `force`.
    """

    def __init__(self, path: Path, writer: Writer, *, force: bool, resume: bool) -> None:
        self.path, self.writer, self.force, self.resume = path, writer, force, resume
        self.journal_path = path if writer.grows else path.with_name(f"{path.name}.part")
        self.run_path = path.with_name(f"{path.name}.run")
        self.paths = [path, self.journal_path, self.run_path]
        self.n_done, self.end = 0, 0  # whole records in the journal, and bytes up to the end of the last
        self.last: bytes | None = None
        self._check_free()

    def _check_free(self) -> None:
        if self.force and self.resume:
            raise ValueError("--force starts again, --resume continues: set one of them")
        if self.path.is_dir():
            raise ValueError(f"{self.path}: is a folder; name a file")
        if self.force or self.resume:
            return
        if self.run_path.exists():
            raise FileExistsError(f"{self.path}: a run is unfinished: --resume continues it, --force starts again")
        for path in self.paths:
            if path.exists():
                raise FileExistsError(f"{path}: exists already; --force overwrites it")

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to do, provided that `check_complete` does not raise."""
        # The journal exists as long as the output is incomplete
        return self.resume and not self.writer.grows and self.path.exists() and not self.journal_path.exists()

    def check_complete(self, state: dict[str, Any], records: Iterable[Record]) -> None:
        """Raise ValueError if an output that is taken for complete is not of this run and these records."""
        self._check_state(state)
        with self.path.open("rb") as file:
            if not self.writer.matches(file, records):
                raise ValueError(
                    f"{self.path}: --resume: exists, and was not written by a run over these inputs. --force overwrites it"
                )
        self.run_path.unlink(missing_ok=True)

    @contextmanager
    def open(self, state: dict[str, Any]) -> Iterator[None]:
        """Open it for `write` and `finish`; nothing changes in a journal that is resumed before the first of these.

        state: what tells this run from others, as JSON has it. Raises ValueError for the output of another run.
        """
        self._check_free()  # loading the pipeline took a while
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.journal_path.touch()
        with self.journal_path.open("r+b", buffering=0) as self.file:  # a chunk is one write
            self._lock()
            self.is_ready = not (self.resume and self._size())
            if self.is_ready:
                self._start(state)
            else:
                self.is_known = self._check_state(state)
                for line, data in self._journal():
                    self.n_done, self.end, self.last = self.n_done + 1, self.end + len(line), data
            self.synced = time.monotonic()
            yield

    def _lock(self) -> None:
        """Keep other runs out; the system releases the lock with the process."""
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

    def _start(self, state: dict[str, Any]) -> None:
        """Remove old records, and only then say which run the new ones are of."""
        self.run_path.unlink(missing_ok=True)
        self.file.truncate(0)
        os.fsync(self.file.fileno())
        with atomic_write(self.run_path) as file:
            file.write(f"{json.dumps(state, indent=1)}\n".encode())

    def _check_state(self, state: dict[str, Any]) -> bool:
        """Tell whether the state of the earlier run is known; raise ValueError if it is another one."""
        try:
            before = json.loads(self.run_path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return False
        names = [name for name in sorted({*before, *state}) if before.get(name) != state.get(name)]
        if names:
            changes = "; ".join(f"{name}: {before.get(name)!r}, now {state.get(name)!r}" for name in names)
            raise ValueError(
                f"{self.path}: --resume: it is the output of another run ({changes}). --force starts again"
            )
        return True

    def _journal(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each line of the journal with its record, up to the first that is not whole.

        After a power failure, lines can have their length without their content.
        """
        with self.journal_path.open("rb") as file:
            for line in file:
                data = self._decode(line) if line.endswith(b"\n") else None
                if data is None:
                    return
                yield line, data

    def _encode(self, data: bytes) -> bytes:
        return data if self.writer.grows else base64.b64encode(data) + b"\n"

    def _decode(self, line: bytes) -> bytes | None:
        try:
            if self.writer.grows:
                return line if isinstance(json.loads(line), dict) else None
            return base64.b64decode(line[:-1], validate=True)
        except ValueError:
            return None

    def _get_ready(self) -> None:
        """Cut off what is not whole from a journal that is resumed, if it is known to be of this run."""
        if self.is_ready:
            return
        if not self.is_known:
            raise ValueError(
                f"{self.journal_path}: --resume: has {self.n_done} records, and no {self.run_path.name} says of which "
                "run. --force starts again"
            )
        self.file.truncate(self.end)
        self.file.seek(self.end)
        self.is_ready = True

    def write(self, rendered: Sequence[bytes]) -> None:
        """Append records. Raises ValueError if those already there may not be of this run."""
        self._get_ready()
        data = memoryview(b"".join(map(self._encode, rendered)))
        while data:
            data = data[self.file.write(data) :]
        if time.monotonic() - self.synced > SYNC_SECONDS:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    def finish(self) -> None:
        """Make the output from the journal; the run is complete."""
        if not self.writer.grows or self._size() > self.end:
            self._get_ready()
        os.fsync(self.file.fileno())
        if not self.writer.grows:
            with atomic_write(self.path) as file:
                self.writer.write((data for _, data in self._journal()), file)
            self.file.close()  # Windows cannot unlink an open file
            self.journal_path.unlink()
        self.run_path.unlink(missing_ok=True)
        with suppress(OSError):  # not every file system can sync a folder
            sync(self.path.parent)


class StandardOutput:
    """Records to standard output, as they come; attributes and methods are those of `Output`."""

    paths: Sequence[Path] = ()
    n_done = 0
    last: bytes | None = None

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.file = sys.stdout.buffer

    @contextmanager
    def open(self) -> Iterator[None]:
        """Write the header."""
        self.file.write(self.writer.header)
        yield

    def write(self, rendered: Sequence[bytes]) -> None:
        """Write records."""
        self.file.write(b"".join(rendered))
        self.file.flush()

    def finish(self) -> None:
        """Write the footer."""
        self.file.write(self.writer.footer)
        self.file.flush()
