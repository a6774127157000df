"""Argilla's records with a span question, as `dataset.records.to_json` of its release 2 writes them."""

from __future__ import annotations

from typing import Any

from .records import Record, find_text, take_text

_QUESTION, _AGENT = "entities", "annotated"


def recognise(value: Any) -> bool:
    """Say whether a value is a record with fields and responses."""
    if not isinstance(value, dict) or not isinstance(value.get("fields"), dict) or "responses" not in value:
        return False
    return value["responses"] is None or isinstance(value["responses"], dict)  # a list in Argilla 1


def parse(value: Any, text_key: str | None = None) -> list[Record]:
    """Make one record for each user who has answered the span question. Raises ValueError for what is no record.

    Suggestions are not annotation, except those that `render` has written.
    """
    if not recognise(value):
        raise ValueError("is no record of Argilla 2, with fields and responses")
    text = take_text(value["fields"], text_key or find_text(value["fields"]))
    answers: dict[str, list[Any]] = {}
    for question, responses in (value["responses"] or {}).items():
        given = [(response.get("user_id"), response.get("value")) for response in responses]
        answers[question] = [(user, answer) for user, answer in given if answer is not None]
    for question, suggestion in (value.get("suggestions") or {}).items():
        if not answers.get(question) and suggestion.get("agent") == _AGENT:
            answers[question] = [(None, suggestion.get("value"))]
    spans = {
        question: given
        for question, given in answers.items()
        if given and all(_is_spans(answer) for _, answer in given)
    }
    if len(spans) > 1:
        raise ValueError(f"has several span questions, {', '.join(map(repr, spans))}: export one of them")
    records = []
    for user, answer in next(iter(spans.values()), ()):
        record = Record(text, task=value.get("id"), annotator=None if user is None else str(user))
        for span in answer:
            record.add(span["start"], span.get("end"), span.get("label"), span.get("text"))
        records.append(record)
    records = records or [Record(text, skip="without annotation")]
    records[0].left_out["answers to other questions"] += sum(map(len, answers.values())) - sum(map(len, spans.values()))
    return records


def _is_spans(answer: Any) -> bool:
    return isinstance(answer, list) and all(isinstance(item, dict) and "start" in item for item in answer)


def render(text: str, entities: list[tuple[int, int, str]], scores: list[float | None] | None = None) -> Any:
    """Return the record of a text with its entities, for `dataset.records.from_json`.

    They are a suggestion: a response would need the id of a user of the server.
    """
    value = [{"start": start, "end": end, "label": label} for start, end, label in entities]
    suggestion = {"value": value, "score": scores, "agent": _AGENT if scores is None else "spacy-bertner"}
    return {"fields": {"text": text}, "metadata": {}, "suggestions": {_QUESTION: suggestion}, "responses": {}}
