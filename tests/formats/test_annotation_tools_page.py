"""The commands of docs/annotation_tools.md, section by section, on small exports."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import spacy
from spacy.cli._util import app
from spacy.tokens import DocBin
from typer.testing import CliRunner

from ..behaviour.pages import PAGES
from ..conftest import SENTENCES, make_examples
from .test_tools import EXPORTS, write_rows

SECTIONS = dict(re.findall(r"(?ms)^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGES["docs/annotation_tools.md"]))
# The example of each export that is there, by the name that the page gives it
FILES = {
    "Prodigy": {"exports/train.jsonl": "prodigy.jsonl", "exports/dev.jsonl": "prodigy_binary.jsonl"},
    "doccano": {"train.jsonl": "doccano_new.jsonl", "dev.jsonl": "doccano_old.jsonl"},
    "Label Studio": {"train.json": "label_studio.json", "dev.json": "label_studio_min.json"},
    "brat": {f"brat_{part}/a{suffix}": f"brat{suffix}" for part in ("train", "dev") for suffix in (".ann", ".txt")},
    "Argilla": {"train.json": "argilla.json", "dev.json": "argilla.json"},
    "Hugging Face datasets": {"dev.jsonl": "hf_numbers.jsonl"},
    "spaCy's lists": {"train.json": "spacy_pairs.json", "dev.json": "spacy_pairs.json"},
}


@pytest.fixture(scope="module")
def nlp(checkpoint):
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    nlp.initialize(lambda: make_examples(nlp))
    return nlp


def blocks(section):
    return re.findall(r"(?ms)^```bash\n(.*?)^```$", SECTIONS[section])


def run_commands(text):
    for line in text.strip().splitlines():
        arguments = shlex.split(line)
        assert arguments[:3] == ["python", "-m", "spacy"]
        result = CliRunner().invoke(app, arguments[3:])
        assert result.exit_code == 0, f"{line}\n{result.stdout}{result.stderr}{result.exception}"


def test_every_section_is_run():
    assert {name for name in SECTIONS if blocks(name)} == {*FILES, "Train"}


@pytest.mark.parametrize("name", FILES)
def test_section(name, tmp_path, monkeypatch, nlp):
    monkeypatch.chdir(tmp_path)
    for target, source in FILES[name].items():
        Path(target).parent.mkdir(exist_ok=True)
        shutil.copy(EXPORTS / source, target)
    options = " --annotator 1" if name == "Label Studio" else ""
    if name == "Hugging Face datasets":
        write_rows(Path("train.parquet"), ["B-PER", "I-PER", "O"], None)
    Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in SENTENCES), encoding="utf8")
    Path("training").mkdir()
    nlp.to_disk("training/model-best")
    for text in blocks(name):
        run_commands(text.replace(" --annotator ann@example.org", options))
    for part in ("train", "dev"):
        assert len(DocBin().from_disk(Path("corpus") / f"{part}.spacy"))


def test_training(tmp_path, monkeypatch, nlp, checkpoint):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint("bert"), "bert-base-cased")
    docs = DocBin(docs=[example.reference for example in make_examples(nlp)])
    for part in ("train", "dev"):
        Path("corpus").mkdir(exist_ok=True)
        docs.to_disk(Path("corpus") / f"{part}.spacy")
    run_commands(blocks("Train")[0].replace("--encoder", "--epochs 2 --no-timing --encoder"))
    assert spacy.load("training/model-best").get_pipe("bert_ner").labels
