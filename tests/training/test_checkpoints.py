"""Checkpoints on disk: damaged ones, those of other runs, and a disk that is full."""

import pickle
import resource
import shutil
import subprocess

import pytest
import spacy
import torch
from safetensors import SafetensorError
from spacy.training.initialize import init_nlp

from spacy_bertner.files import CheckpointError
from spacy_bertner.training import checkpoints

from .conftest import assert_same, resuming, train

pytestmark = pytest.mark.usefixtures("without_pictures")


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
    expected = checkpoints.settings_of(init_nlp(settings))
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
                found = checkpoints.find_checkpoint(newer.parent, expected)
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
    monkeypatch.setattr(checkpoints, "__version__", "99.0")
    with pytest.raises(CheckpointError, match=r"was saved by spacy-bertner 0\.\d.*; this is 99\.0"):
        train(settings, output)


def test_another_config(broken_off):
    settings, output, _ = broken_off
    settings["training"]["dropout"] = 0.25
    settings["components"]["bert_ner"]["scheme"] = "BILUO"
    both = "components.bert_ner.scheme is 'BILUO' and was None, training.dropout is 0.25 and was 0.1"
    with pytest.raises(CheckpointError, match=f"another config: {both}"):
        train(settings, output)


def test_a_path_spelt_another_way(broken_off, alone, data, monkeypatch):
    settings, output, _ = broken_off
    monkeypatch.chdir(data)
    settings["paths"]["train"] = "train.spacy"
    shutil.copyfile("dev.spacy", "other.spacy")
    settings["paths"]["dev"] = "other.spacy"
    with pytest.raises(
        CheckpointError, match=r"another config: corpora\.dev\.path is 'other\.spacy' and was '/\S*, paths"
    ):
        train(settings, output)
    settings["paths"]["dev"] = "dev.spacy"
    train(settings, output)
    assert_same(output, alone)


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
    with pytest.warns(UserWarning, match=r"after step 7 could not be saved.*continues; the last good.*0003-step-5"):
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
