"""Precision, recall and F1 of entities, by label and by other properties, and of tags.

Strict figures are counted with spaCy's `PRFScore`, from spans; seqeval's are from tags, which cannot overlap.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from spacy.scorer import PRFScore

from .documents import Document, Entity

LENGTHS = (1, 2, 3, 4)  # longer entities are one group
POSITIONS = (50, 100, 200, 400, 800)  # last token of each group

Key = TypeVar("Key", bound=Hashable)
Figures = dict[str, float | int]


def figures(score: PRFScore) -> Figures:
    """Return precision, recall, F1 and support (the number of gold entities or tokens); 0 where nothing was counted."""
    return {"precision": score.precision, "recall": score.recall, "f1": score.fscore, "support": score.tp + score.fn}


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


def entity_figures(documents: Sequence[Document]) -> dict[str, Any]:
    """Return strict figures: an entity is found if a prediction has its span and its label.

    Returns `labels` (by label, in alphabetical order) and `micro`, `macro`, `weighted`.
    """
    scores = breakdown(documents, lambda _, entity: entity.label)
    by_label = {label: figures(scores[label]) for label in sorted(scores)}
    return {"labels": by_label, **averages(by_label, figures(sum(scores.values(), PRFScore())))}


def by_length(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Return strict figures by the number of tokens of an entity."""
    names = [*map(str, LENGTHS), f"{LENGTHS[-1] + 1}+"]
    return _rows(documents, names, lambda _, entity: names[bisect_left(LENGTHS, entity.end - entity.start)])


def by_position(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Return strict figures by the position in its document, from 1, of the first token of an entity."""
    firsts = [1, *(last + 1 for last in POSITIONS)]
    names = [f"{first}-{last}" for first, last in zip(firsts, POSITIONS, strict=False)] + [f"{firsts[-1]}+"]
    return _rows(documents, names, lambda _, entity: names[bisect_left(POSITIONS, entity.start + 1)])


def by_seen(documents: Sequence[Document], seen: Mapping[str, Counter[str]]) -> list[dict[str, Any]]:
    """Return strict figures of entities whose words training has with the same label, with another one, or not at all.

    seen: the labels of each mention in training, as `mentions` returns them.
    """
    names = ["seen in training", "seen with another label", "not seen"]

    def bucket(document: Document, entity: Entity) -> str:
        labels = seen.get(document.mention(entity))
        return names[2] if not labels else names[0] if entity.label in labels else names[1]

    return _rows(documents, names, bucket)


def _rows(
    documents: Sequence[Document], names: Sequence[str], bucket: Callable[[Document, Entity], str]
) -> list[dict[str, Any]]:
    """Return the figures of each bucket that has entities, in the order of `names`."""
    scores = breakdown(documents, bucket)
    return [{"name": name, "predicted": s.tp + s.fp, **figures(s)} for name in names if (s := scores.get(name))]


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
    micro_inside = figures(sum((score for tag, score in scores.items() if tag != "O"), PRFScore()))
    return {
        "tags": by_tag,
        **averages(by_tag, figures(sum(scores.values(), PRFScore()))),
        "entity_tags": averages(inside, micro_inside),
    }
