"""Label Studio's exports for labels on text: JSON, one task with all its annotations, and JSON-MIN, one annotation each."""

from __future__ import annotations

from typing import Any

from .records import Record, find_text, take_list, take_text


def recognise(value: Any) -> bool:
    """Say whether a value is a task or, of JSON-MIN, an annotation."""
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("data"), dict) or "annotation_id" in value


def parse(value: Any, text_key: str | None = None) -> list[Record]:
    """Make one record per annotation. Raises ValueError for what is no task."""
    if not isinstance(value, dict) or not recognise(value):
        raise ValueError("is no task of Label Studio, with data and annotations, or with annotation_id")
    return _parse_task(value, text_key) if "annotation_id" not in value else [_parse_min(value, text_key)]


def _parse_task(value: dict[str, Any], text_key: str | None) -> list[Record]:
    text = take_text(value["data"], text_key or find_text(value["data"]))
    annotations = take_list(value, "completions" if "completions" in value else "annotations")
    if not annotations:
        return [Record(text, skip="without annotation")]
    records: list[Record] = []
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise ValueError(f"annotations: {annotation!r} is no JSON object")
        record = Record(text, task=value.get("id"), annotator=_annotator(annotation.get("completed_by")))
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            record.skip = "skipped by the annotator"
        elif any(other.skip is None and other.annotator == record.annotator for other in records):
            raise ValueError(f"has two annotations of the annotator {record.annotator}: keep one")
        else:
            for region in take_list(annotation, "result"):
                _add_region(record, region)
        records.append(record)
    return records


def _annotator(by: Any) -> str | None:
    """The e-mail address or the number of an annotator; None if it is not known."""
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return None if by is None else str(by)


def _add_region(record: Record, region: Any) -> None:
    if not isinstance(region, dict):
        raise ValueError(f"result: {region!r} is no JSON object")
    if region.get("type") not in ("labels", "hypertextlabels"):
        record.left_out[f"{region.get('type')} regions"] += 1
        return
    value = region.get("value")
    if not isinstance(value, dict):
        raise ValueError(f"value: {value!r} is no JSON object")
    if region["type"] == "hypertextlabels" and "startOffset" in value:
        raise ValueError("has labels on HTML, whose offsets are not those of the text")
    _add_labels(record, value)


def _add_labels(record: Record, value: dict[str, Any]) -> None:
    for label in take_list(value, "labels") or take_list(value, "hypertextlabels") or [None]:
        record.add(value.get("start"), value.get("end"), label, value.get("text"))


def _parse_min(value: dict[str, Any], text_key: str | None) -> Record:
    record = Record(take_text(value, text_key or "text"))
    record.task, record.annotator = value.get("id"), _annotator(value.get("annotator"))
    for item in value.values():
        if isinstance(item, list) and any(isinstance(region, dict) and "start" in region for region in item):
            for region in item:
                if not isinstance(region, dict):
                    raise ValueError(f"{region!r} is no JSON object with start, end and labels")
                _add_labels(record, region)
    return record


def render(text: str, entities: list[tuple[int, int, str]], scores: list[float | None] | None = None) -> Any:
    """Return the task of a text with its entities, for a project whose configuration has `label` on `text`.

    scores: those of entities that a pipeline has found, which are then predictions; None for annotation.
    """
    regions: list[dict[str, Any]] = [
        {
            "id": f"e{number}",
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {"start": start, "end": end, "text": text[start:end], "labels": [label]},
        }
        for number, (start, end, label) in enumerate(entities, 1)
    ]
    if scores is None:
        return {"data": {"text": text}, "annotations": [{"result": regions}]}
    regions = [{**region, "score": score} for region, score in zip(regions, scores, strict=True)]
    return {"data": {"text": text}, "predictions": [{"model_version": "spacy-bertner", "result": regions}]}
