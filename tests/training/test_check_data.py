"""`spacy bertner check`, compared with what `spacy debug data` reports for `ner`."""

import re
import subprocess
import sys

import pytest
import spacy
from spacy.cli._util import app
from spacy.cli.init_config import fill_config
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

import spacy_bertner.cli  # noqa: F401  which `python -m spacy` finds by its entry point

from ..conftest import ROOT, make_examples


def run(*arguments):
    """Run `python -m spacy …`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def configs(data, checkpoint, tmp_path_factory):
    """Training configs with `bert_ner` and with `ner`, by the name of the factory."""
    folder = tmp_path_factory.mktemp("configs")
    tok2vec = {"@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": 16, "depth": 1,
               "embed_size": 200, "window_size": 1, "maxout_pieces": 2, "subword_features": True}  # fmt: skip
    parser = {"@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner", "hidden_width": 16}
    models = {"bert_ner": {"name": str(checkpoint("bert"))}, "ner": {**parser, "tok2vec": tok2vec}}
    for factory, model in models.items():
        config = spacy.util.load_config(ROOT / "configs" / "demo.cfg")
        config["paths"].update({"train": str(data / "train.spacy"), "dev": str(data / "train.spacy")})
        config["nlp"]["pipeline"] = [factory]
        config["components"] = {factory: {"factory": factory, "model": model}}
        config.to_disk(folder / "partial.cfg")
        fill_config(folder / f"{factory}.cfg", folder / "partial.cfg")
    return {factory: folder / f"{factory}.cfg" for factory in models}


def test_debug_data_and_check(configs, tmp_path):
    """`spacy debug data` runs with bert_ner; the figures it has of `ner` come from `spacy bertner check`."""
    nlp = spacy.blank("en")
    docs = []
    for eg in make_examples(nlp):
        docs.append(eg.reference)
    words = ["in", " ", "Oslo", "!", "and", "Turku", "so"]
    docs.append(Doc(nlp.vocab, words=words, ents=["O", "B-LOC", "I-LOC", "B-PER", "O", None, "O"]))
    cross = Doc(nlp.vocab, words=["at", "Elbe", "Street", "now"], ents=["O", "B-LOC", "I-LOC", "O"])
    for i, token in enumerate(cross):
        token.is_sent_start = i in (0, 2)
    docs.append(cross)
    misaligned = Doc(nlp.vocab, words=["Osl", "o", "won"], spaces=[False, True, False], ents=["B-ORG", "O", "O"])
    docs.append(misaligned)
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    arguments = ["--no-format", "--paths.train", tmp_path / "train.spacy"]
    result = run("debug", "data", configs["bert_ner"], *arguments)
    assert "Pipeline can be initialized with data" in result.output and "Named Entity" not in result.output
    debug = run("debug", "data", configs["ner"], *arguments, "--verbose")
    check = run("bertner", "check", configs["bert_ner"], *arguments)
    assert debug.exit_code == check.exit_code == 1  # both name an entity with whitespace an error
    mine = check.output[: check.output.index("development data", check.output.index("Entities in the training"))]
    for sentence in (
        r"\d+ missing value\(s\) \(tokens with '-' label\)",
        r"\d+ invalid whitespace entity spans",
        r"\d+ entity span\(s\) crossing sentence boundaries",
    ):
        (expected,) = set(re.findall(sentence, debug.output))
        assert expected in mine, expected
    low = r"Low number of examples for label '(\w+)' \((\d+)\)"
    assert sorted(re.findall(low, debug.output)) == sorted(re.findall(low, mine))
    counts = re.search(r"Labels in train data: (.*)", debug.output).group(1)
    for label, count in re.findall(r"'(\w+)' \((\d+)\)", counts):
        assert re.search(rf"(?m)^{label} +{count} ", mine), label
    assert "1 word(s) without annotation" in mine
    assert "1 entities of punctuation alone" in mine
    assert "entities whose ends do not fall on those of the pipeline's tokens, 1: ORG 'Osl'" in mine


def test_check_of_good_data(configs):
    result = run("bertner", "check", configs["bert_ner"])
    out = result.output
    assert result.exit_code == 0, out
    assert "4 label(s): LOC, MISC, ORG, PER" in out and "text(s) also in the development data" in out


def test_check_of_bad_configs(configs, tmp_path):
    for path, message in (
        (configs["ner"], r"check: .* its pipeline \(ner\) has no component bert_ner; `python -m spacy debug data`"),
        (tmp_path / "none.cfg", "check: .*none.cfg"),
    ):
        result = subprocess.run(
            [sys.executable, "-m", "spacy", "bertner", "check", str(path)], capture_output=True, text=True, check=False
        )
        assert result.returncode == 1 and re.search(message, result.stderr) and "Traceback" not in result.stderr
