"""What is wrong with an input: the file, the line and its text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_SHOWN = 50
MAX_WIDTH = 400


def printable(text: str) -> str:
    """Escape what cannot be printed on one line: control characters and undecodable bytes. Cut after `MAX_WIDTH`."""
    out = []
    for ch in text[:MAX_WIDTH]:
        if ch.isprintable() or ch == "\t":
            out.append(ch)
        elif "\udc80" <= ch <= "\udcff":
            out.append(f"\\x{ord(ch) - 0xDC00:02x}")
        else:
            out.append(ch.encode("unicode_escape", "backslashreplace").decode("ascii"))
    return "".join(out) + ("…" if len(text) > MAX_WIDTH else "")


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


class UnreadableError(ValueError):
    """A file that cannot be read at all; the arguments are those of `Fault` without the path."""

    def __init__(self, what: str, line: int | None = 1, text: str | None = None) -> None:
        super().__init__(what)
        self.line = line
        self.text = text


class ConversionError(ValueError):
    """Input that cannot be converted as it is.

    faults: the first faults of all files, in order.
    total: how many there are, if more than those.
    """

    def __init__(self, faults: Iterable[Fault], total: int | None = None) -> None:
        self.faults = list(faults)
        self.total = len(self.faults) if total is None else total
        shown = self.faults[:MAX_SHOWN]
        lines = [str(fault) for fault in shown]
        if self.total > len(shown):
            more = self.total - len(shown)
            lines.append(f"… and {more} more fault{'s' if more != 1 else ''} ({self.total} in all)")
        super().__init__("\n".join(lines))


class FaultList:
    """Keeps the first faults and counts the rest, so that memory does not grow with them."""

    def __init__(self) -> None:
        self.first: list[Fault] = []
        self.total = 0

    def add(self, fault: Fault) -> None:
        """Count a fault, and keep it if it is one of the first."""
        self.total += 1
        if len(self.first) < MAX_SHOWN:
            self.first.append(fault)

    def error(self) -> ConversionError:
        """Return the exception to raise for what was collected."""
        return ConversionError(self.first, self.total)
