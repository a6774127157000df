"""Tag schemes against brute force, seqeval and arrays written by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, Entities

from spacy_bertner import decoding
from spacy_bertner.decoding import best_path
from spacy_bertner.tags import MISSING, TagSet, make_tags, split_tag, validate_label

SCHEMES = ("BIO", "BILUO", "IOB1", "IO")


def is_legal(tags, scheme):
    """Written out from the definition of each scheme, apart from the matrices."""
    previous = "O"
    for tag in [*tags, "O"]:
        prefix, label = split_tag(tag)
        before, label_before = split_tag(previous)
        same = label == label_before
        if scheme == "BIO" and prefix == "I" and not (same and before in "BI"):
            return False
        if scheme == "IOB1" and prefix == "B" and not (same and before in "BI"):
            return False
        if scheme == "BILUO":
            is_open, goes_on = before in "BI", prefix in "IL"
            if is_open != goes_on or (is_open and not same):
                return False
        previous = tag
    return True


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_decode_is_the_best_legal_sequence(scheme, data):
    tags = make_tags(["A", "B-c"], scheme)
    n = data.draw(st.integers(1, 3 if scheme == "BILUO" else 4))
    scores = data.draw(
        arrays(np.float32, (n, len(tags)), elements=st.floats(-8, 8, width=32).map(lambda x: round(x, 2)))
    )
    is_start = np.zeros(n, dtype=bool)
    found = best_path(TagSet(tags, scheme), scores, is_start)
    assert is_legal([tags[i] for i in found], scheme)
    best = max(
        scores[np.arange(n), list(path)].sum(dtype=np.float64)
        for path in itertools.product(range(len(tags)), repeat=n)
        if is_legal([tags[i] for i in path], scheme)
    )
    assert scores[np.arange(n), found].sum(dtype=np.float64) == pytest.approx(best)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_segments_are_decoded_apart(scheme):
    rng = np.random.default_rng(1)
    tag_set = TagSet(make_tags(["A", "B"], scheme), scheme)
    scores = rng.normal(size=(40, len(tag_set))).astype("float32")
    is_start = np.zeros(40, dtype=bool)
    is_start[[7, 8, 30]] = True
    apart = [best_path(tag_set, part, np.zeros(len(part), bool)) for part in np.split(scores, [7, 8, 30])]
    assert best_path(tag_set, scores, is_start).tolist() == np.concatenate(apart).tolist()


def best_score(tag_set, scores):
    """The score of the best legal path through one segment, by plain dynamic programming over all of it."""
    allowed = np.where(tag_set.legal, 0.0, -np.inf)
    best = np.where(tag_set.legal_start, scores[0], -np.inf).astype(np.float64)
    for row in scores[1:]:
        best = (best[:, None] + allowed).max(axis=0) + row
    return best[tag_set.legal_end].max()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("share_outside", [0.0, 0.5, 0.95])
def test_searching_around_illegal_places_finds_the_best(scheme, share_outside):
    rng = np.random.default_rng(7)
    tag_set = TagSet(make_tags(["A", "B"], scheme), scheme)
    is_start = rng.random(4000) < 0.01
    is_start[0] = True
    scores = rng.normal(size=(4000, len(tag_set))).astype("float32")
    scores[:, 0] += np.where(rng.random(4000) < share_outside, 3, 0)
    # Evidence that is far away: an entity that goes on for long and must start somewhere
    scores[1000:1100, 2 if scheme in ("BIO", "BILUO") else 1] += 6
    found = best_path(tag_set, scores, is_start)
    bounds = [*np.flatnonzero(is_start), 4000]
    for start, end in itertools.pairwise(bounds):
        assert is_legal([tag_set.tags[i] for i in found[start:end]], scheme)
        score = scores[np.arange(start, end), found[start:end]].sum(dtype=np.float64)
        assert score == pytest.approx(best_score(tag_set, scores[start:end]), abs=1e-4)


def test_legal_argmax_is_not_searched(monkeypatch):
    tag_set = TagSet(make_tags(["A"], "BIO"), "BIO")
    monkeypatch.setattr(decoding, "_viterbi", lambda *_: pytest.fail("searched"))
    path = [0, 1, 2, 2, 1, 0]
    scores = np.eye(3, dtype="float32")[path]
    assert best_path(tag_set, scores, np.zeros(6, bool)).tolist() == path
    assert best_path(tag_set, scores[:0], np.zeros(0, bool)).tolist() == []


@pytest.mark.parametrize(("scheme", "seqeval_scheme"), [("BIO", IOB2), ("BILUO", BILOU)])
def test_spans_are_those_of_seqeval(scheme, seqeval_scheme):
    rng = np.random.default_rng(2)
    tag_set = TagSet(make_tags(["A", "B-c"], scheme), scheme)
    for _ in range(50):
        n = rng.integers(1, 30)
        ids = best_path(tag_set, rng.normal(size=(n, len(tag_set))).astype("float32"), np.zeros(n, bool))
        tags = [tag_set.tags[i] for i in ids]
        expected = [(e.start, e.end, e.tag) for e in Entities([tags], seqeval_scheme).entities[0]]
        assert tag_set.spans(ids, np.zeros(n, bool)) == expected


@pytest.mark.parametrize("scheme", ["IOB1", "IO"])
def test_spans_of_loose_schemes_are_those_of_seqeval(scheme):
    rng = np.random.default_rng(3)
    tag_set = TagSet(make_tags(["A", "B"], scheme), scheme)
    for _ in range(50):
        n = rng.integers(1, 30)
        ids = best_path(tag_set, rng.normal(size=(n, len(tag_set))).astype("float32"), np.zeros(n, bool))
        expected = [(s, e + 1, label) for label, s, e in get_entities([tag_set.tags[i] for i in ids])]
        assert tag_set.spans(ids, np.zeros(n, bool)) == sorted(expected)


def test_encode():
    biluo = ["U-A", "B-A", "I-A", "L-A", "O", None, "B-A", "L-A", "U-X", "U-A"]
    expected = {
        "BIO": ["B-A", "B-A", "I-A", "I-A", "O", None, "B-A", "I-A", None, "B-A"],
        "BILUO": ["U-A", "B-A", "I-A", "L-A", "O", None, "B-A", "L-A", None, "U-A"],
        "IOB1": ["I-A", "B-A", "I-A", "I-A", "O", None, "I-A", "I-A", None, "I-A"],
        "IO": ["I-A", "I-A", "I-A", "I-A", "O", None, "I-A", "I-A", None, "I-A"],
    }
    for scheme, tags in expected.items():
        tag_set = TagSet(make_tags(["A"], scheme), scheme)
        ids, unknown = tag_set.encode(biluo)
        assert [None if i == MISSING else tag_set.tags[i] for i in ids] == tags, scheme
        assert unknown == {"X"}


def test_tags_and_labels():
    assert make_tags(["product-car", "PER"], "BIO") == ["O", "B-product-car", "I-product-car", "B-PER", "I-PER"]
    assert TagSet(["I-PER", "B-PER", "O"], "BIO").labels == ("PER",)
    assert TagSet(["I-PER", "B-PER", "O"], "BIO").outside == 2


@pytest.mark.parametrize("label", ["", " ", "O", "-", None, 5])
def test_labels_that_tags_cannot_hold(label):
    with pytest.raises(ValueError, match=r"labels: .*(empty|reserved|is a string)"):
        validate_label(label)


@pytest.mark.parametrize("tags", [["O", "B_PER"], ["O", "S-PER"], ["B-PER", "I-PER"], ["O", "O"], ["O", "B-"]])
def test_tags_that_are_none(tags):
    with pytest.raises(ValueError, match="tags: "):
        TagSet(tags, "BIO")


def test_unknown_scheme():
    with pytest.raises(ValueError, match="scheme: 'BIOX' is unknown; allowed are BIO, BILUO, IOB1, IO"):
        make_tags(["A"], "BIOX")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gold_can_be_decoded_where_tokens_are_left_out(scheme):
    tag_set = TagSet(make_tags(["A", "B"], scheme), scheme)
    biluo = ["B-A", "L-A", "U-A", "O", "B-B", "I-B", "L-B"]
    is_kept = np.array([True, False, True, False, False, True, True])
    ids, _ = tag_set.encode(biluo, is_kept)
    assert (ids == MISSING).tolist() == (~is_kept).tolist()
    kept = [tag_set.tags[i] for i in ids[is_kept]]
    assert is_legal(kept, scheme)
    expected = {
        "BIO": ["B-A", "B-A", "B-B", "I-B"],
        "BILUO": ["U-A", "U-A", "B-B", "L-B"],
        "IOB1": ["I-A", "B-A", "I-B", "I-B"],
        "IO": ["I-A", "I-A", "I-B", "I-B"],
    }
    assert kept == expected[scheme]


def test_encode_where_nothing_is_kept():
    tags = TagSet(["O", "B-PER", "I-PER"], "BIO")
    assert tags.encode([])[0].tolist() == []
    ids, unknown = tags.encode(["O", "B-PER"], np.array([False, False]))
    assert ids.tolist() == [MISSING, MISSING] and unknown == set()


@pytest.mark.parametrize("label", ["!PERSON", "!"])
def test_negative_annotation_is_no_label(label):
    with pytest.raises(ValueError, match=r"negative annotation.*incorrect_spans_key"):
        validate_label(label)
