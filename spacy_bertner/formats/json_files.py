"""JSON Lines and arrays of JSON, value by value: a file need not fit into memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from .faults import ConversionError, Fault
from .source import Source

_SPACE = re.compile(r"[ \t\r\n]*")
_NEAR_END = 16  # an error within the last few characters may be due to where the buffer ends
# A line and, in an array, the number of the value, which may stand on the same line as others; and the value
Place = tuple[int | None, int | None]


def read_values(
    source: Source, encoding: str, faults: ConversionError, on_read: Callable[[int], None] | None = None
) -> Iterator[tuple[Place, Any]]:
    """Yield the values of a file of JSON, one on each line or all in one array, with their places.

    faults: values that are not valid JSON are added to it; nothing can be read after one in an array.
    """
    if _is_array(source, encoding):
        yield from _read_array(source, encoding, faults, on_read)
        return
    for number, line in enumerate(source.lines(encoding, on_read), 1):
        if line.isspace():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as err:
            faults.add(_fault(source, number, err, line.strip()))
        else:
            yield (number, None), value


def _fault(source: Source, line: int, err: Exception, text: str | None = None) -> Fault:
    reason = f"{err.msg}, column {err.colno}" if isinstance(err, json.JSONDecodeError) else str(err)
    return Fault(source.name, line, f"invalid JSON: {reason}", text)


def starts_like_json(source: Source, encoding: str) -> bool:
    """Say whether a file starts with an object or an array."""
    return _head(source, encoding)[:1] in ("{", "[")


def _head(source: Source, encoding: str) -> str:
    """The first two characters of a file that are no white space."""
    found = ""
    for chunk in source.chunks(encoding):
        found += "".join(chunk.split())[:2]
        if len(found) > 1:
            break
    return found[:2]


def _is_array(source: Source, encoding: str) -> bool:
    """A line that is an array itself, `["text", {…}]`, starts with a string."""
    head = _head(source, encoding)
    return head[:1] == "[" and head[1:] != '"'


def _read_array(
    source: Source, encoding: str, faults: ConversionError, on_read: Callable[[int], None] | None
) -> Iterator[tuple[Place, Any]]:
    chunks = source.chunks(encoding, on_read)
    scan = json.JSONDecoder().raw_decode
    buffer, pos, number, is_after_value = "", 0, 0, False
    line, counted = 1, 0  # the line of the buffer's character `counted`

    def line_at(at: int) -> int:
        nonlocal line, counted
        if at > counted:
            line, counted = line + buffer.count("\n", counted, at), at
        return line

    def more() -> bool:
        """Read on; at least as much as there is, so that a long value is not parsed over and over."""
        nonlocal buffer, pos, counted
        line_at(pos)
        buffer, pos, counted = buffer[pos:], 0, 0
        parts, n = [buffer], 0
        while n <= len(buffer) and (chunk := next(chunks, "")):
            parts.append(chunk)
            n += len(chunk)
        buffer = "".join(parts)
        return n > 0

    def space() -> str:
        """Skip white space; return the next character, or nothing at the end of the file."""
        nonlocal pos
        while True:
            pos = _SPACE.match(buffer, pos).end()  # type: ignore[union-attr]
            if pos < len(buffer) or not more():
                return buffer[pos : pos + 1]

    def stop(what: str, at: int) -> None:
        faults.add(Fault(source.name, line_at(at), f"invalid JSON: {what}"))

    space()
    pos += 1
    while (char := space()) != "]" or (number and not is_after_value):
        if is_after_value:
            if char != ",":
                return stop(f"after record {number}, a comma or the end of the array is missing", pos)
            pos += 1
            space()
        try:
            value, end = scan(buffer, pos)
        except json.JSONDecodeError as err:
            is_cut = err.msg.startswith("Unterminated string") or err.pos >= len(buffer) - _NEAR_END
            if is_cut and more():
                is_after_value = False
                continue
            return stop(f"record {number + 1}: {err.msg}", err.pos)
        except RecursionError as err:
            return stop(f"record {number + 1}: {err}", pos)
        number += 1
        yield (line_at(pos), number), value
        pos, is_after_value = end, True
    pos += 1
    if space():
        stop("there is something after the end of the array", pos)
