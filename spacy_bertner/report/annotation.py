"""Which labels the gold annotation gives the same words, and where it looks inconsistent."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from .documents import Document


def mentions(documents: Iterable[Document]) -> dict[str, Counter[str]]:
    """Return the words of the gold entities, separated by spaces, with the number of times they have each label."""
    labels: dict[str, Counter[str]] = {}
    for document in documents:
        for entity in document.gold:
            labels.setdefault(document.mention(entity), Counter())[entity.label] += 1
    return labels


def inconsistent(parts: Mapping[str, Sequence[Document]]) -> list[dict[str, Any]]:
    """Find words that the gold annotation gives several labels, or a label more often than none but not always.

    parts: documents by what they are part of, such as training data.

    Returns, largest minority first: `text`, `labels` (to the number of times), `unmarked` (times outside all entities, where
    these are fewer than those inside), and `places`: for each label the first part and document that it is in.
    """
    labels = mentions(chain.from_iterable(parts.values()))
    lengths: dict[str, set[int]] = {}  # first word of a mention to numbers of words
    for text in labels:
        words = text.split(" ")
        lengths.setdefault(words[0], set()).add(len(words))
    unmarked: Counter[str] = Counter()
    places: dict[str, dict[str, list[Any]]] = {text: {} for text in labels}
    for part, documents in parts.items():
        for document in documents:
            for entity in document.gold:
                places[document.mention(entity)].setdefault(entity.label, [part, document.number])
            for text in _unmarked(document, lengths):
                if text in labels:
                    unmarked[text] += 1
                    places[text].setdefault("", [part, document.number])
    rows = []
    for text, counts in labels.items():
        n = counts.total()
        n_unmarked = unmarked[text] if unmarked[text] < n else 0
        if len(counts) > 1 or n_unmarked:
            minority = n + n_unmarked - max(counts.values())
            where = {label: places[text][label] for label in (*counts, *([""] if n_unmarked else []))}
            row = {"text": text, "labels": dict(counts.most_common()), "unmarked": n_unmarked, "places": where}
            rows.append((minority, row))
    return [row for _, row in sorted(rows, key=lambda item: (-item[0], item[1]["text"]))]


def _unmarked(document: Document, lengths: Mapping[str, set[int]]) -> Iterable[str]:
    """Yield the words outside all gold entities, annotated as `O`, that may be a mention."""
    is_free = [True] * len(document) if document.is_annotated is None else list(document.is_annotated)
    for entity in document.gold:
        is_free[entity.start : entity.end] = [False] * (entity.end - entity.start)
    for start, word in enumerate(document.words):
        if is_free[start] and word in lengths:
            for length in lengths[word]:
                end = start + length
                if end <= len(document) and all(is_free[start:end]):
                    yield " ".join(document.words[start:end])
