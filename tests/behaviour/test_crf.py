"""The transition layer: likelihood, gradient and best path against all sequences one by one; training, saving, loading."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import spacy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam, fix_random_seed

from spacy_bertner.decoding import Lattice, best_path, expectations
from spacy_bertner.loss import crf_loss
from spacy_bertner.tags import MISSING, TagSet, make_tags

from ..conftest import LABELS, SENTENCES, make_examples, scores_of, to_numpy
from ..model.test_token_classifier import HASH_EMBED
from ..test_decoding import cut, paths_of, score_of  # noqa: F401  a fixture
from ..test_tags import SCHEMES

TEXTS = [text for text, _ in SENTENCES]


def negative_log_likelihood(tag_set, transitions, scores, truth):
    """Of one segment, in torch, from the scores of all legal paths."""
    paths = torch.tensor(np.array(list(paths_of(tag_set, len(scores)))))
    edge = torch.zeros(len(paths), 1, dtype=torch.int64)
    steps = torch.cat([edge, paths + 1, edge], dim=1)
    totals = scores[torch.arange(len(scores)), paths].sum(1) + transitions[steps[:, :-1], steps[:, 1:]].sum(1)
    truth = torch.from_numpy(truth)
    fits = ((truth == MISSING) | (paths == truth)).all(1)
    return totals.logsumexp(0) - totals[fits].logsumexp(0)


def draw_segments(tag_set, rng, lengths, share_missing=0.4):
    """Scores, transitions, starts and tags of some segments: a random legal path each, with some tags missing."""
    n_tags = len(tag_set)
    scores, is_start, truth = rng.normal(size=(sum(lengths), n_tags), scale=2), [], []
    for length in lengths:
        paths = list(paths_of(tag_set, length))
        truth.append(np.where(rng.random(length) < share_missing, MISSING, paths[rng.integers(len(paths))]))
        is_start += [True] + [False] * (length - 1)
    return scores, rng.normal(size=(n_tags + 1, n_tags + 1)), np.array(is_start), truth


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradient_are_those_of_brute_force(scheme, seed, cut):  # noqa: F811
    rng = np.random.default_rng(seed)
    tag_set = TagSet(make_tags(["A", "B"], scheme), scheme)
    lengths = [3, 1, 2, 3]
    scores, transitions, is_start, truth = draw_segments(tag_set, rng, lengths)
    truth[2][:] = MISSING  # one without any tag, and one that has all
    truth[0] = next(itertools.islice(paths_of(tag_set, 3), 20, None))
    loss, d_scores, d_transitions = crf_loss(tag_set, transitions, scores, is_start, np.concatenate(truth))
    x, w = torch.tensor(scores, requires_grad=True), torch.tensor(transitions, requires_grad=True)
    expected = sum(
        negative_log_likelihood(tag_set, w, part, tags) for part, tags in zip(x.split(lengths), truth, strict=True)
    )
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-9)
    np.testing.assert_allclose(d_scores, x.grad, atol=1e-9)
    np.testing.assert_allclose(d_transitions, w.grad, atol=1e-9)
    assert (d_transitions[1:, 1:][~tag_set.legal] == 0).all()  # what is not legal is never learnt


def test_scores_that_are_far_apart():
    """Whose exp() no float64 holds."""
    tag_set = TagSet(make_tags(["A"], "BIO"), "BIO")
    scores = np.array([[1000.0, 0, 0], [-1000, -1e4, 0], [0, 900, 1000]])
    transitions = np.zeros((4, 4))
    truth = np.array([0, MISSING, 2])
    loss, d_scores, _ = crf_loss(tag_set, transitions, scores, np.zeros(3, bool), truth)
    x = torch.tensor(scores, requires_grad=True)
    expected = negative_log_likelihood(tag_set, torch.tensor(transitions), x, truth)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    np.testing.assert_allclose(d_scores, x.grad, atol=1e-9)


def test_tags_that_no_legal_sequence_has():
    """The head lacks L-A: B-A leads nowhere. Its segment is left out, the other is not."""
    tag_set = TagSet(["O", "B-A", "U-A"], "BILUO")
    rng = np.random.default_rng(0)
    scores, transitions = rng.normal(size=(5, 3)), rng.normal(size=(4, 4))
    is_start = np.array([True, False, True, False, False])
    truth = np.array([1, MISSING, 2, MISSING, 0])
    loss, d_scores, d_transitions = crf_loss(tag_set, transitions, scores, is_start, truth)
    assert (d_scores[:2] == 0).all()
    alone = crf_loss(tag_set, transitions, scores[2:], is_start[2:], truth[2:])
    assert loss == alone[0]
    np.testing.assert_array_equal(d_scores[2:], alone[1])
    np.testing.assert_array_equal(d_transitions, alone[2])
    assert crf_loss(tag_set, transitions, scores[:2], is_start[:2], truth[:2])[0] == 0.0


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_best_path(scheme, data):
    tag_set = TagSet(make_tags(["A", "B-c"], scheme), scheme)
    n_tags = len(tag_set)
    lengths = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    numbers = st.integers(-3, 3).map(float)  # many of which score alike
    scores = data.draw(arrays(np.float32, (sum(lengths), n_tags), elements=numbers))
    transitions = data.draw(arrays(np.float32, (n_tags + 1, n_tags + 1), elements=numbers))
    is_start = np.zeros(len(scores), dtype=bool)
    is_start[np.cumsum([0, *lengths[:-1]])] = True
    found = best_path(tag_set, scores, is_start, transitions)
    for path, part in zip(np.split(found, np.cumsum(lengths)), np.split(scores, np.cumsum(lengths)), strict=True):
        if len(path):
            legal = {tuple(other): score_of(other, part, transitions) for other in paths_of(tag_set, len(part))}
            assert legal[tuple(path)] == max(legal.values())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_best_path_of_long_documents(scheme, cut):  # noqa: F811
    """Without scores of transitions it is that of `TagSet.decode`, and of plain dynamic programming with them."""
    rng = np.random.default_rng(5)
    tag_set = TagSet(make_tags(["A", "B"], scheme), scheme)
    n, n_tags = 600, len(tag_set)
    scores = rng.normal(size=(n, n_tags)).astype("float32")
    is_start = rng.random(n) < 0.02
    zeros = np.zeros((n_tags + 1, n_tags + 1), dtype="float32")
    assert best_path(tag_set, scores, is_start, zeros).tolist() == best_path(tag_set, scores, is_start).tolist()
    transitions = rng.normal(size=zeros.shape)
    alone = np.zeros(n, dtype=bool)
    steps = np.where(tag_set.legal, transitions[1:, 1:], -np.inf)
    best = np.where(tag_set.legal_start, transitions[0, 1:] + scores[0], -np.inf)
    for row in scores[1:].astype(np.float64):
        best = (best[:, None] + steps).max(axis=0) + row
    best = (best + transitions[1:, 0])[tag_set.legal_end].max()
    assert score_of(best_path(tag_set, scores, alone, transitions), scores, transitions) == pytest.approx(best)


def test_expectations_are_counts(cut):  # noqa: F811
    """Over a long segment: each token has one tag, and one transition follows each."""
    rng = np.random.default_rng(6)
    tag_set = TagSet(make_tags(["A", "B"], "BILUO"), "BILUO")
    n, n_tags = 300, len(tag_set)
    is_first, is_last = np.zeros(n, bool), np.zeros(n, bool)
    is_first[[0, 100]] = is_last[[99, 299]] = True
    lattice = Lattice.of(tag_set, rng.normal(size=(n_tags + 1, n_tags + 1)))
    _, tags, transitions = expectations(lattice, rng.normal(size=(n, n_tags)), is_first, is_last)
    np.testing.assert_allclose(tags.sum(axis=1), 1.0)
    np.testing.assert_allclose(transitions[1:].sum(axis=1), tags.sum(axis=0), atol=1e-9)
    np.testing.assert_allclose(transitions[:, 1:].sum(axis=0), tags.sum(axis=0), atol=1e-9)
    assert transitions[0].sum() == pytest.approx(2) and transitions[:, 0].sum() == pytest.approx(2)


# The setting, in both architectures


def entities(doc):
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


def train(nlp, examples, steps=60, learn_rate=5e-3):
    fix_random_seed(0)
    optimizer = Adam(learn_rate, use_averages=True)
    losses = [nlp.update(examples, sgd=optimizer, drop=0.0)["bert_ner"] for _ in range(steps)]
    return losses, optimizer


def add(nlp, kind, checkpoint, *, crf=True, **config):
    if kind == "own encoder":
        model = {"name": str(checkpoint("bert"))}
    else:
        model = {"@architectures": "spacy_bertner.TokenClassifier.v1", "tok2vec": HASH_EMBED}
    return nlp.add_pipe("bert_ner", config={"model": {**model, "crf": crf}, **config})


@pytest.fixture(params=["own encoder", "shared layer"])
def kind(request):
    return request.param


@pytest.fixture
def crf(nlp, kind, checkpoint):
    ner = add(nlp, kind, checkpoint)
    fix_random_seed(0)
    nlp.initialize(lambda: make_examples(nlp))
    return ner


def transitions_of(ner):
    return ner.transitions()


def set_transitions(ner, values):
    values = np.asarray(values, dtype="float32")
    if ner.model.shims:
        ner.model.shims[0].module.transitions.data[:] = torch.from_numpy(values)
    else:
        ner.model.get_ref("output_layer").set_param("transitions", ner.model.ops.asarray(values))


def transition_gradient(ner):
    if ner.model.shims:
        return to_numpy(ner.model.shims[0].module.transitions.grad)
    return to_numpy(ner.model.get_ref("output_layer").get_grad("transitions"))


@pytest.mark.parametrize("scheme", ["BIO", "BILUO", "IOB1"])
def test_overfits(scheme, kind, nlp, checkpoint):
    ner = add(nlp, kind, checkpoint, scheme=scheme)
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    losses, _ = train(nlp, examples)
    assert losses[-1] < 0.05 < losses[0]
    assert nlp.evaluate(examples)["ents_f"] == 1.0
    found = transitions_of(ner)
    assert np.abs(found).max() > 0.01
    assert (found[1:, 1:][~ner.tag_set.legal] == 0).all()


def test_without_training_it_changes_nothing(crf, kind, nlp, checkpoint):
    other = spacy.blank("en")
    add(other, kind, checkpoint, crf=False)
    fix_random_seed(0)
    other.initialize(lambda: make_examples(other))
    docs, other_docs = [list(map(n.make_doc, TEXTS)) for n in (nlp, other)]
    found, expected = crf.predict(docs), other.get_pipe("bert_ner").predict(other_docs)
    assert [[e[:3] for e in doc] for doc in found] == [[e[:3] for e in doc] for doc in expected]
    assert (transitions_of(crf) == 0).all()


def test_transitions_decide(crf, nlp):
    """The same scores, another best path, and another probability of it."""
    tags = crf.tag_set.tags
    doc = nlp.make_doc("Maria Kolb lives in Dresden .")
    values = np.zeros((len(tags) + 1, len(tags) + 1))
    values[0, 1 + tags.index("B-PER")] = values[1 + tags.index("I-PER"), 0] = 100
    values[1 + tags.index("I-PER"), 1 + tags.index("I-PER")] = 100
    set_transitions(crf, values)
    assert crf.predict([doc]) == [[(0, 6, "PER", pytest.approx(1.0))]]


def test_the_gradient_of_an_update(crf, nlp):
    """Missing tags and labels that it does not know are anything; tokens without rows are not there; a Doc is a chain."""
    words = ["Maria", "\u200b", "Volta", "in"]
    examples = [
        Example(Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words, ents=["B-PER", "O", "B-CAR", None])),
        Example(Doc(nlp.vocab), Doc(nlp.vocab)),
        Example(Doc(nlp.vocab, words=["Oslo"]), Doc(nlp.vocab, words=["Oslo"], ents=["B-LOC"])),
        Example(Doc(nlp.vocab, words=["Oslo"]), Doc(nlp.vocab, words=["Oslo"])),
    ]
    rng = np.random.default_rng(0)
    n_tags = len(crf.tag_set)
    values = rng.normal(size=(n_tags + 1, n_tags + 1)).astype("float32")
    set_transitions(crf, values)
    scores = scores_of(crf, [eg.predicted for eg in examples])
    x = [torch.tensor(scores[i][rows].astype("float64"), requires_grad=True) for i, rows in ((0, [0, 2, 3]), (2, [0]))]
    w = torch.tensor(values.astype("float64"), requires_grad=True)
    truth = [np.array([crf.tag_set.tags.index("B-PER"), MISSING, MISSING]), np.array([crf.tag_set.tags.index("B-LOC")])]
    expected = sum(negative_log_likelihood(crf.tag_set, w, *pair) for pair in zip(x, truth, strict=True))
    expected.backward()
    with pytest.warns(UserWarning, match="left out of training: CAR"):
        loss, d_scores = crf.get_loss(examples, scores)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(d_scores[0][[0, 2, 3]], x[0].grad, atol=1e-5)
    np.testing.assert_allclose(d_scores[2], x[1].grad, atol=1e-5)
    assert (d_scores[0][1] == 0).all() and len(d_scores[1]) == 0 and (d_scores[3] == 0).all()
    losses = nlp.update(examples, sgd=False, drop=0.0)
    assert losses["bert_ner"] == pytest.approx(expected.item() / 2, rel=1e-5)  # two labelled tokens
    np.testing.assert_allclose(transition_gradient(crf), w.grad, atol=1e-4)


def test_nothing_labelled_is_nothing_learnt(crf, nlp):
    unlabelled = [Example(nlp.make_doc("Maria Kolb"), nlp.make_doc("Maria Kolb"))]
    assert nlp.update(unlabelled, sgd=Adam(0.1)) == {"bert_ner": 0.0}
    assert (transitions_of(crf) == 0).all()


def test_add_label_keeps_what_was_learnt(crf, nlp):
    _, optimizer = train(nlp, make_examples(nlp), steps=5)
    before = transitions_of(crf)
    n = len(before)
    crf.add_label("DATE")
    after = transitions_of(crf)
    assert after.shape == (n + 2, n + 2)
    np.testing.assert_array_equal(after[:n, :n], before)
    assert (after[n:] == 0).all() and (after[:, n:] == 0).all()
    for _ in range(3):
        nlp.update(make_examples(nlp), sgd=optimizer)
    moved = np.abs(transitions_of(crf) - after)
    assert moved[:n, :n].max() > 1e-4 and moved[n:].max() > 1e-4
    with nlp.use_params(optimizer.averages):
        nlp(TEXTS[0])


def test_averages(crf, nlp):
    _, optimizer = train(nlp, make_examples(nlp), steps=5)
    now = transitions_of(crf)
    owner = crf.model.shims[0] if crf.model.shims else crf.model.get_ref("output_layer")
    with nlp.use_params(optimizer.averages):
        np.testing.assert_array_equal(transitions_of(crf), to_numpy(optimizer.averages[owner.id, "transitions"]))
        assert not np.array_equal(transitions_of(crf), now)
    np.testing.assert_array_equal(transitions_of(crf), now)


def test_saved_loaded_and_copied(crf, nlp, tmp_path):
    train(nlp, make_examples(nlp), steps=20)
    docs = [nlp.make_doc(text) for text in TEXTS]
    expected = crf.predict(docs)
    nlp.to_disk(tmp_path)
    from_bytes = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    for other in (spacy.load(tmp_path), from_bytes, copy.deepcopy(nlp), pickle.loads(pickle.dumps(nlp))):
        ner = other.get_pipe("bert_ner")
        np.testing.assert_array_equal(transitions_of(ner), transitions_of(crf))
        assert ner.predict([other.make_doc(text) for text in TEXTS]) == expected


def test_loaded_with_the_setting_the_other_way_round(crf, kind, nlp, checkpoint, tmp_path):
    train(nlp, make_examples(nlp), steps=5)
    nlp.to_disk(tmp_path / "with")
    off = {"components": {"bert_ner": {"model": {"crf": False}}}}
    on = {"components": {"bert_ner": {"model": {"crf": True}}}}
    with pytest.raises(
        ValueError, match="crf: false is set, but the model was trained with transitions: set crf = true"
    ):
        spacy.load(tmp_path / "with", config=off)
    other = spacy.blank("en")
    add(other, kind, checkpoint, crf=False)
    other.initialize(lambda: make_examples(other))
    train(other, make_examples(other), steps=10)
    other.to_disk(tmp_path / "without")
    loaded = spacy.load(tmp_path / "without", config=on)  # starts from zero
    assert (transitions_of(loaded.get_pipe("bert_ner")) == 0).all()
    assert [entities(doc) for doc in loaded.pipe(TEXTS)] == [entities(doc) for doc in other.pipe(TEXTS)]
    train(loaded, make_examples(loaded), steps=2)
    assert (transitions_of(loaded.get_pipe("bert_ner")) != 0).any()
    assert loaded.get_pipe("bert_ner").labels == tuple(LABELS)


def test_frozen_layers_and_small_batches(nlp, checkpoint):
    """The same gradient whether the examples come together, or apart with the lower layers frozen."""
    found = []
    for settings_, cuts in (({}, [6]), ({"freeze_layers": 1, "freeze_embeddings": True}, [1, 3, 2])):
        other = spacy.blank("en")
        config = {"model": {"name": str(checkpoint("bert")), "crf": True, **settings_}}
        ner = other.add_pipe("bert_ner", config=config)
        fix_random_seed(0)
        other.initialize(lambda other=other: make_examples(other))
        examples = make_examples(other)
        for n in cuts:
            batch, examples = examples[:n], examples[n:]
            other.update(batch, sgd=False, drop=0.0)
        found.append(transition_gradient(ner))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_transitions_do_not_decay(crf, kind, nlp):
    if kind != "own encoder":
        pytest.skip("Thinc's own step decays all there is")
    set_transitions(crf, np.ones_like(transitions_of(crf)))
    nlp.update(make_examples(nlp), sgd=Adam(1e-2, L2=10.0, L2_is_weight_decay=True), drop=0.0)
    illegal = ~crf.tag_set.legal
    assert (transitions_of(crf)[1:, 1:][illegal] == 1).all()  # no gradient, no decay


def test_with_onnx_runtime(nlp, checkpoint, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from spacy_bertner.export.onnx import to_onnx

    ner = add(nlp, "own encoder", checkpoint)
    nlp.initialize(lambda: make_examples(nlp))
    train(nlp, make_examples(nlp), steps=10)
    learnt = 50 * transitions_of(ner)  # large enough to matter
    set_transitions(ner, learnt)
    docs = [nlp.make_doc(text) for text in TEXTS]
    expected = ner.predict(docs)
    to_onnx(nlp)
    nlp.to_disk(tmp_path)
    for other in (nlp, spacy.load(tmp_path)):
        converted = other.get_pipe("bert_ner")
        np.testing.assert_array_equal(transitions_of(converted), learnt)
        found = converted.predict([other.make_doc(text) for text in TEXTS])
        assert [[e[:3] for e in doc] for doc in found] == [[e[:3] for e in doc] for doc in expected]
        for doc, expected_doc in zip(found, expected, strict=True):
            np.testing.assert_allclose([e[3] for e in doc], [e[3] for e in expected_doc], atol=1e-3)
    with pytest.raises(ValueError, match="crf: false is set, but the model was trained with transitions"):
        spacy.load(tmp_path, config={"components": {"bert_ner": {"model": {"crf": False}}}})
