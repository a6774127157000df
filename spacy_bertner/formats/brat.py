"""brat's standoff files: a text, `NAME.txt`, and its annotation, `NAME.ann`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from .faults import ConversionError, Fault
from .records import Problem, Record

_OTHERS = {"R": "relations", "*": "relations", "E": "events", "A": "attributes", "M": "attributes"}
_OTHERS |= {"N": "normalizations", "#": "notes"}
_SPANS = re.compile(r"(\S+) (\d+ \d+(?:;\d+ \d+)*)")
_LINE_ENDS = re.compile(r"[\r\n]+")


def parse(name: str, text: str, lines: Iterable[str], faults: ConversionError) -> Record:
    """Make the record of a text and the lines of its annotation; lines that cannot be read are added to the faults."""
    record, skipped = Record(text), Counter[str]()
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        if line[0] in _OTHERS:
            skipped[_OTHERS[line[0]]] += 1
            continue
        fields = line.split("\t", 2)
        match = _SPANS.fullmatch(fields[1]) if len(fields) == 3 and line[0] == "T" else None
        if match is None:
            faults.add(Fault(name, number, "is no annotation of brat: T1, tab, label, start and end, tab, text", line))
            continue
        label, offsets = match[1], [tuple(map(int, part.split())) for part in match[2].split(";")]
        start, end = offsets[0][0], offsets[-1][1]
        gaps = [text[left[1] : right[0]] for left, right in pairwise(offsets)]
        if all(_LINE_ENDS.fullmatch(gap) for gap in gaps):  # brat itself splits an entity at the end of a line
            record.add(start, end, label, fields[2])
        else:
            record.problems.append(Problem(f"{label} {fields[2]!r} ({match[2]}) is discontinuous", start, end))
    record.left_out = skipped
    return record


def render(text: str, entities: Iterable[tuple[int, int, str]]) -> str:
    """Return the annotation of a text. Raises ValueError for a label that brat cannot hold."""
    lines = []
    for number, (start, end, label) in enumerate(entities, 1):
        if re.search(r"\s", label):
            raise ValueError(f"the label {label!r} has white space in it, which brat cannot hold")
        parts, at = [], start
        for gap in _LINE_ENDS.finditer(text, start, end):
            parts += [(at, gap.start())] if gap.start() > at else []
            at = gap.end()
        parts += [(at, end)] if end > at else []
        if not parts or (parts[0][0], parts[-1][1]) != (start, end):
            raise ValueError(
                f"{label} {text[start:end]!r} starts or ends with the end of a line, which brat cannot hold"
            )
        offsets = ";".join(f"{first} {last}" for first, last in parts)
        covered = re.sub(r"[\t\r\n]", " ", " ".join(text[first:last] for first, last in parts))
        lines.append(f"T{number}\t{label} {offsets}\t{covered}\n")
    return "".join(lines)
