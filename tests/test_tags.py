"""Tag schemes against brute force, seqeval and arrays written by hand."""

import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, Entities

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
    with pytest.raises(ValueError, match="scheme: 'BIOX' is unknown; allowed are IOB2, BIO, BIO2, BIOES"):
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
