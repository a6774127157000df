"""Texts with `entities` as spaCy 2 was trained with them, `["text", {"entities": […]}]`, and as `annotate` writes them."""

from __future__ import annotations

from typing import Any

from .doccano import add_item
from .records import Record, take_list, take_text


def recognise(value: Any) -> bool:
    """Say whether a value is a text with `entities`."""
    if isinstance(value, list):
        return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict)
    return isinstance(value, dict) and "text" in value and isinstance(value.get("entities"), list)


def parse(value: Any, text_key: str | None = None) -> list[Record]:
    """Make the record of a text. Raises ValueError for what is none."""
    if isinstance(value, list):
        if len(value) != 2 or not isinstance(value[0], str) or not isinstance(value[1], dict):
            raise ValueError('is not of the form ["text", {"entities": [[start, end, label]]}]')
        record, value = Record(value[0]), value[1]
    else:
        record = Record(take_text(value, text_key or "text"))
    if "entities" not in value:
        raise ValueError(f"has no key 'entities'; there are {', '.join(map(repr, value)) or 'none'}")
    for item in take_list(value, "entities"):
        add_item(record, "entities", item)
    for key in ("cats", "links"):
        record.left_out[key] += key in value
    return [record]


def render(text: str, entities: list[tuple[int, int, str]], scores: list[float | None] | None = None) -> Any:
    """Return the pair of a text and its entities; it has no scores."""
    return [text, {"entities": [list(entity) for entity in entities]}]
