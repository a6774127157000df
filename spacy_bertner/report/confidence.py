"""How reliable the scores are: reliability diagram, expected calibration error, and figures by threshold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..training.calibration import confidence_bins, expected_calibration_error
from .documents import Document

THRESHOLDS = np.linspace(0, 1, 101)


def confidence(documents: Sequence[Document], n_bins: int = 10) -> dict[str, Any] | None:
    """Compare the scores of the predicted entities with how many of these are correct (strict).

    n_bins: bins of equal width for the reliability diagram and the expected calibration error (Guo et al. 2017).

    Returns None where no prediction has a score, else `scored` and `unscored` (numbers of predictions), `ece`, `n_bins`,
    `bins` (those with predictions: `low`, `high`, `count`, mean `confidence`, `accuracy`) and `thresholds`.
    """
    scores, is_right, n_unscored = [], [], 0
    for document in documents:
        gold = {entity.key for entity in document.gold}
        for entity in document.predicted:
            if entity.score is None:
                n_unscored += 1
            else:
                scores.append(entity.score)
                is_right.append(entity.key in gold)
    if not scores:
        return None
    n_gold = sum(len(document.gold) for document in documents)
    return {
        "scored": len(scores),
        "unscored": n_unscored,
        "ece": expected_calibration_error(scores, is_right, n_bins),
        "n_bins": n_bins,
        "bins": confidence_bins(scores, is_right, n_bins),
        "thresholds": _by_threshold(np.array(scores), np.array(is_right), n_gold),
    }


def _by_threshold(scores: NDArray[np.float64], is_right: NDArray[np.bool_], n_gold: int) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and number of the predictions whose score is at least a threshold, for each."""
    order = np.argsort(scores)
    n_right_below = np.concatenate([[0], np.cumsum(is_right[order])])
    n_below = np.searchsorted(scores[order], THRESHOLDS, side="left")
    rows = []
    for threshold, below in zip(THRESHOLDS.tolist(), n_below.tolist(), strict=True):
        kept, n_right = len(scores) - below, int(n_right_below[-1] - n_right_below[below])
        rows.append(
            {
                "threshold": round(threshold, 2),
                "precision": n_right / kept if kept else None,
                "recall": n_right / n_gold if n_gold else 0.0,
                "f1": 2 * n_right / (kept + n_gold) if kept + n_gold else 0.0,
                "predicted": kept,
            }
        )
    return rows
