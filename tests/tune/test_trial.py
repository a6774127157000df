"""One training run in a process of its own: its score, its failures, and that it ends with the process that started it."""

import csv
import re
import subprocess
import sys
import textwrap
import time

import pytest
from spacy.util import load_config

from spacy_bertner.tune.trial import TrialFailed, find_reason, read_scores, train

from ..training import conftest as loop


@pytest.fixture
def config(project):
    config = load_config(project / "config.cfg", interpolate=False)
    config["training"]["before_update"] = None
    return config


def test_scores_are_those_of_spacy_train(config, tmp_path):
    seen = []
    # Checkpoints need an output folder; the run has none
    callback = {"@callbacks": "spacy_bertner.resumable_training.v1", "before_update": None}
    config["training"]["before_update"] = callback
    best = train(config, tmp_path / "trial", [], lambda scores: seen.append(list(scores)))
    config["training"]["before_update"] = None
    config["training"]["logger"] = {"@loggers": "spacy_bertner.LearningCurve.v1"}
    loop.train(config, tmp_path / "alone")
    with (tmp_path / "alone" / "learning_curve.csv").open(newline="") as file:
        expected = [float(row["score"]) for row in csv.DictReader(file)]
    assert seen[-1] == expected and best == max(expected) > 0
    assert all(expected[: len(scores)] == scores for scores in seen)
    assert {path.name for path in (tmp_path / "trial").iterdir()} >= {"config.cfg", "log.txt", "learning_curve.csv"}
    assert not list(tmp_path.glob("trial/**/model*"))


def test_reason_of_a_failure(config, tmp_path):
    config["paths"]["encoder"] = str(tmp_path / "nothing")
    with pytest.raises(TrialFailed, match=r"^spacy_bertner.*Error: .*nothing.*no usable tokenizer|.*nothing"):
        train(config, tmp_path / "trial", [], lambda scores: None)


@pytest.mark.parametrize(
    "log, status, reason",
    [
        ("Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory.\n", 1,
         "torch.OutOfMemoryError: CUDA out of memory."),
        ("\x1b[38;5;1m✘ Config validation error\x1b[0m\n\ntraining -> dropout\n", 1, "training -> dropout"),
        ("ValueError: first\nIt went on\nValueError: last\nand more\n", 1, "ValueError: last"),
        ("E  #  LOSS\n", -9, "killed by signal 9 (out of memory?)"),
        ("E  #  LOSS\n", -6, "killed by signal 6"),
        ("", 3, "ended with status 3"),
    ],
)  # fmt: skip
def test_reasons(log, status, reason):
    assert find_reason(log, status) == reason


def test_a_table_that_is_being_written(tmp_path):
    table = tmp_path / "learning_curve.csv"
    assert read_scores(table) == []
    table.write_text("step,score\n0,0.25\n1,0.", encoding="utf8")
    assert read_scores(table) == [0.25]


def test_a_run_ends_with_its_parent(tmp_path):
    """A process that starts one like a trial, and is killed."""
    script = """
        import subprocess, sys, time
        program = "import sys; sys.argv[1:] = ['info']; import spacy_bertner.processes as p, spacy.cli._util as u, time;"
        program += "u.setup_cli = lambda: time.sleep(600); p.run_spacy()"
        print(subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE).pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    assert re.match(r"[A-Z]", subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 300
    while re.match(r"[A-Y]", subprocess.run(command, capture_output=True, text=True, check=False).stdout):
        assert time.monotonic() < deadline, "it is still running"
        time.sleep(0.2)
