"""Short training runs in spaCy's own loop, which are broken off, resumed and compared."""

import csv
import io
import shutil
import sys

import pytest
import spacy
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as train_loop

from ..conftest import ROOT, make_examples

RESUMABLE = "spacy_bertner.resumable_training.v1"


class Killed(BaseException):
    """Stands for a kill: nothing of the run goes on after it (what spaCy still saves is emptied at the next start)."""


@spacy.registry.callbacks("test_resume.kill")
def kill_at(step: int):
    def before_update(nlp, args):
        if args["step"] == step:
            raise Killed

    return before_update


def train(config, output, kill=None):
    """Run the training loop as the command does; `kill`: the step before which it is broken off."""
    if kill is not None:
        config = config.copy()
        config["training"]["before_update"]["before_update"] = {"@callbacks": "test_resume.kill", "step": kill}
    if output is not None:
        output.mkdir(exist_ok=True)
    try:
        nlp, _ = train_loop(init_nlp(config), output, stdout=io.StringIO(), stderr=io.StringIO())
    except Killed:
        return None
    assert kill is None, "it was at its end before"
    return nlp


def resuming(config, **block):
    config = config.copy()
    config["training"]["before_update"].update({"resume": True, **block})
    return config


def outcome(output):
    """All that a run leaves, but for the settings that name the kill, and for the time that it took."""
    files = {}
    for model in ("model-best", "model-last"):
        for path in (output / model).rglob("*"):
            if path.is_file() and path.name != "config.cfg":
                files[path.relative_to(output).as_posix()] = path.read_bytes()
    with (output / "learning_curve.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return files, rows


def assert_same(output, expected):
    files, rows = outcome(output)
    assert rows == expected[1]
    assert files.keys() == expected[0].keys()
    assert [name for name in files if files[name] != expected[0][name]] == []


@pytest.fixture
def without_pictures(monkeypatch):
    """Without matplotlib the logger draws nothing; each picture would take longer than the training."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
    DocBin(docs=docs).to_disk(folder / "train.spacy")
    DocBin(docs=docs[::2]).to_disk(folder / "dev.spacy")
    return folder


@pytest.fixture(scope="module")
def config(data, checkpoint):
    """Give a function that makes the config of a short training, `configs/demo.cfg` with changes."""

    def make(training=None, model=None, optimizer=None, batch_size=45, augmenter=None, block=None):
        config = spacy.util.load_config(ROOT / "configs" / "demo.cfg")
        config["paths"].update({"train": str(data / "train.spacy"), "dev": str(data / "dev.spacy")})
        config["paths"]["encoder"] = str(checkpoint("bert-uncased"))
        config["components"]["bert_ner"]["model"].update({"head_learn_rate": 1.0, **(model or {})})
        config["training"].update({"max_epochs": 0, "max_steps": 13, "eval_frequency": 3, **(training or {})})
        config["training"]["batcher"]["size"] = batch_size
        config["corpora"]["train"]["augmenter"] = augmenter
        config["training"]["optimizer"] = {"@optimizers": "Adam.v1", "learn_rate": 5e-3, **(optimizer or {})}
        config["training"]["logger"] = {"@loggers": "spacy_bertner.LearningCurve.v1"}
        config["training"]["before_update"] = None
        if block is not None:
            config["training"]["before_update"] = {"@callbacks": RESUMABLE, "minutes": None, "steps": 2, **block}
        return config

    return make


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """What a run leaves that has neither checkpoints nor interruptions."""
    output = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        train(config(), output)
    return outcome(output)


@pytest.fixture(scope="module")
def run_broken_off(config, tmp_path_factory):
    """A run that was broken off before step 8."""
    output = tmp_path_factory.mktemp("broken_off")
    interrupted = config(block={})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        train(interrupted, output, kill=8)
    return resuming(interrupted), output


@pytest.fixture
def broken_off(run_broken_off, tmp_path):
    """A copy of it: the config that goes on, the folder of output, the folders of the checkpoints after steps 5 and 7."""
    settings, output = run_broken_off
    shutil.copytree(output, tmp_path / "run")
    folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.name for path in folders] == ["0003-step-5", "0004-step-7"]
    return settings.copy(), tmp_path / "run", folders
