"""One transformer for `bert_ner` and others, through listeners, as spaCy's own `ner` shares it; see configs/shared.cfg."""

import csv

import numpy as np
import pytest
import spacy
from spacy.cli.train import train as spacy_train
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from thinc.api import Adam, fix_random_seed

from ..conftest import LABELS, ROOT, SENTENCES, scores_of

pytest.importorskip("spacy_transformers")

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1", "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_mean.v1"},
}  # fmt: skip
TEXTS = [text for text, _ in SENTENCES]
# What spaCy's own is compared with: the same listener below it
MODELS = {
    "bert_ner": {"@architectures": "spacy_bertner.TokenClassifier.v1", "tok2vec": LISTENER},
    "ner": {"@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner", "tok2vec": LISTENER},
    "tagger": {"@architectures": "spacy.Tagger.v2", "tok2vec": LISTENER},
}


def make_docs(vocab):
    """The sentences, two a Doc, with entities, sentence starts and tags."""
    for (first, first_ents), (second, second_ents) in zip(SENTENCES[::2], SENTENCES[1::2], strict=True):
        words, ents = (first + " " + second).split(), (first_ents + " " + second_ents).split()
        starts = [i in (0, len(first.split())) for i in range(len(words))]
        tags = ["NNP" if word[0].isupper() else "X" for word in words]
        yield Doc(vocab, words=words, ents=ents, sent_starts=starts, tags=tags)


def make_examples(nlp):
    return [Example(Doc(nlp.vocab, words=[t.text for t in doc]), doc) for doc in make_docs(nlp.vocab)]


def make_pipeline(folder, components=("bert_ner", "tagger")):
    """An initialized pipeline of a transformer and components that listen to it."""
    nlp = spacy.blank("en")
    model = {
        "@architectures": "spacy-transformers.TransformerModel.v3", "name": str(folder),
        "tokenizer_config": {"use_fast": True}, "transformer_config": NO_DROPOUT,
        "get_spans": {"@span_getters": "spacy-transformers.strided_spans.v1", "window": 64, "stride": 48},
    }  # fmt: skip
    nlp.add_pipe("transformer", config={"model": model})
    for name in components:
        nlp.add_pipe(name, config={"model": MODELS[name]})
    fix_random_seed(0)
    nlp.initialize(lambda: make_examples(nlp))
    return nlp


def train(nlp, steps=10, learn_rate=1e-3, **settings):
    optimizer = Adam(learn_rate, use_averages=False)
    return [nlp.update(make_examples(nlp), sgd=optimizer, drop=0.0, **settings) for _ in range(steps)]


def found(nlp, texts=TEXTS):
    docs = list(nlp.pipe(texts))
    return [[(ent.start, ent.end, ent.label_) for ent in doc.ents] for doc in docs]


def scores(nlp, texts=TEXTS):
    """The scores of the tags, after what is before `bert_ner`."""
    with nlp.select_pipes(disable=[name for name in nlp.pipe_names if name not in ("transformer", "bert_ner")]):
        docs = list(nlp.pipe(texts))
    return np.concatenate(scores_of(nlp.get_pipe("bert_ner"), docs))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, checkpoint):
    """A folder with a pipeline that is trained far enough to find entities."""
    nlp = make_pipeline(checkpoint("bert"))
    train(nlp, steps=60, learn_rate=3e-3)
    assert any(found(nlp))
    folder = tmp_path_factory.mktemp("trained")
    nlp.to_disk(folder)
    return folder


def test_shared_config(tmp_path, checkpoint):
    docs = list(make_docs(spacy.blank("en").vocab))
    DocBin(docs=docs * 3).to_disk(tmp_path / "train.spacy")
    DocBin(docs=docs).to_disk(tmp_path / "dev.spacy")
    overrides = {
        "paths.train": str(tmp_path / "train.spacy"), "paths.dev": str(tmp_path / "dev.spacy"),
        "paths.encoder": str(checkpoint("bert-uncased")), "training.max_epochs": 0, "training.max_steps": 40,
        "training.eval_frequency": 10, "training.optimizer.learn_rate.initial_rate": 5e-3,
        "training.batcher.size": 100,
    }  # fmt: skip
    spacy_train(ROOT / "configs" / "shared.cfg", tmp_path / "out", overrides=overrides)
    with (tmp_path / "out" / "learning_curve.csv").open(encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    for name in ("bert_ner", "senter"):
        (column,) = [column for column in rows[0] if "loss" in column and name in column]
        losses = [float(row[column]) for row in rows]
        assert losses[-1] < 0.9 * losses[1], (name, losses)  # the first row is that of a single step
    nlp = spacy.load(tmp_path / "out" / "model-last")
    assert nlp.pipe_names == ["transformer", "bert_ner", "senter"]
    assert set(nlp.get_pipe("bert_ner").labels) == set(LABELS)
    doc = nlp(" ".join(TEXTS[:2]))
    assert doc.has_annotation("SENT_START") and doc.has_annotation("ENT_IOB")
    assert {"ents_f", "ents_per_type", "sents_f"} <= set(nlp.meta["performance"])


def test_all_train_the_transformer(checkpoint):
    """Its gradient is the sum of those of the components that listen."""
    gradients = {}
    for components in (["bert_ner"], ["tagger"], ["bert_ner", "tagger"], ["tagger", "bert_ner"]):
        nlp = make_pipeline(checkpoint("bert"), components)
        for name in components:  # the same heads each time
            (head,) = [node for node in nlp.get_pipe(name).model.walk() if node.name in ("linear", "softmax")]
            rng = np.random.default_rng(len(name))
            head.set_param("W", head.ops.asarray(rng.normal(scale=0.1, size=head.get_param("W").shape).astype("f")))
        nlp.update(make_examples(nlp), sgd=False, drop=0.0)
        (shim,) = [shim for node in nlp.get_pipe("transformer").model.walk() for shim in node.shims]
        gradients[tuple(components)] = {
            name: p.grad.clone().cpu() for name, p in shim._model.named_parameters() if p.grad is not None
        }
    ner, tagger = gradients["bert_ner",], gradients["tagger",]
    assert any(ner[name].abs().max() > 1e-3 for name in ner)
    for both in (gradients["bert_ner", "tagger"], gradients["tagger", "bert_ner"]):
        for name in ner:
            np.testing.assert_allclose(both[name], ner[name] + tagger[name], atol=2e-3, rtol=1e-3)


def test_losses_fall_and_it_learns(checkpoint):
    nlp = make_pipeline(checkpoint("bert"))
    losses = train(nlp, steps=120, learn_rate=3e-3)
    assert set(losses[0]) == {"transformer", "bert_ner", "tagger"}
    assert losses[-1]["bert_ner"] < 0.2 * losses[0]["bert_ner"]
    assert losses[-1]["tagger"] < 0.5 * losses[0]["tagger"]
    results = nlp.evaluate(make_examples(nlp))
    assert results["ents_f"] > 0.9 and results["tag_acc"] > 0.9


def test_saved_and_loaded(trained, tmp_path):
    nlp = spacy.load(trained)
    nlp.to_disk(tmp_path)
    other = spacy.load(tmp_path)
    np.testing.assert_array_equal(scores(other), scores(nlp))
    assert found(other) == found(nlp) and any(found(nlp))
    from_bytes = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    np.testing.assert_array_equal(scores(from_bytes), scores(nlp))


def test_listeners_are_found(trained):
    nlp = spacy.load(trained)
    assert nlp.get_pipe("transformer").listening_components == ["bert_ner", "tagger"]


def test_listeners_replaced(trained, tmp_path):
    nlp = spacy.load(trained)
    expected_scores, expected = scores(nlp), found(nlp)
    nlp.replace_listeners("transformer", "bert_ner", ["model.tok2vec"])
    assert nlp.get_pipe("transformer").listening_components == ["tagger"]
    architecture = nlp.config["components"]["bert_ner"]["model"]["tok2vec"]["@architectures"]
    assert architecture == "spacy-transformers.Tok2VecTransformer.v3"
    np.testing.assert_allclose(scores(nlp), expected_scores, atol=1e-5)
    nlp.remove_pipe("tagger")
    nlp.remove_pipe("transformer")
    assert found(nlp) == expected
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert loaded.pipe_names == ["bert_ner"] and found(loaded) == expected
    losses = train(loaded, steps=10)  # and trained further by itself
    assert losses[-1]["bert_ner"] < losses[0]["bert_ner"]


def test_sourced_with_listeners_replaced(trained, checkpoint):
    """`source` with `replace_listeners` in a config: beside another transformer than the one it was trained with."""
    expected = found(spacy.load(trained))
    other = make_pipeline(checkpoint("bert"), ["tagger"])
    source = spacy.load(trained)
    source.replace_listeners("transformer", "bert_ner", ["model.tok2vec"])
    other.add_pipe("bert_ner", source=source)
    assert found(other) == expected
    config = other.config.copy()
    config["components"] = {
        "transformer": config["components"]["transformer"],
        "bert_ner": {"source": str(trained), "component": "bert_ner", "replace_listeners": ["model.tok2vec"]},
    }
    config["nlp"]["pipeline"] = ["transformer", "bert_ner"]
    nlp = spacy.util.load_model_from_config(config, auto_fill=True)
    assert "TransformerListener" not in str(nlp.config["components"]["bert_ner"])
    with nlp.select_pipes(disable=["transformer"]):  # which is not initialized yet
        assert found(nlp) == expected


def test_sourced_with_its_transformer(trained):
    expected = found(spacy.load(trained))
    nlp = spacy.blank("en")
    source = spacy.load(trained)
    for name in ("transformer", "bert_ner"):
        nlp.add_pipe(name, source=source)
    nlp._link_components()
    assert found(nlp) == expected


@pytest.mark.filterwarnings("ignore:.*W113")
def test_sourced_under_another_name(trained, tmp_path):
    nlp = spacy.load(trained)
    expected = found(nlp)
    nlp.rename_pipe("bert_ner", "entities")
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert loaded.get_pipe("transformer").listening_components == ["entities", "tagger"]
    assert loaded.get_pipe("entities").name == "entities" and found(loaded) == expected


def test_frozen(trained):
    """Frozen, it stays as it is, and finds what it found where its transformer is frozen too."""
    nlp = spacy.load(trained)
    before = nlp.get_pipe("bert_ner").model.to_bytes()
    expected = found(nlp)
    transformer = nlp.get_pipe("transformer").model.to_bytes()
    losses = train(nlp, steps=3, exclude=["bert_ner", "transformer"], annotates=["transformer"])
    assert "bert_ner" not in losses[0] and losses[0]["tagger"] > 0
    assert nlp.get_pipe("bert_ner").model.to_bytes() == before
    assert nlp.get_pipe("transformer").model.to_bytes() == transformer and found(nlp) == expected


def test_frozen_transformer(trained):
    """A frozen transformer must annotate; without that the error says so."""
    nlp = spacy.load(trained)
    transformer = nlp.get_pipe("transformer").model.to_bytes()
    head = nlp.get_pipe("bert_ner").model.to_bytes()
    losses = train(nlp, steps=10, exclude=["transformer"], annotates=["transformer"], learn_rate=1e-2)
    assert losses[-1]["bert_ner"] < losses[0]["bert_ner"]
    assert nlp.get_pipe("transformer").model.to_bytes() == transformer
    assert nlp.get_pipe("bert_ner").model.to_bytes() != head
    with pytest.raises(ValueError, match="annotating_components"):
        train(nlp, steps=1, exclude=["transformer"])


def test_annotating(trained):
    """Its entities are on the predicted Docs for what comes after it, as `ner`'s are."""
    nlp = spacy.load(trained)
    seen = []

    @spacy.Language.component("bertner_test_watcher")
    def watcher(doc):
        return doc

    class Watcher:
        def __call__(self, doc):
            return doc

        def update(self, examples, **_):
            seen.extend([(ent.start, ent.end, ent.label_) for ent in eg.predicted.ents] for eg in examples)

    nlp.add_pipe("bertner_test_watcher")
    nlp._components[-1] = ("bertner_test_watcher", Watcher())
    train(nlp, steps=1, annotates=["transformer", "bert_ner"], learn_rate=0.0)
    texts = [" ".join(token.text for token in doc) for doc in make_docs(nlp.vocab)]
    docs = [Doc(nlp.vocab, words=text.split()) for text in texts]
    assert seen == found(nlp, docs) and any(seen)


def test_disabled(trained):
    nlp = spacy.load(trained)
    expected = found(nlp)
    disabled = spacy.load(trained, disable=["bert_ner"])
    assert "bert_ner" in disabled.component_names and not any(found(disabled))
    disabled.enable_pipe("bert_ner")
    assert found(disabled) == expected
    with nlp.select_pipes(disable=["tagger"]):
        assert found(nlp) == expected


def test_excluded(trained):
    nlp = spacy.load(trained, exclude=["tagger"])
    assert found(nlp) == found(spacy.load(trained))
    nlp = spacy.load(trained, exclude=["bert_ner"])
    assert nlp.component_names == ["transformer", "tagger"] and not any(found(nlp))
    nlp = spacy.load(trained, exclude=["transformer"])
    with pytest.raises(ValueError, match="needs a component 'transformer', and no such component has seen these Docs"):
        nlp("Maria Kolb")


def test_beside_a_self_contained_one(trained, checkpoint):
    """Two of the component, one with an encoder of its own."""
    nlp = spacy.load(trained)
    expected = found(nlp)
    own = nlp.add_pipe("bert_ner", name="own", config={"model": {"name": str(checkpoint("bert"))}})
    own.initialize(lambda: make_examples(nlp), nlp=nlp)
    with nlp.select_pipes(disable=["own"]):
        assert found(nlp) == expected
    losses = train(nlp, steps=2)[-1]
    assert {"bert_ner", "own"} <= set(losses)
    nlp.select_pipes(enable=["own"])
    assert nlp("Maria Kolb").has_annotation("ENT_IOB")


def test_batches_of_any_size(trained):
    nlp = spacy.load(trained)
    expected = found(nlp)
    assert [[(e.start, e.end, e.label_) for e in doc.ents] for doc in nlp.pipe(TEXTS, batch_size=3)] == expected
    assert [[(e.start, e.end, e.label_) for e in nlp(text).ents] for text in TEXTS] == expected


def test_nothing_upstream(checkpoint):
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": MODELS["bert_ner"]})
    with pytest.raises(
        ValueError, match=r"needs a component 'transformer', and there is none before it in the pipeline"
    ):
        nlp.initialize(lambda: make_examples(nlp))
