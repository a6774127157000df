"""Exported checkpoints, opened with transformers, and the same scores there, here and here again."""

import json

import numpy as np
import pytest
import spacy
import torch
from spacy.tokens import Doc
from thinc.api import Adam
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline
from typer.testing import CliRunner

from spacy_bertner.cli import bertner
from spacy_bertner.export.huggingface import export

from ..conftest import ARCHITECTURES, SENTENCES, make_examples, scores_of

BIOES = ["O", *(f"{prefix}-{label}" for label in ("PER", "LOC") for prefix in "BIES")]


def docs_of(nlp):
    return [Doc(nlp.vocab, words=[*text.split(), "\u200b"]) for text, _ in SENTENCES[:6]]


def logits_of(folder, doc):
    """The scores of transformers' own model and tokenizer at the first piece of each word; None without a piece."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    encoding = tokenizer([token.text for token in doc], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(encoding["input_ids"], encoding["attention_mask"]).logits[0].numpy()
    words = encoding.word_ids()
    return [logits[words.index(i)] if i in words and doc[i].text != "\u200b" else None for i in range(len(doc))]


def started_from(folder, vocab=None):
    nlp = spacy.blank("en", vocab=vocab or True)
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(folder)}})
    nlp.initialize()
    return nlp, ner


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_scores_are_the_same_in_transformers_and_back_again(kind, tagger, nlp, tmp_path):
    ner = tagger(kind, orthography=False)
    nlp.update(make_examples(nlp), sgd=Adam(1e-3))
    export(nlp, tmp_path / "out")
    docs = docs_of(nlp)
    scores = scores_of(ner, docs)
    for row, logits in zip(scores[0], logits_of(tmp_path / "out", docs[0]), strict=True):
        if logits is None:
            assert np.isneginf(row).all()
        else:
            np.testing.assert_allclose(row, logits, atol=1e-5)
    again = started_from(tmp_path / "out", nlp.vocab)[1]
    assert again.tag_set.tags == ner.tag_set.tags and again.cfg["scheme"] == ner.cfg["scheme"]
    for a, b in zip(scores_of(again, docs), scores, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_long_texts_in_transformers(kind, tagger, nlp, tmp_path):
    """The tokenizer cuts at what the encoder has positions for, whatever its own configuration says."""
    ner = tagger(kind)
    ner.model.shims[0].tokenizer.model_max_length = 10**30
    limit = ner.model.shims[0].max_positions
    export(nlp, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == limit and ner.model.shims[0].tokenizer.model_max_length == 10**30
    inputs = tokenizer("Rome " * 3000, truncation=True, return_tensors="pt")
    with torch.no_grad():
        assert AutoModelForTokenClassification.from_pretrained(tmp_path)(**inputs).logits.shape[1] == limit


def test_a_temperature_is_in_the_weights(tagger, nlp, tmp_path):
    ner = tagger("bert", orthography=False)
    nlp.update(make_examples(nlp), sgd=Adam(1e-3))
    ner.cfg["temperature"] = 2.5
    export(nlp, tmp_path / "out")
    docs = docs_of(nlp)
    (scores, *_) = scores_of(ner, docs)
    for row, logits in zip(scores, logits_of(tmp_path / "out", docs[0]), strict=True):
        if logits is not None:
            np.testing.assert_allclose(row / 2.5, logits, atol=1e-5)


def test_a_folder_of_transformers(tagger, nlp, tmp_path):
    tagger("bert")
    nlp.update(make_examples(nlp), sgd=Adam(1e-3))
    export(nlp, tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= files
    assert not any(name.endswith((".bin", ".pt")) for name in files)
    config = json.loads((tmp_path / "config.json").read_text())
    tags = nlp.get_pipe("bert_ner").tag_set.tags
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"] == {str(i): tag for i, tag in enumerate(tags)}
    assert config["label2id"] == {tag: i for i, tag in enumerate(tags)}
    assert str(tmp_path) not in (tmp_path / "config.json").read_text()
    assert "_name_or_path" not in config or not config["_name_or_path"]
    found = pipeline("token-classification", model=str(tmp_path), aggregation_strategy="first")(
        ["Maria Kolb lives in Dresden", "Nothing happened"]
    )
    assert len(found) == 2 and {group["entity_group"] for group in found[0]} <= set(nlp.get_pipe("bert_ner").labels)


def test_tags_are_written_as_the_checkpoint_wrote_them(checkpoint, tmp_path):
    nlp, ner = started_from(checkpoint("bert", BIOES))
    ner.add_label("ORG")
    nlp.to_disk(tmp_path / "saved")
    export(spacy.load(tmp_path / "saved"), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert list(config["id2label"].values()) == [*BIOES, "B-ORG", "I-ORG", "E-ORG", "S-ORG"]
    assert started_from(tmp_path / "out")[1].tag_set.tags == ner.tag_set.tags


def run(*arguments):
    return CliRunner().invoke(bertner, ["export", *map(str, arguments)])


def test_the_command(tagger, nlp, tmp_path):
    tagger("bert")
    nlp.to_disk(tmp_path / "pipeline")
    out = tmp_path / "out"
    assert run(tmp_path / "pipeline", out).exit_code == 0
    assert AutoModelForTokenClassification.from_pretrained(out).config.num_labels == 9
    again = run(tmp_path / "pipeline", out)
    assert again.exit_code == 1 and f"export: {out}: exists already; --force overwrites it" in again.output
    assert run(tmp_path / "pipeline", out, "--force").exit_code == 0
    nowhere = run(tmp_path / "nowhere", tmp_path / "other")
    assert nowhere.exit_code == 1 and "export: " in nowhere.output and not (tmp_path / "other").exists()


def test_one_of_several(tagger, nlp, checkpoint, tmp_path):
    tagger("bert")
    nlp.add_pipe("bert_ner", name="second", config={"model": {"name": str(checkpoint("roberta", BIOES))}})
    nlp.get_pipe("second").initialize(lambda: [], labels=[])
    with pytest.raises(ValueError, match=r"several: choose one with --component, of \['bert_ner', 'second'\]"):
        export(nlp, tmp_path / "out")
    with pytest.raises(ValueError, match=r"component: 'third' is no bert_ner of this pipeline"):
        export(nlp, tmp_path / "out", component="third")
    export(nlp, tmp_path / "out", component="second")
    assert AutoModelForTokenClassification.from_pretrained(tmp_path / "out").config.model_type == "roberta"


def test_what_transformers_has_no_place_for(tagger, nlp, tmp_path, checkpoint):
    ner = tagger("bert-uncased")
    export(nlp, tmp_path / "untrained")  # an embedding of zeros changes nothing
    with torch.no_grad():
        ner.model.shims[0].module.orthography.weight[1:] = 0.1
    with pytest.raises(ValueError, match=r"bert_ner: orthography: .* train with orthography = false"):
        export(nlp, tmp_path / "out")
    shared = spacy.blank("en")
    tok2vec = {"@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": 8, "depth": 1,
               "embed_size": 50, "window_size": 1, "maxout_pieces": 2, "subword_features": True}  # fmt: skip
    model = {"@architectures": "spacy_bertner.TokenClassifier.v1", "tok2vec": tok2vec}
    shared.add_pipe("bert_ner", config={"model": model})
    shared.initialize(lambda: make_examples(shared))
    with pytest.raises(ValueError, match=r"vectors of another component, .*BertTokenClassifier\.v1"):
        export(shared, tmp_path / "out")
    with pytest.raises(ValueError, match="no component bert_ner"):
        export(spacy.blank("en"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_component_that_is_not_initialized(nlp, tmp_path):
    nlp.add_pipe("bert_ner")
    with pytest.raises(ValueError, match="holds no encoder yet"):
        export(nlp, tmp_path / "out")


def test_the_onnx_runtime(nlp, tmp_path):
    pytest.importorskip("onnxruntime")
    nlp.add_pipe("bert_ner", config={"model": {"runtime": "onnx"}})
    with pytest.raises(ValueError, match=r'runtime: "onnx" has no weights to export; export the pipeline it was'):
        export(nlp, tmp_path / "out")
