"""Precision, recall and F1 of entities and of tags.

Strict figures are counted with spaCy's `PRFScore`, from spans; seqeval's are from tags, which cannot overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from spacy.scorer import PRFScore

from .documents import Document, Entity

Key = TypeVar("Key", bound=Hashable)
Figures = dict[str, float | int]


def figures(score: PRFScore) -> Figures:
    """Return precision, recall, F1 and support (the number of gold entities or tokens); 0 where nothing was counted."""
    return {
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.fscore,
        "support": score.tp + score.fn,
    }


def averages(by_label: Mapping[str, Figures], micro: Figures) -> dict[str, Figures]:
    """Return micro, macro and weighted averages over all labels, as in seqeval and scikit-learn.

    by_label: the figures of each label. micro: those of all labels together.
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
    """Count exact matches separately for each bucket of entities.

    bucket: returns the bucket of an entity, gold or predicted, by its span and label; None leaves it out.
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
    """Add up counts."""
    return sum(scores, start=PRFScore())


def entity_figures(documents: Sequence[Document]) -> dict[str, Any]:
    """Return strict figures: an entity is found if a prediction has its span and its label.

    Returns `labels` (by label, in alphabetical order) and `micro`, `macro`, `weighted`.
    """
    scores = breakdown(documents, lambda _, entity: entity.label)
    by_label = {label: figures(scores[label]) for label in sorted(scores)}
    return {"labels": by_label, **averages(by_label, figures(total(scores.values())))}


def tags(entities: Iterable[Entity], n: int) -> list[str]:
    """Return the BIO tags of `n` tokens; where entities overlap, the first one counts."""
    result = ["O"] * n
    for entity in entities:
        if all(tag == "O" for tag in result[entity.start : entity.end]):
            result[entity.start] = f"B-{entity.label}"
            result[entity.start + 1 : entity.end] = [f"I-{entity.label}"] * (entity.end - entity.start - 1)
    return result


def token_figures(documents: Iterable[Document]) -> dict[str, Any]:
    """Return figures of tokens by their BIO tag, as in scikit-learn's `classification_report`.

    Tokens without annotation are left out. Returns `tags`, `micro`, `macro`, `weighted` (over all tags, so that `micro` is
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
