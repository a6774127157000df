"""Training that is broken off and resumed, compared with training that was left alone, in spaCy's own loop."""

import csv
import io
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import spacy
import srsly
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as train_loop

from ..conftest import LABELS, ROOT, make_examples
from .conftest import RESUMABLE, assert_same, outcome, resuming, train

pytestmark = pytest.mark.usefixtures("without_pictures")

WARMUP = {"@schedules": "warmup_linear.v1", "warmup_steps": 4, "total_steps": 13, "initial_rate": 5e-3}
VARIANTS = {
    "averages": {"optimizer": {"use_averages": True, "learn_rate": WARMUP}},
    # Read anew, and changed at random, in each epoch
    "streaming": {
        "training": {"max_epochs": -1, "accumulate_gradient": 3, "dropout": 0.3},
        "augmenter": {"@augmenters": "spacy.lower_case.v1", "level": 0.3},
    },
    "patience": {"training": {"patience": 8, "max_steps": 40}, "optimizer": {"learn_rate": 1e-6}},
    "radam": {"optimizer": {"@optimizers": "RAdam.v1"}, "model": {"freeze_layers": 1, "layer_decay": 0.8}},
    "sgd": {
        "optimizer": {"@optimizers": "SGD.v1", "learn_rate": 0.1},
        "training": {"max_epochs": 3, "max_steps": 0},
        "batch_size": {"@schedules": "compounding.v1", "start": 20, "stop": 80, "compound": 1.1},
    },
    "lora": {
        "model": {"lora": {"r": 2, "dropout": 0.1}},
        "optimizer": {"use_averages": True},
        "training": {"dropout": 0.2},
    },
    "recomputed": {"model": {"window": 8, "stride": 4, "max_batch_pieces": 16, "crf": True}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_ends_as_if_never_stopped(config, tmp_path, name):
    variant = VARIANTS[name]
    if name == "lora":
        pytest.importorskip("peft")
    train(config(**variant), tmp_path / "alone")
    expected = outcome(tmp_path / "alone")
    last = int(expected[1][-1]["step"])
    assert 6 <= last < 39 if name == "patience" else last == 12  # of 40 steps, where patience ends it before
    interrupted = config(**variant, block={})
    train(interrupted, tmp_path / "run", kill=6)
    train(resuming(interrupted), tmp_path / "run")
    assert_same(tmp_path / "run", expected)


def test_a_head_that_grows(config, tmp_path):
    """A pipeline that is trained further: labels come up in training, and it imitates itself as it was."""
    docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
    docs = [doc for doc in docs if not {"MISC", "PER"} & {ent.label_ for ent in doc.ents}]
    DocBin(docs=docs).to_disk(tmp_path / "few.spacy")
    few = config()
    few["paths"]["train"] = str(tmp_path / "few.spacy")
    train(few, tmp_path / "few")

    def further(**settings):
        config_further = config(**settings)
        config_further["components"]["bert_ner"] = {"source": str(tmp_path / "few" / "model-last")}
        config_further["initialize"]["before_init"] = {"@callbacks": "spacy_bertner.rehearse.v1", "weight": 0.5}
        return config_further

    train(further(batch_size=20), tmp_path / "alone")
    interrupted = further(batch_size=20, block={})
    train(interrupted, tmp_path / "run", kill=6)
    nlp = train(resuming(interrupted), tmp_path / "run")
    assert sorted(nlp.get_pipe("bert_ner").labels) == LABELS
    assert_same(tmp_path / "run", outcome(tmp_path / "alone"))


def test_broken_off_again_and_again(config, tmp_path):
    """At every step once, with checkpoints from right after the evaluations and from between them."""
    short = {"max_steps": 7, "eval_frequency": 2}
    train(config(short), tmp_path / "alone")
    interrupted = config(short, block={"steps": 1})
    for step in range(1, 8):
        train(resuming(interrupted), tmp_path / "run", kill=step)
    train(resuming(interrupted), tmp_path / "run")
    assert_same(tmp_path / "run", outcome(tmp_path / "alone"))


def test_sigkill(config, tmp_path):
    """The harness of the long test, for a few kills."""
    config().to_disk(tmp_path / "config.cfg")
    options = {"--config": "config.cfg", "--results": "kills.txt", "--kills": "3", "--save-every": "2"}
    command = [sys.executable, str(ROOT / "bench" / "kills.py"), *(part for pair in options.items() for part in pair)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "kills 3" in result.stdout and "NOT" not in result.stdout


def test_what_of_spacys_loop_is_relied_on(config, tmp_path, monkeypatch):
    """Fails when another version of spaCy does something else, or in another order (see the docstring of `resume`)."""
    from spacy.language import Language
    from spacy.training import loop
    from thinc.api import Optimizer

    from spacy_bertner.component import BertNER

    seen = []

    def note(owner, name, what):
        original = getattr(owner, name)

        def noting(*args, **kwargs):
            seen.append(what(*args, **kwargs))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noting)

    all_losses = []

    def update(nlp, examples, drop, losses, sgd, exclude, annotates):
        assert sgd is False and isinstance(examples, list)
        all_losses.append(losses)
        return "update"

    states = []

    @spacy.registry.callbacks("test_resume.note")
    def make_note():
        def before_update(nlp, args):
            assert args.keys() == {"step", "epoch"}
            states.append((random.getstate(), np.random.get_state(legacy=False)))  # noqa: NPY002
            seen.append(f"before_update {args['step']}")

        return before_update

    @spacy.registry.loggers("test_resume.note")
    def make_logger():
        return lambda nlp, stdout, stderr: (
            lambda info: seen.append(f"log {info and info['losses'] is all_losses[-1]}"),
            lambda: seen.append("finalize"),
        )

    note(Language, "update", update)
    note(Language, "evaluate", lambda nlp, examples: "evaluate")
    note(Language, "to_disk", lambda nlp, path: f"to_disk {path.relative_to(tmp_path)}")
    note(BertNER, "finish_update", lambda component, sgd: f"finish_update {type(sgd) is Optimizer}")
    note(Optimizer, "step_schedules", lambda optimizer: "step_schedules")
    # Not in shutil itself, where it calls itself for the folders within
    monkeypatch.setattr(loop, "shutil", SimpleNamespace(rmtree=shutil.rmtree, copytree=shutil.copytree))
    note(loop.shutil, "copytree", lambda a, b: f"copytree {a.relative_to(tmp_path)} {b.relative_to(tmp_path)}")
    noted = config(training={"max_steps": 2, "eval_frequency": 2}, optimizer={"learn_rate": 0.02})
    noted["training"]["before_update"] = {"@callbacks": "test_resume.note"}
    noted["training"]["logger"] = {"@loggers": "test_resume.note"}
    (tmp_path / "out").mkdir()
    nlp = init_nlp(noted)
    train_loop(nlp, tmp_path / "out", stdout=io.StringIO())
    step = ["update", "finish_update True", "step_schedules"]
    evaluation = ["evaluate", "to_disk out/model-last", "copytree out/model-last out/model-best", "log True"]
    assert seen == [
        *("before_update 0", *step, *evaluation),
        *("before_update 1", *step, "log None"),
        *("before_update 2", *step, *evaluation),
        *("finalize", "to_disk out/model-last"),
    ]
    # One dict of losses up to an evaluation, and another after it
    assert all_losses[0] is not all_losses[1] and all_losses[1] is all_losses[2]
    # Seeded by the setting, and drawn from for the order of the examples alone
    random.seed(0)
    random.shuffle(list(range(20)))
    assert all(state[0] == random.getstate() for state in states)
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.get_state(legacy=False)  # noqa: NPY002
    assert all((state[1]["state"]["key"] == expected["state"]["key"]).all() for state in states)


def test_two_are_kept(config, tmp_path):
    train(config(block={"steps": 3}), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["0003-step-8", "0004-step-11"]
    # Without resuming a run starts anew, and deletes what another has left when it has something itself
    train(config(block={"steps": 9}), tmp_path / "run", kill=5)
    assert len(list(folder.iterdir())) == 2
    train(config(block={"steps": 9}), tmp_path / "run")
    assert [path.name for path in folder.iterdir()] == ["0005-step-8"]


def test_by_the_clock(config, tmp_path):
    train(config(block={"steps": None, "minutes": 0, "path": str(tmp_path / "elsewhere")}), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["0012-step-11", "0013-step-12"]
    train(config(block={"steps": None, "minutes": 10}), tmp_path / "other")
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_without_an_output_folder(config, alone, tmp_path):
    interrupted = config(block={"path": str(tmp_path / "checkpoints")})
    train(interrupted, None, kill=8)
    nlp = train(resuming(interrupted), None)
    nlp.get_pipe("bert_ner").to_disk(tmp_path / "bert_ner")
    weights = Path("bert_ner", "model", "model.safetensors")
    assert (tmp_path / weights).read_bytes() == alone[0][f"model-last/{weights.as_posix()}"]
    with pytest.raises(ValueError, match=r"path: null means"):
        train(config(block={}), None)


@spacy.registry.callbacks("test_resume.note_in_meta")
def make_note_in_meta():
    def before_to_disk(nlp):
        nlp.meta["noted"] = "yes"
        return nlp

    return before_to_disk


def test_callbacks_of_ones_own(config, tmp_path):
    alone = config()
    alone["training"]["before_to_disk"] = {"@callbacks": "test_resume.note_in_meta"}
    train(alone, tmp_path / "alone")
    with pytest.raises(ValueError, match=r"move it to \[training.before_update.before_to_disk\]"):
        alone["training"]["before_update"] = {"@callbacks": RESUMABLE}
        train(alone, tmp_path / "run")
    interrupted = config(block={"before_to_disk": {"@callbacks": "test_resume.note_in_meta"}})
    train(interrupted, tmp_path / "run", kill=8)
    train(resuming(interrupted), tmp_path / "run")
    assert_same(tmp_path / "run", outcome(tmp_path / "alone"))
    assert srsly.read_json(tmp_path / "run" / "model-best" / "meta.json")["noted"] == "yes"


@pytest.mark.parametrize("name", ["train", "dev"])
def test_other_data(broken_off, data, name):
    settings, output, _ = broken_off
    path = data / f"{name}.spacy"
    before = path.read_bytes()
    vocab = spacy.blank("en").vocab
    docs = list(DocBin().from_disk(path).get_docs(vocab))
    docs[0].set_ents([])
    DocBin(docs=docs).to_disk(path)
    try:
        with pytest.raises(ValueError, match=f"{name}_corpus"):
            train(settings, output)
    finally:
        path.write_bytes(before)


def test_arithmetic_that_gives_another_loss(broken_off, monkeypatch):
    """Stands for another machine: the training goes on, with a warning."""
    from spacy_bertner.component import BertNER

    settings, output, _ = broken_off
    original = BertNER.get_loss

    def get_loss(*args):
        loss, gradient = original(*args)
        return loss * 1.000001, gradient

    monkeypatch.setattr(BertNER, "get_loss", get_loss)
    with pytest.warns(UserWarning, match="not bit for bit"):
        train(settings, output)


# Loggers


def test_seconds_go_on(broken_off):
    settings, output, folders = broken_off
    saved = json.loads((folders[-1] / "state.json").read_text())
    train(settings, output)
    with (output / "learning_curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 3, 6, 9, 12]
    recorded = [int(record["seconds"]) for record in saved["evaluations"]]
    assert [int(row["seconds"]) for row in rows][1:3] == recorded[1:]
    assert int(rows[3]["seconds"]) >= int(saved["seconds"])
    (last, *_) = sorted((output / "checkpoints").iterdir(), reverse=True)
    assert json.loads((last / "state.json").read_text())["seconds"] > saved["seconds"]


# Settings


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"minutes": None, "steps": None}, "minutes, steps: both are null"),
        ({"minutes": -1}, "minutes: -1"),
        ({"steps": 0}, "steps: 0"),
    ],
)
def test_settings_that_cannot_be(config, tmp_path, block, message):
    with pytest.raises(ValueError, match=message):
        train(config(block=block), tmp_path / "run")


def test_what_cannot_be_resumed(config, tmp_path):
    other = spacy.blank("en")
    other.add_pipe("senter")
    other.initialize(lambda: make_examples(other))
    other.to_disk(tmp_path / "senter")
    both = config(block={})
    both["nlp"]["pipeline"] = ["senter", "bert_ner"]
    both["components"]["senter"] = {"source": str(tmp_path / "senter")}
    with pytest.raises(ValueError, match=r"can only resume .* bert_ner .* and not that of senter"):
        train(both, tmp_path / "run")
    seedless = config(block={}, training={"seed": None})
    with pytest.raises(ValueError, match=r"seed: is null"):
        train(seedless, tmp_path / "run")
    # What is frozen may be there, and may annotate
    both["training"].update({"frozen_components": ["senter"], "annotating_components": ["senter"]})
    both["components"]["bert_ner"]["model"].update({"window": 8, "stride": 4})
    interrupted = both.copy()
    both["training"]["before_update"] = None
    train(both, tmp_path / "alone")
    train(interrupted, tmp_path / "run", kill=5)
    train(resuming(interrupted), tmp_path / "run")
    assert_same(tmp_path / "run", outcome(tmp_path / "alone"))


def test_a_pipeline_that_was_trained_is_a_usual_one(config, tmp_path):
    nlp = train(config(block={}), tmp_path / "run")
    assert not {"update", "evaluate", "to_disk"} & nlp.__dict__.keys()
    assert "finish_update" not in vars(nlp.get_pipe("bert_ner"))
    assert nlp.get_pipe("bert_ner").labels == tuple(LABELS)
