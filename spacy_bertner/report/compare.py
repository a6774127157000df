"""Two pipelines on the same documents: the paired bootstrap on F1, and the entities on which they differ.

Koehn 2004, "Statistical significance tests for machine translation evaluation"; the p-value as Berg-Kirkpatrick, Burkett
and Klein 2012, "An empirical investigation of statistical significance in NLP", algorithm 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .documents import Document, Entity

N_RESAMPLES = 10_000
# Cells of the matrix of random numbers drawn at once
CELLS = 10_000_000


def counts(documents: Sequence[Document]) -> NDArray[np.int64]:
    """Count by document, (n_documents, 3): true positives, predictions, gold entities, strictly."""
    rows = []
    for document in documents:
        gold, predicted = Counter(e.key for e in document.gold), Counter(e.key for e in document.predicted)
        rows.append(((gold & predicted).total(), predicted.total(), gold.total()))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def f1(totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Micro F1 of counts (…, 3): 2 tp / (predictions + gold), 0 where there are neither."""
    found = totals[..., 1] + totals[..., 2]
    return np.divide(2 * totals[..., 0], found, out=np.zeros(found.shape), where=found > 0)


def paired_bootstrap(
    first: NDArray[np.int64], second: NDArray[np.int64], n_resamples: int = N_RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Compare the micro F1 of two systems over documents drawn with replacement, the same for both.

    first, second: (n_documents, 3), what `counts` gives for each system.

    Returns `difference` (second minus first), `low` and `high` (its 95 % percentile interval), `p` (of a difference in its
    direction that large if there were none: how often that of a sample exceeds twice the one found; one-sided),
    `second_better` (share of samples in which the second is better, ties half) and what it was computed with.
    """
    n = len(first)
    # Documents with the same counts are drawn together, which comes to the same and is quicker for many short ones
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
    sign = -1 if difference < 0 else 1
    exceeds = float((sign * differences > 2 * abs(difference)).mean()) if difference else 1.0
    better = float((differences > 0).mean() + (differences == 0).mean() / 2)
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "p": exceeds,
        "second_better": better,
        "n_documents": n,
        "n_resamples": n_resamples,
        "seed": seed,
    }


def differences(first: Document, second: Document) -> list[tuple[str, list[Entity], list[Entity], list[Entity]]]:
    """Find where on one document one system is right and the other is not.

    Returns for each stretch of overlapping entities on which they differ: "first" or "second", whichever is right with more
    of its gold and wrong with fewer predictions, or "neither" where that is a draw; and the gold entities and those of
    both systems there.
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
    for gold, one, other in groups:
        if [e.key for e in one] != [e.key for e in other]:
            truth = {e.key for e in gold}
            n_wrong = [len(truth ^ {e.key for e in side}) for side in (one, other)]
            better = "neither" if n_wrong[0] == n_wrong[1] else "first" if n_wrong[0] < n_wrong[1] else "second"
            result.append((better, gold, one, other))
    return result
