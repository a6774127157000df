"""What all commands that write a folder have in common: they refuse to overwrite it, and print what they wrote."""

import re

import pytest
import spacy
from spacy.tokens import DocBin
from thinc.compat import has_cupy
from typer.testing import CliRunner

from spacy_bertner.cli import bertner

from .conftest import make_examples
from .test_data_faults import NOT_DOCBINS, not_docbins

COMMANDS = ["onnx", "calibrate", "export", "report"]


@pytest.fixture
def run(tagger, nlp, tmp_path):
    """Give a function that runs a command on a pipeline in the current folder."""
    tagger("bert")
    nlp.to_disk(tmp_path / "pipeline")
    DocBin(docs=[eg.reference for eg in make_examples(spacy.blank("en"))]).to_disk(tmp_path / "data.spacy")

    def run(command, output, *options, data=tmp_path / "data.spacy"):
        data = [data] if command in ("annotate", "calibrate", "report") else []
        return CliRunner().invoke(bertner, [command, *map(str, [tmp_path / "pipeline", *data, output, *options])])

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_output_is_overwritten_only_with_force(command, run, tmp_path):
    if command == "onnx":
        pytest.importorskip("onnxscript")
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    first = run(command, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert first.exit_code == 0, first.output
    if command == "report":
        assert f"Wrote {out / 'report.html'}, and in the same folder" in first.output
    else:
        (printed,) = re.findall(rf"Wrote {out} \(([\d.]+) MB\)\n", first.output)
        assert float(printed) == pytest.approx(size / 1e6, abs=0.051)
    (path,) = (path for path in out.iterdir() if path.name in ("meta.json", "config.json", "report.json"))
    path.write_text("")
    again = run(command, out)
    assert again.exit_code == 1
    assert again.output.splitlines()[-1] == f"{command}: {out}: exists already; --force overwrites it"
    assert path.read_text() == ""
    assert run(command, out, "--force").exit_code == 0
    assert path.read_text() != ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_is_not_overwritten(command, run, tmp_path):
    (tmp_path / "file").write_text("mine")
    for options in ([], ["--force"]):
        result = run(command, tmp_path / "file", *options)
        assert result.exit_code == 1 and f"{command}: {tmp_path / 'file'}: is a file; give a folder" in result.output
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(has_cupy, reason="CuPy is installed")
@pytest.mark.parametrize("command", ["annotate", "calibrate", "report"])
def test_a_gpu_without_cupy(command, run, tmp_path):
    result = run(command, tmp_path / "out.jsonl", "--gpu-id", "0")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        f"{command}: --gpu-id 0: Cannot use GPU, CuPy is not installed. spaCy needs it beside torch: pip install "
        '"spacy[cuda12x]" for CUDA 12 (docs/gpu.md). The first GPU is 0; --gpu-id -1 computes on the CPU'
    )


@pytest.mark.parametrize("kind", NOT_DOCBINS)
@pytest.mark.parametrize("command", ["report", "calibrate", "calibrate --test"])
def test_data_that_is_no_spacy_file(command, kind, run, tmp_path):
    bad, message = not_docbins(tmp_path, kind)
    if command == "calibrate --test":
        result = run("calibrate", tmp_path / "out", "--test", bad)
    else:
        result = run(command, tmp_path / "out", data=bad)
    assert result.exit_code == 1 and result.output.splitlines()[-1] == f"{command.split()[0]}: {message}"
    assert not (tmp_path / "out").exists()
