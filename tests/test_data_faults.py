"""Training data that cannot all be used: counted and named once, at the start."""

import re
import warnings

import pytest
import spacy
from spacy.cli._util import setup_cli  # noqa: F401  (fills the registry as the command line does)
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.training.initialize import init_nlp
from typer.testing import CliRunner

from spacy_bertner.cli import bertner

from .conftest import ROOT, make_examples


def example(nlp, words, tags, predicted=None, **kwargs):
    reference = Doc(nlp.vocab, words=words.split(), ents=tags.split() if tags else None, **kwargs)
    return Example(Doc(nlp.vocab, words=(predicted or words).split()), reference)


def initialize(nlp, checkpoint, examples, labels=None):
    component = nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        component.initialize(lambda: examples, nlp=nlp, labels=labels)
    messages = [str(w.message) for w in caught if str(w.message).startswith("bert_ner:")]
    assert len(messages) <= 1
    return component, messages[0] if messages else ""


def test_sound_data_gives_no_warning(nlp, checkpoint):
    assert initialize(nlp, checkpoint, make_examples(nlp))[1] == ""


def test_every_kind_is_counted_and_named(nlp, checkpoint):
    no_row = "\u200b"
    partly = Doc(nlp.vocab, words=["Sela", "won"])
    partly.set_ents([partly.char_span(0, 4, label="PER")], default="missing")
    examples = [
        example(nlp, "Maria Kolb lives here", "B-PER I-PER O O"),
        example(nlp, "never annotated words", None),
        example(nlp, "", ""),  # an empty document lacks nothing
        Example(Doc(nlp.vocab, words=["Sela", "won"]), partly),
        example(nlp, "New Delhi wins", "B-LOC I-LOC O"),
        example(nlp, f"a {no_row} b", "O B-PER O"),
        example(nlp, "Maria Kolb lives here", "O O O O"),
        example(nlp, "Maria Kolb lives here", "B-PER I-PER O O"),
        example(nlp, "The Elbe rose", "O B-RIVER O"),
    ]
    # "NewYork wins" as two tokens where the gold has "York" by itself
    gold = Doc(nlp.vocab, words=["New", "York", "wins"], spaces=[False, True, False], ents=["O", "B-LOC", "O"])
    examples.append(Example(Doc(nlp.vocab, words=["NewYork", "wins"]), gold))
    component, message = initialize(nlp, checkpoint, examples, labels=["PER", "LOC"])
    lines = message.splitlines()
    assert lines[0] == "bert_ner: of 10 documents with 7 entities to learn from:"
    assert lines[1:] == [
        "- documents without entity annotation, 1: document 2 ('never annotated words ')",
        "- documents with tokens without annotation, of which the other tokens are learned, 1: document 4 ('Sela won ')",
        "- entities whose ends do not fall on those of the pipeline's tokens, 1: LOC 'York' in document 10",
        f"- entities of tokens that have no word pieces, 1: PER {no_row!r} in document 6",
        "- entities of labels that the component does not have, 1: RIVER 'Elbe' in document 9",
        "- documents with the words of an earlier one but other entities; both are learned, 1: "
        "document 7 ('Maria Kolb lives here ')",
    ]
    # and not once more in training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        component.update(examples)


def test_the_counts_are_those_of_all_and_the_names_those_of_five(nlp, checkpoint):
    examples = make_examples(nlp) + [example(nlp, f"w{i} x", None) for i in range(23)]
    _, message = initialize(nlp, checkpoint, examples)
    assert "- documents without entity annotation, 23: " in message
    assert message.count("document 2") == 5 and message.endswith("and 18 more")


def test_long_texts_are_shortened(nlp, checkpoint):
    _, message = initialize(nlp, checkpoint, [*make_examples(nlp), example(nlp, "word " * 5000 + "x", None)])
    assert max(map(len, message.splitlines())) < 200


def test_one_label_alone_is_learnt(nlp, checkpoint):
    component, message = initialize(nlp, checkpoint, [example(nlp, "Maria Kolb", "B-PER I-PER")])
    assert message == "" and component.labels == ("PER",)
    assert component.update([example(nlp, "Maria Kolb", "B-PER I-PER")])["bert_ner"] > 0


def test_no_entity_at_all_is_learnt_where_labels_are_given(nlp, checkpoint):
    component, message = initialize(nlp, checkpoint, [example(nlp, "It rained", "O O")], labels=["PER"])
    assert message == "" and component.update([example(nlp, "It rained", "O O")])["bert_ner"] > 0


@pytest.mark.parametrize(("n_common", "n_rare"), [(30, 1), (30, 2), (30, 3), (15, 1)])
def test_a_label_that_may_be_misspelled(n_common, n_rare, nlp, checkpoint):
    examples = [example(nlp, f"Oslo w{i}", "B-CITY O") for i in range(n_common)]
    examples += [example(nlp, f"Rome w{i}", "B-CTIY O") for i in range(n_rare)]
    _, message = initialize(nlp, checkpoint, examples)
    expected = f"at most 2 times, unlike the others: misspelled?, {n_rare}: CTIY 'Rome' in document {n_common + 1}"
    assert (expected in message) == (n_common >= 20 and n_rare <= 2)
    assert bool(message) == (expected in message)


@pytest.mark.parametrize(("n_docs", "message"), [(0, "is empty"), (3, "has no entities")])
def test_development_data_without_entities(n_docs, message, nlp, checkpoint, tmp_path):
    DocBin(docs=[eg.reference for eg in make_examples(nlp)]).to_disk(tmp_path / "train.spacy")
    DocBin(docs=[Doc(nlp.vocab, words=["It", "rained"], ents=["O", "O"])] * n_docs).to_disk(tmp_path / "dev.spacy")
    overrides = {f"paths.{name}": str(tmp_path / f"{name}.spacy") for name in ("train", "dev")}
    overrides["components.bert_ner.model.name"] = str(checkpoint("bert"))
    config = spacy.util.load_config(ROOT / "configs" / "demo.cfg", overrides=overrides)
    with pytest.warns(
        UserWarning, match=rf"bert_ner: the development data \(corpora.dev\) {message}: the scores are 0"
    ):
        init_nlp(config, use_gpu=-1)


def not_docbins(folder, kind):
    """Write what is no .spacy file; return its path and what is said of it."""
    path = folder / ("data.spacy" if kind == "renamed CoNLL" else "data.conll" if kind == "CoNLL" else "data.bin")
    convert = "`python -m spacy bertner convert` makes one from CoNLL files"
    if kind == "folder":
        path = folder / "corpus"
        path.mkdir()
        (path / "data.conll").write_text("Oslo B-LOC\n", encoding="utf8")
        return path, f"{path}: no .spacy file in this folder; {convert}"
    if kind == "other extension":
        DocBin().to_disk(path)
        return path, f"{path}: spaCy reads only files with the extension .spacy; rename it"
    path.write_text("Oslo B-LOC\n", encoding="utf8")
    return path, f"{path}: is not a .spacy file; {convert}"


NOT_DOCBINS = ["CoNLL", "renamed CoNLL", "folder", "other extension"]


@pytest.mark.parametrize("kind", NOT_DOCBINS)
@pytest.mark.parametrize("part", ["train", "dev"])
def test_corpora_that_are_no_spacy_files(part, kind, nlp, checkpoint, tmp_path):
    """An error in `spacy train` and `check`, not no documents and at best a warning."""
    DocBin(docs=[eg.reference for eg in make_examples(nlp)]).to_disk(tmp_path / "good.spacy")
    overrides = {f"paths.{name}": str(tmp_path / "good.spacy") for name in ("train", "dev")}
    overrides["components.bert_ner.model.name"] = str(checkpoint("bert"))
    bad, message = not_docbins(tmp_path, kind)
    config = spacy.util.load_config(
        ROOT / "configs" / "demo.cfg", overrides=overrides | {f"paths.{part}": str(bad)}, interpolate=False
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        init_nlp(config, use_gpu=-1)
    config.to_disk(tmp_path / "bad.cfg")
    result = CliRunner().invoke(bertner, ["check", str(tmp_path / "bad.cfg")])
    assert result.exit_code == 1 and result.output.splitlines()[-1] == f"check: {message}"


def test_corpora_of_a_sourced_component(nlp, checkpoint, tmp_path):
    """It is not initialized: the callback of the shipped configs looks at them."""
    make = [eg.reference for eg in make_examples(nlp)]
    DocBin(docs=make).to_disk(tmp_path / "good.spacy")
    initialize(nlp, checkpoint, make_examples(nlp))
    nlp.to_disk(tmp_path / "pipeline")
    bad, message = not_docbins(tmp_path, "CoNLL")
    overrides = {"paths.train": str(tmp_path / "good.spacy"), "paths.dev": str(bad)}
    config = spacy.util.load_config(ROOT / "configs" / "demo.cfg", overrides=overrides)
    config["components"]["bert_ner"] = {"source": str(tmp_path / "pipeline")}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        init_nlp(config, use_gpu=-1)


def test_corpora_that_a_loaded_pipeline_no_longer_has(nlp, checkpoint):
    nlp.config["corpora"]["train"]["path"] = "gone.conll"
    _, message = initialize(nlp, checkpoint, make_examples(nlp))
    assert message == ""


@pytest.mark.parametrize("name", ["demo", "bert"])
def test_labels_of_the_development_data_alone(name, nlp, checkpoint, tmp_path):
    train = DocBin(docs=[eg.reference for eg in make_examples(nlp)])
    train.to_disk(tmp_path / "train.spacy")
    docs = [
        Doc(nlp.vocab, words=["The", "Elbe"], ents=["O", "B-RIVER"]),
        Doc(nlp.vocab, words=["Oslo"], ents=["B-LOC"]),
    ]
    DocBin(docs=docs).to_disk(tmp_path / "dev.spacy")
    paths = {"train": str(tmp_path / "train.spacy"), "dev": str(tmp_path / "dev.spacy")}
    overrides = {f"paths.{key}": value for key, value in paths.items()}
    overrides["components.bert_ner.model.name"] = str(checkpoint("bert"))
    config = spacy.util.load_config(ROOT / "configs" / f"{name}.cfg", overrides=overrides)
    with pytest.warns(UserWarning, match=re.escape("labels in the development data alone")) as caught:
        init_nlp(config, use_gpu=-1)
    (message,) = [str(w.message) for w in caught if "development" in str(w.message)]
    assert message.endswith("RIVER (1 entities)")
