"""The component as spaCy's own tests treat theirs: settings, labels, annotation, training, saving, bad input."""

import copy
import itertools
import json
import math
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import spacy
import torch
from spacy.tokens import Doc, Span
from spacy.training import Example
from thinc.api import Adam, Optimizer, fix_random_seed, warmup_linear

from spacy_bertner.component import BertNER
from spacy_bertner.export.huggingface import export
from spacy_bertner.loss import Gradient
from spacy_bertner.model.encoding import PieceEncoder
from spacy_bertner.model.interface import NAME, interface_of

from .conftest import LABELS, SENTENCES, make_examples, scores_of, to_numpy, train_tokenizer, write_checkpoint


def entities(doc):
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


def train(nlp, examples, *, steps=60, learn_rate=5e-3):
    """Train until it fits; the settings are for the tiny encoders of the fixtures."""
    fix_random_seed(0)
    optimizer = Adam(learn_rate, use_averages=False)
    losses = []
    for _ in range(steps):
        losses.append(nlp.update(examples, sgd=optimizer, drop=0.0)["bert_ner"])
    return losses


class Oracle:
    """Puts scores in the place of the model's: rows that favour the tags given for each Doc."""

    def __init__(self, ner, monkeypatch):
        self.ner = ner
        self.scores = []
        interface = replace(interface_of(ner.model), predict_scores=lambda _, docs: np.concatenate(self.scores))
        monkeypatch.setitem(ner.model.attrs, NAME, interface)

    def favour(self, *docs_tags):
        tags = list(self.ner.tag_set.tags)
        self.scores = []
        for doc_tags in docs_tags:
            rows = np.zeros((len(doc_tags), len(tags)), dtype="float32")
            for row, tag in zip(rows, doc_tags, strict=True):
                row[:] = -np.inf if tag is None else 0.0
                if tag is not None:
                    row[tags.index(tag)] = 5.0
            self.scores.append(rows)


@pytest.fixture
def oracle(tagger, monkeypatch):
    return Oracle(tagger("bert"), monkeypatch)


# Training


@pytest.mark.parametrize(("kind", "scheme"), [("bert", "BIO"), ("roberta", "BILUO"), ("bert-uncased", "IOB1")])
def test_overfits(kind, scheme, tagger, nlp):
    ner = tagger(kind, config={"scheme": scheme})
    examples = make_examples(nlp)
    losses = train(nlp, examples)
    scores = nlp.evaluate(examples)
    assert scores["ents_f"] == 1.0
    assert set(scores["ents_per_type"]) == set(LABELS)
    assert losses[-1] < 0.05 < losses[0]
    assert ner.labels == tuple(LABELS)


def test_learns_what_is_annotated_where_half_is_missing(tagger, nlp):
    tagger("bert")
    examples = make_examples(nlp)
    half = []
    for i, eg in enumerate(examples):
        if i % 2:
            half.append(Example(eg.predicted, Doc(nlp.vocab, words=[t.text for t in eg.reference])))
        else:  # of these the last third of the tokens
            tags = SENTENCES[i][1].split()
            cut = 2 * len(tags) // 3
            while cut < len(tags) and tags[cut - 1] != "O":  # so that the data says where the last entity ends
                cut += 1
            reference = Doc(
                nlp.vocab, words=[t.text for t in eg.reference], ents=tags[:cut] + [None] * (len(tags) - cut)
            )
            half.append(Example(eg.predicted, reference))
    assert not half[1].reference.has_annotation("ENT_IOB")
    train(nlp, half)
    for eg in half[::2]:
        annotated = {token.i for token in eg.reference if token.ent_iob}
        found = entities(nlp(Doc(nlp.vocab, words=[t.text for t in eg.reference])))
        assert [ent for ent in found if ent[0] in annotated] == entities(eg.reference)


def test_missing_annotation_has_no_gradient(tagger, nlp):
    ner = tagger("bert")
    words = ["Maria", "Kolb", "lives", "in", "Dresden"]
    reference = Doc(nlp.vocab, words=words, ents=["B-PER", "I-PER", "O", None, None])
    example = Example(Doc(nlp.vocab, words=words), reference)
    (scores,) = scores_of(ner, [example.predicted])
    loss, (d_scores,) = ner.get_loss([example], [scores])
    rows = torch.from_numpy(scores[:3].copy()).requires_grad_()
    truth = torch.tensor([ner.tag_set.tags.index(tag) for tag in ("B-PER", "I-PER", "O")])
    expected = torch.nn.functional.cross_entropy(rows, truth, reduction="sum")
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(d_scores[:3], rows.grad.numpy(), atol=1e-6)
    assert (d_scores[3:] == 0).all()


def test_a_token_without_pieces_has_no_gradient(tagger, nlp):
    ner = tagger("bert")
    words = ["Maria", "\u200b", "Kolb"]
    example = Example(Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words, ents=["B-PER", "I-PER", "I-PER"]))
    scores = scores_of(ner, [example.predicted])
    _, (d_scores,) = ner.get_loss([example], scores)
    assert (d_scores[1] == 0).all() and np.abs(d_scores[[0, 2]]).sum() > 0


def test_nothing_labelled_is_nothing_learnt(tagger, nlp):
    ner = tagger("bert")
    words = ["Maria", "Kolb"]
    unlabelled = [Example(Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words))]
    unlabelled.append(Example(Doc(nlp.vocab), Doc(nlp.vocab)))
    before = {name: p.clone() for name, p in ner.model.shims[0].module.named_parameters()}
    losses = nlp.update(unlabelled, sgd=Adam(0.1, L2=0.1))
    assert losses == {"bert_ner": 0.0}
    torch.testing.assert_close(dict(ner.model.shims[0].module.named_parameters()), before)


@pytest.mark.parametrize("as_list", [True, False])
def test_update_learns_from_the_loss_of_a_subclass(as_list, tagger, nlp):
    """A step of SGD with half the loss is half a step."""
    tagger("bert")
    examples = make_examples(nlp)
    ner = nlp.get_pipe("bert_ner")

    class Halved(type(ner)):
        def get_loss(self, examples, scores, **settings):
            loss, gradient = super().get_loss(examples, scores, **settings)
            half = [dY * 0.5 for dY in gradient]
            return loss / 2, half if as_list else Gradient(half, gradient.n_labelled)

    steps = []
    for kind in (type(ner), Halved):
        pipe = copy.deepcopy(ner)
        pipe.__class__ = kind
        before = head_of(pipe)
        loss = pipe.update(examples, sgd=Optimizer(0.1, beta1=0.0, beta2=0.0, grad_clip=0.0))["bert_ner"]
        steps.append((loss, head_of(pipe) - before))
    assert steps[1][0] == pytest.approx(steps[0][0] / 2)
    np.testing.assert_allclose(steps[1][1], steps[0][1] / 2, rtol=1e-3, atol=1e-7)


def head_of(ner):
    return to_numpy(ner.model.shims[0].module.head.weight.detach())


def test_pieces_are_made_once_in_an_update(checkpoint, monkeypatch):
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert")), "max_batch_pieces": 256}})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    asked = []
    original = PieceEncoder.pieces
    monkeypatch.setattr(PieceEncoder, "pieces", lambda self, docs: asked.extend(docs) or original(self, docs))
    nlp.update(examples)
    assert len(asked) == len(examples)


def test_accumulated_gradient_is_that_of_the_whole_batch(checkpoint):
    results = []
    for cuts in ([20], [3, 17], [10, 5, 5]):
        nlp = spacy.blank("en")
        ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
        fix_random_seed(0)
        nlp.initialize(lambda nlp=nlp: make_examples(nlp))
        examples = make_examples(nlp)
        for n in cuts:
            batch, examples = examples[:n], examples[n:]
            nlp.update(batch, sgd=False, drop=0.0)
        shim = ner.model.shims[0]
        results.append(
            {name: p.grad / shim._n_labelled for name, p in shim.module.named_parameters() if p.grad is not None}
        )
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=1e-5, rtol=1e-4)


def test_labels_unknown_to_the_component_are_masked_and_named(tagger, nlp):
    ner = tagger("bert")
    words = ["Maria", "drove", "a", "Volta"]
    example = Example(Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words, ents=["B-PER", "O", "O", "B-CAR"]))
    scores = scores_of(ner, [example.predicted])
    with pytest.warns(UserWarning, match="left out of training: CAR; it has LOC, MISC, ORG, PER"):
        _, (d_scores,) = ner.get_loss([example], scores)
    assert (d_scores[3] == 0).all() and (d_scores[:3] != 0).any(axis=1).all()


def test_use_params_puts_the_averages_in_and_takes_them_out(tagger, nlp):
    ner = tagger("bert")
    examples = make_examples(nlp)
    optimizer = Adam(1e-2, use_averages=True)
    for _ in range(3):
        nlp.update(examples, sgd=optimizer)
    module = ner.model.shims[0].module
    weights = module.head.weight.detach().clone()
    average = optimizer.averages[ner.model.shims[0].id, "head.weight"]
    with nlp.use_params(optimizer.averages):
        torch.testing.assert_close(module.head.weight.data, average)
    torch.testing.assert_close(module.head.weight.data, weights)


def test_misaligned_gold_is_masked_not_taken_for_o(tagger, nlp):
    ner = tagger("bert")
    reference = Doc(nlp.vocab, words=["U.S", "."], spaces=[False, False], ents=["B-LOC", "O"])
    example = Example(Doc(nlp.vocab, words=["U.S."], spaces=[False]), reference)
    _, (d_scores,) = ner.get_loss([example], scores_of(ner, [example.predicted]))
    assert (d_scores == 0).all()


# Annotation


def found_by(ner, docs):
    return [[entity[:3] for entity in entities] for entities in ner.predict(docs)]


def test_the_probability_of_an_entity(oracle, nlp):
    """Over what may become of the tokens: those of a kept entity, of blanks and of other Docs have no part in it."""
    ner = oracle.ner
    tags = ner.tag_set.tags
    doc = Doc(nlp.vocab, words=["in", "Oslo", "\u200b", "Oslo", "met", "Kolb"])
    doc.set_ents([Span(doc, 0, 1, label="X")], default="missing")
    other = Doc(nlp.vocab, words=["Sela"])
    oracle.favour(["B-LOC", "B-LOC", None, "I-LOC", "O", "B-PER"], ["B-PER"])
    found, found_in_other = ner.predict([doc, other])
    assert [entity[:3] for entity in found] == [(1, 4, "LOC"), (5, 6, "PER")]
    # All ways to tag the four tokens that are left of the first, written out
    rows = [oracle.scores[0][i] for i in (1, 3, 4, 5)]
    weights = {}
    for path in itertools.product(range(len(tags)), repeat=4):
        names = [tags[i] for i in path]
        if all(t[0] != "I" or b[1:] == t[1:] for b, t in itertools.pairwise(["O", *names])):
            weights[tuple(names)] = math.exp(sum(row[i] for row, i in zip(rows, path, strict=True)))
    total = sum(weights.values())
    loc = sum(w for names, w in weights.items() if names[:2] == ("B-LOC", "I-LOC") and names[2] != "I-LOC")
    per = sum(w for names, w in weights.items() if names[3] == "B-PER")
    np.testing.assert_allclose([entity[3] for entity in found], [loc / total, per / total], atol=1e-6)
    # O and the four B- remain for a first token
    assert found_in_other == [(0, 1, "PER", pytest.approx(math.exp(5) / (math.exp(5) + 4), abs=1e-6))]


def test_tokens_without_pieces(oracle, nlp):
    ner = oracle.ner
    words = ["Maria", "\u200b", "Kolb", "\u200b", "and", "\u200b", "Sela"]
    oracle.favour(["B-PER", None, "I-PER", None, "O", None, "B-PER"], ["O", None, None, "B-LOC", None])
    docs = [Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=["in", " ", "\n", "Oslo", "\n"])]
    assert found_by(ner, docs) == [[(0, 3, "PER"), (6, 7, "PER")], [(3, 4, "LOC")]]


def test_the_best_legal_path_is_taken(oracle, nlp):
    ner = oracle.ner
    oracle.favour(["O", "I-PER", "I-PER"])
    tags = list(ner.tag_set.tags)
    oracle.scores[0][1, tags.index("B-PER")] = 4.0  # B I I: one less than O I I, which is not legal
    doc = Doc(nlp.vocab, words=["said", "Maria", "Kolb"])
    assert found_by(ner, [doc]) == [[(1, 3, "PER")]]


def test_entities_do_not_reach_into_the_next_doc(oracle, nlp):
    oracle.favour(["O", "B-PER"], ["I-PER", "O"])
    oracle.scores[1][0, 0] = 4.0
    docs = [Doc(nlp.vocab, words=["a", "b"]), Doc(nlp.vocab), Doc(nlp.vocab, words=["c", "d"])]
    assert found_by(oracle.ner, docs) in ([[(1, 2, "PER")], [], []], [[(1, 2, "PER")], [], [(0, 1, "PER")]])


def test_entities_on_the_doc_are_kept(oracle, nlp):
    ner = oracle.ner
    words = ["New", "York", "City", "Hall", "opened", "in", "Porto"]
    oracle.favour(["B-LOC", "I-LOC", "I-LOC", "I-LOC", "O", "O", "B-LOC"])
    doc = Doc(nlp.vocab, words=words)
    doc.set_ents([Span(doc, 0, 2, label="GPE", kb_id="Q60")], blocked=[doc[6:7]], default="missing")
    ner.set_annotations([doc], ner.predict([doc]))
    # What is left of the span starts an entity of its own, or none
    assert entities(doc)[0] == (0, 2, "GPE") and doc.ents[0].kb_id_ == "Q60"
    assert all(ent.start >= 2 for ent in doc.ents[1:])
    assert doc[6].ent_iob_ == "B" and doc[6].ent_type_ == ""  # still blocked
    assert doc[4].ent_iob_ == doc[5].ent_iob_ == "O"  # no longer missing


def test_overwrite(tagger, nlp, monkeypatch):
    oracle = Oracle(tagger("bert", config={"overwrite": True}), monkeypatch)
    oracle.favour(["B-LOC", "I-LOC", "O"])
    doc = Doc(nlp.vocab, words=["New", "York", "fell"])
    doc.ents = [Span(doc, 1, 3, label="GPE")]
    oracle.ner.set_annotations([doc], oracle.ner.predict([doc]))
    assert entities(doc) == [(0, 2, "LOC")]


@pytest.mark.parametrize("overwrite", [True, False])
def test_ids_of_replaced_entities_do_not_stay(overwrite, tagger, nlp, monkeypatch):
    oracle = Oracle(tagger("bert", config={"overwrite": overwrite}), monkeypatch)
    oracle.favour(["B-LOC", "I-LOC", "O", "O", "O"])
    doc = Doc(nlp.vocab, words=["New", "York", "fell", "to", "Rome"])
    old = [
        Span(doc, 1, 3, label="GPE", kb_id="Q60", span_id="a"),
        Span(doc, 4, 5, label="GPE", kb_id="Q220", span_id="b"),
    ]
    doc.set_ents(old)
    if not overwrite:  # an entity that is removed leaves its ids too
        doc.set_ents(old[1:])
    oracle.ner.set_annotations([doc], oracle.ner.predict([doc]))
    kept = ["Q220"] if not overwrite else [""]
    assert entities(doc)[0] == (0, 2, "LOC")
    assert [token.ent_kb_id_ for token in doc] == ["", "", "", "", *kept]
    assert [token.ent_id_ for token in doc] == ["", "", "", "", "b" if kept[0] else ""]


def test_an_entity_ruler_before_it_wins(tagger, nlp):
    tagger("bert")
    ruler = nlp.add_pipe("entity_ruler", before="bert_ner")
    ruler.add_patterns([{"label": "STREET", "pattern": "Main Street"}])
    train(nlp, make_examples(nlp), steps=3)
    doc = nlp("They met on Main Street in Oslo .")
    assert (3, 5, "STREET") in entities(doc)
    assert doc.has_annotation("ENT_IOB") and all(t.ent_iob_ for t in doc)


def test_hard_documents(tagger, nlp):
    tagger("bert", window=64, stride=48)
    docs = [
        Doc(nlp.vocab), Doc(nlp.vocab, words=[" "]), Doc(nlp.vocab, words=["\n", "\t", "\u200b"]),
        Doc(nlp.vocab, words=["x" * 20_000]), Doc(nlp.vocab, words=["\u200b"] * 500),
        Doc(nlp.vocab, words=[w for text, _ in SENTENCES for w in text.split()] * 420),
        Doc(nlp.vocab), Doc(nlp.vocab, words=["Oslo"]),
    ]  # fmt: skip
    assert len(docs[5]) > 50_000
    ner = nlp.get_pipe("bert_ner")
    assert [len(rows) for rows in scores_of(ner, docs)] == [len(doc) for doc in docs]
    for doc in nlp.pipe(docs, batch_size=3):
        assert all(0 <= ent.start < ent.end <= len(doc) for ent in doc.ents)
        assert all(token.ent_iob_ in ("B", "I", "O") for token in doc)


@pytest.mark.cpu_only
def test_pipe_gives_what_call_gives(tagger, nlp):
    tagger("bert")
    train(nlp, make_examples(nlp), steps=5)
    texts = [text for text, _ in SENTENCES] + ["", " "]
    assert [entities(doc) for doc in nlp.pipe(texts, batch_size=4)] == [entities(nlp(text)) for text in texts]
    assert [entities(doc) for doc in nlp.pipe(texts, n_process=2)] == [entities(nlp(text)) for text in texts]


def test_errors_go_to_the_error_handler(tagger, nlp, monkeypatch):
    ner = tagger("bert")
    monkeypatch.setattr(BertNER, "set_annotations", lambda *_: 1 / 0)
    seen = []
    ner.set_error_handler(lambda name, proc, docs, err: seen.append((name, len(docs), type(err))))
    assert list(nlp.pipe(["a b", "c"])) == []
    assert seen == [("bert_ner", 2, ZeroDivisionError)]


# Labels, settings, saving


def test_labels_from_a_file_of_spacy_init_labels(tagger, nlp, checkpoint, tmp_path):
    ner = tagger("bert")
    assert ner.label_data == LABELS
    other = spacy.blank("en")
    component = other.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    other.config["initialize"]["components"]["bert_ner"] = {"labels": ["PER", "DATE"]}
    other.initialize(lambda: make_examples(other))
    assert component.labels == ("PER", "DATE")


def test_add_label_keeps_the_rows_of_the_others(tagger, nlp):
    ner = tagger("bert")
    doc = nlp.make_doc("Maria Kolb lives in Dresden .")
    (before,) = scores_of(ner, [doc])
    assert ner.add_label("DATE") == 1 and ner.add_label("PER") == 0
    (after,) = scores_of(ner, [doc])
    assert after.shape[1] == before.shape[1] + 2
    np.testing.assert_array_equal(after[:, : before.shape[1]], before)
    assert ner.labels == (*LABELS, "DATE")


def test_training_goes_on_after_add_label(tagger, nlp):
    ner = tagger("bert")
    examples = make_examples(nlp)
    optimizer = Adam(1e-2, use_averages=True)
    nlp.update(examples, sgd=optimizer)
    ner.add_label("NEW")
    with nlp.use_params(optimizer.averages):  # averages of the old head are of no use
        nlp("Maria Kolb")
    before = ner.model.shims[0].module.head.weight.detach().clone()
    nlp.update(examples, sgd=optimizer)
    assert not torch.equal(ner.model.shims[0].module.head.weight, before)
    with nlp.use_params(optimizer.averages):
        nlp("Maria Kolb")


def test_labels_added_before_initialize_stay(checkpoint, nlp):
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    ner.add_label("DATE")
    nlp.initialize(lambda: make_examples(nlp))
    assert set(ner.labels) == {"DATE", *LABELS}
    nlp.initialize(lambda: make_examples(nlp)[:1])
    assert set(ner.labels) == {"DATE", *LABELS}


def test_a_failed_initialize_leaves_no_half_component(checkpoint, nlp, tmp_path):
    folder = shutil.copytree(checkpoint("bert"), tmp_path / "encoder")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(folder)}})
    nlp.initialize(lambda: make_examples(nlp))
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="name: there is no folder"):
        nlp.initialize(lambda: make_examples(nlp))
    with pytest.raises(ValueError, match="E109"):
        nlp("Maria Kolb")


@pytest.mark.parametrize("labels", ["PER", {"0": {}, "1": {"PER": 3}}, 5])
def test_labels_of_another_shape(labels, checkpoint, nlp):
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    with pytest.raises(ValueError, match=r"labels: .* is not a list of entity labels"):
        ner.initialize(lambda: make_examples(nlp), labels=labels)


@pytest.mark.parametrize(
    ("name", "scheme", "tags"),
    [("IOB2", "BIO", "B- I-"), ("bioes", "BILUO", "B- I- E- S-"), ("BILOU", "BILUO", "B- I- L- U-")],
)
def test_usual_names_of_schemes(name, scheme, tags, tagger, nlp, tmp_path):
    """They are those of `convert --scheme`; an exported head has the letters of the name."""
    ner = tagger("bert", config={"scheme": name})
    assert ner.cfg["scheme"] == scheme
    nlp.to_disk(tmp_path / "pipeline")
    assert spacy.load(tmp_path / "pipeline").get_pipe("bert_ner").tag_set.tags == ner.tag_set.tags
    export(nlp, tmp_path / "head")
    names = json.loads((tmp_path / "head" / "config.json").read_text())["id2label"].values()
    assert {f"{prefix}PER" for prefix in tags.split()} == {tag for tag in names if tag.endswith("-PER")}


@pytest.mark.parametrize(("kind", "scheme"), [("bert", "BILUO"), ("roberta", "IOB1"), ("roberta", "BIO")])
def test_entities_around_invisible_tokens_are_learnt(kind, scheme, tagger, nlp):
    tagger(kind, config={"scheme": scheme})
    first = ["Kolb", "\u200b", "left"], ["B-PER", "I-PER", "O"]
    second = ["Kolb", "\u200b", "Sela"], ["B-PER", "O", "B-PER"]
    examples = []
    for words, tags in (first, second):
        examples.append(Example(Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words, ents=tags)))
    train(nlp, examples)
    found = [entities(nlp(Doc(nlp.vocab, words=words))) for words, _ in (first, second)]
    assert found == [[(0, 1, "PER")], [(0, 1, "PER"), (2, 3, "PER")]]


def test_copies(tagger, nlp):
    ner = tagger("bert")
    nlp.update(make_examples(nlp), sgd=Adam(warmup_linear(1e-3, 2, 10)))
    doc = nlp.make_doc("Maria Kolb lives in Dresden .")
    for other in (copy.deepcopy(nlp), pickle.loads(pickle.dumps(nlp))):
        np.testing.assert_array_equal(scores_of(other.get_pipe("bert_ner"), [doc]), scores_of(ner, [doc]))


def test_a_checkpoint_with_a_head_is_used_at_once(checkpoint, nlp):
    folder = checkpoint("bert", ["I-X-y", "O", "B-X-y"])
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(folder)}})
    nlp.initialize()
    assert ner.labels == ("X-y",) and ner.tag_set.outside == 1
    nlp("Maria Kolb lives in Dresden .")


def test_is_a_trainable_pipe(tagger, nlp):
    ner = tagger("bert")
    assert ner.is_trainable and ner.is_resizable
    assigns = nlp.analyze_pipes()["summary"]["bert_ner"]["assigns"]
    assert assigns == ["doc.ents", "token.ent_iob", "token.ent_type", "span._.score"]
    assert {"ents_f", "ents_p", "ents_r", "ents_per_type"} <= set(nlp.analyze_pipes()["summary"]["bert_ner"]["scores"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scheme": "BIOX"}, "scheme: 'BIOX' is unknown; allowed are IOB2, BIO, BIO2, BIOES, .*IO$"),
        ({"model": {"stride": 256}}, "stride: 256 is not between 1 and window - 1"),
        ({"model": {"max_batch_pieces": 8}}, "max_batch_pieces: 8 is less than one window"),
    ],
)
def test_settings_are_checked_when_the_component_is_added(config, message, nlp):
    with pytest.raises(ValueError, match=message):
        nlp.add_pipe("bert_ner", config=config)


def test_not_initialized(nlp):
    nlp.add_pipe("bert_ner")
    with pytest.raises(ValueError, match="E109"):
        nlp("Maria Kolb")


def initialize_with(nlp, name, examples=None, **config):
    nlp.add_pipe("bert_ner", config={"model": {"name": str(name)}, **config})
    nlp.initialize(lambda: make_examples(nlp) if examples is None else examples)


def test_a_missing_checkpoint(nlp, tmp_path):
    with pytest.raises(ValueError, match=r"name: no usable tokenizer at the hub name or folder 'no/such-model'"):
        initialize_with(nlp, "no/such-model")
    with pytest.raises(ValueError, match=r"name: no usable .* at the folder"):
        initialize_with(spacy.blank("en"), tmp_path)


def test_settings_of_the_configuration(nlp, checkpoint):
    overrides = {"attention_probs_dropout_prob": 0.0}
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert")), "transformer_config": overrides}})
    nlp.initialize(lambda: make_examples(nlp))
    encoder = nlp.get_pipe("bert_ner").model.shims[0].module.encoder
    assert encoder.encoder.layer[0].attention.self.dropout.p == 0.0
    assert encoder.embeddings.dropout.p == 0.1
    other = spacy.blank("en")
    other.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert")), "transformer_config": {"no": 1}}})
    with pytest.raises(ValueError, match=r"transformer_config: \['no'\] are not settings of a BertConfig"):
        other.initialize(lambda: make_examples(other))


def test_a_slow_tokenizer(nlp, tmp_path):
    from transformers import CanineConfig, CanineTokenizer  # there is no fast one

    CanineTokenizer().save_pretrained(tmp_path)
    CanineConfig().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"name: the tokenizer of .* \(CanineTokenizer\) is a slow one, .* tokenizer\.json"
    ):
        initialize_with(nlp, tmp_path)


def test_a_vocabulary_that_does_not_match(nlp, checkpoint, tmp_path):
    folder = write_checkpoint(tmp_path, "bert", vocab_size=50)
    with pytest.raises(ValueError, match=r"has .* pieces, its encoder embeddings for 50: they do not belong together"):
        initialize_with(nlp, folder)


def test_weights_that_are_not_whole(nlp, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path, "bert")
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"are incomplete: missing \['encoder.layer.1.output.dense.weight'\]"):
        initialize_with(nlp, folder)


def test_no_labels_from_anywhere(nlp, checkpoint):
    example = Example.from_dict(nlp.make_doc("Nothing here"), {"entities": []})
    with pytest.raises(ValueError, match="no labels: the training data has no entities, no labels are given"):
        initialize_with(nlp, checkpoint("bert"), [example])


@pytest.mark.parametrize("label", ["O", "-"])
def test_labels_that_the_scheme_reserves(label, nlp, checkpoint):
    doc = nlp.make_doc("Maria Kolb")
    example = Example.from_dict(doc, {"entities": [(0, 5, label)]})
    with pytest.raises(ValueError, match="labels: "):
        initialize_with(nlp, checkpoint("bert"), [example])


def test_a_loaded_component_keeps_its_own_label_set(tagger, nlp, tmp_path, checkpoint):
    tagger("bert").to_disk(tmp_path)
    other = spacy.blank("en").add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    other.add_label("DATE")
    other.from_disk(tmp_path)  # a component that is not initialized takes over what is loaded
    assert other.labels == tuple(LABELS)
    other.add_label("DATE")
    with pytest.raises(ValueError, match=r"has the labels \['LOC', .*'DATE'\], but the saved model has \['LOC'"):
        other.from_disk(tmp_path)


def test_another_scheme_than_the_saved_one(tagger, nlp, tmp_path):
    tagger("bert")
    nlp.to_disk(tmp_path)
    with pytest.raises(ValueError, match="scheme: 'BILUO' is set, but the saved model was trained with 'BIO'"):
        spacy.load(tmp_path, config={"components": {"bert_ner": {"scheme": "BILUO"}}})
    loaded = spacy.load(tmp_path, config={"components": {"bert_ner": {"overwrite": True}}})
    assert loaded.get_pipe("bert_ner").cfg["overwrite"]


def test_saved_parts_that_do_not_belong_together(tagger, nlp, tmp_path, checkpoint):
    tagger("bert").to_disk(tmp_path)
    cfg = json.loads((tmp_path / "cfg").read_text())
    cfg["tags"] = cfg["tags"][:5]
    (tmp_path / "cfg").write_text(json.dumps(cfg))
    other = spacy.blank("en").add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    with pytest.raises(ValueError, match="the model has 9 tags, its cfg 5: they do not belong together"):
        other.from_disk(tmp_path)


def test_scores_that_are_nan(tagger, nlp):
    ner = tagger("bert")
    with torch.no_grad():
        ner.model.shims[0].module.head.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"scores are NaN\. Training has diverged"):
        nlp("Maria Kolb")


def test_importing_it_imports_no_transformers():
    code = (
        "import sys, spacy; before = set(sys.modules); import spacy_bertner.component; "
        "print(sorted({'torch', 'transformers', 'tokenizers'} & (set(sys.modules) - before)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_tokenizers_of_the_fixtures_are_fast():
    assert train_tokenizer("roberta").is_fast
