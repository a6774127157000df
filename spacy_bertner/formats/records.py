"""Texts with entities by offset, as annotation tools write them, to Docs. Each entity is in the Doc, or said to be wrong."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from spacy.tokens import Doc, Span
from spacy.util import filter_spans

ALIGNMENTS = ("strict", "contract", "expand")
# What offsets count, and how many of these a character has
UNITS: dict[str, Callable[[str], int]] = {
    "characters": lambda char: 1,
    "utf16": lambda char: 2 if char > "\uffff" else 1,
    "bytes": lambda char: len(char.encode()),
}
_UNIT_NAMES = {"utf16": "UTF-16 units, as in JavaScript", "bytes": "bytes of UTF-8"}


@dataclass
class Problem:
    """An entity that cannot be used as it is: what is wrong with it, and the part of the text that it covers.

    start, end: offsets; of a `Record` in the units of the file, of what is made of it in characters.
    """

    what: str
    start: int = 0
    end: int = 0


@dataclass
class Record:
    """A text with its entities.

    entities: (start, end, label, text) each; the text is None where the format does not repeat it.
    words: where the format has tokens; the offsets then count these, and the text is empty.
    is_partial: whether only the entities are annotated, so that nothing is known of the other tokens.
    task, annotator: the same task is annotated by one annotator, or it must be chosen whose annotation to use.
    skip: why the record is not annotation to learn from, such as "rejected"; None if it is.
    left_out: what else is in it and is not read, such as relations.
    """

    text: str
    entities: list[tuple[int, int, str, str | None]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    words: list[str] | None = None
    is_partial: bool = False
    task: Hashable = None
    annotator: str | None = None
    skip: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, start: Any, end: Any, label: Any, text: Any = None) -> None:
        """Add an entity as it is in the file. Raises ValueError for offsets that are no whole numbers."""
        if type(start) is not int or type(end) is not int:
            raise ValueError(f"entity {label!r} has the offsets {start!r} and {end!r}, not whole numbers")
        if not isinstance(label, str) or not label.strip():
            kind = "a number" if isinstance(label, int) else "null" if label is None else repr(label)
            advice = "; export with the names of labels" if isinstance(label, int) else ""
            self.problems.append(Problem(f"the label of the entity at {start}-{end} is {kind}{advice}", start, end))
        elif label.startswith("!"):
            what = f"{label!r} at {start}-{end} is negative annotation, which cannot be learned from: remove it"
            self.problems.append(Problem(what, start, end))
        else:
            self.entities.append((start, end, label, text if isinstance(text, str) else None))


def take_text(value: Any, key: str) -> str:
    """Return the text of a record; raise ValueError if there is none."""
    if not isinstance(value, dict):
        raise ValueError("is no JSON object, unlike the records before")
    if key not in value:
        raise ValueError(f"has no key {key!r}; there are {', '.join(map(repr, value)) or 'none'}")
    if not isinstance(value[key], str):
        kind = "null" if value[key] is None else type(value[key]).__name__
        raise ValueError(f"{key}: {kind}, not a text")
    return value[key]


def find_text(fields: dict[str, Any]) -> str:
    """Return the key of the one text in the fields of a record; raise ValueError if there are several."""
    keys = [key for key, item in fields.items() if isinstance(item, str)]
    if "text" not in fields and len(keys) > 1:
        raise ValueError(f"has several texts, {', '.join(map(repr, keys))}: choose with --text-key")
    return "text" if "text" in fields or not keys else keys[0]


def take_list(value: dict[str, Any], key: str) -> list[Any]:
    """Return the list under a key, empty if there is none; raise ValueError if it is something else."""
    found = value.get(key)
    if found is not None and not isinstance(found, list):
        raise ValueError(f"{key}: {type(found).__name__}, not a list")
    return found or []


@dataclass
class Made:
    """A Doc, and what was not as it should be.

    problems: the entities that are not in the Doc; their tokens are not annotated.
    moved: entities contracted or expanded to the tokens: what was wrong, and what was done.
    counts: the entities in the Doc, by label.
    other_units: what the offsets may count instead, as all entities then fit; None if there is nothing wrong with them.
    """

    doc: Doc
    problems: list[Problem]
    moved: list[tuple[str, str]]
    counts: Counter[str]
    other_units: list[str] | None = None


def make_doc(
    record: Record,
    tokenizer: Callable[[str], Doc],
    *,
    alignment: str = "strict",
    units: str = "characters",
    spans_key: str | None = None,
) -> Made:
    """Make the Doc of a record.

    tokenizer: of a pipeline; for a record with words, only its vocabulary is used.
    alignment: what to do with an entity that does not start and end with a token: "strict" makes it a problem, "contract"
        and "expand" take the tokens inside it, or those that it touches.
    units: what offsets count, a key of `UNITS`.
    spans_key: the group of `doc.spans` for all entities, which may then overlap; None for `doc.ents`.
    """
    if record.words is not None:
        doc = Doc(tokenizer.vocab, words=record.words)  # type: ignore[attr-defined]
        spans = [Span(doc, start, end, label) for start, end, label, _ in record.entities]
        made = Made(doc, list(record.problems), [], Counter())
    else:
        doc = tokenizer(record.text)
        made = Made(doc, [], [], Counter())
        spans = _align(doc, record, alignment, units, made)
    if spans_key is not None:
        doc.spans[spans_key] = spans
    else:
        spans = _without_overlaps(spans, made.problems)
        missing = [] if record.is_partial or not made.problems else _tokens_of(doc, made.problems, spans, record)
        doc.set_ents(spans, missing=missing, default="missing" if record.is_partial else "outside")
    made.counts.update(span.label_ for span in spans)
    return made


def _align(doc: Doc, record: Record, alignment: str, units: str, made: Made) -> list[Span]:
    """Find the tokens of each entity; what is wrong is added to `made`."""
    text, spans = record.text, []
    places = None if units == "characters" else _places(text, units)
    bounds = list(places or ())

    def problem(what: str, start: int, end: int) -> Problem:
        """Make a problem, whose offsets are in characters, however wrong those of the file are."""
        if places is not None:
            start, end = bisect_right(bounds, start) - 1, bisect_left(bounds, end)
        return Problem(what, min(max(start, 0), len(text)), min(max(end, 0), len(text)))

    made.problems += [problem(known.what, known.start, known.end) for known in record.problems]
    for entity in record.entities:
        label = entity[2]
        offsets, what = _check(text, entity, places)
        if offsets is None:
            made.problems.append(problem(what, entity[0], entity[1]))
            continue
        start, end = offsets
        span = doc.char_span(start, end, label=label)
        if span is None:
            what = f"{label} {text[start:end]!r} ({start}-{end}) does not start and end with a token"
            span = doc.char_span(start, end, label=label, alignment_mode=alignment)
            if span is None or not len(span):
                touched = doc.char_span(start, end, alignment_mode="expand")
                at = f": the tokens are {' | '.join(token.text for token in touched)}" if touched is not None else ""
                made.problems.append(Problem(what + at, start, end))
                continue
            made.moved.append((what, f"{alignment}ed to {span.text!r}"))
        spans.append(span)
    if made.moved or len(made.problems) > len(record.problems):
        others = [name for name in UNITS if name != units]
        made.other_units = [name for name in others if _fit(doc, record, _places(text, name))]
    return spans


def _places(text: str, units: str) -> dict[int, int]:
    """Map offsets in other units to those in characters."""
    offsets = accumulate(map(UNITS[units], text), initial=0)
    return {offset: i for i, offset in enumerate(offsets)}


def _check(
    text: str, entity: tuple[int, int, str, str | None], places: dict[int, int] | None
) -> tuple[tuple[int, int] | None, str]:
    """Return an entity's offsets in characters, or None and what is wrong with them."""
    start, end, label, covered = entity
    named = f"{label} {covered!r} ({start}-{end})" if covered is not None else f"{label} ({start}-{end})"
    if start >= end:
        return None, f"{named} ends before it starts" if start > end else f"{named} is empty"
    last = len(text) if places is None else next(reversed(places))
    if start < 0 or end > last:
        return None, f"{named} is outside the text, which ends at {last}"
    if places is not None:
        if start not in places or end not in places:
            return None, f"{named} starts or ends within a character"
        start, end = places[start], places[end]
    found = text[start:end]
    if covered is not None and found != covered and _plain(found) != _plain(covered):
        return None, f"{named}: there, the text is {found!r}"
    return (start, end), ""


def _plain(text: str) -> str:
    """A text without what tools do to white space: brat and Label Studio write ends of lines as they like."""
    return " ".join(text.replace("\\n", "\n").split())


def _fit(doc: Doc, record: Record, places: dict[int, int]) -> bool:
    """Say whether all entities are right if their offsets are looked up in `places`."""
    for entity in record.entities:
        offsets, _ = _check(record.text, entity, places)
        if offsets is None or doc.char_span(*offsets) is None:
            return False
    return True


def units_note(name: str, n_wrong: int, n_fit: Counter[str]) -> str | None:
    """Say what the offsets of a file seem to count, if all its wrong records are right then."""
    for units, n in n_fit.items():
        if n == n_wrong:
            return f"{name}: its offsets seem to count {_UNIT_NAMES.get(units, units)}: --offsets {units}"
    return None


def _without_overlaps(spans: list[Span], problems: list[Problem]) -> list[Span]:
    """Return the spans in order; of those that overlap, only the longest, and the others are added to the problems."""
    spans = sorted(spans, key=lambda span: (span.start, -span.end))
    if all(before.end <= span.start for before, span in pairwise(spans)):
        return spans
    kept = sorted(filter_spans(spans), key=lambda span: span.start)
    rest = list(spans)
    for span in kept:
        rest.remove(span)
    for span in rest:
        other = next(k for k in kept if k.start < span.end and span.start < k.end)
        what = f"{_name(span)} overlaps {_name(other)}; --spans-key KEY puts all entities into doc.spans[KEY]"
        problems.append(Problem(what, span.start_char, span.end_char))
    return kept


def _name(span: Span) -> str:
    return f"{span.label_} {span.text!r} ({span.start_char}-{span.end_char})"


def _tokens_of(doc: Doc, problems: list[Problem], kept: list[Span], record: Record) -> list[Span]:
    """Return the tokens of entities that are left out, except those of other entities."""
    inside = {i for span in kept for i in range(span.start, span.end)}
    touched: set[int] = set()
    for problem in problems:
        if record.words is not None:
            touched.update(range(problem.start, problem.end))
        else:
            is_empty = problem.start >= problem.end
            span = None if is_empty else doc.char_span(problem.start, problem.end, alignment_mode="expand")
            touched.update(range(span.start, span.end) if span is not None else ())
    return [doc[i : i + 1] for i in sorted(touched - inside)]
