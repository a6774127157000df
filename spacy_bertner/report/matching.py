"""Which gold entity a prediction is compared with, and the figures of the four kinds of comparison that follow from it.

The kinds are those of nervaluate, which the tests compare with. It is not used here because it needs Python 3.11, does not
say which entities it compared, depends on their order, and takes time that grows with the square of their number: QUADRATIC
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

from .documents import Document, Entity
from .metrics import Figures, averages

Kind = Literal["strict", "exact", "partial", "type"]
KINDS: tuple[Kind, ...] = ("strict", "exact", "partial", "type")
OUTCOMES = ("correct", "incorrect", "partial", "missed", "spurious")
# The least part of a gold entity that a prediction must cover to overlap with it, nervaluate's default
MIN_OVERLAP = 0.01

Pair = tuple[Entity | None, Entity | None]


def pair(gold: Sequence[Entity], predicted: Sequence[Entity], *, by_label: bool) -> list[Pair]:
    """Pair each gold entity of a document with at most one prediction.

    Entities that are the same are paired first, then those with the same span, then those that overlap: from left to right,
    or with `by_label` first those with the same label, and of these those whose ends are closest. The order of the arguments
    does not matter.

    Returns the pairs in order of their start; an entity without a partner is paired with None.
    """
    gold, predicted = sorted(gold, key=_key), sorted(predicted, key=_key)
    candidates = sorted((_rank(gold[i], predicted[j], by_label), j, i) for i, j in _overlapping(gold, predicted))
    partner: dict[int, int] = {}  # gold entity to prediction
    taken = set()
    for _, j, i in candidates:
        if i not in partner and j not in taken:
            partner[i] = j
            taken.add(j)
    pairs: list[Pair] = [(entity, predicted[partner[i]] if i in partner else None) for i, entity in enumerate(gold)]
    pairs += [(None, entity) for j, entity in enumerate(predicted) if j not in taken]
    return sorted(pairs, key=lambda both: next(entity.key for entity in both if entity is not None))


def _key(entity: Entity) -> tuple[int, int, str]:
    return entity.key


def _rank(gold: Entity, predicted: Entity, by_label: bool) -> tuple:
    """Return what candidates for a pair are sorted by."""
    if gold.span == predicted.span:
        return (gold.label != predicted.label,)
    if not by_label:
        return (2,)
    distance = abs(gold.start - predicted.start) + abs(gold.end - predicted.end)
    return 2, gold.label != predicted.label, distance, -_overlap(gold, predicted), gold.label, predicted.label


def _overlap(a: Entity, b: Entity) -> int:
    return min(a.end, b.end) - max(a.start, b.start)


def _overlapping(gold: Sequence[Entity], predicted: Sequence[Entity]) -> Iterable[tuple[int, int]]:
    """Yield the indices of gold entities and predictions that overlap; both are in order of their start."""
    ends = list(accumulate((entity.end for entity in gold), max))
    for j, entity in enumerate(predicted):
        for i in range(bisect_right(ends, entity.start), len(gold)):
            other = gold[i]
            if other.start >= entity.end:
                break
            if _overlap(other, entity) >= max(MIN_OVERLAP * (other.end - other.start), 1):
                yield i, j


def outcome(kind: Kind, gold: Entity | None, predicted: Entity | None) -> str:
    """Return what a pair counts as under a kind of comparison, one of OUTCOMES.

    strict: span and label must be the same. exact: the span. partial: the span; an overlap counts half. type: the label.
    """
    if gold is None or predicted is None:
        return "spurious" if gold is None else "missed"
    has_span, has_label = gold.span == predicted.span, gold.label == predicted.label
    if kind == "partial":
        return "correct" if has_span else "partial"
    is_correct = {"strict": has_span and has_label, "exact": has_span, "type": has_label}[kind]
    return "correct" if is_correct else "incorrect"


def kind_figures(documents: Sequence[Document]) -> dict[Kind, dict[str, Any]]:
    """Return figures of the four kinds, over all labels (`micro`) and by label, with the number of each outcome.

    Those of a label compare only its entities, as in nervaluate: an entity found with another label is missed for one and
    spurious for the other. `macro` and `weighted` are means of these.
    """
    overall: dict[Kind, Counter[str]] = {kind: Counter() for kind in KINDS}
    by_label: dict[str, dict[Kind, Counter[str]]] = {}
    for document in documents:
        gold, predicted = document.gold, document.predicted
        _count(gold, predicted, overall)
        for label in {entity.label for entity in (*gold, *predicted)}:
            counts = by_label.setdefault(label, {kind: Counter() for kind in KINDS})
            _count([e for e in gold if e.label == label], [e for e in predicted if e.label == label], counts)
    result: dict[Kind, dict[str, Any]] = {}
    for kind in KINDS:
        labels = {label: _figures(by_label[label][kind]) for label in sorted(by_label)}
        result[kind] = {"labels": labels, **averages(labels, _figures(overall[kind]))}
    return result


def _count(gold: Sequence[Entity], predicted: Sequence[Entity], counts: Mapping[Kind, Counter[str]]) -> None:
    plain, by_label = pair(gold, predicted, by_label=False), pair(gold, predicted, by_label=True)
    for kind in KINDS:
        counts[kind].update(outcome(kind, *both) for both in (by_label if kind == "type" else plain))


def _figures(counts: Counter[str]) -> Figures:
    """Return precision, recall and F1 of outcomes, a partial match counting half; support is the number of gold entities."""
    credit = counts["correct"] + 0.5 * counts["partial"]
    matched = counts["correct"] + counts["incorrect"] + counts["partial"]
    actual, possible = matched + counts["spurious"], matched + counts["missed"]
    return {
        "precision": credit / actual if actual else 0.0,
        "recall": credit / possible if possible else 0.0,
        "f1": 2 * credit / (actual + possible) if actual + possible else 0.0,
        "support": possible,
        **{name: counts[name] for name in OUTCOMES},
    }
