"""spaCy's commands, and `nlp` itself, with `bert_ner`: what they give is held against what they give for `ner`."""

import json
import multiprocessing
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import spacy
from spacy.cli._util import app
from spacy.cli.find_threshold import find_threshold
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import load_config
from thinc.api import Adam, CupyOps, fix_random_seed
from typer.testing import CliRunner

import spacy_bertner.cli  # noqa: F401  which `python -m spacy` finds by its entry point
from spacy_bertner.model.interface import NAME, interface_of

from ..conftest import LABELS, SENTENCES, make_examples

FACTORIES = ["ner", "bert_ner"]
NER_MODEL = {
    "@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner", "hidden_width": 16,
    "tok2vec": {
        "@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": 16, "depth": 1,
        "embed_size": 200, "window_size": 1, "maxout_pieces": 2, "subword_features": True,
    },
}  # fmt: skip
TEXTS = [text for text, _ in SENTENCES] + ["", " "]


def entities(doc):
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


def run(*arguments):
    """Run `python -m spacy …`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def invoke(*arguments) -> str:
    """Run `python -m spacy …` and return what it prints."""
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def model_of(factory, checkpoint):
    return NER_MODEL if factory == "ner" else {"name": str(checkpoint("bert"))}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory, checkpoint):
    """Folders of pipelines, trained until they find something, by the name of the factory."""
    folders = {}
    for factory in FACTORIES:
        nlp = spacy.blank("en")
        nlp.add_pipe(factory, config={"model": model_of(factory, checkpoint)})
        examples = make_examples(nlp)
        fix_random_seed(0)
        nlp.initialize(lambda examples=examples: examples)
        optimizer = Adam(5e-3, use_averages=False)
        for _ in range(30):
            nlp.update(examples, sgd=optimizer, drop=0.0)
        assert sum(len(doc.ents) for doc in nlp.pipe(TEXTS)) > 10
        folders[factory] = tmp_path_factory.mktemp(factory) / "model"
        nlp.to_disk(folders[factory])
    return folders


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.spacy"
    DocBin(docs=[eg.reference for eg in make_examples(spacy.blank("en"))]).to_disk(path)
    return path


@pytest.fixture(scope="module")
def configs(tmp_path_factory, checkpoint, corpus):
    """Whole training configs by the name of the factory, made by `spacy init fill-config` of a few lines."""
    paths = {}
    for factory in FACTORIES:
        partial = spacy.Config(
            {
                "paths": {"train": str(corpus), "dev": str(corpus)},
                "nlp": {"lang": "en", "pipeline": [factory]},
                "components": {factory: {"factory": factory, "model": model_of(factory, checkpoint)}},
                "training": {
                    "max_steps": 2, "eval_frequency": 2, "train_corpus": "corpora.train", "dev_corpus": "corpora.dev",
                },
                "corpora": {
                    name: {"@readers": "spacy.Corpus.v1", "path": f"${{paths.{name}}}"} for name in ("train", "dev")
                },
            }
        )  # fmt: skip
        folder = tmp_path_factory.mktemp(factory)
        partial.to_disk(folder / "partial.cfg")
        invoke("init", "fill-config", folder / "partial.cfg", folder / "config.cfg")
        paths[factory] = folder / "config.cfg"
    return paths


# nlp itself


@pytest.mark.parametrize("factory", FACTORIES)
def test_n_process(factory, pipelines):
    nlp = spacy.load(pipelines[factory])
    one = [entities(doc) for doc in nlp.pipe(TEXTS)]
    assert [entities(doc) for doc in nlp.pipe(TEXTS, n_process=2, batch_size=3)] == one
    assert [entities(nlp(text)) for text in TEXTS] == one


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="a spawned process has a model of its own")
def test_n_process_on_a_gpu(pipelines, monkeypatch):
    """What a GPU holds is of no use to a fork: that is said, before the model is asked."""
    nlp = spacy.load(pipelines["bert_ner"])
    model = nlp.get_pipe("bert_ner").model
    monkeypatch.setattr(model, "ops", CupyOps())
    monkeypatch.setitem(model.attrs, NAME, replace(interface_of(model), is_on_gpu=lambda model: True))
    with pytest.warns(UserWarning, match="W114"):  # spaCy's own
        docs = nlp.pipe(TEXTS, n_process=2)
        with pytest.raises(ValueError, match=r"bert_ner: the model is on a GPU, which a forked .*Use n_process=1"):
            list(docs)


@pytest.mark.parametrize("factory", FACTORIES)
def test_as_tuples(factory, pipelines):
    nlp = spacy.load(pipelines[factory])
    expected = [(entities(nlp(text)), i) for i, text in enumerate(TEXTS)]
    pairs = [(text, i) for i, text in enumerate(TEXTS)]
    for n_process in (1, 2):
        got = nlp.pipe(pairs, as_tuples=True, batch_size=4, n_process=n_process)
        assert [(entities(doc), i) for doc, i in got] == expected


@pytest.mark.parametrize("factory", FACTORIES)
def test_select_pipes(factory, pipelines):
    nlp = spacy.load(pipelines[factory])
    nlp.add_pipe("sentencizer")
    with nlp.select_pipes(disable=[factory]):
        assert nlp.pipe_names == ["sentencizer"]
        assert not nlp(TEXTS[0]).has_annotation("ENT_IOB")
    with nlp.select_pipes(enable=[factory]):
        assert nlp(TEXTS[0]).has_annotation("ENT_IOB") and not nlp(TEXTS[0]).has_annotation("SENT_START")
    assert nlp.pipe_names == [factory, "sentencizer"]


def test_analyze_pipes(nlp):
    for factory in FACTORIES:
        nlp.add_pipe(factory)
    nlp.add_pipe("entity_linker")
    analysis = nlp.analyze_pipes()
    ner, bert_ner = (analysis["summary"][factory] for factory in FACTORIES)
    ner["assigns"] = [*ner["assigns"], "span._.score"]
    assert {key: set(value) if isinstance(value, list) else value for key, value in bert_ner.items()} == {
        key: set(value) if isinstance(value, list) else value for key, value in ner.items()
    }
    alone = spacy.blank("en")
    alone.add_pipe("bert_ner")
    alone.add_pipe("entity_linker")
    # What the linker needs of `ner`, bert_ner gives; sentence starts nobody does
    assert alone.analyze_pipes()["problems"]["entity_linker"] == ["doc.sents", "token.sent_start"] or not any(
        "ent" in need.split(".")[1] and "sent" not in need
        for need in alone.analyze_pipes()["problems"]["entity_linker"]
    )


# The command line


@pytest.mark.parametrize("factory", FACTORIES)
def test_evaluate(factory, pipelines, corpus, tmp_path):
    invoke("evaluate", pipelines[factory], corpus, "--output", tmp_path / "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf8"))
    expected = {"token_acc", "token_p", "token_r", "token_f", "ents_p", "ents_r", "ents_f", "ents_per_type", "speed"}
    assert set(metrics) == expected
    assert set(metrics["ents_per_type"]) <= set(LABELS)
    assert all(set(scores) == {"p", "r", "f"} for scores in metrics["ents_per_type"].values())
    nlp = spacy.load(pipelines[factory])
    found = {(i, *ent) for i, text in enumerate(TEXTS[:-2]) for ent in entities(nlp(Doc(nlp.vocab, text.split())))}
    gold = {(i, *ent) for i, eg in enumerate(make_examples(nlp)) for ent in entities(eg.reference)}
    assert metrics["ents_f"] == pytest.approx(2 * len(found & gold) / (len(found) + len(gold)))


def test_evaluate_prints_the_same_rows(pipelines, corpus):
    def rows(text):
        return [line.split()[0] for line in text.splitlines() if re.match(r"[A-Z]", line)]

    ner, bert_ner = (invoke("evaluate", pipelines[factory], corpus) for factory in FACTORIES)
    assert [row for row in rows(ner) if row not in LABELS] == [row for row in rows(bert_ner) if row not in LABELS]


@pytest.mark.parametrize("factory", FACTORIES)
def test_benchmark_speed(factory, pipelines, corpus):
    out = invoke(
        "benchmark", "speed", pipelines[factory], corpus, "--batches", "30", "--warmup", "1", "--batch-size", "5"
    )
    assert re.search(r"Mean: [\d.]+ words/s \(95% CI", out)


@pytest.mark.parametrize("factory", FACTORIES)
def test_apply(factory, pipelines, corpus, tmp_path):
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS[:-2]), encoding="utf8")
    nlp = spacy.load(pipelines[factory])
    expected = [entities(nlp(text)) for text in TEXTS[:-2]]
    for source in (tmp_path / "lines.jsonl", corpus):
        invoke("apply", pipelines[factory], source, tmp_path / "out.spacy", "--force", "--batch-size", "4")
        docs = list(DocBin().from_disk(tmp_path / "out.spacy").get_docs(nlp.vocab))
        if source != corpus:  # those have entities already, which stay
            assert [entities(doc) for doc in docs] == expected
        assert len(docs) == len(expected)


def test_find_threshold(checkpoint, tmp_path):
    """`spacy find-threshold` on a group of `doc.spans` finds what counting by hand at each threshold finds."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}, "spans_key": "sc"})
    docs = [eg.reference for eg in make_examples(nlp)]
    for doc in docs:
        doc.spans["sc"] = list(doc.ents)
        doc.set_ents([])
    examples = [Example(Doc(nlp.vocab, words=[token.text for token in doc]), doc) for doc in docs]
    fix_random_seed(0)
    nlp.initialize(lambda: examples)
    optimizer = Adam(5e-3, use_averages=False)
    for _ in range(20):  # of some sentences only, so that it is wrong in others
        nlp.update(examples[:8], sgd=optimizer, drop=0.0)
    nlp.to_disk(tmp_path / "model")
    DocBin(docs=docs).to_disk(tmp_path / "corpus.spacy")
    found, gold = [], set()
    for i, doc in enumerate(docs):
        predicted = nlp(Doc(nlp.vocab, words=[token.text for token in doc]))
        group = predicted.spans["sc"]
        found += [((i, s.start, s.end, s.label_), p) for s, p in zip(group, group.attrs["scores"], strict=True)]
        gold |= {(i, span.start, span.end, span.label_) for span in doc.spans["sc"]}

    def by_hand(labels):
        """F1 by threshold, which holds for these labels."""
        scores = {}
        for threshold in np.linspace(0, 1, 6):
            kept = {span for span, p in found if p >= threshold or span[-1] not in labels}
            scores[threshold] = 2 * len(kept & gold) / (len(kept) + len(gold))
        assert len(set(scores.values())) > 2
        return scores

    arguments = [tmp_path / "model", tmp_path / "corpus.spacy", "bert_ner", "threshold", "spans_sc_f"]
    expected = by_hand(LABELS)
    out = invoke("find-threshold", *arguments, "--n_trials", "6")
    rows = re.findall(r"(?m)^([\d.]+) +([\d.]+) *$", out)
    assert [(float(threshold), float(score)) for threshold, score in rows] == [
        pytest.approx((threshold, score), abs=6e-4) for threshold, score in expected.items()
    ]
    best = max(expected, key=lambda threshold: expected[threshold])
    found_best = re.search(r"Best threshold: ([\d.]+) with spans_sc_f value of ([\d.]+)\.", out)
    assert [float(value) for value in found_best.groups()] == pytest.approx([best, expected[best]])
    assert best > 0
    # One label's, beside that of another
    nlp.get_pipe_config("bert_ner")["threshold"] = {"MISC": 0.0, "ORG": 0.0}
    nlp.to_disk(tmp_path / "by-label")
    arguments[0], arguments[3] = tmp_path / "by-label", "threshold.ORG"
    assert find_threshold(*arguments, n_trials=6)[2] == pytest.approx(by_hand(["ORG"]))


@pytest.mark.parametrize("factory", FACTORIES)
def test_package(factory, pipelines, tmp_path):
    invoke("package", pipelines[factory], tmp_path, "--name", "tiny", "--version", "1.2.3", "--build", "none")
    source = tmp_path / "en_tiny-1.2.3"
    nlp, original = spacy.load(source / "en_tiny" / "en_tiny-1.2.3"), spacy.load(pipelines[factory])
    assert [entities(doc) for doc in nlp.pipe(TEXTS)] == [entities(doc) for doc in original.pipe(TEXTS)]
    meta = json.loads((source / "meta.json").read_text(encoding="utf8"))
    assert set(meta["labels"]) == {factory} and sorted(meta["labels"][factory]) == LABELS
    needs = " ".join(meta["requirements"])
    assert ("spacy-bertner" in needs.replace("_", "-")) == (factory == "bert_ner")


@pytest.mark.parametrize("factory", FACTORIES)
def test_assemble(factory, pipelines, configs, tmp_path):
    config = load_config(configs[factory])
    config["components"] = {factory: {"source": str(pipelines[factory])}}
    config.to_disk(tmp_path / "assemble.cfg")
    invoke("assemble", tmp_path / "assemble.cfg", tmp_path / "out")
    nlp, source = spacy.load(tmp_path / "out"), spacy.load(pipelines[factory])
    assert [entities(doc) for doc in nlp.pipe(TEXTS)] == [entities(doc) for doc in source.pipe(TEXTS)]


@pytest.mark.parametrize("factory", FACTORIES)
def test_fill_config(factory, configs, checkpoint):
    config = load_config(configs[factory])
    default = spacy.blank("en")
    default.add_pipe(factory, config={"model": model_of(factory, checkpoint)})
    assert config["components"][factory] == default.config["components"][factory]
    assert config["training"]["score_weights"] == {"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None}
    again = configs[factory].with_name("again.cfg")
    invoke("init", "fill-config", configs[factory], again)
    assert load_config(again) == config


def test_init_labels(configs, tmp_path):
    for factory in FACTORIES:
        invoke("init", "labels", configs[factory], tmp_path / factory)
        (path,) = (tmp_path / factory).iterdir()
        assert path.name == f"{factory}.json"
    # spaCy's has the actions of its transitions, with frequencies; the labels in both are the same
    ner, bert_ner = (
        json.loads((tmp_path / factory / f"{factory}.json").read_text(encoding="utf8")) for factory in FACTORIES
    )
    assert bert_ner == LABELS == sorted(set(ner["1"]) - {""})
    config = load_config(configs["bert_ner"])
    config["initialize"]["components"]["bert_ner"] = {
        "labels": {"@readers": "spacy.read_labels.v1", "path": str(tmp_path / "bert_ner" / "bert_ner.json")}
    }
    config.to_disk(tmp_path / "labels.cfg")
    invoke("train", tmp_path / "labels.cfg", "--output", tmp_path / "out")
    assert spacy.load(tmp_path / "out" / "model-last").get_pipe("bert_ner").labels == tuple(LABELS)


@pytest.mark.parametrize("factory", FACTORIES)
def test_train(factory, configs, tmp_path):
    invoke("train", configs[factory], "--output", tmp_path)
    meta = json.loads((tmp_path / "model-last" / "meta.json").read_text(encoding="utf8"))
    assert set(meta["performance"]) == {"ents_f", "ents_p", "ents_r", "ents_per_type", f"{factory}_loss"}


def test_labels_are_in_order(pipelines):
    """`nlp.pipe_labels` and the meta have them as the component does."""
    nlp = spacy.load(pipelines["bert_ner"])
    assert nlp.pipe_labels["bert_ner"] == list(nlp.get_pipe("bert_ner").labels) == nlp.meta["labels"]["bert_ner"]
    assert all(a < b for a, b in pairwise(nlp.pipe_labels["bert_ner"]))
    example = Example.from_dict(nlp.make_doc("Oslo"), {"entities": [(0, 4, "LOC")]})
    assert set(nlp.evaluate([example])) >= {"ents_f", "ents_per_type"}
