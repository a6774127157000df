"""What is wrong with an input: the file, the line and its text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_SHOWN = 50
MAX_WIDTH = 400


def printable(text: str) -> str:
    """Escape what cannot be printed on one line: control characters and undecodable bytes. Cut after `MAX_WIDTH`."""
    escaped = (ch if ch.isprintable() or ch == "\t" else _escape(ch) for ch in text[:MAX_WIDTH])
    return "".join(escaped) + ("…" if len(text) > MAX_WIDTH else "")


def _escape(ch: str) -> str:
    is_byte = "\udc80" <= ch <= "\udcff"  # one that could not be decoded
    return f"\\x{ord(ch) - 0xDC00:02x}" if is_byte else ch.encode("unicode_escape", "backslashreplace").decode("ascii")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: the file, the number of the line (None for the whole file), what, and the line itself."""

    path: str
    line: int | None
    what: str
    text: str | None = None

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        text = "" if self.text is None else f": {printable(self.text)}"
        return f"{printable(place)}: {printable(self.what)}{text}"


class ConversionError(ValueError):
    """Input that cannot be converted as it is: as a string, one line per fault.

    faults: the first of them, in order. total: how many there are; the rest is only counted, so that memory does not grow.
    notes: what to do about all of them; shown last.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults: list[Fault] = []
        self.total = 0
        self.notes: list[str] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        self.total += 1
        if len(self.faults) < MAX_SHOWN:
            self.faults.append(fault)

    def extend(self, other: ConversionError) -> None:
        """Add the faults of another error."""
        self.faults = [*self.faults, *other.faults][:MAX_SHOWN]
        self.total += other.total
        self.notes += other.notes

    def __str__(self) -> str:
        lines = [str(fault) for fault in self.faults]
        if more := self.total - len(lines):
            lines.append(f"… and {more} more fault{'s' if more != 1 else ''} ({self.total} in all)")
        return "\n".join([*lines, *map(printable, self.notes)])
