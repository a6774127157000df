"""One training run: `spacy train` in a process of its own, whose scores are read from its learning curve."""

import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from thinc.api import Config

from ..training.learning_curve import TABLE

POLL = 0.1  # seconds


class TrialFailed(RuntimeError):
    """A training run that ended with an error, or without a score; the message is the reason."""


def train(config: Config, folder: Path, arguments: Sequence[str], on_poll: Callable[[list[float]], None]) -> float:
    """Train by a config; return the best score.

    folder: for the config, the log and the learning curve; models are not saved. arguments: more options of `spacy train`.
    on_poll: called a few times per second with the scores of the evaluations so far; what it raises ends the training.

    Raises TrialFailed.
    """
    config = config.copy()
    training, curve = config["training"], {"@loggers": "spacy_bertner.LearningCurve.v1", "path": str(folder)}
    training["logger"] = {"@loggers": "spacy.ChainLogger.v1", "logger1": training["logger"], "logger2": curve}
    before_update = training["before_update"] or {}
    if before_update.get("@callbacks") == "spacy_bertner.resumable_training.v1":  # a trial that was killed starts again
        training["before_update"] = before_update.get("before_update")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).unlink(missing_ok=True)
    config.to_disk(folder / "config.cfg")
    program = "from spacy_bertner.processes import run_spacy; run_spacy()"
    command = [sys.executable, "-c", program, "train", str(folder / "config.cfg"), *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    environment.pop("SPACY_CONFIG_OVERRIDES", None)  # they are in the config
    with (folder / "log.txt").open("wb") as log:
        # In a session of its own, Ctrl-C in the terminal does not reach it
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            while True:
                has_ended = process.poll() is not None  # before the scores are read, so that none is missed
                scores = read_scores(folder / TABLE)
                on_poll(scores)
                if has_ended:
                    break
                time.sleep(POLL)
        finally:
            process.kill()
            process.communicate()
    if process.returncode:
        raise TrialFailed(find_reason((folder / "log.txt").read_text("utf8", "replace"), process.returncode))
    if not scores:
        raise TrialFailed("training ended without an evaluation")
    return max(scores)


def read_scores(table: Path) -> list[float]:
    """Return the score of each evaluation so far, in a learning curve that is being written."""
    if not table.exists():
        return []
    text = table.read_text("utf8")
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())  # whole lines
    return [float(row["score"]) for row in rows]


def find_reason(log: str, status: int) -> str:
    """Return the line of a log that says why training failed."""
    if status < 0:
        return f"killed by signal {-status}" + " (out of memory?)" * (status == -9)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return [f"ended with status {status}", *lines[-1:], *errors[-1:]][-1][:500]
