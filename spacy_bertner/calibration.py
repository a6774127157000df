"""How far scores can be believed: expected calibration error."""

from collections.abc import Sequence

import numpy as np


def expected_calibration_error(confidences: Sequence[float], is_correct: Sequence[bool], n_bins: int = 15) -> float:
    """Compute the expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3).

    The predictions are put into bins of equal width by their confidence, open below and closed above; a bin's error is the
    distance between the share of its predictions that are correct and their mean confidence.

    confidences: (n,), in [0, 1]. is_correct: (n,), whether each prediction is. n_bins: number of bins; 15 as Guo et al.
    Returns the bins' errors, averaged over the predictions, in [0, 1]; NaN where there are no predictions.
    Raises ValueError where the two differ in length, a confidence is not in [0, 1], or there is no bin.
    """
    confidence, correct = np.asarray(confidences, dtype=np.float64), np.asarray(is_correct, dtype=bool)
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise ValueError(f"confidences and is_correct: the shapes {confidence.shape} and {correct.shape}, not (n,) twice")
    if n_bins < 1:
        raise ValueError(f"n_bins: {n_bins} is not a number of bins, 1 or more")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences: not all are in [0, 1]")
    if not len(confidence):
        return float("nan")
    bins = np.maximum(np.ceil(confidence * n_bins).astype(int) - 1, 0)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=n_bins)  # sums, so weighted by the bins' sizes
    return float(np.abs(gaps).sum() / len(confidence))
