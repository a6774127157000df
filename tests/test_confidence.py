"""`ent._.score`, `threshold`: whose score it is, where it goes along, and what is bad input."""

import copy
import json
import pickle

import numpy as np
import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.tokens.underscore import Underscore
from thinc.api import Adam, fix_random_seed

from spacy_bertner.component import NO_THRESHOLD

from .conftest import SENTENCES, make_examples

TEXTS = [text for text, _ in SENTENCES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint):
    """A pipeline that has learnt its sentences, but says that it is not too sure of them."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}, "temperature": 3.0})
    examples = make_examples(nlp)
    fix_random_seed(0)
    nlp.initialize(lambda: examples)
    optimizer = Adam(5e-3, use_averages=False)
    for _ in range(30):
        nlp.update(examples, sgd=optimizer, drop=0.0)
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    nlp.to_disk(folder)
    return folder


@pytest.fixture
def trained(folder):
    return spacy.load(folder)


def entities_of(span):
    return span.ents


def scored(doc):
    return [(ent.start_char, ent.end_char, ent.label_, ent._.score) for ent in doc.ents]


def expected(nlp, doc):
    """The same from what `predict` finds."""
    (entities,) = nlp.get_pipe("bert_ner").predict([nlp.make_doc(doc.text)])
    spans = [(doc[start:end], label, score) for start, end, label, score in entities]
    return [(span.start_char, span.end_char, label, score) for span, label, score in spans]


# Whose score it is


def test_scores_are_those_of_the_prediction(trained):
    n_entities = 0
    for doc in map(trained, TEXTS):
        assert scored(doc) == expected(trained, doc)
        n_entities += len(doc.ents)
        assert len(doc.user_data) == len(doc.ents)
        assert all(isinstance(ent._.score, float) and 0 <= ent._.score <= 1 for ent in doc.ents)
    assert n_entities > 15


def test_other_spans_on_the_same_tokens_have_no_score_and_change_none(trained):
    doc = trained(TEXTS[0])
    before = scored(doc)
    for ent in doc.ents:
        others = [
            doc[ent.start : ent.end],
            Span(doc, ent.start, ent.end, label="OTHER"),
            Span(doc, ent.start, ent.end, label=ent.label, span_id="from-a-ruler"),
        ]
        doc.spans["others"] = others
        for i, other in enumerate([*others, *doc.spans["others"]]):
            assert other._.score in (None, *(0.1 * j for j in range(3)))
            other._.score = 0.1 * (i % 3)
        assert [span._.score for span in doc.spans["others"]] == [0.0, 0.1, 0.2]
    assert scored(doc) == before and before
    for span in doc.spans["others"]:
        span._.score = None
    assert scored(doc) == before


def test_entities_of_other_components_have_none(trained):
    text = "Maria Kolb lives in Dresden . They met on Main Street ."
    first = trained(text).ents[0]
    ruler = trained.add_pipe("entity_ruler", before="bert_ner")
    ruler.add_patterns([{"label": "STREET", "pattern": "Main Street"}, {"label": "RULED", "pattern": first.text}])
    doc = trained(text)
    assert {ent.label_: ent._.score for ent in doc.ents if ent.label_ in ("STREET", "RULED")} == {
        "STREET": None, "RULED": None,
    }  # fmt: skip


def test_a_ruler_behind_takes_the_place_of_an_entity(trained):
    doc = trained(TEXTS[0])
    ent = doc.ents[0]
    ruler = trained.add_pipe("entity_ruler", config={"overwrite_ents": True})
    ruler.add_patterns([{"label": ent.label_, "pattern": ent.text, "id": "known"}])
    again = trained(TEXTS[0])
    (ruled,) = [e for e in again.ents if e.ent_id_ == "known"]
    assert (ruled.start, ruled.label_, ruled._.score) == (ent.start, ent.label_, None)
    assert scored(again)[1:] == scored(doc)[1:]


def test_a_link_to_a_knowledge_base_changes_nothing(trained):
    doc = trained(TEXTS[0])
    before = scored(doc)
    doc.ents = [Span(doc, ent.start, ent.end, label=ent.label_, kb_id="Q1") for ent in doc.ents]
    assert scored(doc) == before and doc.ents[0].kb_id_ == "Q1"


def test_old_scores_go(trained):
    """Of entities that are no longer there, nothing stays when the Doc is annotated again."""
    doc = trained(TEXTS[0])
    scores = scored(doc)
    doc.ents = []
    trained.get_pipe("bert_ner").set_annotations([doc], [[]])
    assert not doc.user_data
    doc = trained(trained(TEXTS[0]))  # those on the Doc are kept, and their scores with them
    assert scored(doc) == scores


def test_user_data_of_others_stays(trained):
    doc = trained.make_doc(TEXTS[0])
    doc.user_data["mine"] = 5
    doc.user_data["._.", "score_of_mine", 0, 5] = 6
    doc = trained(doc)
    assert doc.user_data["mine"] == 5 and doc.user_data["._.", "score_of_mine", 0, 5] == 6
    doc.user_data["._.", "score", 0, 1] = 0.5  # a plain value, as another program's extension may have left it
    assert doc.char_span(0, 1, alignment_mode="expand")._.score is None
    assert Span(doc, 0, 1)._.score is None


# Where it goes along


def test_copies(trained):
    doc = trained(TEXTS[2])
    before = scored(doc)
    assert before
    binary = DocBin(store_user_data=True, docs=[doc])
    vocab = spacy.blank("en").vocab
    copies = {
        "copy": doc.copy(),
        "bytes": Doc(vocab).from_bytes(doc.to_bytes()),
        "dict": Doc(vocab).from_dict(doc.to_dict()),
        "pickle": pickle.loads(pickle.dumps(doc)),
        "DocBin": next(DocBin().from_bytes(binary.to_bytes()).get_docs(vocab)),
        "json": Doc(vocab).from_json(json.loads(json.dumps(doc.to_json(underscore=["score"])))),
        "whole": doc[:].as_doc(copy_user_data=True),
    }
    for way, other in copies.items():
        assert scored(other) == before, way
        again = trained.get_pipe("bert_ner")(other)  # what came along can be written to
        assert scored(again) == before, way
    for ent in copies["copy"].ents:
        ent._.score = 0.0
    assert scored(doc) == before
    assert all(score is None for *_, score in scored(next(DocBin(docs=[doc]).get_docs(vocab))))


def test_offsets_are_shifted(trained):
    docs = [trained(text) for text in TEXTS[:4]]
    before = [(ent.text, ent.label_, ent._.score) for doc in docs for ent in doc.ents]
    assert len(before) > 4
    joined = Doc.from_docs(docs)
    assert [(ent.text, ent.label_, ent._.score) for ent in joined.ents] == before
    last = docs[-2].ents[-1]
    part = docs[-2][last.start :].as_doc(copy_user_data=True)
    assert scored(part)[0] == (0, last.end_char - last.start_char, last.label_, last._.score)


def test_tokens_merged_and_split(trained):
    doc = trained(TEXTS[0])
    before = scored(doc)
    with doc.retokenize() as retokenizer:
        for ent in doc.ents:
            if len(ent) > 1:
                retokenizer.merge(ent)
    assert scored(doc) == before and all(len(ent) == 1 for ent in doc.ents)


@pytest.mark.cpu_only
def test_processes(trained):
    one = [scored(doc) for doc in trained.pipe(TEXTS)]
    two = [scored(doc) for doc in trained.pipe(TEXTS, n_process=2, batch_size=5)]
    assert [[ent[:3] for ent in doc] for doc in two] == [[ent[:3] for ent in doc] for doc in one]
    np.testing.assert_allclose([e[3] for doc in two for e in doc], [e[3] for doc in one for e in doc], atol=1e-4)


def test_memory_zone(trained):
    outside = [scored(doc) for doc in trained.pipe(TEXTS)]
    for _ in range(2):
        with trained.memory_zone():
            inside = [[(s, e, str(label), p) for s, e, label, p in scored(doc)] for doc in trained.pipe(TEXTS)]
        assert inside == outside
    assert [scored(doc) for doc in trained.pipe(TEXTS)] == outside


def test_a_saved_pipeline_gives_the_same(trained, tmp_path):
    before = [scored(doc) for doc in trained.pipe(TEXTS)]
    trained.to_disk(tmp_path)
    for nlp in (spacy.load(tmp_path), pickle.loads(pickle.dumps(trained)), copy.deepcopy(trained)):
        assert [scored(doc) for doc in nlp.pipe(TEXTS)] == before


# The extension


@pytest.fixture
def no_extensions(monkeypatch):
    """As in a program where nobody has registered any."""
    monkeypatch.setattr(Underscore, "span_extensions", {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"default": 1.0}, "with the default 1.0"),
        ({"default": None}, "with the default None"),
        ({"getter": entities_of}, "with the getter entities_of"),
        ({"method": entities_of}, "with the method entities_of"),
    ],
)
def test_a_foreign_extension(arguments, message, nlp, no_extensions):
    Span.set_extension("score", **arguments)
    before = Span.get_extension("score")
    with pytest.raises(
        ValueError, match=f"is already registered by other code: {message}. Register that one under another"
    ):
        nlp.add_pipe("bert_ner")
    assert Span.get_extension("score") == before and nlp.pipe_names == []


def test_it_is_registered_with_the_first_component(nlp, no_extensions):
    assert not Span.has_extension("score")
    nlp.add_pipe("bert_ner")
    nlp.add_pipe("bert_ner", name="another")
    assert nlp.make_doc("a b")[0:1]._.score is None


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), True, "0.5", {"PER": 2}])
def test_scores_that_are_none(score, trained):
    doc = trained(TEXTS[0])
    before = scored(doc)
    with pytest.raises(ValueError, match=r"score: .* is not a number from 0 to 1, or None"):
        doc.ents[0]._.score = score
    assert scored(doc) == before


# Threshold


def test_a_threshold_drops_what_is_below(trained, folder):
    before = [scored(doc) for doc in trained.pipe(TEXTS)]
    scores = sorted(ent[3] for doc in before for ent in doc)
    exact = scores[len(scores) // 2]
    between = (exact + max(score for score in scores if score < exact)) / 2
    for threshold in (None, 0.0, between, 1.0):
        nlp = spacy.load(folder, config={"components": {"bert_ner": {"threshold": threshold}}})
        expected = [[ent for ent in doc if ent[3] >= (threshold or 0.0)] for doc in before]
        assert [scored(doc) for doc in nlp.pipe(TEXTS)] == expected
    # Not by the config, which changes the last digit with confection before 1.0
    nlp.get_pipe("bert_ner").cfg["threshold"] = exact
    expected = [[ent for ent in doc if ent[3] >= exact] for doc in before]
    assert [scored(doc) for doc in nlp.pipe(TEXTS)] == expected
    assert all(token.ent_iob_ == "O" or token.ent_type_ for doc in nlp.pipe(TEXTS) for token in doc)


@pytest.mark.skipif(
    NO_THRESHOLD is None, reason="confection before 1.0 cannot replace a number by a dict, or turn about"
)
def test_a_threshold_by_label(trained, folder, tmp_path):
    before = [scored(doc) for doc in trained.pipe(TEXTS)]
    threshold = {"PER": 1.0, "ORG": 0.3}
    nlp = spacy.load(folder, config={"components": {"bert_ner": {"threshold": threshold}}})
    expected = [[ent for ent in doc if ent[3] >= threshold.get(ent[2], 0.0)] for doc in before]
    assert [scored(doc) for doc in nlp.pipe(TEXTS)] == expected != before
    nlp.to_disk(tmp_path)
    assert [scored(doc) for doc in spacy.load(tmp_path).pipe(TEXTS)] == expected
    # What is given when it is loaded wins, over the saved one too
    other = spacy.load(tmp_path, config={"components": {"bert_ner": {"threshold": None}}})
    assert [scored(doc) for doc in other.pipe(TEXTS)] == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threshold": 1.5}, "threshold: 1.5 is not a number from 0 to 1"),
        ({"threshold": -0.1}, "threshold: -0.1 is not"),
        ({"threshold": {"PER": 2}}, "threshold: 2.* for 'PER' is not a number from 0 to 1; allowed are null, one, or"),
        ({"temperature": 0.0}, "temperature: 0.0 is not a number above 0"),
        ({"temperature": -1.0}, "temperature: -1.0 is not"),
        ({"spans_key": " "}, "spans_key: ' ' is not a key of doc.spans"),
    ],
)
def test_bad_settings(config, message, nlp):
    with pytest.raises(ValueError, match=message):
        nlp.add_pipe("bert_ner", config=config)


def test_a_threshold_for_a_label_that_there_is_not(folder, checkpoint, nlp):
    message = "threshold: labels that are not known: PRE; known are LOC, MISC, ORG, PER"
    if NO_THRESHOLD is not None:
        with pytest.raises(ValueError, match=message):
            spacy.load(folder, config={"components": {"bert_ner": {"threshold": {"PRE": 0.5}}}})
    nlp.add_pipe("bert_ner", config={"threshold": {"PRE": 0.5}, "model": {"name": str(checkpoint("bert"))}})
    with pytest.raises(ValueError, match=message):
        nlp.initialize(lambda: make_examples(nlp))


# Temperature


def test_temperature_changes_how_sure_it_is_and_nothing_else(trained, folder):
    before = [scored(doc) for doc in trained.pipe(TEXTS)]
    cold, warm = (spacy.load(folder, config={"components": {"bert_ner": {"temperature": t}}}) for t in (1.0, 9.0))
    for nlp in (cold, warm):
        assert [[ent[:3] for ent in scored(doc)] for doc in nlp.pipe(TEXTS)] == [[e[:3] for e in doc] for doc in before]
    warm_scores, scores, cold_scores = (
        np.array([ent[3] for doc in docs for ent in doc])
        for docs in ([scored(doc) for doc in warm.pipe(TEXTS)], before, [scored(doc) for doc in cold.pipe(TEXTS)])
    )
    assert warm_scores.mean() < scores.mean() < cold_scores.mean()
