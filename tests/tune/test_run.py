"""`spacy bertner tune`: a whole search, what it leaves, and what it refuses before anything is trained."""

import csv
import re
import signal
import subprocess
import sys
import time

import optuna
import pytest
from spacy.cli._util import app
from spacy.util import load_config
from typer.testing import CliRunner

import spacy_bertner.cli  # noqa: F401  which `python -m spacy` finds by its entry point
from spacy_bertner.tune.study import finished_trials

SPACE = """
[training]
epochs = {"choices": [6]}

[training.optimizer.learn_rate]
initial_rate = {"low": 1e-5, "high": 0.05, "log": true}

[components.bert_ner.model]
head_learn_rate = {"low": 1.0, "high": 30.0}
"""


@pytest.fixture
def tune(project, write_space_file, tmp_path):
    """Give a function that runs the command."""

    def run(*options, space=SPACE, output=tmp_path / "out"):
        arguments = ["bertner", "tune", project / "config.cfg", write_space_file(space), "--output", output, *options]
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


def read_table(path):
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def searched(project, tmp_path_factory):
    """The output of a search of two trials, with another seed for the best and for the config; and what was printed."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "space.cfg").write_text(SPACE, encoding="utf8")
    options = ["--n-trials", 2, "--seeds", 1, "--metric", "ents_r", "--training.dropout", 0.2, "--gpus", "-1,-1"]
    arguments = ["bertner", "tune", project / "config.cfg", folder / "space.cfg", "-o", folder / "out", *options]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


def test_what_a_search_leaves(searched):
    folder, printed = searched
    rows = read_table(folder / "trials.csv")
    assert [row["state"] for row in rows] == ["complete", "complete"] and [row["trial"] for row in rows] == ["0", "1"]
    assert float(rows[0]["training.optimizer.learn_rate.initial_rate"]) == 1e-4  # the config itself
    for row in rows:
        curve = read_table(folder / "trials" / f"{int(row['trial']):04}" / "learning_curve.csv")
        recalls = [float(evaluation["ents_r"]) for evaluation in curve]
        assert float(row["score"]) == max(recalls) and int(row["evaluations"]) == len(curve) == 7
        assert re.search(rf"Trial {row['trial']}: {max(recalls):.4f}; best .*; [12] of 2", printed)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"best.cfg", "tune.html", "history.png", "importance.png", "parallel_coordinates.png"}
    assert [(folder / f"{name}.png").read_bytes()[:4] for name in ("history", "importance")] == [b"\x89PNG"] * 2
    page = (folder / "tune.html").read_text(encoding="utf8")
    assert page.count("data:image/png;base64,") == 3 and "training.optimizer.learn_rate.initial_rate" in page


def test_the_best_config_is_complete(searched):
    folder, _ = searched
    best = max(read_table(folder / "trials.csv"), key=lambda row: float(row["score"]))
    config = load_config(folder / "best.cfg").interpolate()
    assert config["training"]["optimizer"]["learn_rate"]["initial_rate"] == float(
        best["training.optimizer.learn_rate.initial_rate"]
    )
    assert config["training"]["max_steps"] == 6 and config["training"]["dropout"] == 0.2
    assert config["training"]["score_weights"]["ents_r"] == 1.0
    assert config["training"]["logger"]["logger2"]["path"] is None  # that of the trial has a folder
    # spaCy's own check, which fails for a value that is missing
    assert CliRunner().invoke(app, ["debug", "config", str(folder / "best.cfg")]).exit_code == 0


def test_other_seeds(searched):
    folder, printed = searched
    best = max(read_table(folder / "trials.csv"), key=lambda row: float(row["score"]))["trial"]
    if best == "0":
        assert "No other seeds: the config itself is the best" in printed
        return
    rows = {row["config"]: row for row in read_table(folder / "seeds.csv")}
    assert {*rows} == {"the config itself", f"trial {best}"}
    for name, row in rows.items():
        run = folder / "seeds" / f"{name.replace(' ', '-')}-1"
        config = load_config(run / "config.cfg").interpolate()
        assert config["training"]["seed"] == config["system"]["seed"] == 1
        assert float(row["score"]) == max(float(e["ents_r"]) for e in read_table(run / "learning_curve.csv"))
        assert f"{name}, seed 1: " in printed


def test_dry_run(tune, tmp_path):
    result = tune("--dry-run")
    assert result.exit_code == 0, result.output
    assert "20 training documents, 131 words." in result.output
    assert "training.optimizer.learn_rate.initial_rate: 1e-05 to 0.05, logarithmic; 0.0001" in result.output
    assert result.output.endswith("The pipeline can be initialized; nothing was trained\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--training.max_step", "5", "--n-trials", "0"], "--n-trials and --grace-period have to be at least 1"),
        (["--pruner", "mean"], "--pruner: 'mean' is none of median, hyperband, none"),
        (["--gpus", "0,x"], "--gpus: '0,x' are not numbers, separated by commas"),
        (["--gpus", "0,77"], "--gpus: there is no GPU "),
        (["--metric", "f1"], "--metric: 'f1' is none of the scores of this pipeline: ents_f, ents_p, ents_r"),
        (
            ["--storage", "postgresql://me:secret@localhost:1/x"],
            "--storage: postgresql://me:***@localhost:1/x: cannot be",
        ),
        (["--components.bert_ner.model.window", "1"], "window"),
        (["--training.dropuot", "0.1"], "--training.dropuot: no 'dropuot' in the section [training] of the config"),
        (["--paths.train", "nothing.spacy"], "nothing.spacy"),
    ],
)
def test_options_that_cannot_work(options, message, tune, tmp_path):
    result = tune(*options)
    assert result.exit_code == 1
    assert message in result.output and not (tmp_path / "out" / "trials").exists()


@pytest.mark.parametrize(
    "space, message",
    [
        ('[training]\ndropuot = {"low": 0.0, "high": 0.3}', "no 'dropuot' in the section [training] of the config"),
        ('[training]\ndropout = {"low": 0.3, "high": 0.1}', "low 0.3 is greater than high 0.1"),
        ('[training]\ndropout = {"low": 0, "high": 0.1, "log": true}', "a log range cannot start at 0"),
        ('[training]\ndropout = {"choices": [0.1, "high"]}', "the last value of each range: dropout: "),
        (
            '[components.bert_ner.model]\nlayer_decay = {"low": 0.5, "high": 1.5}',
            "the last value of each range: layer_decay",
        ),
        ('[training]\nmax_steps = {"low": 5, "high": 9}', "give a range of `epochs`, which sets both"),
    ],
)
def test_search_spaces_that_cannot_work(space, message, tune, tmp_path):
    result = tune(space=space)
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert result.output.startswith("tune: ") and message in result.output and result.output.count("\n") == 1


def test_a_study_of_another_space(searched, tune, tmp_path):
    folder, _ = searched
    options = ["--metric", "ents_r", "--training.dropout", "0.2", "--n-trials", "2"]
    before = (folder / "trials.csv").read_bytes()
    again = tune(*options, "--resume", output=folder)  # there is nothing left to do
    assert again.exit_code == 0 and "Trial" not in again.output and (folder / "trials.csv").read_bytes() == before
    exists = tune(*options, output=folder)
    assert exists.exit_code == 1
    assert f"tune: {folder}: exists already; --resume continues its study, --force starts a new one" in exists.output
    for others, message in (
        (["--training.dropout", "0.25"], r"\(training.dropout: 0.2, now 0.25\): give another --output or --study-name"),
        (["--metric", "ents_p"], r"training.score_weights.ents_p: 0.0, now 1.0"),
    ):
        other = tune(*options, *others, "--resume", output=folder)
        assert other.exit_code == 1 and re.search(message, other.output), other.output
    other = tune(*options, "--resume", output=folder, space=SPACE.replace("0.05", "0.06"))
    assert "initial_rate: 1e-05 to 0.05, logarithmic, now 1e-05 to 0.06, logarithmic" in other.output
    assert other.exit_code == 1 and (folder / "trials.csv").read_bytes() == before


def test_failures_are_recorded(tune, tmp_path, monkeypatch):
    """A setting with which no training begins."""
    monkeypatch.setattr("spacy_bertner.tune.study.MAX_FAILED", 2)  # of the 5, each of which takes seconds
    result = tune("--n-trials", "9", space=SPACE + 'window = {"choices": [100000]}')
    assert result.exit_code == 1
    assert re.search(r"tune: 2 trials in a row have failed, the last one: .*window.*100000", result.output)
    rows = read_table(tmp_path / "out" / "trials.csv")
    assert len(rows) == 2 and all(row["state"] == "fail" and "100000" in row["reason"] for row in rows)


def test_a_kill_and_a_second_process(project, write_space_file, tmp_path):
    """The whole program: what was killed is tried again, by another process."""
    command = [sys.executable, "-m", "spacy", "bertner", "tune", project / "config.cfg", write_space_file(SPACE)]
    command += ["--output", tmp_path / "out", "--n-trials", "1", "--grace-period", "4", "--resume"]
    first = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    table, deadline = tmp_path / "out" / "trials" / "0000" / "learning_curve.csv", time.monotonic() + 400
    while not table.exists():
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    result = CliRunner().invoke(app, [*map(str, command[3:])])
    assert result.exit_code == 0, result.output
    study = optuna.load_study(study_name="out", storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}")
    (trial,) = finished_trials(study)
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"] and study.trials[0].params == trial.params
    assert [row["trial"] for row in read_table(tmp_path / "out" / "trials.csv")] == ["1"]
