"""Where a pipeline goes wrong: its errors by kind, each in its sentence, and the labels it confuses."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .documents import Document, Entity
from .matching import ERROR_KINDS, error_kind, pair

# Tokens of context where sentences are unknown or long
CONTEXT = 16
# Sentences shown per error
N_SENTENCES = 3


class Match(NamedTuple):
    """A gold entity and its prediction; None where one of them is missing."""

    document: Document
    gold: Entity | None
    predicted: Entity | None

    @property
    def kind(self) -> str | None:
        """What is wrong; None if nothing is."""
        return error_kind(self.gold, self.predicted)

    @property
    def key(self) -> tuple[str | None, ...]:
        """What makes two errors the same: kind, gold label and words, predicted label and words."""
        gold, predicted = (e and (e.label, self.document.mention(e)) for e in (self.gold, self.predicted))
        return self.kind, *(gold or (None, None)), *(predicted or (None, None))


def pairs_of(documents: Iterable[Document]) -> list[Match]:
    """Pair gold and predicted entities of all documents, as for the figures by type; correct pairs are included."""
    return [
        Match(document, gold, predicted)
        for document in documents
        for gold, predicted in pair(document.gold, document.predicted, by_label=True)
    ]


def confusion(pairs: Sequence[Match]) -> dict[str, Any]:
    """Count how often each gold label is paired with each predicted one.

    Returns `labels`, `matrix` (rows gold, columns predicted), `missed` (by gold label), `spurious` (by predicted label),
    and `boundary`: how many of those on the diagonal have another span than the gold entity.
    """
    counts = Counter((p.gold and p.gold.label, p.predicted and p.predicted.label) for p in pairs)
    boundary = Counter(p.gold.label for p in pairs if p.gold is not None and p.kind == "boundary")
    labels = sorted({label for both in counts for label in both if label is not None})
    return {
        "labels": labels,
        "matrix": [[counts[gold, predicted] for predicted in labels] for gold in labels],
        "missed": [counts[label, None] for label in labels],
        "spurious": [counts[None, label] for label in labels],
        "boundary": [boundary[label] for label in labels],
    }


def error_figures(pairs: Iterable[Match]) -> dict[str, Any]:
    """Count the errors among pairs and group the same ones.

    Returns `total`, `kinds` and `boundaries` (how wrong spans differ from the gold), with their numbers, and `groups`, the
    most frequent first, then in the order of the data.
    """
    errors = [match for match in pairs if match.kind is not None]
    kinds = Counter(match.kind for match in errors)
    boundaries = Counter(map(_boundary, errors))
    groups: dict[tuple, list[Match]] = {}
    for match in errors:
        groups.setdefault(match.key, []).append(match)
    return {
        "total": len(errors),
        "kinds": {kind: kinds[kind] for kind in ERROR_KINDS},
        "boundaries": {name: boundaries[name] for name in ("too long", "too short", "shifted")},
        "groups": [_describe_group(group) for group in sorted(groups.values(), key=len, reverse=True)],
    }


def _boundary(match: Match) -> str | None:
    """Return how the span of a prediction differs from the gold; None where it does not, or one of them is missing."""
    gold, predicted = match.gold, match.predicted
    if gold is None or predicted is None or gold.span == predicted.span:
        return None
    if predicted.start <= gold.start and predicted.end >= gold.end:
        return "too long"
    if predicted.start >= gold.start and predicted.end <= gold.end:
        return "too short"
    return "shifted"


def _describe_group(group: Sequence[Match]) -> dict[str, Any]:
    kind, gold_label, gold_text, label, text = group[0].key
    return {
        "kind": kind,
        "count": len(group),
        "gold": None if gold_label is None else {"label": gold_label, "text": gold_text},
        "predicted": None if label is None else {"label": label, "text": text},
        "documents": [match.document.number for match in group],
        "examples": [_describe(match) for match in group[:N_SENTENCES]],
    }


def _describe(match: Match) -> dict[str, Any]:
    document, gold, predicted = match
    return {
        "kind": match.kind,
        "document": document.number,
        "gold": gold and describe_entity(document, gold),
        "predicted": predicted and describe_entity(document, predicted),
        "sentence": in_sentence(document, [gold] if gold else [], [predicted] if predicted else []),
    }


def describe_entity(document: Document, entity: Entity) -> dict[str, Any]:
    """Return an entity as it goes into `report.json`; start and end in tokens of the document."""
    described = {"start": entity.start, "end": entity.end, "label": entity.label, "text": document.text(*entity.span)}
    return described if entity.score is None else {**described, "score": entity.score}


def in_sentence(document: Document, gold: Sequence[Entity], predicted: Sequence[Entity]) -> list[dict[str, Any]]:
    """Cut the sentence around entities into segments of text, each entirely inside or outside of each entity.

    Returns the segments in order: `text`, and inside an entity its label as `gold` or `predicted`; the last segment of an
    entity has `gold_end` or `predicted_end`.
    """
    sides = {"gold": gold, "predicted": predicted}
    entities = (*gold, *predicted)
    first, last = _sentence(document, min(e.start for e in entities), max(e.end for e in entities))
    bounds = sorted({first, last, *(bound for entity in entities for bound in entity.span)})
    segments: list[dict[str, Any]] = []
    if first > 0 and first not in document.sentence_starts:
        segments.append({"text": "… "})
    for begin, stop in pairwise(bounds):
        inside = [
            (name, entity)
            for name, side in sides.items()
            for entity in side
            if entity.start <= begin and stop <= entity.end
        ]
        ends = {f"{name}_end": True for name, entity in inside if entity.end == stop}
        labels = {name: entity.label for name, entity in inside}
        segments.append({"text": document.text(begin, stop), **labels, **ends})
        if document.spaces[stop - 1] and stop < last:
            # The space between two segments of an entity is inside it too
            labels = {name: label for name, label in labels.items() if f"{name}_end" not in ends}
            segments.append({"text": " ", **labels})
    if last < len(document) and last not in document.sentence_starts:
        segments.append({"text": " …"})
    return segments


def _sentence(document: Document, start: int, end: int) -> tuple[int, int]:
    """Return the first token and last + 1 of the sentences around a span, or of its context where they are long."""
    starts = document.sentence_starts
    first = starts[bisect_left(starts, start + 1) - 1]
    place = bisect_left(starts, end)
    last = starts[place] if place < len(starts) else len(document)
    return max(first, start - CONTEXT), min(last, end + CONTEXT)
