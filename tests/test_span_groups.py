"""`spans_key`: entities learnt from a group of `doc.spans` and written to it; several `bert_ner` in one pipeline."""

import warnings

import numpy as np
import pytest
import spacy
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin, Span, SpanGroup
from spacy.training import Example
from thinc.api import Adam, fix_random_seed

from spacy_bertner.span_groups import with_group_as_entities

from .conftest import LABELS, SENTENCES, make_examples, scores_of
from .test_component import Oracle, entities

TEXTS = [text for text, _ in SENTENCES]


def group(doc, key="sc"):
    return [(span.start, span.end, span.label_) for span in doc.spans[key]]


def as_group(examples, key="sc", suffix=""):
    """The same examples with their entities in a group of spans, and none in `doc.ents`."""
    result = []
    for eg in examples:
        reference = Doc(eg.reference.vocab, words=[t.text for t in eg.reference])
        reference.spans[key] = [Span(reference, e.start, e.end, label=e.label_ + suffix) for e in eg.reference.ents]
        result.append(Example(Doc(reference.vocab, words=[t.text for t in reference]), reference))
    return result


def add_component(nlp, checkpoint, name="bert_ner", **config):
    return nlp.add_pipe("bert_ner", name=name, config={"model": {"name": str(checkpoint("bert"))}, **config})


def train(nlp, examples, steps=40):
    fix_random_seed(0)
    nlp.initialize(lambda: examples)
    optimizer = Adam(5e-3, use_averages=False)
    for _ in range(steps):
        nlp.update(examples, sgd=optimizer, drop=0.0)


@pytest.fixture
def spans_tagger(nlp, checkpoint):
    """A component that is initialized on the group `sc`."""
    component = add_component(nlp, checkpoint, spans_key="sc")
    nlp.initialize(lambda: as_group(make_examples(nlp)))
    return component


# Learning


def test_overfits_and_is_scored(nlp, checkpoint):
    component = add_component(nlp, checkpoint, spans_key="sc")
    examples = as_group(make_examples(nlp))
    train(nlp, examples)
    assert component.labels == tuple(LABELS)
    scores = nlp.evaluate(examples)
    assert scores["spans_sc_f"] == 1.0 and "ents_f" not in scores
    assert set(scores["spans_sc_per_type"]) == set(LABELS)
    doc = nlp(TEXTS[0])
    assert group(doc) == [(0, 2, "PER"), (4, 5, "LOC")]
    assert not doc.ents and not doc.has_annotation("ENT_IOB") and not doc.user_data


def test_the_score_is_that_of_spacys_scorer(spans_tagger, nlp):
    examples = as_group(make_examples(nlp))
    train(nlp, examples, steps=6)
    scores = nlp.evaluate(examples)
    predicted = [Example(nlp(eg.x.copy()), eg.y) for eg in examples]
    expected = Scorer.score_spans(predicted, "spans_sc", getter=lambda doc, _: doc.spans["sc"], allow_overlap=True)
    assert {key: scores[key] for key in expected} == expected
    gold = {(i, *span) for i, eg in enumerate(predicted) for span in group(eg.y)}
    found = {(i, *span) for i, eg in enumerate(predicted) for span in group(eg.x)}
    assert scores["spans_sc_f"] == pytest.approx(2 * len(gold & found) / (len(gold) + len(found)))


def test_a_scorer_of_ones_own_stays(nlp, checkpoint):
    component = add_component(nlp, checkpoint, spans_key="sc", scorer=None)
    assert component.score([]) == {}
    component = add_component(nlp, checkpoint, "b", spans_key="x", scorer={"@scorers": "spacy.tagger_scorer.v1"})
    assert component.scorer.__name__ == "tagger_score"


def test_the_gradient_is_that_of_entities(spans_tagger, nlp):
    examples = make_examples(nlp)
    scores = scores_of(spans_tagger, [eg.predicted for eg in examples])
    loss, d_scores = spans_tagger.get_loss(as_group(examples), scores)
    spans_tagger.cfg["spans_key"] = None
    expected_loss, expected = spans_tagger.get_loss(examples, scores)
    assert loss == expected_loss
    for a, b in zip(d_scores, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_not_annotated_has_no_gradient(spans_tagger, nlp):
    words = ["Maria", "Kolb", "lives", "in", "Dresden"]
    no_group, empty_group = Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words, ents=["B-PER"] * 5)
    empty_group.spans["sc"] = []
    merged = Doc(nlp.vocab, words=["Maria", "Kolblives", "in", "Dresden"])
    reference = Doc(nlp.vocab, words=words)
    reference.spans["sc"] = [Span(reference, 1, 2, label="PER"), Span(reference, 4, 5, label="LOC")]
    examples = [
        Example(Doc(nlp.vocab, words=words), no_group),
        Example(Doc(nlp.vocab, words=words), empty_group),
        Example(merged, reference),  # whose "Kolb" is no token
    ]
    _, d_scores = spans_tagger.get_loss(examples, scores_of(spans_tagger, [eg.predicted for eg in examples]))
    assert (d_scores[0] == 0).all()
    outside = spans_tagger.tag_set.outside
    assert (d_scores[1][:, outside] < 0).all() and (np.delete(d_scores[1], outside, axis=1) > 0).all()
    assert (d_scores[2][1] == 0).all() and (d_scores[2][[0, 2, 3]] != 0).all()


def test_of_spans_that_overlap_the_longest_is_learnt(nlp):
    doc = Doc(nlp.vocab, words=list("abcdefgh"))
    spans = [(0, 2, "X"), (1, 4, "Y"), (1, 4, "Y"), (3, 6, "Z"), (5, 7, "X"), (2, 2, "X")]
    doc.spans["sc"] = [Span(doc, *span[:2], label=span[2]) for span in spans]
    example = Example(Doc(nlp.vocab, words=list("abcdefgh")), doc)
    projected, left_out = with_group_as_entities(example, "sc")
    assert [(e.start, e.end, e.label_) for e in left_out] == [(0, 2, "X"), (3, 6, "Z")]
    # a and e are of spans that were left out, so known to be no O
    assert projected.get_aligned_ner() == [None, "B-Y", "I-Y", "L-Y", None, "B-X", "L-X", "O"]
    assert not doc.ents and [group(doc)[i] for i in range(6)] == spans  # the example is as it was


def test_overlaps_are_counted_and_named_once(nlp, checkpoint):
    component = add_component(nlp, checkpoint, spans_key="sc")
    examples = as_group(make_examples(nlp))
    doc = examples[0].reference
    doc.spans["sc"].append(Span(doc, 1, 3, label="ORG"))
    doc.spans["other"] = [Span(doc, 0, 3, label="NEVER")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nlp.initialize(lambda: examples)
        nlp.update(examples, sgd=Adam(1e-4))
    (message,) = [str(w.message) for w in caught if str(w.message).startswith("bert_ner:")]
    n = sum(len(eg.reference.spans["sc"]) for eg in examples)
    assert message.splitlines() == [
        f"bert_ner: of 20 documents with {n} entities to learn from:",
        "- entities that overlap longer or earlier ones, left out of training, 1: ORG 'Kolb lives' in document 1",
    ]
    assert component.labels == tuple(LABELS)


def test_no_labels(nlp, checkpoint):
    add_component(nlp, checkpoint, spans_key="sc")
    with pytest.raises(ValueError, match=r"no labels: the training data has no entities in doc\.spans\['sc'\]"):
        nlp.initialize(lambda: make_examples(nlp))


# Writing


@pytest.fixture
def oracle(spans_tagger, monkeypatch):
    return Oracle(spans_tagger, monkeypatch)


def test_preset_entities_play_no_part(oracle, nlp):
    oracle.favour(["B-PER", "I-PER", "O"])
    doc = Doc(nlp.vocab, words=["Maria", "Kolb", "left"], ents=["O", "B-ORG", "I-ORG"])
    doc = oracle.ner(doc)
    assert group(doc) == [(0, 2, "PER")] and entities(doc) == [(1, 3, "ORG")]
    (found,) = oracle.ner.predict([doc])
    assert doc.spans["sc"].attrs["scores"].tolist() == [pytest.approx(found[0][3])]
    assert not doc.user_data and doc.ents[0]._.score is None and doc.spans["sc"][0]._.score is None


def test_a_group_has_its_scores_in_order(oracle, nlp):
    docs = [Doc(nlp.vocab, words=["Kolb", "met", "Sela"]), Doc(nlp.vocab), Doc(nlp.vocab, words=["Oslo"])]
    oracle.favour(["B-PER", "O", "B-PER"], [], ["O"])
    oracle.scores[0][2, 0] = 4.0
    docs = list(oracle.ner.pipe(docs))
    assert [group(doc) for doc in docs] == [[(0, 1, "PER"), (2, 3, "PER")], [], []]
    scores = [doc.spans["sc"].attrs["scores"] for doc in docs]
    assert all(isinstance(s, np.ndarray) and s.dtype == np.float32 for s in scores)
    # Five tags of nine may start, of which one has exp(5); the third token has O at exp(4) beside
    assert scores[0][1] < scores[0][0] and [len(s) for s in scores] == [2, 0, 0]
    copy = next(DocBin(docs=[docs[0]]).get_docs(nlp.vocab))
    np.testing.assert_array_equal(copy.spans["sc"].attrs["scores"], scores[0])
    assert group(copy) == group(docs[0])


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_in_the_group(overwrite, oracle, nlp):
    oracle.ner.cfg["overwrite"] = overwrite
    oracle.favour(["B-PER", "I-PER", "O", "B-LOC"])
    doc = Doc(nlp.vocab, words=["Maria", "Kolb", "left", "Oslo"])
    spans = [Span(doc, 0, 2, label="PER"), Span(doc, 1, 3, label="ORG")]
    doc.spans["sc"] = SpanGroup(doc, spans=spans, attrs={"scores": np.array([0.125, 0.5]), "by": "hand"})
    doc.spans["other"] = [Span(doc, 0, 1, label="X")]
    doc = oracle.ner(doc)
    found = [(0, 2, "PER"), (3, 4, "LOC")]
    assert group(doc) == (found if overwrite else [(1, 3, "ORG"), *found])
    scores = doc.spans["sc"].attrs["scores"]
    assert len(scores) == len(doc.spans["sc"]) and 0.125 not in scores
    assert overwrite or (scores[0] == 0.5 and doc.spans["sc"].attrs["by"] == "hand")
    assert group(doc, "other") == [(0, 1, "X")]
    doc.spans["sc"] = [Span(doc, 1, 3, label="ORG")]  # without scores
    doc = oracle.ner(doc)
    assert np.isnan(doc.spans["sc"].attrs["scores"]).tolist() == ([False] * 2 if overwrite else [True, False, False])


# Several of them


@pytest.fixture(scope="module")
def both(tmp_path_factory, checkpoint):
    """A pipeline of a general model, that writes to `doc.ents`, and one for a domain, with a group; trained and saved."""
    nlp = spacy.blank("en")
    add_component(nlp, checkpoint, "general")
    add_component(nlp, checkpoint, "domain", spans_key="domain")
    examples = []
    for eg, other in zip(make_examples(nlp), as_group(make_examples(nlp), "domain", "-d"), strict=True):
        reference = eg.reference.copy()
        spans = [span for span in other.reference.spans["domain"] if span.label_ in ("PER-d", "ORG-d")]
        reference.spans["domain"] = [Span(reference, s.start, s.end, label=s.label_) for s in spans]
        examples.append(Example(eg.predicted, reference))
    train(nlp, examples)
    folder = tmp_path_factory.mktemp("both") / "model"
    nlp.to_disk(folder)
    DocBin(docs=[eg.reference for eg in examples]).to_disk(folder / "corpus.spacy")
    return folder


@pytest.mark.cpu_only
def test_general_and_domain_side_by_side(both):
    nlp = spacy.load(both)
    assert nlp.get_pipe("general").labels == tuple(LABELS)
    assert nlp.get_pipe("domain").labels == ("ORG-d", "PER-d")
    corpus = list(spacy.training.Corpus(both / "corpus.spacy")(nlp))
    scores = nlp.evaluate(corpus)
    assert scores["ents_f"] == scores["spans_domain_f"] == 1.0
    doc = nlp(TEXTS[0])
    assert entities(doc) == [(0, 2, "PER"), (4, 5, "LOC")] and group(doc, "domain") == [(0, 2, "PER-d")]
    assert all(0 < ent._.score <= 1 for ent in doc.ents)
    assert [doc[0:2]._.score, doc.spans["domain"][0]._.score] == [None, None]
    two = [(entities(doc), group(doc, "domain")) for doc in nlp.pipe(TEXTS, n_process=2)]
    assert two == [(entities(doc), group(doc, "domain")) for doc in nlp.pipe(TEXTS)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_both_to_the_same_entities(overwrite, both):
    nlp = spacy.load(both, config={"components": {"domain": {"spans_key": None, "overwrite": overwrite}}})
    assert nlp.get_pipe("domain").scorer.__name__ == "ner_score"
    alone = spacy.load(both, config={"components": {"domain": {"spans_key": None}}}, exclude=["general"])
    general = spacy.load(both, exclude=["domain"])
    for doc, first, second in zip(*(pipeline.pipe(TEXTS) for pipeline in (nlp, general, alone)), strict=True):
        both_found, general_found, domain_found = (
            {(ent.start, ent.end, ent.label_, ent._.score) for ent in d.ents} for d in (doc, first, second)
        )
        if overwrite:
            assert both_found == domain_found
        else:  # what the first has found stays, and so do its scores
            assert general_found <= both_found
        assert len(doc.user_data) == len(doc.ents) and all(ent._.score is not None for ent in doc.ents)


def test_what_is_given_to_load_wins(both, tmp_path):
    nlp = spacy.load(both, config={"components": {"general": {"spans_key": "sc"}, "domain": {"threshold": 1.0}}})
    doc = nlp(TEXTS[0])
    assert not doc.ents and group(doc) == [(0, 2, "PER"), (4, 5, "LOC")] and group(doc, "domain") == []
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path, config={"components": {"general": {"spans_key": None}}})
    assert entities(again(TEXTS[0])) == group(doc)
    assert spacy.load(tmp_path).get_pipe("general").cfg["spans_key"] == "sc"


# Training runs


def training_config(nlp, path, **score_weights):
    config = nlp.config.copy()
    for part in ("train", "dev"):
        config["corpora"][part] = {"@readers": "spacy.Corpus.v1", "path": str(path)}
    config["training"]["score_weights"] = score_weights
    return config


@pytest.mark.parametrize("weights", [{"ents_f": 1.0}, {"ents_f": 0.0, "spans_sc_f": 1.0}])
def test_score_weights_that_leave_it_out_are_named(weights, nlp, checkpoint, tmp_path):
    add_component(nlp, checkpoint, spans_key="sc")
    DocBin(docs=[eg.reference for eg in as_group(make_examples(nlp))]).to_disk(tmp_path / "corpus.spacy")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spacy.training.initialize.init_nlp(training_config(nlp, tmp_path / "corpus.spacy", **weights), use_gpu=-1)
    messages = [str(w.message) for w in caught if "score_weights" in str(w.message)]
    if weights["ents_f"]:
        (message,) = messages
        assert message.startswith(
            "bert_ner: spans_key is 'sc', and [training.score_weights] gives no weight to its scores"
        )
    else:
        assert messages == []
