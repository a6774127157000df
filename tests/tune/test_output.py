"""The table of the trials and the page, of a study that was made up."""

import csv
import html
import re

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from spacy_bertner.tune.output import best_trial, table_of, write_page, write_rows

SPACE = {
    "training.epochs": CategoricalDistribution([3]),
    "a.dropout": FloatDistribution(0, 1),
    "b.dropout": FloatDistribution(0, 1),
}


@pytest.fixture
def study():
    study = optuna.create_study(study_name="<study>", direction="maximize")
    for i, value in enumerate((0.5, 0.7, 0.6)):
        params = {"training.epochs": 3, "a.dropout": value / 2, "b.dropout": 0.1}
        study.add_trial(
            create_trial(value=value, params=params, distributions=SPACE, intermediate_values={0: 0.0, i: value})
        )
    params = {"training.epochs": 3, "a.dropout": 0.9, "b.dropout": 0.1}
    pruned = {"value": 0.3, "intermediate_values": {0: 0.0, 1: 0.8, 2: 0.3}, "params": params, "distributions": SPACE}
    study.add_trial(create_trial(state=TrialState.PRUNED, **pruned))
    study.add_trial(create_trial(state=TrialState.FAIL))  # its process died
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"reason": "<Error>: a, b"}))
    return study


def test_the_table(study, tmp_path):
    write_rows(tmp_path / "new" / "trials.csv", table_of(study, [*SPACE]))
    with (tmp_path / "new" / "trials.csv").open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "5"]
    assert [row["state"] for row in rows] == ["complete"] * 3 + ["pruned", "fail"]
    assert [row["score"] for row in rows] == ["0.5", "0.7", "0.6", "0.8", ""]
    assert [row["evaluations"] for row in rows] == ["1", "2", "2", "3", "0"]
    assert [row["a.dropout"] for row in rows] == ["0.25", "0.35", "0.3", "0.9", ""]
    assert [row["reason"] for row in rows] == [""] * 4 + ["<Error>: a, b"]
    assert best_trial(study).number == 1  # a trial that was pruned is not trained to its end


def test_the_page(study, tmp_path):
    write_page(study, [("the config itself", 1, 0.5), ("trial 1", 1, 0.6), ("trial 1", 2, 0.8)], tmp_path)
    page = (tmp_path / "tune.html").read_text(encoding="utf8")
    text = " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)).split())
    assert "Study <study> ." in text and "<study>" not in page and "<Error>" not in page
    assert "best score, trial 1 0.7000 complete 3 pruned 1 failed 1" in text
    assert "the config itself 0.5000 0.5000 0.5000 1 trial 1 0.7000 0.6000 0.8000 2" in text
    assert page.count("data:image/png;base64,") == 3
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "history.png",
        "importance.png",
        "parallel_coordinates.png",
    }


def test_a_page_without_plots(tmp_path):
    study = optuna.create_study(study_name="empty", direction="maximize")
    write_page(study, [], tmp_path)
    only_epochs = {"training.epochs": CategoricalDistribution([3])}
    for _ in range(2):
        study.add_trial(create_trial(value=0.5, params={"training.epochs": 3}, distributions=only_epochs))
    write_page(study, [], tmp_path)
    assert "No plots" in (tmp_path / "tune.html").read_text(encoding="utf8") and not list(tmp_path.glob("*.png"))
