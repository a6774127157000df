"""Two pipelines on the same documents: the paired bootstrap on F1, and the entities that they predict differently.

Koehn 2004, "Statistical significance tests for machine translation evaluation"; the p-value as Berg-Kirkpatrick, Burkett
and Klein 2012, "An empirical investigation of statistical significance in NLP", algorithm 1.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .documents import Document, Entity
from .errors import describe_entity, in_sentence
from .metrics import entity_figures
from .predictions import Predicted

N_RESAMPLES = 10_000
# Random numbers drawn at once
CELLS = 10_000_000


def comparison(first: Predicted, second: Predicted, n_resamples: int = N_RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Compare two pipelines on the documents that both could process.

    n_resamples, seed: those of `paired_bootstrap`. Returns `report.json`'s key `comparison`; docs/report.md describes it.
    """
    sides = [{document.number: document for document in side.documents} for side in (first, second)]
    numbers = sorted(sides[0].keys() & sides[1].keys())
    one, two = ([side[number] for number in numbers] for side in sides)
    listed = [item for left, right in zip(one, two, strict=True) for item in _describe_differences(left, right)]
    better = Counter(item["better"] for item in listed)
    return {
        "pipelines": [first.pipeline, second.pipeline],
        "entities": [entity_figures(one), entity_figures(two)],
        "bootstrap": paired_bootstrap(counts(one), counts(two), n_resamples, seed),
        "n_not_both": len(sides[0].keys() ^ sides[1].keys()),
        "differences": {name: better[name] for name in ("first", "second", "neither")},
        "listed": listed,
    }


def _describe_differences(first: Document, second: Document) -> Iterator[dict[str, Any]]:
    for better, gold, one, two in differences(first, second):
        yield {
            "better": better,
            "document": first.number,
            "gold": [describe_entity(first, entity) for entity in gold],
            "first": [describe_entity(first, entity) for entity in one],
            "second": [describe_entity(first, entity) for entity in two],
            "sentence": in_sentence(first, gold, [] if gold else [*one, *two]),
        }


def counts(documents: Sequence[Document]) -> NDArray[np.int64]:
    """Return true positives (strict), predictions and gold entities per document, (n_documents, 3)."""
    rows = []
    for document in documents:
        gold, predicted = Counter(e.key for e in document.gold), Counter(e.key for e in document.predicted)
        rows.append(((gold & predicted).total(), predicted.total(), gold.total()))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def f1(totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the micro F1 of counts (…, 3): 2 tp / (predictions + gold), 0 where there are neither."""
    n = totals[..., 1] + totals[..., 2]
    return np.divide(2 * totals[..., 0], n, out=np.zeros(n.shape), where=n > 0)


def paired_bootstrap(
    first: NDArray[np.int64], second: NDArray[np.int64], n_resamples: int = N_RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Compare the micro F1 of two systems over documents drawn with replacement, the same for both.

    first, second: (n_documents, 3), the result of `counts` for each system. n_resamples: number of samples.
    seed: of the random numbers.

    Returns `difference` (second minus first), `low` and `high` (its 95 % percentile interval), `p` (one-sided: how often the
    difference in a sample exceeds twice the observed one), `second_better` (share of samples in which the second is better,
    ties counting half), `n_documents`, `n_resamples` and `seed`.
    """
    n = len(first)
    # Documents with the same counts are drawn together: equivalent, and faster for many short ones
    both, n_same = np.unique(np.concatenate([first, second], axis=1), axis=0, return_counts=True)  # (n_distinct, 6)
    rng = np.random.default_rng(seed)
    differences = np.empty(n_resamples)
    step = max(CELLS // len(both), 1)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        times = rng.multinomial(n, n_same / n, size=size)  # (size, n_distinct)
        totals = times @ both
        differences[start : start + size] = f1(totals[:, 3:]) - f1(totals[:, :3])
    difference = float(f1(second.sum(axis=0)) - f1(first.sum(axis=0)))
    low, high = np.quantile(differences, [0.025, 0.975]).tolist()
    is_larger = np.sign(difference) * differences > 2 * abs(difference)
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "p": float(is_larger.mean()) if difference else 1.0,
        "second_better": float((differences > 0).mean() + (differences == 0).mean() / 2),
        "n_documents": n,
        "n_resamples": n_resamples,
        "seed": seed,
    }


def differences(first: Document, second: Document) -> list[tuple[str, list[Entity], list[Entity], list[Entity]]]:
    """Find where two systems differ on a document.

    first, second: the document with the predictions of each.

    Returns for each group of overlapping entities on which they differ: "first" or "second", whichever is closer to the gold
    (fewer entities missed or wrong), or "neither"; the gold entities; those of the first; those of the second.
    """
    marked = [(0, e) for e in first.gold] + [(1, e) for e in first.predicted] + [(2, e) for e in second.predicted]
    marked.sort(key=lambda item: item[1].key)
    groups: list[tuple[list[Entity], list[Entity], list[Entity]]] = []
    end = -1
    for side, entity in marked:
        if entity.start >= end:
            groups.append(([], [], []))
        groups[-1][side].append(entity)
        end = max(end, entity.end)
    result = []
    for gold, one, two in groups:
        if [e.key for e in one] != [e.key for e in two]:
            truth = {e.key for e in gold}
            n_wrong = [len(truth ^ {e.key for e in side}) for side in (one, two)]
            better = "neither" if n_wrong[0] == n_wrong[1] else "first" if n_wrong[0] < n_wrong[1] else "second"
            result.append((better, gold, one, two))
    return result
