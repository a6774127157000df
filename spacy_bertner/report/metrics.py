"""Precision, recall and F1 of entities and of tags.

Counts and figures are spaCy's (`spacy.scorer.PRFScore`), which takes spans, not tags alone. The four kinds of the Message
Understanding Conferences (Chinchor and Sundheim 1993) as SemEval-2013 task 9 has them (Segura-Bedmar et al. 2013) are
counted as nervaluate counts them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import Any, Literal, TypeVar

from spacy.scorer import PRFScore

from .documents import Document, Entity

Kind = Literal["strict", "exact", "partial", "type"]
KINDS: tuple[Kind, ...] = ("strict", "exact", "partial", "type")
Key = TypeVar("Key", bound=Hashable)
Figures = dict[str, float | int]


def figures(score: PRFScore) -> Figures:
    """Precision, recall, F1 and support (gold entities, or tokens) of counts; 0 where there is nothing to divide by."""
    return {
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.fscore,
        "support": score.tp + score.fn,
    }


def averages(by_label: Mapping[str, Figures], micro: Figures) -> dict[str, Figures]:
    """Micro, macro and weighted averages, as seqeval and scikit-learn have them: over all labels, by their support.

    by_label: the figures of each label. micro: those of all together.
    """
    total = sum(row["support"] for row in by_label.values())
    n = len(by_label)
    names = ("precision", "recall", "f1")
    macro = {name: sum(row[name] for row in by_label.values()) / n if n else 0.0 for name in names}
    weighted = {
        name: sum(row[name] * row["support"] for row in by_label.values()) / total if total else 0.0 for name in names
    }
    return {"micro": micro, "macro": {**macro, "support": total}, "weighted": {**weighted, "support": total}}


def breakdown(documents: Iterable[Document], bucket: Callable[[Document, Entity], Key | None]) -> dict[Key, PRFScore]:
    """Count exact matches apart for each bucket, which an entity's words, place and label decide, gold or predicted.

    bucket: gives the bucket of an entity; None leaves it out.
    """
    scores: dict[Key, PRFScore] = {}
    for document in documents:
        gold, predicted = Counter(e.key for e in document.gold), Counter(e.key for e in document.predicted)
        for counts, name in ((gold & predicted, "tp"), (predicted - gold, "fp"), (gold - predicted, "fn")):
            for key, n in counts.items():
                place = bucket(document, Entity(*key))
                if place is not None:
                    score = scores.setdefault(place, PRFScore())
                    setattr(score, name, getattr(score, name) + n)
    return scores


def total(scores: Iterable[PRFScore]) -> PRFScore:
    """Add counts up."""
    return sum(scores, start=PRFScore())


def entity_figures(documents: Sequence[Document]) -> dict[str, Any]:
    """Strict figures: an entity counts as found where its tokens and its label are those of the gold.

    Returns `labels` (by label, in order of the alphabet) and `micro`, `macro`, `weighted`.
    """
    scores = breakdown(documents, lambda _, entity: entity.label)
    by_label = {label: figures(scores[label]) for label in sorted(scores)}
    return {"labels": by_label, **averages(by_label, figures(total(scores.values())))}


# The kinds of the Message Understanding Conferences


@dataclass
class Counts:
    """What became of gold and predicted entities under one kind of comparison."""

    correct: int = 0
    incorrect: int = 0
    partial: int = 0
    missed: int = 0
    spurious: int = 0

    def figures(self) -> Figures:
        """The counts, precision, recall and F1, a partial match counting half; support is the number of gold entities."""
        credit = self.correct + 0.5 * self.partial
        matched = self.correct + self.incorrect + self.partial
        actual, possible = matched + self.spurious, matched + self.missed
        return {
            "precision": credit / actual if actual else 0.0,
            "recall": credit / possible if possible else 0.0,
            # Of precision and recall, as it is usually written, after multiplying out
            "f1": 2 * credit / (actual + possible) if actual + possible else 0.0,
            "support": possible,
            **vars(self),
        }


Pair = tuple[Entity | None, Entity | None]


def pair(gold: Sequence[Entity], predicted: Sequence[Entity], *, by_label: bool) -> list[Pair]:
    """Pair gold and predicted entities of a document, each with one at most.

    First those that are the same, then those on the same tokens; each other prediction, in their order, gets the first
    gold entity that it overlaps and that is free. by_label: rather the one of its own label whose ends are closest.

    Returns the pairs by their start; None for the partner of one that is left alone.
    """
    partner: dict[int, int] = {}  # prediction to gold
    free = set(range(len(gold)))
    for key in (attrgetter("key"), attrgetter("span")):
        places: dict[Any, list[int]] = {}
        for i in sorted(free, reverse=True):
            places.setdefault(key(gold[i]), []).append(i)
        for j, entity in enumerate(predicted):
            if j not in partner and places.get(key(entity)):
                partner[j] = places[key(entity)].pop()
                free.remove(partner[j])
    rest = sorted(free, key=lambda i: gold[i].span)
    ends = list(accumulate((gold[i].end for i in rest), max))
    for j, entity in enumerate(predicted):
        if j in partner:
            continue
        found = None
        closest: int | None = None
        for place in range(bisect_right(ends, entity.start), len(rest)):
            i = rest[place]
            other = gold[i]
            if other.start >= entity.end:
                break
            if i not in free or other.end <= entity.start:
                continue
            distance = abs(other.start - entity.start) + abs(other.end - entity.end)
            if by_label and other.label == entity.label:
                if closest is None or distance < closest:
                    found, closest = i, distance
            elif found is None:
                found = i
        if found is not None:
            partner[j] = found
            free.remove(found)
    pairs: list[Pair] = [(gold[partner[j]] if j in partner else None, entity) for j, entity in enumerate(predicted)]
    pairs += [(gold[i], None) for i in free]
    return sorted(pairs, key=lambda both: next(entity.key for entity in both if entity is not None))


def count_pairs(pairs: Iterable[Pair], kind: Kind, counts: Counts) -> None:
    """Add what became of the pairs under a kind of comparison.

    strict: tokens and label must be the same. exact: the tokens. partial: the tokens; an overlap counts half. type: the
    label, and the tokens must overlap.
    """
    for gold, predicted in pairs:
        if gold is None:
            counts.spurious += 1
        elif predicted is None:
            counts.missed += 1
        elif kind == "partial" and gold.span != predicted.span:
            counts.partial += 1
        elif (
            (kind == "strict" and gold.key != predicted.key)
            or (kind == "exact" and gold.span != predicted.span)
            or (kind == "type" and gold.label != predicted.label)
        ):
            counts.incorrect += 1
        else:
            counts.correct += 1


def kind_figures(documents: Sequence[Document]) -> dict[Kind, dict[str, Any]]:
    """Figures of the four kinds, over all labels (`micro`) and by label.

    Those of a label compare its entities alone, as nervaluate does: an entity found with another label is missed in one and
    spurious in the other. `macro` and `weighted` are means of those.
    """
    overall = {kind: Counts() for kind in KINDS}
    by_label: dict[str, dict[Kind, Counts]] = {}
    for document in documents:
        gold, predicted = document.gold, document.predicted
        _count(gold, predicted, overall)
        for label in {entity.label for entity in (*gold, *predicted)}:
            counts = by_label.setdefault(label, {kind: Counts() for kind in KINDS})
            _count([e for e in gold if e.label == label], [e for e in predicted if e.label == label], counts)
    result: dict[Kind, dict[str, Any]] = {}
    for kind in KINDS:
        labels = {label: by_label[label][kind].figures() for label in sorted(by_label)}
        result[kind] = {"labels": labels, **averages(labels, overall[kind].figures())}
    return result


def _count(gold: Sequence[Entity], predicted: Sequence[Entity], counts: Mapping[Kind, Counts]) -> None:
    plain, by_label = pair(gold, predicted, by_label=False), pair(gold, predicted, by_label=True)
    for kind in KINDS:
        count_pairs(by_label if kind == "type" else plain, kind, counts[kind])


# Tokens


def tags(entities: Iterable[Entity], n: int) -> list[str]:
    """The BIO tags of `n` tokens; where entities overlap, the first one counts."""
    result = ["O"] * n
    for entity in entities:
        if all(tag == "O" for tag in result[entity.start : entity.end]):
            result[entity.start] = f"B-{entity.label}"
            result[entity.start + 1 : entity.end] = [f"I-{entity.label}"] * (entity.end - entity.start - 1)
    return result


def token_figures(documents: Iterable[Document]) -> dict[str, Any]:
    """Figures of tokens by their BIO tag, in the order of scikit-learn's `classification_report`.

    Tokens without annotation are left out. Returns `tags`, `micro`, `macro`, `weighted` (over all tags; `micro` is then
    the accuracy) and `entity_tags` with the three averages over all tags but `O`.
    """
    confusion: Counter[tuple[str, str]] = Counter()
    for document in documents:
        both = zip(tags(document.gold, len(document)), tags(document.predicted, len(document)), strict=True)
        if document.is_annotated is None:
            confusion.update(both)
        else:
            confusion.update(pair for pair, known in zip(both, document.is_annotated, strict=True) if known)
    scores = {tag: PRFScore() for tag in sorted({tag for pair in confusion for tag in pair})}
    for (gold, predicted), n in confusion.items():
        if gold == predicted:
            scores[gold].tp += n
        else:
            scores[gold].fn += n
            scores[predicted].fp += n
    by_tag = {tag: figures(score) for tag, score in scores.items()}
    inside = {tag: row for tag, row in by_tag.items() if tag != "O"}
    micro_inside = figures(total(score for tag, score in scores.items() if tag != "O"))
    return {
        "tags": by_tag,
        **averages(by_tag, figures(total(scores.values()))),
        "entity_tags": averages(inside, micro_inside),
    }
