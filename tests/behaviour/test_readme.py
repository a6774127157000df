"""Runs every command and code block of the README, with tiny encoders in the place of large ones."""

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from spacy.tokens import DocBin
from thinc.api import Config

from spacy_bertner.component import NO_THRESHOLD

from ..conftest import ROOT, SHARED_DATA, make_examples

README = (ROOT / "README.md").read_text(encoding="utf8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(containing: str) -> list[list[str]]:
    """The commands of the shell block that contains a text, one list of arguments each."""
    (block,) = [block for block in blocks("bash") if containing in block]
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def run(arguments: list[str], folder: Path) -> str:
    """Run `spacy …` in a folder."""
    assert arguments[0] == "spacy"
    result = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def project(tmp_path, checkpoint):
    """A copy of the project with a tiny encoder and short training."""
    for name in ("project.yml", "configs", "scripts", "assets/demo"):
        source, target = ROOT / name, tmp_path / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.copytree(checkpoint("bert-uncased"), tmp_path / "assets" / "encoder")
    shutil.copytree(checkpoint("bert"), tmp_path / "bert-base-cased")  # found as a folder before the hub is asked
    for config in (tmp_path / "configs").glob("*.cfg"):
        text = config.read_text(encoding="utf8")
        text = re.sub(r"(?m)^max_epochs = .*", "max_epochs = 0", text)
        text = re.sub(r"(?m)^max_steps = .*", "max_steps = 8", text)
        text = re.sub(r"(?m)^eval_frequency = .*", "eval_frequency = 4", text)
        config.write_text(text, encoding="utf8")
    for name in ("train", "dev", "test"):  # the first documents serve
        path = tmp_path / "assets" / "demo" / f"{name}.conll"
        documents = path.read_text(encoding="utf8").split("-DOCSTART- -X- -X- O\n")[1:5]
        path.write_text("".join(f"-DOCSTART- -X- -X- O\n{doc}" for doc in documents), encoding="utf8")
    return tmp_path


def test_every_block_is_known():
    """A new block must get a test here."""
    assert len(re.findall(r"^```", README, re.MULTILINE)) / 2 == len(blocks("bash")) + len(blocks("python")) + len(
        blocks("ini")
    )
    assert len(blocks("bash")) == 8 and len(blocks("python")) == 2 and len(blocks("ini")) == 6


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    for line in commands("make demo"):
        assert line[0] == "make" and re.search(rf"(?m)^{line[1]}:", makefile)


def test_extras_exist():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    extras = ["shared", "plot", "tensorboard", "onnx"]
    assert [line[-1] for line in commands("pip install")] == ["spacy-bertner", *(f"spacy-bertner[{e}]" for e in extras)]
    assert 'name = "spacy-bertner"' in pyproject and all(f"\n{extra} = [" in pyproject for extra in extras)


def test_settings_block_is_the_default():
    (block,) = [block for block in blocks("ini") if "factory" in block]
    documented = Config().from_str(f"[components]\n{block}")["components"]["bert_ner"]
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner")
    default = dict(nlp.config["components"]["bert_ner"])
    if NO_THRESHOLD is None:  # confection before 1.0
        assert documented.pop("threshold") == {} and default.pop("threshold") is None
    assert documented == default
    settings = re.findall(r"(?m)^(\w+) = ", block)
    explained = re.findall(r"(?m)^# .*\n(?:# .*\n)*(\w+) = ", block)
    assert set(settings) - {"factory"} == set(explained)


def test_shared_block_is_in_the_config():
    (block,) = [block for block in blocks("ini") if "TransformerListener" in block]
    documented = Config().from_str(f"[components]\n[components.bert_ner]\n{block}")["components"]["bert_ner"]["model"]
    assert documented == spacy.util.load_config(ROOT / "configs" / "shared.cfg")["components"]["bert_ner"]["model"]


def save_pipeline(folder: Path, checkpoint) -> None:
    """Save an initialized pipeline where `spacy train` would."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    nlp.initialize(lambda: make_examples(nlp))
    (folder / "training").mkdir()
    nlp.to_disk(folder / "training" / "model-best")


def test_python_blocks(tmp_path, checkpoint):
    shutil.copytree(checkpoint("bert-uncased"), tmp_path / "assets" / "encoder")
    save_pipeline(tmp_path, checkpoint)
    for block in blocks("python"):
        result = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr


def test_conversion_to_onnx(tmp_path, checkpoint):
    save_pipeline(tmp_path, checkpoint)
    for arguments in commands("bertner onnx"):
        run(arguments, tmp_path)
        assert spacy.load(tmp_path / arguments[4]).config["components"]["bert_ner"]["model"]["runtime"] == "onnx"


def test_calibration(tmp_path, checkpoint):
    save_pipeline(tmp_path, checkpoint)
    (tmp_path / "corpus").mkdir()
    for split in ("dev", "test"):
        docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
        DocBin(docs=docs).to_disk(tmp_path / "corpus" / f"{split}.spacy")
    (calibrate,) = commands("bertner calibrate")
    out = run(calibrate, tmp_path)
    assert "corpus/dev.spacy: " in out and "corpus/test.spacy: " in out
    assert spacy.load(tmp_path / calibrate[5]).config["components"]["bert_ner"]["temperature"] != 1.0


def test_annotating_files(tmp_path, checkpoint):
    save_pipeline(tmp_path, checkpoint)
    shutil.copytree(ROOT / "assets" / "demo", tmp_path / "assets" / "demo")
    for arguments in commands("bertner annotate"):
        run(arguments, tmp_path)
    n_docs = (tmp_path / "assets" / "demo" / "test.conll").read_text(encoding="utf8").count("-DOCSTART-")
    assert (tmp_path / "entities.jsonl").read_text(encoding="utf8").count("\n") == n_docs
    assert (tmp_path / "entities.html").read_text(encoding="utf8").count('class="entities"') == n_docs


def test_steps_one_by_one(project):
    for arguments in commands("spacy package"):
        if arguments == ["mkdir", "-p", "packages"]:
            (project / "packages").mkdir()
        else:
            run(arguments, project)
    assert list(project.glob("packages/*/dist/*.whl"))
    assert {"learning_curve.csv", "learning_curve.png"} <= {path.name for path in (project / "training").iterdir()}


def test_resumable_block(project):
    (block,) = [block for block in blocks("ini") if "resumable_training" in block]
    docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
    DocBin(docs=docs).to_disk(project / "corpus.spacy")
    text = (project / "configs" / "demo.cfg").read_text(encoding="utf8")
    (project / "own.cfg").write_text(f"{text}\n{block}", encoding="utf8")
    paths = ["--paths.train", "corpus.spacy", "--paths.dev", "corpus.spacy"]
    arguments = ["spacy", "train", "own.cfg", "--output", "own", *paths, "--training.before_update.steps", "3"]
    run(arguments, project)
    (override,) = re.findall(r"`(--training\.before_update\.\w+ \w+)`", README)
    assert "Going on after step 5" in run([*arguments, *override.split()], project)


def logger_block(containing: str) -> dict:
    """The settings of the block with a logger, by their places in the chain."""
    (block,) = [block for block in blocks("ini") if containing in block]
    config = Config().from_str("[training]\n[training.logger]\n" + block.replace("[training.logger]\n", ""))
    return config["training"]["logger"]


def test_logger_blocks(project):
    config = spacy.util.load_config(project / "configs" / "demo.cfg")
    config["training"]["logger"] = logger_block("TensorBoardLogger")
    config["corpora"]["train"]["path"] = config["corpora"]["dev"]["path"] = "corpus.spacy"
    config.to_disk(project / "own.cfg")
    docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
    DocBin(docs=docs).to_disk(project / "corpus.spacy")
    out = run(["spacy", "train", "own.cfg", "--output", "own"], project)
    assert "LOSS BERT_NER" in out and "own/learning_curve.png" in out
    assert (project / "own" / "learning_curve.png").exists()
    assert [path.name.split(".")[0] for path in (project / "runs" / "first").iterdir()] == ["events"]


@pytest.mark.parametrize("name", ["Wandb", "MLflow"])
def test_blocks_of_other_loggers(name):
    """They need an account or a server; spacy-loggers knows them, and their settings, without."""
    (settings,) = logger_block(name).values()
    logger = spacy.registry.get("loggers", settings.pop("@loggers"))
    inspect.signature(logger).bind(**settings)
    config = spacy.util.load_config(ROOT / "configs" / "demo.cfg").interpolate()
    for path in settings.get("remove_config_values", []):
        section, value = path.split(".")
        del config[section][value]


def test_project_with_files_of_ones_own(project):
    (arguments,) = commands("eng.train")
    for name, split in (("eng.train", "train"), ("eng.testa", "dev"), ("eng.testb", "test")):
        shutil.copy(project / "assets" / "demo" / f"{split}.conll", project / name)
    arguments[arguments.index("--vars.gpu") + 1] = "-1"  # the only thing that cannot be had here
    out = run(arguments, project)
    assert "nothing to fetch" in out
    nlp = spacy.load(project / "training" / "model-best")
    assert nlp.config["paths"]["encoder"] == "bert-base-cased"
    assert nlp.config["components"]["bert_ner"]["model"]["mixed_precision"] == "bf16"
    assert set(nlp.get_pipe("bert_ner").labels) == {"LOC", "MISC", "ORG", "PER"}
    assert (project / "metrics" / "entities.html").exists()
    assert {"report.html", "report.json", "report.md"} <= {path.name for path in (project / "report").iterdir()}
    again = run(arguments, project)  # what is done is skipped
    assert again.count("Skipping") == 6


def test_project_on_wnut(project):
    if not SHARED_DATA.exists():
        pytest.skip("needs ../shared/data")
    assets, arguments = commands("project assets")
    assert assets == ["spacy", "project", "assets", ".", "--extra"]  # needs the network
    (project / "assets" / "wnut17").mkdir()
    for name, source in (("train", "wnut17train.conll"), ("dev", "emerging.dev.conll")):
        lines = (SHARED_DATA / "wnut17" / source).read_text(encoding="utf8").split("\n")[:3000]
        (project / "assets" / "wnut17" / f"{name}.conll").write_text("\n".join(lines), encoding="utf8")
    run(arguments, project)
    labels = spacy.load(project / "training" / "model-best").get_pipe("bert_ner").labels
    assert "creative-work" in labels
