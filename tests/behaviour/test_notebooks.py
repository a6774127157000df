"""The notebooks, run from nothing, with a tiny encoder and part of the demo's corpus."""

import json
import os
import sys
from pathlib import Path

import pytest
import spacy

from ..conftest import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


@pytest.fixture
def run(tmp_path, checkpoint, monkeypatch):
    """Give a function that runs a notebook with some settings, and returns the text and the types of all outputs."""
    # `!python` in a cell
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("train", "dev"):
        text = (ROOT / "assets" / "demo" / f"{name}.conll").read_text(encoding="utf8")
        documents = text.split("-DOCSTART- -X- -X- O\n")[1:5]  # the first ones are enough
        (tmp_path / f"{name}.conll").write_text("".join(documents), encoding="utf8")

    def execute(name, **settings):
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        settings = {
            "train_file": "train.conll",
            "dev_file": "dev.conll",
            "encoder": str(checkpoint("bert")),
            **settings,
        }
        for setting in settings:
            assert f"\n{setting} = " in f"\n{cell.source}"
        cell.source += "".join(f"\n{setting} = {json.dumps(value)}" for setting, value in settings.items())
        nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        return "".join(o.get("text", "") for o in outputs), [*map(json.dumps, (o.get("data", {}) for o in outputs))]

    return execute


def test_quickstart(run, tmp_path):
    text, data = run("quickstart", epochs=2)
    assert "columns" in text and "Training takes about" in text and "Saved pipeline to output directory" in text
    assert sum("image/png" in output for output in data) == 1
    assert any('class=\\"entities\\"' in output for output in data)
    assert any("iframe srcdoc" in output and "Entity report" in output for output in data)
    assert spacy.load(tmp_path / "training" / "model-best").get_pipe("bert_ner").labels


def test_tune(run, tmp_path):
    text, data = run("tune", epochs=1, n_trials=2)
    assert "initial_rate = {" in text and "; 2 of 2\n" in text.replace("\r", "")
    assert sum("image/png" in output for output in data) == 3
    assert (tmp_path / "training" / "model-best").exists()


@pytest.mark.parametrize("name", ["quickstart", "tune"])
def test_notebooks_are_kept_without_outputs(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
