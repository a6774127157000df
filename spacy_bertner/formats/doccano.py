"""doccano's JSON Lines: `label` or `labels` with lists of start, end and label, or `entities` beside `relations`."""

from __future__ import annotations

from typing import Any

from .records import Record, take_list, take_text

_KEYS = ("entities", "label", "labels", "annotations")  # "annotations": of the first releases


def recognise(value: Any) -> bool:
    """Say whether a value is a document of doccano."""
    if not isinstance(value, dict) or not ("text" in value or "data" in value):
        return False
    key = next((key for key in _KEYS if key in value), None)
    items = value.get(key or "")
    if not isinstance(items, list):
        return False
    if items and isinstance(items[0], dict):
        return "start_offset" in items[0]
    if key == "entities" and "relations" not in value and "Comments" not in value:
        return False
    return not items or isinstance(items[0], list)


def parse(value: Any, text_key: str | None = None) -> list[Record]:
    """Make the record of a document. Raises ValueError for what is none."""
    is_data = isinstance(value, dict) and "text" not in value and "data" in value
    record = Record(take_text(value, text_key or ("data" if is_data else "text")))
    key = next((key for key in _KEYS if key in value), None)
    if key is None:
        raise ValueError(f"has none of the keys {', '.join(map(repr, _KEYS))}; there are {', '.join(map(repr, value))}")
    for item in take_list(value, key):
        add_item(record, key, item)
    record.left_out["relations"] += len(value.get("relations") or ())
    return [record]


def add_item(record: Record, key: str, item: Any) -> None:
    """Add an entity that is a list of start, end and label, or an object with these keys."""
    if isinstance(item, list) and len(item) == 3:
        record.add(*item)
    elif isinstance(item, dict):
        start, end = item.get("start_offset", item.get("start")), item.get("end_offset", item.get("end"))
        record.add(start, end, item.get("label"), item.get("text"))
    else:
        raise ValueError(f"{key}: {item!r} is no entity with start, end and label")


def render(text: str, entities: list[tuple[int, int, str]], scores: list[float | None] | None = None) -> Any:
    """Return the document of a text with its entities, as doccano imports and exports it, which has no scores."""
    return {"text": text, "label": [list(entity) for entity in entities]}
