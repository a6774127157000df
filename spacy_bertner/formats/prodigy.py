"""Prodigy's tasks: JSON Lines with `text`, `spans` and `answer`."""

from __future__ import annotations

from typing import Any

from .records import Record, take_list, take_text

_SKIPPED = {"reject": "rejected", "ignore": "ignored"}


def recognise(value: Any) -> bool:
    """Say whether a value is a task with spans."""
    return isinstance(value, dict) and "text" in value and ("spans" in value or "_input_hash" in value)


def parse(value: Any, text_key: str | None = None) -> list[Record]:
    """Make the record of a task. Raises ValueError for what is no task.

    Of the view `ner`, where one entity at a time is accepted, nothing is known of the other tokens.
    """
    record = Record(take_text(value, text_key or "text"))
    if "spans" not in value and "_input_hash" not in value:
        raise ValueError(f"is no task of Prodigy: it has no key 'spans'; there are {', '.join(map(repr, value))}")
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


def render(text: str, entities: list[tuple[int, int, str]], scores: list[float | None] | None = None) -> Any:
    """Return the task of a text with its entities.

    scores: those of entities that a pipeline has found, so that the task has no answer yet; None for annotation.
    """
    spans: list[dict[str, Any]] = [{"start": start, "end": end, "label": label} for start, end, label in entities]
    if scores is None:
        return {"text": text, "spans": spans, "answer": "accept"}
    return {"text": text, "spans": [{**span, "score": score} for span, score in zip(spans, scores, strict=True)]}
