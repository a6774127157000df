"""Prodigy's tasks: JSON Lines with `text`, `spans` and `answer`."""

from __future__ import annotations

from typing import Any

from .records import Record

_SKIPPED = {"reject": "rejected", "ignore": "ignored"}


def recognise(value: Any) -> bool:
    """Say whether a value is a task with spans."""
    return isinstance(value, dict) and "text" in value and ("spans" in value or "_input_hash" in value)


def parse(value: Any, text_key: str | None = None) -> list[Record]:
    """Make the record of a task. Raises ValueError for what is no task.

    Of the view `ner`, where one entity at a time is accepted, nothing is known of the other tokens.
    """
    record = Record(take_text(value, text_key or "text"))
    answer = value.get("answer", "accept")
    if answer not in ("accept", *_SKIPPED):
        raise ValueError(f"answer {answer!r} is none of accept, reject and ignore")
    record.skip = _SKIPPED.get(answer)
    record.is_partial = value.get("_view_id") == "ner"
    record.task = value.get("_input_hash")
    name = value.get("_annotator_id") or value.get("_session_id")
    record.annotator = None if name is None else str(name)
    record.left_out["relations"] += len(value.get("relations") or ())
    if record.skip is None:
        for span in take_list(value, "spans"):
            if not isinstance(span, dict):
                raise ValueError(f"spans: {span!r} is no object with start, end and label")
            record.add(span.get("start"), span.get("end"), span.get("label"), span.get("text"))
    return [record]


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


def take_list(value: dict[str, Any], key: str) -> list[Any]:
    """Return the list under a key, empty if there is none; raise ValueError if it is something else."""
    found = value.get(key)
    if found is not None and not isinstance(found, list):
        raise ValueError(f"{key}: {type(found).__name__}, not a list")
    return found or []


def render(text: str, entities: list[tuple[int, int, str]]) -> Any:
    """Return the task of a text with its entities."""
    spans = [{"start": start, "end": end, "label": label} for start, end, label in entities]
    return {"text": text, "spans": spans, "answer": "accept"}
