"""Checkpoints with a token-classification head of any scheme, beside transformers' own logits and pipeline, and seqeval."""

import io
import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import spacy
import torch
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB1, IOB2, IOBES, Entities
from spacy.tokens import Doc
from spacy.training import Example
from spacy.training.initialize import init_nlp
from thinc.api import Adam, Config
from transformers import (
    AutoModel,
    AutoModelForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
    pipeline,
)

from spacy_bertner.model import checkpoint as checkpoint_module
from spacy_bertner.tags import read_tags, write_tags

from ..conftest import SENTENCES, make_examples, reference_tokenizer, scores_of, train_tokenizer, write_checkpoint

WORDS = [word for text, _ in SENTENCES for word in text.split() if word.isalpha()]
BIO = ["I-PER", "B-PER", "O", "B-product-car", "I-product-car"]
IOB1_NAMES = ["O", "I-PER", "I-LOC", "B-LOC"]
IO = ["O", "I-PER", "I-a_b"]
BILUO = ["O", *(f"{prefix}-{label}" for label in ("PER", "LOC") for prefix in "LUBI")]
BIOES = [{"L": "E", "U": "S"}.get(name[0], name[0]) + name[1:] for name in BILUO]
BARE = ["O", "MISC", "PER", "creative-work"]
HEADS = {"BIO": BIO, "IOB1": IOB1_NAMES, "IO": IO, "BILUO": BILUO, "BIOES": BIOES, "bare": BARE}


def start(folder, nlp=None, examples=None, **settings):
    nlp = nlp or spacy.blank("en")
    model = {"name": str(folder), **settings.pop("model", {})}
    ner = nlp.add_pipe("bert_ner", config={"model": model, **settings})
    nlp.initialize(None if examples is None else lambda: examples)
    return nlp, ner


def short_docs(nlp, n, words=WORDS):
    rng = np.random.default_rng(0)
    return [Doc(nlp.vocab, words=rng.choice(words, size=rng.integers(1, 5)).tolist()) for _ in range(n)]


@pytest.fixture(scope="session")
def balanced(checkpoint):
    """Give a function from architecture and names to a checkpoint whose head favours no row over the others."""

    def get(kind, names):
        folder = checkpoint(kind, names)
        model = AutoModelForTokenClassification.from_pretrained(folder).eval()
        tokenizer = reference_tokenizer(kind, folder)
        words = tokenizer(WORDS, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model.base_model(words["input_ids"])[0][0]
            model.classifier.bias[:] = -(hidden @ model.classifier.weight.T).mean(dim=0)
        model.save_pretrained(folder)
        return folder

    return get


def logits_of(kind, folder, docs):
    """Transformers' own logits, those of the first piece of each word."""
    tokenizer = reference_tokenizer(kind, folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    for doc in docs:
        encoding = tokenizer([token.text for token in doc], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(encoding["input_ids"], encoding["attention_mask"]).logits[0].numpy()
        yield logits[[encoding.word_ids().index(i) for i in range(len(doc))]]


def spans(name, tags):
    """The entities of a tag sequence by seqeval, and whether it is legal; None for a scheme that it has not."""
    if name in ("IO", "bare"):
        tags = [tag if tag == "O" or name == "IO" else f"I-{tag}" for tag in tags]
        return {(start, end + 1, label) for label, start, end in get_entities(tags)}
    scheme = {"BIO": IOB2, "IOB1": IOB1, "BILUO": IOBES, "BIOES": IOBES}[name]
    tags = [{"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:] for tag in tags]
    strict = {(e.start, e.end, e.tag) for e in Entities([tags], scheme).entities[0]}
    # Where every token that is not O is in an entity, the sequence is legal
    covered = {i for start, end, _ in strict for i in range(start, end)}
    return strict if covered == {i for i, tag in enumerate(tags) if tag != "O"} else None


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_any_scheme_gives_entities_at_once(name, balanced):
    folder = balanced("bert", HEADS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nlp, ner = start(folder)
    assert ner.cfg["scheme"] == {"BIOES": "BILUO", "bare": "IO"}.get(name, name)
    docs = short_docs(nlp, 150)
    n_legal = 0
    for doc, rows, logits in zip(docs, scores_of(ner, docs), logits_of("bert", folder, docs), strict=True):
        np.testing.assert_allclose(rows, logits, atol=1e-5)
        expected = spans(name, [HEADS[name][i] for i in logits.argmax(axis=1)])
        if expected is not None:
            n_legal += 1
            assert {(ent.start, ent.end, ent.label_) for ent in nlp(doc).ents} == expected
    assert n_legal >= 10


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "xlm-roberta", "electra", "deberta-v2"])
def test_entities_equal_the_pipeline_of_transformers(kind, balanced):
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    folder = balanced(kind, names)
    nlp, _ = start(folder)
    tokenizer = reference_tokenizer(kind, folder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    # The pipeline takes a piece that is nothing but the blank before a word for a word of its own
    words = [word for word in WORDS if tokenizer.tokenize([word], is_split_into_words=True)[0] not in ("Ġ", "▁")]
    model = AutoModelForTokenClassification.from_pretrained(folder)
    reference = pipeline("token-classification", model, tokenizer=tokenizer, aggregation_strategy="first")
    n_legal = n_entities = 0
    docs = short_docs(nlp, 400, words)
    for doc, logits in zip(docs, logits_of(kind, folder, docs), strict=True):
        if spans("BIO", [names[i] for i in logits.argmax(axis=1)]) is None:
            continue
        n_legal += 1
        text = doc.text.rstrip()
        # Its offsets may hold the blank before a word
        found = {(g["start"] + (text[g["start"]] == " "), g["end"], g["entity_group"]) for g in reference(text)}
        ours = {(ent.start_char, ent.end_char, ent.label_) for ent in nlp(doc).ents}
        assert ours == found
        n_entities += len(ours)
        if n_legal >= 15 and n_entities >= 10:
            break
    assert n_legal >= 5 and n_entities >= 5


def test_names_are_read_and_written():
    for names in HEADS.values():
        read = read_tags(names)
        assert write_tags(read.tags, read.written) == names
    assert read_tags(BIOES).tags == BILUO and read_tags(BIO).written == {}
    assert read_tags(["O", "B-X", "M-X", "E-X", "S-X"]).tags == ["O", "B-X", "I-X", "L-X", "U-X"]  # BMES
    assert read_tags(["O", "B-X", "I-X", "B-Y"]).scheme == "BIO"  # entities of Y have one token
    assert read_tags(["O", "B-X", "I-X"], "IOB1").scheme == "IOB1"
    assert read_tags(["O", "I-X"], "IOB1").scheme == "IOB1"


@pytest.mark.parametrize(
    ("names", "scheme", "message"),
    [
        (["LABEL_0", "LABEL_1"], None, r"placeholders \(LABEL_0, LABEL_1, …\): say what .* transformer_config"),
        (["B-X", "I-X"], None, r"there is no 'O' among them\. Rename them in transformer_config"),
        (["O", "B", "I"], None, r'prefixes \(B, I\) have no label: .*{"0": "O", "1": "B-NAME", "2": "I-NAME"}}'),
        (["I", "O"], None, r'have no label: .*{"0": "I-NAME", "1": "O"}}'),
        (["O", "B", "I", "E", "S"], "BILUO", r"prefixes \(B, I, E, S\) have no label"),
        (["O", "X-B", "X-I"], None, r"'X-B' is no tag: a tag is a prefix, a hyphen and a label"),
        (["O", "B_X", "I_X"], None, "'B_X' is no tag"),
        (["O", "B-X", "I-X", "[CLS]"], None, r"none of the schemes BIO, .*'\[CLS\]' is not of the scheme BIO"),
        (["O", "B-X", "I-Y"], None, "none of the schemes .* cannot begin an entity 'Y' in BIO"),
        (["O", "I-X"], "BIO", r"do not fit scheme = 'BIO': they cannot begin .* set scheme to .* null"),
        (["O", "B-X", "I-X"], "BILUO", "do not fit scheme = 'BILUO'"),
        (["O", "B-X", "I-X", "I-X"], None, "each tag once"),
    ],
)
def test_names_of_no_scheme(names, scheme, message):
    with pytest.raises(ValueError, match=message):
        read_tags(names, scheme)


def test_the_error_names_the_setting(checkpoint):
    with pytest.raises(ValueError, match=r"name: the labels of the checkpoint's head are \['O', 'I-X'\]: .* 'BIO'"):
        start(checkpoint("bert", ["O", "I-X"]), scheme="BIO")


def test_placeholders_and_a_mapping_in_the_config(checkpoint, tmp_path):
    folder = checkpoint("bert", [f"LABEL_{i}" for i in range(5)])
    with pytest.raises(ValueError, match=r"head are \['LABEL_0', .*placeholders"):
        start(folder)
    config = """
    [nlp]
    lang = "en"
    pipeline = ["bert_ner"]

    [components]

    [components.bert_ner]
    factory = "bert_ner"

    [components.bert_ner.model]
    @architectures = "spacy_bertner.BertTokenClassifier.v1"
    name = "FOLDER"
    transformer_config = {"id2label": {"0": "B-LOC", "1": "I-LOC", "2": "I-PER", "3": "O", "4": "B-PER"}}
    """.replace("FOLDER", folder.as_posix())
    nlp = spacy.util.load_model_from_config(Config().from_str(config), auto_fill=True)
    nlp.initialize()
    ner = nlp.get_pipe("bert_ner")
    assert ner.tag_set.tags == ("B-LOC", "I-LOC", "I-PER", "O", "B-PER")
    docs = short_docs(nlp, 3)
    expected = scores_of(ner, docs)
    for rows, logits in zip(expected, logits_of("bert", folder, docs), strict=True):
        np.testing.assert_allclose(rows, logits, atol=1e-5)
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path).get_pipe("bert_ner")
    assert again.tag_set.tags == ner.tag_set.tags
    np.testing.assert_array_equal(np.concatenate(scores_of(again, docs)), np.concatenate(expected))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "O", "1": "B-X"}, r"does not have the 2 rows that id2label names; .* must name each of its rows"),
        ({"0": "O", "1": "B-X", "2": "I-X", "3": "I-X", "4": "B-Y"}, "a name of its own"),
        ({"O": 0, "B-X": 1}, "a name of its own"),
        ({"1": "O", "2": "B-X"}, "from 0 on"),
        (7, "a name of its own"),
    ],
)
def test_a_mapping_that_does_not_fit(names, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        start(checkpoint("bert", [f"LABEL_{i}" for i in range(5)]), model={"transformer_config": {"id2label": names}})


@pytest.mark.parametrize("name", ["assets/encoder", "./encoder", "../encoder", "/no/encoder", "a/b/c", "~/encoder"])
def test_a_folder_that_is_not_there(name, tmp_path, monkeypatch):
    """It is not looked for on the hub, which takes long."""
    (tmp_path / "assets").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint_module, "_can_reach_hub", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(ValueError, match=rf"name: there is no folder '{name}' in .* project run encoder"):
        start(name)


def test_no_network(tmp_path):
    """One line, at once: nothing listens at this address."""
    code = """
import spacy
nlp = spacy.blank("en")
nlp.add_pipe("bert_ner", config={"model": {"name": "someone/tiny-ner"}})
try:
    nlp.initialize()
except ValueError as err:
    print(err)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    (line,) = result.stdout.splitlines()
    assert (
        "at the hub name or folder 'someone/tiny-ner' (the hub cannot be reached: only folders and cached files" in line
    )


def test_rows_that_stand_for_no_tag(checkpoint, tmp_path):
    """They are named null, and never predicted; the others have transformers' logits."""
    names = ["[CLS]", "O", "B-PER", "X", "I-PER", "[PAD]"]
    folder = checkpoint("bert", names)
    with pytest.raises(
        ValueError, match=r"\[CLS\].* a column that stands for no tag is null there, and never predicted"
    ):
        start(folder)
    id2label = {str(i): name if name[0] in "OBI" else None for i, name in enumerate(names)}
    nlp, ner = start(folder, model={"transformer_config": {"id2label": id2label}})
    assert ner.tag_set.tags == ("O", "B-PER", "I-PER")
    docs = short_docs(nlp, 3)
    for rows, logits in zip(scores_of(ner, docs), logits_of("bert", folder, docs), strict=True):
        np.testing.assert_allclose(rows, logits[:, [1, 2, 4]], atol=1e-5)
    nlp.to_disk(tmp_path)
    assert spacy.load(tmp_path).get_pipe("bert_ner").tag_set.tags == ner.tag_set.tags


def test_a_configuration_without_names(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("bert", BIO), tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not have the 2 rows that id2label names"):
        start(folder)
    _, ner = start(folder, model={"transformer_config": {"id2label": BIO}})
    assert list(ner.tag_set.tags) == BIO


@pytest.mark.parametrize("name", ["IOB1", "BIOES", "bare"])
def test_a_pipeline_keeps_its_scheme(name, checkpoint, tmp_path):
    nlp, ner = start(checkpoint("bert", HEADS[name]))
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    for other in (loaded, spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())):
        again = other.get_pipe("bert_ner")
        assert again.cfg == ner.cfg and again.tag_set.scheme == ner.tag_set.scheme
    assert loaded.config["components"]["bert_ner"]["scheme"] is None
    with pytest.raises(ValueError, match="scheme: 'BIO' is set, but the saved model was trained with"):
        spacy.load(tmp_path, config={"components": {"bert_ner": {"scheme": "BIO"}}})


def test_without_a_head_the_scheme_is_bio(checkpoint):
    nlp, ner = start(checkpoint("bert"), examples=make_examples(spacy.blank("en")))
    assert ner.cfg["scheme"] == "BIO" and ner.tag_set.tags[:3] == ("O", "B-LOC", "I-LOC")
    _, ner = start(checkpoint("bert"), examples=make_examples(nlp), scheme="IO")
    assert ner.tag_set.tags[:2] == ("O", "I-LOC")


@pytest.mark.parametrize("name", ["BIO", "BIOES", "IOB1"])
def test_training_goes_on_with_new_labels(name, checkpoint):
    """The head grows; its rows, and so the scores, stay as they are until there is something to learn."""
    nlp = spacy.blank("en")
    folder, examples = checkpoint("bert", HEADS[name]), make_examples(nlp)
    _, ner = start(folder, nlp, examples)
    n = len(HEADS[name])
    assert set(ner.labels) >= {"LOC", "MISC", "ORG", "PER"}
    assert write_tags(ner.tag_set.tags, ner.cfg["written"])[:n] == HEADS[name]
    docs = short_docs(nlp, 5)
    for rows, logits in zip(scores_of(ner, docs), logits_of("bert", folder, docs), strict=True):
        np.testing.assert_allclose(rows[:, :n], logits, atol=1e-5)
    optimizer = Adam(1e-2)
    for _ in range(40):
        nlp.update(examples, sgd=optimizer)
    assert nlp.evaluate(examples)["ents_f"] > 0.9


def test_a_loaded_pipeline_learns_new_labels(tagger, nlp, tmp_path):
    tagger("bert")
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    ner = loaded.get_pipe("bert_ner")
    example = Example.from_dict(loaded.make_doc("Kolb drove a Volta"), {"entities": [(0, 4, "PER"), (13, 18, "CAR")]})
    docs = short_docs(loaded, 3)
    before = scores_of(ner, docs)
    loaded.update([example], sgd=False)
    after = scores_of(ner, docs)
    assert ner.tag_set.tags == (*nlp.get_pipe("bert_ner").tag_set.tags, "B-CAR", "I-CAR")
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a[:, : b.shape[1]], b)
    # What was initialized for certain labels keeps to them
    with pytest.warns(UserWarning, match="left out of training: CAR"):
        nlp.update([example], sgd=False)


def test_a_loaded_head_gets_the_tags_that_a_label_lacks(checkpoint):
    nlp, ner = start(checkpoint("bert", ["O", "B-PER", "I-PER", "B-LOC"]))
    ner.from_bytes(ner.to_bytes())
    example = Example.from_dict(nlp.make_doc("She left New York"), {"entities": [(9, 17, "LOC")]})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nlp.update([example], sgd=False)
    assert ner.tag_set.tags == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def training_config(tmp_path, source: dict) -> Config:
    nlp = spacy.blank("en")
    sentences = [(text, tags.replace("MISC", "THING")) for text, tags in SENTENCES]
    docs = [eg.reference for eg in make_examples(nlp, sentences)]
    spacy.tokens.DocBin(docs=docs).to_disk(tmp_path / "corpus.spacy")
    config = nlp.config.copy()
    config["nlp"]["pipeline"] = ["bert_ner"]
    config["components"] = {"bert_ner": source}
    for part in ("train", "dev"):
        config["corpora"][part] = {"@readers": "spacy.Corpus.v1", "path": str(tmp_path / "corpus.spacy")}
    config["training"].update(max_steps=80, eval_frequency=40, dropout=0.0, score_weights={"ents_f": 1.0})
    config["training"]["optimizer"] = {"@optimizers": "Adam.v1", "learn_rate": 0.005, "use_averages": True}
    config["initialize"]["after_init"] = {"@callbacks": "spacy_bertner.check_dev_corpus.v1"}
    return config


def test_spacy_train_from_a_sourced_component_learns_new_labels(tagger, nlp, tmp_path):
    from spacy.training.loop import train

    tagger("bert")
    nlp.to_disk(tmp_path / "first")
    config = training_config(tmp_path, {"source": str(tmp_path / "first")})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other = init_nlp(config)
        (tmp_path / "second").mkdir()
        train(other, tmp_path / "second", stdout=io.StringIO())
    ner = spacy.load(tmp_path / "second" / "model-best").get_pipe("bert_ner")
    assert ner.labels == ("LOC", "MISC", "ORG", "PER", "THING")
    assert json.loads((tmp_path / "second" / "model-best" / "meta.json").read_text())["performance"]["ents_f"] > 0.9


def test_a_head_of_another_task(tmp_path):
    tokenizer = train_tokenizer("bert")
    config = BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=16
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    nlp = spacy.blank("en")
    with pytest.raises(ValueError, match=r"\(BertForSequenceClassification\) is for another task .* save that alone"):
        start(tmp_path, nlp, make_examples(nlp))
    AutoModel.from_pretrained(tmp_path).save_pretrained(tmp_path)  # what the message says
    start(tmp_path, spacy.blank("en"), make_examples(nlp))


def test_hub_names_and_revisions_from_the_cache_alone(tmp_path):
    """A hub's cache as huggingface_hub lays it out; the libraries look where it is when they are imported."""
    repository = tmp_path / "hub" / "models--someone--tiny-ner"
    for commit, names in (("a" * 40, BIO), ("b" * 40, BIOES)):
        (repository / "snapshots").mkdir(parents=True, exist_ok=True)
        write_checkpoint(repository / "snapshots" / commit, "bert", names)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "refs" / "v2").write_text("b" * 40)
    code = """
import spacy
for revision in (None, "v2", "b" * 40, "v3"):
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": "someone/tiny-ner", "revision": revision}})
    try:
        nlp.initialize()
    except ValueError as err:
        print(err)
    else:
        print(nlp.get_pipe("bert_ner").tag_set.tags)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
        environment.pop(variable, None)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    main, tag, commit, missing = result.stdout.strip().splitlines()
    assert main == str(tuple(BIO)) and tag == commit == str(tuple(BILUO))
    assert "name: no usable tokenizer at the revision 'v3' of the hub name or folder 'someone/tiny-ner'" in missing
    assert "HF_HUB_OFFLINE is set" in missing


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert", "electra", "deberta-v2"])
def test_an_encoder_without_weights_is_like_the_loaded_one(kind, checkpoint):
    for tags in (None, BIO):
        name = str(checkpoint(kind, tags))
        empty, (loaded, _, found) = checkpoint_module.load_without_weights(name), checkpoint_module.load_encoder(name)
        assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
        assert checkpoint_module.max_positions(empty) == checkpoint_module.max_positions(loaded)
        assert checkpoint_module.has_token_head(empty.config) == (found is not None)
        assert empty.config.hidden_size == loaded.config.hidden_size
