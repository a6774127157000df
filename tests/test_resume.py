"""Training that is broken off and goes on, held against training that was left alone, in spaCy's own loop."""

import csv
import io
import json
import pickle
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import spacy
import srsly
import torch
from safetensors import SafetensorError
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as train_loop

from spacy_bertner.files import CheckpointError
from spacy_bertner.training import resume

from .conftest import LABELS, ROOT, make_examples

RESUMABLE = "spacy_bertner.resumable_training.v1"


class Killed(BaseException):
    """Stands for a kill: nothing of the run goes on after it (what spaCy still saves is emptied at the next start)."""


@spacy.registry.callbacks("test_resume.kill")
def kill_at(step: int):
    def before_update(nlp, args):
        if args["step"] == step:
            raise Killed

    return before_update


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """The logger draws none without matplotlib; each would take longer than the training."""
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


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """What a run leaves that has neither checkpoints nor interruptions."""
    output = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        train(config(), output)
    return outcome(output)


def assert_same(output, expected):
    files, rows = outcome(output)
    assert rows == expected[1]
    assert files.keys() == expected[0].keys()
    assert [name for name in files if files[name] != expected[0][name]] == []


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
    "recomputed": {"model": {"window": 8, "stride": 4, "max_batch_pieces": 16, "crf": True}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_ends_as_if_never_stopped(config, tmp_path, name):
    variant = VARIANTS[name]
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
    with pytest.raises(ValueError, match=r"path: null stands for"):
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


def test_nothing_is_unpickled(config, tmp_path, monkeypatch):
    train(config(block={}), tmp_path / "run", kill=8)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        files = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and "best" not in p.parts}
        assert files == {"state.json", "sha256.json", "random.safetensors", "bert_ner.safetensors"}

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    train(resuming(config(block={})), tmp_path / "run")


# Checkpoints that cannot be used


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


def damage(path, kind):
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def test_damage_of_every_file(broken_off, alone, tmp_path):
    """Each file, in each way: refused with its name; and the checkpoint before is used."""
    settings, output, (older, newer) = broken_off
    run = resume.Run(init_nlp(settings), None, minutes=None, steps=1, resume=True, before_to_disk=None)
    shutil.copytree(newer, tmp_path / "whole")
    names = sorted(path.relative_to(newer) for path in newer.rglob("*") if path.is_file())
    assert len(names) > 10
    for name in names:
        for kind in ("missing", "truncated", "flipped"):
            if not (newer / name).stat().st_size:
                continue
            damage(newer / name, kind)
            # What is wrong in the list of checksums is seen in the files that it does not fit
            named = newer if (name.name, kind) == ("sha256.json", "flipped") else newer / name
            with pytest.warns(UserWarning, match=f"{named}.*An older checkpoint is used"):
                found = resume.find_checkpoint(newer.parent, run.settings, ["bert_ner"])
            assert found.folder == older
            shutil.rmtree(newer)
            shutil.copytree(tmp_path / "whole", newer)
    damage(newer / "bert_ner.safetensors", "truncated")
    with pytest.warns(UserWarning, match="An older checkpoint is used"):
        train(settings, output)
    assert_same(output, alone)
    assert not newer.exists()


def test_none_is_whole(broken_off):
    settings, output, folders = broken_off
    for folder in folders:
        damage(folder / "state.json", "truncated")
    with pytest.raises(CheckpointError, match=r"step-7/state.json.*step-5/state.json.*resume = false starts"):
        train(settings, output)


def test_another_version(broken_off, monkeypatch):
    settings, output, _ = broken_off
    monkeypatch.setattr(resume, "__version__", "99.0")
    with pytest.raises(CheckpointError, match=r"was saved by spacy-bertner 0\.\d.*; this is 99.0"):
        train(settings, output)


def test_another_config(broken_off):
    settings, output, _ = broken_off
    settings["training"]["dropout"] = 0.25
    settings["components"]["bert_ner"]["scheme"] = "BILUO"
    both = "components.bert_ner.scheme is 'BILUO' and was None, training.dropout is 0.25 and was 0.1"
    with pytest.raises(CheckpointError, match=f"another config: {both}"):
        train(settings, output)


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
    original = BertNER._loss
    monkeypatch.setattr(BertNER, "_loss", lambda *args: (original(*args)[0] * 1.000001, *original(*args)[1:]))
    with pytest.warns(UserWarning, match="not bit for bit"):
        train(settings, output)


# A disk that is full


@spacy.registry.callbacks("test_resume.limit")
def make_limit(step: int, size: int):
    """From a step on, no file can be larger."""

    def before_update(nlp, args):
        if args["step"] == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return before_update


@pytest.fixture
def no_limit():
    """Take the limit back."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def size_of_weights(files):
    return len(files["model-last/bert_ner/model/model.safetensors"])


def test_a_checkpoint_that_cannot_be_written(config, alone, tmp_path, no_limit):
    limit = {"@callbacks": "test_resume.limit", "step": 6, "size": 2 * size_of_weights(alone[0])}
    limited = config(block={"before_update": limit})
    with pytest.warns(UserWarning, match=r"after step 7 could not be saved.*goes on; the last good.*0003-step-5"):
        train(limited, tmp_path / "run")
    assert_same(tmp_path / "run", alone)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["0002-step-3", "0003-step-5"]


def test_a_model_that_cannot_be_written(config, alone, tmp_path, no_limit):
    """spaCy's own saving of a model fails: the run ends with the error, and can go on when there is room again."""
    limit = {"@callbacks": "test_resume.limit", "step": 6, "size": size_of_weights(alone[0]) // 2}
    limited = config(block={"before_update": limit, "steps": 4})
    with pytest.raises(SafetensorError, match="File too large"):
        train(limited, tmp_path / "run")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    train(resuming(limited, before_update=None), tmp_path / "run")
    assert_same(tmp_path / "run", alone)


def test_a_full_disk(config, alone, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        block = {"path": str(disk), "steps": 3}
        with pytest.warns(UserWarning, match=r"could not be saved.*[Nn]o space left.*the last good one is"):
            train(config(block=block), tmp_path / "run")
        (folder,) = disk.iterdir()
        assert folder.name == "0001-step-2"
        assert_same(tmp_path / "run", alone)
        with pytest.warns(UserWarning, match="could not be saved"):
            train(resuming(config(block=block)), tmp_path / "run")
        assert_same(tmp_path / "run", alone)
        # Nothing of it is in use any more
    finally:
        subprocess.run(["umount", str(disk)], check=True)


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
    with pytest.raises(ValueError, match=r"can resume .* bert_ner .* and not that of senter"):
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
