"""The paired bootstrap, against SciPy's; differences by hand."""

import numpy as np
import pytest

from spacy_bertner.report import Settings, build_report, write_report
from spacy_bertner.report.compare import counts, differences, f1, paired_bootstrap
from spacy_bertner.report.documents import Document, Entity

from .conftest import random_documents, ruler


def test_bootstrap_is_that_of_scipy():
    from scipy.stats import bootstrap

    first, second = counts(random_documents(seed=1)), counts(random_documents(seed=2))
    second[:, 2] = first[:, 2]  # the same gold

    def difference(rows):
        totals = np.concatenate([first, second], axis=1)[rows].sum(axis=-2)
        return f1(totals[..., 3:]) - f1(totals[..., :3])

    places = np.arange(len(first))
    expected = bootstrap(
        (places,), lambda x, axis: difference(x), n_resamples=5000, method="percentile",
        rng=np.random.default_rng(0), batch=100,
    )  # fmt: skip
    found = paired_bootstrap(first, second, n_resamples=20_000)
    assert found["difference"] == pytest.approx(float(difference(places)))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found["low"] == pytest.approx(expected.confidence_interval.low, abs=0.06 * width)
    assert found["high"] == pytest.approx(expected.confidence_interval.high, abs=0.06 * width)
    samples = expected.bootstrap_distribution
    assert found["second_better"] == pytest.approx((samples > 0).mean(), abs=0.03)
    p = (np.sign(found["difference"]) * samples > 2 * abs(found["difference"])).mean()
    assert found["p"] == pytest.approx(p, abs=0.03)
    assert found == paired_bootstrap(first, second, n_resamples=20_000)


def test_bootstrap_of_equals_and_of_far_apart():
    rows = counts(random_documents())
    same = paired_bootstrap(rows, rows, 1000)
    assert same["difference"] == same["low"] == same["high"] == 0 and same["p"] == 1 and same["second_better"] == 0.5
    none = rows.copy()
    none[:, 0] = 0
    apart = paired_bootstrap(none, rows, 1000)
    assert apart["low"] > 0 and apart["p"] == 0 and apart["second_better"] == 1
    assert paired_bootstrap(rows, none, 1000)["difference"] == -apart["difference"]


def test_differences():
    gold = [Entity(0, 2, "A"), Entity(4, 5, "B"), Entity(6, 7, "A")]
    one = Document(1, ["w"] * 9, [True] * 9, [0], None, gold, [Entity(0, 2, "A"), Entity(6, 7, "B")])
    two = Document(1, ["w"] * 9, [True] * 9, [0], None, gold, [Entity(1, 2, "A"), Entity(4, 5, "B"), Entity(6, 7, "C")])
    assert differences(one, two) == [
        ("first", [gold[0]], [Entity(0, 2, "A")], [Entity(1, 2, "A")]),
        ("second", [gold[1]], [], [Entity(4, 5, "B")]),
        ("neither", [gold[2]], [Entity(6, 7, "B")], [Entity(6, 7, "C")]),
    ]


def test_comparison(data, tmp_path):
    other = ruler({"Maria Kolb": "PER", "Dresden": "ORG"})
    report = build_report(ruler(), data, other=other, settings=Settings(n_resamples=500))
    found = report["comparison"]
    assert found["entities"][0] == report["entities"]
    assert found["entities"][1] == build_report(other, data)["entities"]
    difference = found["entities"][1]["micro"]["f1"] - found["entities"][0]["micro"]["f1"]
    assert found["bootstrap"]["difference"] == pytest.approx(difference)
    assert sum(found["differences"].values()) == len(found["listed"]) > 5
    page = write_report(report, tmp_path / "out")[0].read_text(encoding="utf8")
    assert f"The second is {abs(100 * difference):.1f} points of F1 worse than the first" in page
