"""`spacy bertner init`: a config that trains as it is, and steps that are those of spaCy's own loop."""

import itertools
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import spacy
from spacy.cli._util import app
from spacy.schemas import ConfigSchemaTraining
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Corpus
from spacy.training.loop import create_train_batches
from spacy.util import load_config, registry
from thinc.api import require_cpu
from transformers import CLIPConfig
from typer.testing import CliRunner

import spacy_bertner.cli  # noqa: F401  which `python -m spacy` finds by its entry point
from spacy_bertner.training.init import Schedule, format_seconds, make_schedule

from ..conftest import LABELS, ROOT, SENTENCES, make_examples, write_checkpoint
from .conftest import train


def spacy_cli(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def init(data, checkpoint, tmp_path):
    """Give a function that runs the command; its options are those of the command, with `None` for flags."""

    def run(output=tmp_path / "out.cfg", **options):
        given = {"train": data / "train.spacy", "dev": data / "dev.spacy", "encoder": checkpoint("bert"), **options}
        pairs = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
        return spacy_cli("bertner", "init", output, *(x for pair in pairs for x in pair if x is not None))

    return run


def write_docs(path, docs):
    DocBin(docs=docs).to_disk(path)
    return path


def batches_of(config, n_epochs):
    """The batches of spaCy's training loop, by the config."""
    nlp = spacy.blank("en")
    T = registry.resolve(config.interpolate()["training"], schema=ConfigSchemaTraining)
    batches = create_train_batches(nlp, Corpus(config["paths"]["train"]), T["batcher"], 0)
    return list(itertools.takewhile(lambda item: item[0] < n_epochs, batches))


def test_the_config_trains_as_it_is(init, data, tmp_path):
    result = init(epochs=3)
    assert result.exit_code == 0, result.output
    n_words = sum(len(words.split()) for words, _ in SENTENCES)
    counts = [f"{label} {sum(tags.split().count(f'B-{label}') for _, tags in SENTENCES)}" for label in LABELS]
    (found,) = re.findall(rf"Training data: 20 documents, {n_words} words, \d+ entities: (.*)\n", result.output)
    assert sorted(found.split(", ")) == counts
    assert re.search(r"Training takes about \d+ seconds on the CPU", result.output)
    assert spacy_cli("debug", "config", tmp_path / "out.cfg").exit_code == 0
    assert spacy_cli("bertner", "check", tmp_path / "out.cfg").exit_code == 0
    (command,) = re.findall(r"python (-m spacy train .*)\n", result.output)
    assert command.split()[3:] == [str(tmp_path / "out.cfg"), "--output", "training"]
    trained = subprocess.run(
        [sys.executable, *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    rows = re.findall(r"(?m)^ +\d+ +(\d+) ", trained.stdout)
    config = load_config(tmp_path / "out.cfg").interpolate()
    assert rows[-1] == str(config["training"]["max_steps"])
    assert spacy.load(tmp_path / "training" / "model-best").get_pipe("bert_ner").labels == ("LOC", "MISC", "ORG", "PER")


@pytest.mark.parametrize("epochs", [1, 7])
def test_steps_are_those_of_spacys_loop(epochs, init, tmp_path, data):
    docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
    # Sizes at which all orders make the same batches
    documents = [Doc.from_docs(docs * 2)] * 23
    write_docs(tmp_path / "train.spacy", documents)
    result = init(train=tmp_path / "train.spacy", epochs=epochs, no_timing=None)
    assert result.exit_code == 0, result.output
    config = load_config(tmp_path / "out.cfg")
    training, expected = config.interpolate()["training"], len(batches_of(config, epochs))
    schedule = training["optimizer"]["learn_rate"]
    assert expected <= training["max_steps"] < expected + 20
    assert training["max_steps"] % training["eval_frequency"] == 0
    assert 10 <= training["max_steps"] // training["eval_frequency"] <= 20
    assert schedule["total_steps"] == training["max_steps"]
    assert 0.06 <= schedule["warmup_steps"] / training["max_steps"] <= 0.101
    assert training["patience"] == training["max_steps"] // 2


def test_schedules_by_the_size_of_the_corpus():
    # Documents of 300 words make batches of one document
    def of(n_batches, epochs=None):
        return make_schedule([300] * n_batches, epochs)

    assert of(100) == Schedule(epochs=10, n_batches=100, n_words=300, steps=1000, eval_frequency=100)
    assert of(17).epochs == 30 and 510 <= of(17).steps < 530  # at least 500 steps
    assert of(1).epochs == 100  # but not more than 100 epochs
    assert of(500).epochs == 6  # at most 3000 steps
    assert of(2000).epochs == 4  # but not fewer than 4 epochs
    assert of(2000, epochs=2).steps == 4000
    assert of(3, epochs=1) == Schedule(epochs=1, n_batches=3, n_words=300, steps=3, eval_frequency=1)
    assert make_schedule([5000, 10]).n_batches == 2  # a long document is a batch of its own


@pytest.mark.parametrize(
    "settings, window, rate",
    [
        ({"hidden_size": 32}, 256, 1e-4),
        ({"hidden_size": 768, "max_position_embeddings": 100}, 100, 5e-5),
        ({"hidden_size": 1024, "max_position_embeddings": 8}, 8, 2e-5),
    ],
)
def test_settings_follow_the_encoder(settings, window, rate, init, tmp_path):
    encoder = write_checkpoint(tmp_path / "encoder", "bert", num_hidden_layers=1, **settings)
    result = init(encoder=encoder, no_timing=None)
    assert result.exit_code == 0, result.output
    config = load_config(tmp_path / "out.cfg").interpolate()
    model = config["components"]["bert_ner"]["model"]
    assert model["window"] == window and 0 < model["stride"] < window
    assert model["mixed_precision"] == "auto"
    assert config["training"]["optimizer"]["learn_rate"]["initial_rate"] == rate


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "deberta-v2"])
def test_other_encoders(kind, init, checkpoint, tmp_path):
    result = init(encoder=checkpoint(kind), no_timing=None)
    assert result.exit_code == 0, result.output


def test_a_head_keeps_its_tags(init, checkpoint, tmp_path):
    tags = ["O", "B-PER", "I-PER", "L-PER", "U-PER"]
    assert init(encoder=checkpoint("bert", tags), no_timing=None).exit_code == 0
    assert load_config(tmp_path / "out.cfg")["components"]["bert_ner"]["scheme"] is None
    assert "# null: that of the checkpoint's head" in (tmp_path / "out.cfg").read_text()


def test_resumable_block(init, tmp_path, without_pictures):
    """The block is there as a comment; without the # it works."""
    assert init(no_timing=None, epochs=2).exit_code == 0
    text = (tmp_path / "out.cfg").read_text()
    head, block = text.split("uncomment this block and delete `before_update = null` above\n")
    block, rest = block.split("\n\n", 1)
    text = head.replace("before_update = null\n", "") + "\n" + block.replace("# ", "") + "\n\n" + rest
    (tmp_path / "own.cfg").write_text(text.replace("minutes = 10\nsteps = null", "minutes = null\nsteps = 1"))
    train(load_config(tmp_path / "own.cfg"), tmp_path / "out")
    assert len(list((tmp_path / "out" / "checkpoints").iterdir())) == 2


def test_for_a_gpu(init, tmp_path):
    for flag in ({"gpu": None}, {"gpu_id": 1}):
        result = init(no_timing=None, force=None, **flag)
        assert result.exit_code == 0, result.output
        assert f"--gpu-id {flag.get('gpu_id', 0)}\n" in result.output
        model = load_config(tmp_path / "out.cfg")["components"]["bert_ner"]["model"]
        assert model["mixed_precision"] == "auto"


@pytest.mark.cpu_only
def test_a_gpu_that_is_not_there(init, tmp_path):
    if spacy.prefer_gpu():
        require_cpu()
        pytest.skip("there is a GPU")
    result = init(gpu=None)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("init: --gpu-id 0: ")
    assert not (tmp_path / "out.cfg").exists()


def test_the_estimate_includes_evaluation(init, tmp_path, data, checkpoint):
    """Within a factor of two of the time that training takes, with development data larger than the training data."""
    docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
    write_docs(tmp_path / "dev.spacy", docs * 20)
    result = init(dev=tmp_path / "dev.spacy", epochs=12)
    assert result.exit_code == 0, result.output
    (estimate,) = map(float, re.findall(r"about (\d+) seconds", result.output))
    nlp = spacy.util.load_model_from_config(load_config(tmp_path / "out.cfg"), auto_fill=True)
    examples = list(Corpus(tmp_path / "dev.spacy")(nlp))
    nlp.initialize(lambda: examples[:20])
    start = time.perf_counter()
    nlp.evaluate(examples)
    assert estimate >= round(5 * (time.perf_counter() - start))


def test_durations():
    assert format_seconds(41.7) == "42 seconds"
    assert format_seconds(170) == "3 minutes"
    assert format_seconds(9000) == "2.5 hours"


def entities(words, tags, **kwargs):
    return Doc(spacy.blank("en").vocab, words=words.split(), ents=tags, **kwargs)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 0}, "--epochs: 0 is not a number of epochs, 1 or more"),
        ({"epochs": -3}, "--epochs: -3 is not a number of epochs, 1 or more"),
        ({"train": "none.spacy"}, "none.spacy: no such file or folder"),
        ({"dev": "none.spacy"}, "none.spacy: no such file or folder"),
        ({"train": "empty.spacy"}, "empty.spacy: the file is empty"),
        ({"train": "no_docs.spacy"}, "no_docs.spacy: has no documents"),
        ({"train": "outside.spacy"}, "outside.spacy: has no entities (in doc.ents) in 1 document(s)"),
        ({"dev": "outside.spacy"}, "outside.spacy: has no entities (in doc.ents) in 1 document(s)"),
        ({"train": "unannotated.spacy"}, "unannotated.spacy: has no entities (in doc.ents) in 1 document(s)"),
        ({"train": "data.conll"}, "data.conll: is not a .spacy file; `python -m spacy bertner convert` makes one"),
        ({"train": "conll.spacy"}, "conll.spacy: is not a .spacy file; `python -m spacy bertner convert` makes one"),
        ({"train": "folder"}, "folder: no .spacy file in this folder"),
        ({"encoder": "assets/nowhere"}, "--encoder: no usable checkpoint at the hub name or folder 'assets/nowhere'"),
        ({"encoder": "clip"}, "--encoder: no usable checkpoint at the folder 'clip': a model of the kind 'clip'"),
        ({"encoder": "./nowhere"}, "--encoder: there is no folder './nowhere' in "),
        ({"encoder": "a$b"}, "--encoder: a$b: has a $, with which spaCy's configs begin a variable; rename it"),
        ({"lang": "xyz"}, "[E048] Can't import language xyz"),
    ],
)  # fmt: skip
def test_bad_input(options, message, init, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CLIPConfig().save_pretrained("clip")
    (tmp_path / "empty.spacy").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name in ("data.conll", "conll.spacy"):
        (tmp_path / name).write_text("Oslo B-LOC\n")
    write_docs("no_docs.spacy", [])
    write_docs("outside.spacy", [entities("All is quiet", ["O", "O", "O"])])
    write_docs("unannotated.spacy", [Doc(spacy.blank("en").vocab, words=["All"])])
    result = init(output="out.cfg", **options)
    assert result.exit_code == 1
    assert f"init: {message}" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out.cfg").exists()


def test_an_output_that_exists(init, tmp_path):
    (tmp_path / "out.cfg").write_text("mine")
    result = init()
    assert (
        result.exit_code == 1
        and f"init: {tmp_path / 'out.cfg'}: exists already; --force overwrites it" in result.output
    )
    assert (tmp_path / "out.cfg").read_text() == "mine"
    result = init(output=tmp_path)
    assert result.exit_code == 1 and f"init: {tmp_path}: is a folder; give the name of a file" in result.output
    assert init(force=None, no_timing=None).exit_code == 0
    assert (tmp_path / "out.cfg").read_text().startswith("# Written by")


def test_inputs_and_outputs_of_the_same_name(init, data, tmp_path):
    train = shutil.copy(data / "train.spacy", tmp_path / "t.spacy")
    content = Path(train).read_bytes()
    for options in (
        {"output": train, "train": train},
        {"space": train, "train": train},
        {"space": tmp_path / "out.cfg"},
    ):
        result = init(**options, force=None, no_timing=None)
        assert result.exit_code == 1 and "would overwrite an input" in result.output
    assert Path(train).read_bytes() == content and not (tmp_path / "out.cfg").exists()
    result = init(output=f"{train}/out.cfg")
    assert result.exit_code == 1 and f"init: {train}/out.cfg: cannot be written, as {train} is a file" in result.output


def test_odd_documents(init, tmp_path):
    """Documents without sentence starts, one of 5,000 words, one that is partly annotated, labels of the dev data alone."""
    long = entities("Oslo lies here " * 1667, ["B-LOC", "O", "O"] * 1667)
    partly = entities("Elbe and Oslo", [None, "O", "B-LOC"])
    write_docs(tmp_path / "train.spacy", [long, partly])
    result = init(train=tmp_path / "train.spacy", epochs=2)
    assert result.exit_code == 0, result.output
    assert not long.has_annotation("SENT_START")
    assert "2 documents, 5,004 words, 1,668 entities: LOC 1,668" in result.output
    assert (
        "documents with tokens without annotation, of which the other tokens are learned, 1: document 2"
        in result.output
    )
    assert "labels in the development data alone, which can never be found" in result.output
    assert "about 2 batches of 2,502 words" in result.output


def test_a_sentence_of_5000_words(init, tmp_path):
    starts = [True, *[False] * 5000]
    docs = [entities("Oslo lies here " * 1667, ["B-LOC", "O", "O"] * 1667, sent_starts=starts)] * 2
    write_docs(tmp_path / "train.spacy", docs)
    result = init(train=tmp_path / "train.spacy", epochs=1, no_timing=None)
    assert result.exit_code == 0, result.output
    assert "2 documents of one sentence each, 10,002 words, 3,334 entities: LOC 3,334" in result.output
    assert "Training: 2 steps, 1 epoch of about 2 batches of 5,001 words, 2 evaluations" in result.output


def test_documents_of_several_sentences(init, tmp_path):
    doc = entities("Oslo . Elbe .", ["B-LOC", "O", "B-LOC", "O"], sent_starts=[True, False, True, False])
    write_docs(tmp_path / "train.spacy", [doc, doc])
    result = init(train=tmp_path / "train.spacy", no_timing=None)
    assert "Training data: 2 documents of 4 sentences, 8 words, 4 entities: LOC 4" in result.output


def test_a_group_of_spans(init, tmp_path):
    doc = entities("Elbe and Oslo", None)
    doc.spans["sc"] = [Span(doc, 0, 1, "LOC"), Span(doc, 2, 3, "LOC")]
    path = write_docs(tmp_path / "train.spacy", [doc])
    result = init(train=path, dev=path, spans_key="sc", no_timing=None)
    assert result.exit_code == 0, result.output
    assert "1 document, 3 words, 2 entities: LOC 2" in result.output and "score_weights" not in result.output
    config = load_config(tmp_path / "out.cfg").interpolate()
    assert config["components"]["bert_ner"]["spans_key"] == "sc"
    weights = {name: weight for name, weight in config["training"]["score_weights"].items() if weight is not None}
    assert weights == {"ents_f": 0.0, "spans_sc_f": 1.0, "spans_sc_p": 0.0, "spans_sc_r": 0.0}
    for options, place in (({}, "doc.ents"), ({"spans_key": "x"}, "doc.spans['x']")):
        result = init(train=path, dev=path, force=None, **options)
        assert result.exit_code == 1
        message = f"init: {path}: has no entities (in {place}) in 1 document(s); --spans-key takes them from doc.spans"
        assert f"{message}, whose groups are ['sc']" in result.output


def test_labels_and_paths_with_odd_characters(init, tmp_path):
    folder = tmp_path / 'a "b" #c\\d é'
    folder.mkdir()
    write_docs(folder / "train.spacy", [entities("Elbe and Oslo", ["B-A B", "O", "B-é#\u2028x"])])
    result = init(train=folder / "train.spacy", dev=folder / "train.spacy", no_timing=None)
    assert result.exit_code == 0, result.output
    assert load_config(tmp_path / "out.cfg")["paths"]["train"] == str(folder / "train.spacy")


def test_on_the_demo(tmp_path, monkeypatch, checkpoint):
    """The project's default, but for the encoder: as many steps as documents."""
    monkeypatch.chdir(tmp_path)
    files = [ROOT / "assets" / "demo" / f"{part}.conll" for part in ("train", "dev")]
    assert spacy_cli("bertner", "convert", *files, "corpus").exit_code == 0
    arguments = ["--train", "corpus/train.spacy", "--dev", "corpus/dev.spacy", "--encoder", checkpoint("bert-uncased")]
    result = spacy_cli("bertner", "init", "corpus/config.cfg", *arguments, "--no-timing")
    assert result.exit_code == 0, result.output
    assert "Training: 540 steps, 12 epochs of about 45 batches of 327 words, 10 evaluations" in result.output
