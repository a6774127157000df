"""Calibration: the expected calibration error against figures worked out by hand."""

import math

import numpy as np
import pytest

from spacy_bertner.calibration import expected_calibration_error


def test_error_worked_out_by_hand():
    # Two bins: (0, 0.5] has 0.5 (right) and 0.1 (wrong), (0.5, 1] has 0.9 (right), 0.8 (wrong), 1.0 (right)
    confidences, is_correct = [0.9, 0.5, 0.1, 0.8, 1.0], [True, True, False, False, True]
    expected = 2 / 5 * abs(0.5 - 0.3) + 3 / 5 * abs(2 / 3 - 0.9)
    assert expected_calibration_error(confidences, is_correct, 2) == pytest.approx(expected)
    assert expected_calibration_error(np.array(confidences, dtype="f"), np.array(is_correct), 1) == pytest.approx(
        abs(3 / 5 - 3.3 / 5)
    )


def test_error_by_loops():
    """As equation 3 of Guo et al. (2017) is written."""
    rng = np.random.default_rng(0)
    confidences, is_correct = rng.random(500), rng.random(500) < 0.7
    confidences[:4] = 0, 1, 1 / 15, 14 / 15
    expected = 0.0
    for m in range(1, 16):
        bin_ = [i for i, p in enumerate(confidences) if (m - 1) / 15 < p <= m / 15 or (m == 1 and p == 0)]
        if bin_:
            expected += len(bin_) / 500 * abs(np.mean(is_correct[bin_]) - np.mean(confidences[bin_]))
    assert expected_calibration_error(confidences, is_correct) == pytest.approx(expected)


def test_sure_and_right_or_wrong():
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1.0
    assert math.isnan(expected_calibration_error([], []))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [True, False]), r"the shapes \(1,\) and \(2,\)"),
        (([1.5], [True]), r"confidences: not all are in \[0, 1\]"),
        (([float("nan")], [True]), "confidences: not all"),
        (([0.5], [True], 0), "n_bins: 0 is not"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(*arguments)
