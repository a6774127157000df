"""Saved pipelines with a file missing, truncated, another's, or full of noise: refused, with the name of the file."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import spacy
import srsly
import torch

from spacy_bertner.files import CheckpointError, unpacked_files

from ..conftest import LABELS, make_examples

RUNTIMES = ("torch", "onnx")


def save_pipeline(folder: Path, checkpoint: Path, runtime: str, *, seed: int, reverse: bool = False) -> Path:
    """Save an initialized pipeline; `reverse` turns the order of its tags round."""
    nlp = spacy.blank("en")
    component = nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint)}})
    torch.manual_seed(seed)
    component.initialize(lambda: make_examples(nlp), labels=LABELS[::-1] if reverse else LABELS)
    with torch.no_grad():
        for parameter in component.model.shims[0].module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    if runtime == "onnx":
        from spacy_bertner.export.onnx import to_onnx

        to_onnx(nlp)
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory, checkpoint):
    """Two saved pipelines of the same shape for each runtime: the same files, all of other content."""
    folder = tmp_path_factory.mktemp("pipelines")
    made = {}
    for runtime in RUNTIMES:
        if runtime == "onnx":
            pytest.importorskip("onnx")
        first = save_pipeline(folder / f"{runtime}-1", checkpoint("bert"), runtime, seed=0)
        second = save_pipeline(folder / f"{runtime}-2", checkpoint("bert-uncased"), runtime, seed=1, reverse=True)
        made[runtime] = first, second
    return made


def component_files(pipeline: Path) -> list[Path]:
    return sorted(path.relative_to(pipeline) for path in (pipeline / "bert_ner").rglob("*") if path.is_file())


def damage(path: Path, kind: str, other: Path) -> None:
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(len(content)))
    elif kind == "one bit":
        changed = bytearray(content)
        changed[len(content) * 3 // 4] ^= 1
        path.write_bytes(changed)
    else:
        path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "noise", "one bit", "swapped"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_file_of_the_component(runtime, kind, pipelines, tmp_path):
    first, second = pipelines[runtime]
    files = component_files(first)
    assert len(files) >= (4 if runtime == "onnx" else 6)
    for file in files:
        copy = tmp_path / "copy"
        shutil.copytree(first, copy)
        damage(copy / file, kind, second / file)
        if (copy / file).exists() and (copy / file).read_bytes() == (first / file).read_bytes():
            shutil.rmtree(copy)
            continue  # the two pipelines have it in common
        with pytest.raises((ValueError, OSError)) as error:
            spacy.load(copy)
        message = str(error.value)
        if file.name == "cfg" and kind in ("swapped", "one bit"):
            assert str(copy / "bert_ner") in message
        else:
            assert str(copy / file) in message, (file, message)
        shutil.rmtree(copy)


def test_a_sound_pipeline_is_loaded(pipelines):
    for first, second in pipelines.values():
        assert spacy.load(first).get_pipe("bert_ner").labels and spacy.load(second).get_pipe("bert_ner").labels


def test_the_folder_of_the_model_is_missing(pipelines, tmp_path):
    shutil.copytree(pipelines["torch"][0], tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "bert_ner" / "model")
    with pytest.raises(ValueError, match=r"model/head\.safetensors: is missing"):
        spacy.load(tmp_path / "copy")


def test_a_changed_file_may_be_meant(pipelines, tmp_path):
    """Who changes a file on purpose takes the checksums out of cfg."""
    copy = tmp_path / "copy"
    shutil.copytree(pipelines["torch"][0], copy)
    config = srsly.read_json(copy / "bert_ner" / "model" / "config.json")
    srsly.write_json(copy / "bert_ner" / "model" / "config.json", {**config, "attention_probs_dropout_prob": 0.3})
    with pytest.raises(ValueError, match=r"config.json: is not the file that was saved"):
        spacy.load(copy)
    cfg = srsly.read_json(copy / "bert_ner" / "cfg")
    del cfg["sha256"]
    srsly.write_json(copy / "bert_ner" / "cfg", cfg)
    spacy.load(copy)


@pytest.mark.parametrize("kind", ["missing", "truncated", "noise"])
def test_files_of_spacy_itself(kind, pipelines, tmp_path):
    """spaCy refuses what it needs; without the rest (lookups, an empty table of vectors) it gives the same entities."""
    first, second = pipelines["torch"]
    text = "Maria Kolb lives in Dresden."
    expected = [(ent.text, ent.label_) for ent in spacy.load(first)(text).ents]
    for file in sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file()):
        if file.parts[0] == "bert_ner":
            continue
        copy = tmp_path / "copy"
        shutil.copytree(first, copy)
        damage(copy / file, kind, second / file)
        try:
            nlp = spacy.load(copy)
        except Exception:  # of many classes
            pass
        else:
            assert [(ent.text, ent.label_) for ent in nlp(text).ents] == expected, file
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/b", "..", ""])
def test_bytes_cannot_leave_their_folder(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(CheckpointError, match="a file name that leaves its folder"),
        unpacked_files(srsly.msgpack_dumps({name: b"x"})),
    ):
        pass
    assert not list(tmp_path.iterdir())
