"""Strict figures of entities by their length, their position, and whether training has seen them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .documents import Document, Entity
from .metrics import breakdown, figures

LENGTHS = (1, 2, 3, 4)  # longer entities are one group
POSITIONS = (50, 100, 200, 400, 800)  # last token of each group


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


def mentions(documents: Iterable[Document]) -> dict[str, Counter[str]]:
    """Return the words of the gold entities, separated by spaces, with the number of times they have each label."""
    labels: dict[str, Counter[str]] = {}
    for document in documents:
        for entity in document.gold:
            labels.setdefault(document.mention(entity), Counter())[entity.label] += 1
    return labels
