"""Where a pipeline goes wrong: its errors by kind, the types it confuses, entities by length, place and novelty, and gold
annotations that look inconsistent.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from .documents import Document, Entity
from .metrics import breakdown, figures, pair

ErrorKind = Literal["type", "boundary", "type and boundary", "missed", "spurious"]
ERROR_KINDS: tuple[ErrorKind, ...] = ("type", "boundary", "type and boundary", "missed", "spurious")
# Tokens of context where sentences are not known, or are long
CONTEXT = 16
LENGTHS = (1, 2, 3, 4)  # entities of more tokens make one group
POSITIONS = (50, 100, 200, 400, 800)  # last token of each group


class Mistake(NamedTuple):
    """A gold entity that was not found as it is, or a prediction that is none; None for the side that is not there."""

    document: Document
    gold: Entity | None
    predicted: Entity | None

    @property
    def kind(self) -> ErrorKind:
        """What is wrong."""
        if self.gold is None:
            return "spurious"
        if self.predicted is None:
            return "missed"
        if self.gold.span == self.predicted.span:
            return "type"
        return "boundary" if self.gold.label == self.predicted.label else "type and boundary"

    @property
    def what(self) -> tuple[str | None, ...]:
        """What makes mistakes the same, wherever they stand: kind, gold label and words, predicted label and words."""
        sides: list[str | None] = []
        for entity in (self.gold, self.predicted):
            sides += [None, None] if entity is None else [entity.label, self.document.mention(entity)]
        return (self.kind, *sides)


def pairs_of(documents: Iterable[Document]) -> list[Mistake]:
    """Pair gold and predicted entities of all documents, as for the figures by type; right ones are among the pairs."""
    return [
        Mistake(document, gold, predicted)
        for document in documents
        for gold, predicted in pair(document.gold, document.predicted, by_label=True)
    ]


def is_right(both: Mistake) -> bool:
    """Whether the pair is an entity found as it is."""
    return both.gold is not None and both.predicted is not None and both.gold.key == both.predicted.key


def confusion(pairs: Sequence[Mistake]) -> dict[str, Any]:
    """Count how often each gold label met each predicted one, overlapping or the same.

    Returns `labels`, `matrix` (rows gold, columns predicted), `missed` (by gold label), `spurious` (by predicted label),
    and `boundary`: how many of those on the diagonal have other ends than the gold.
    """
    counts = Counter((p.gold and p.gold.label, p.predicted and p.predicted.label) for p in pairs)
    labels = sorted({label for both in counts for label in both if label is not None})
    return {
        "labels": labels,
        "matrix": [[counts[gold, predicted] for predicted in labels] for gold in labels],
        "missed": [counts[label, None] for label in labels],
        "spurious": [counts[None, label] for label in labels],
        "boundary": [
            sum(p.kind == "boundary" and p.gold is not None and p.gold.label == label for p in pairs)
            for label in labels
        ],
    }


def kinds_of_error(mistakes: Iterable[Mistake]) -> dict[str, Any]:
    """Count the errors by kind, and how the ends of those with wrong boundaries differ from the gold."""
    counts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for mistake in mistakes:
        counts[mistake.kind] += 1
        gold, found = mistake.gold, mistake.predicted
        if gold is not None and found is not None and gold.span != found.span:
            if found.start <= gold.start and found.end >= gold.end:
                ends["too long"] += 1
            elif found.start >= gold.start and found.end <= gold.end:
                ends["too short"] += 1
            else:
                ends["shifted"] += 1
    return {
        "kinds": {kind: counts[kind] for kind in ERROR_KINDS},
        "boundaries": {name: ends[name] for name in ("too long", "too short", "shifted")},
    }


def frequent(mistakes: Iterable[Mistake]) -> list[tuple[list[Mistake], Mistake]]:
    """Put together mistakes with the same words, labels and kind, most frequent first, then in the order of the data.

    Returns each group with its first mistake.
    """
    groups: dict[tuple, list[Mistake]] = {}
    for mistake in mistakes:
        groups.setdefault(mistake.what, []).append(mistake)
    return [(group, group[0]) for group in sorted(groups.values(), key=len, reverse=True)]


def in_sentence(document: Document, gold: Sequence[Entity], predicted: Sequence[Entity]) -> list[dict[str, Any]]:
    """Cut the sentence around some entities into segments of text, each wholly inside or outside of each entity.

    Returns the segments in order: `text`, and where it is inside an entity `gold` or `predicted`, its label; the last
    segment of an entity has `gold_end` or `predicted_end`.
    """
    start = min(entity.start for entity in (*gold, *predicted))
    end = max(entity.end for entity in (*gold, *predicted))
    first, last = _sentence(document, start, end)
    bounds = sorted({first, last, *(place for entity in (*gold, *predicted) for place in entity.span)})
    segments: list[dict[str, Any]] = []
    if first > 0 and first not in document.sentence_starts:
        segments.append({"text": "… "})
    for begin, stop in pairwise(bounds):
        segment: dict[str, Any] = {"text": document.text(begin, stop)}
        for name, entities in (("gold", gold), ("predicted", predicted)):
            for entity in entities:
                if entity.start <= begin and stop <= entity.end:
                    segment[name] = entity.label
                    if stop == entity.end:
                        segment[f"{name}_end"] = True
        segments.append(segment)
        if document.spaces[stop - 1] and stop < last:
            # The blank between two segments of one entity is inside it too
            inside = {
                name: label
                for name, label in segment.items()
                if name in ("gold", "predicted") and not segment.get(f"{name}_end")
            }
            segments.append({"text": " ", **inside})
    if last < len(document) and last not in document.sentence_starts:
        segments.append({"text": " …"})
    return segments


def _sentence(document: Document, start: int, end: int) -> tuple[int, int]:
    """First token and last + 1 of the sentences that an entity is in, or of what is around it where they are long."""
    starts = document.sentence_starts
    first = starts[bisect_left(starts, start + 1) - 1]
    place = bisect_left(starts, end)
    last = starts[place] if place < len(starts) else len(document)
    return max(first, start - CONTEXT), min(last, end + CONTEXT)


def describe(mistake: Mistake) -> dict[str, Any]:
    """A mistake as it goes into `report.json`: kind, document, both entities, the sentence in segments."""
    return {
        "kind": mistake.kind,
        "document": mistake.document.number,
        "gold": describe_entity(mistake.document, mistake.gold),
        "predicted": describe_entity(mistake.document, mistake.predicted),
        "sentence": in_sentence(
            mistake.document,
            [mistake.gold] if mistake.gold else [],
            [mistake.predicted] if mistake.predicted else [],
        ),
    }


def describe_entity(document: Document, entity: Entity | None) -> dict[str, Any] | None:
    """An entity as it goes into `report.json`; start and end in tokens of the document."""
    if entity is None:
        return None
    described = {"start": entity.start, "end": entity.end, "label": entity.label}
    score = {} if entity.score is None else {"score": entity.score}
    return {**described, "text": document.text(*entity.span), **score}


# Breakdowns


def by_length(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Strict figures by the number of tokens of an entity."""
    names = [*map(str, LENGTHS), f"{LENGTHS[-1] + 1}+"]
    return _rows(documents, names, lambda _, entity: names[bisect_left(LENGTHS, entity.end - entity.start)])


def by_position(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Strict figures by where in its document the first token of an entity is, counted from 1."""
    firsts = [1, *(last + 1 for last in POSITIONS)]
    names = [f"{first}-{last}" for first, last in zip(firsts, POSITIONS, strict=False)] + [f"{firsts[-1]}+"]
    return _rows(documents, names, lambda _, entity: names[bisect_left(POSITIONS, entity.start + 1)])


def by_seen(documents: Sequence[Document], seen: Mapping[str, Counter[str]]) -> list[dict[str, Any]]:
    """Strict figures of entities that training has with the same words and label, with the same words alone, and not at all.

    seen: the labels of each mention in training, as `mentions` gives them.
    """
    names = ["seen in training", "seen with another label", "not seen"]

    def bucket(document: Document, entity: Entity) -> str:
        labels = seen.get(document.mention(entity))
        return names[2] if not labels else names[0] if entity.label in labels else names[1]

    return _rows(documents, names, bucket)


def _rows(
    documents: Sequence[Document], names: Sequence[str], bucket: Callable[[Document, Entity], str]
) -> list[dict[str, Any]]:
    scores = breakdown(documents, bucket)
    rows = [{"name": name, "predicted": s.tp + s.fp, **figures(s)} for name in names if (s := scores.get(name))]
    return [row for row in rows if row["support"] or row["predicted"]]


# Annotation


def mentions(documents: Iterable[Document]) -> dict[str, Counter[str]]:
    """Count the labels of each mention in the gold annotation: words, parted by spaces, to labels."""
    found: dict[str, Counter[str]] = {}
    for document in documents:
        for entity in document.gold:
            found.setdefault(document.mention(entity), Counter())[entity.label] += 1
    return found


def inconsistent(parts: Mapping[str, Sequence[Document]]) -> list[dict[str, Any]]:
    """Find words that the gold annotation gives several labels, or a label more often than none but not always.

    parts: documents by where they are from.

    Returns, those with most in the minority first: `text`, `labels` (to the number of times), `unmarked` (times outside all
    entities, where they are fewer than those inside), and `places`: for each label the first part and document it is in.
    """
    labels: dict[str, Counter[str]] = {}
    places: dict[str, dict[str, list[Any]]] = {}
    for part, documents in parts.items():
        for document in documents:
            for entity in document.gold:
                text = document.mention(entity)
                labels.setdefault(text, Counter())[entity.label] += 1
                places.setdefault(text, {}).setdefault(entity.label, [part, document.number])
    unmarked: Counter[str] = Counter()
    lengths: dict[str, set[int]] = {}  # of the mentions that begin with a word
    for text in labels:
        words = text.split(" ")
        lengths.setdefault(words[0], set()).add(len(words))
    for part, documents in parts.items():
        for document in documents:
            for start, end in _unmarked(document, lengths):
                text = " ".join(document.words[start:end])
                if text in labels:
                    unmarked[text] += 1
                    places[text].setdefault("", [part, document.number])
    rows = []
    for text, counts in labels.items():
        n, n_unmarked = counts.total(), unmarked[text]
        n_unmarked = n_unmarked if n_unmarked < n else 0
        if len(counts) > 1 or n_unmarked:
            minority = n + n_unmarked - max(counts.values())
            found = {label: place for label, place in places[text].items() if label or n_unmarked}
            row = {"text": text, "labels": dict(counts.most_common()), "unmarked": n_unmarked, "places": found}
            rows.append((minority, row))
    return [row for _, row in sorted(rows, key=lambda item: (-item[0], item[1]["text"]))]


def _unmarked(document: Document, lengths: Mapping[str, set[int]]) -> Iterable[tuple[int, int]]:
    """Where words outside all gold entities may be a mention: all have an annotation, and it is `O`."""
    is_free = [True] * len(document) if document.is_annotated is None else list(document.is_annotated)
    for entity in document.gold:
        is_free[entity.start : entity.end] = [False] * (entity.end - entity.start)
    for start, word in enumerate(document.words):
        if is_free[start] and word in lengths:
            for length in lengths[word]:
                if start + length <= len(document) and all(is_free[start : start + length]):
                    yield start, start + length
