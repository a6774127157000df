"""How sure a pipeline is and how sure it may be: reliability, expected calibration error, and figures by threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..training.calibration import expected_calibration_error
from .documents import Document

THRESHOLDS = np.linspace(0, 1, 101)


def confidence(documents: Sequence[Document], n_bins: int = 10) -> dict[str, Any] | None:
    """Compare the scores of the predicted entities with how many of them are right (strictly).

    n_bins: bins of equal width for the reliability diagram and the expected calibration error (Guo et al. 2017).

    Returns None where no prediction has a score, else `scored` and `unscored` (numbers of predictions), `ece`, `bins` (those
    with predictions: `low`, `high`, `count`, mean `confidence`, `accuracy`) and `thresholds`: precision, recall, F1 and the
    number of predictions left, with those that have a lower score left out.
    """
    scores, is_right, n_gold, n_unscored = [], [], 0, 0
    for document in documents:
        gold = {entity.key for entity in document.gold}
        n_gold += len(document.gold)
        for entity in document.predicted:
            if entity.score is None:
                n_unscored += 1
            else:
                scores.append(entity.score)
                is_right.append(entity.key in gold)
    if not scores:
        return None
    score, right = np.array(scores), np.array(is_right)
    place = np.maximum(np.ceil(score * n_bins).astype(int) - 1, 0)  # closed above, as in expected_calibration_error
    bins = [
        {
            "low": i / n_bins,
            "high": (i + 1) / n_bins,
            "count": int(inside.sum()),
            "confidence": float(score[inside].mean()),
            "accuracy": float(right[inside].mean()),
        }
        for i in range(n_bins)
        if (inside := place == i).any()
    ]
    order = np.argsort(score)
    n_right_below = np.concatenate([[0], np.cumsum(right[order])])
    first = np.searchsorted(score[order], THRESHOLDS, side="left")  # predictions below each threshold
    rows = []
    for threshold, below in zip(THRESHOLDS.tolist(), first.tolist(), strict=True):
        kept, n_right = len(score) - below, int(n_right_below[-1] - n_right_below[below])
        rows.append(
            {
                "threshold": round(threshold, 2),
                "precision": n_right / kept if kept else None,
                "recall": n_right / n_gold if n_gold else 0.0,
                "f1": 2 * n_right / (kept + n_gold) if kept + n_gold else 0.0,
                "predicted": kept,
            }
        )
    return {
        "scored": len(score),
        "unscored": n_unscored,
        "ece": expected_calibration_error(scores, is_right, n_bins),
        "n_bins": n_bins,
        "bins": bins,
        "thresholds": rows,
    }
