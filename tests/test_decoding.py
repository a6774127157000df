"""Probabilities of entities against all tag sequences one by one, and against plain forward passes over long documents."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spacy_bertner import decoding
from spacy_bertner.decoding import Lattice, best_path, entity_probabilities, expectations, segment_bounds
from spacy_bertner.tags import TagSet, make_tags

from .test_tags import SCHEMES, is_legal

# The best path


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


# Probabilities


@pytest.fixture(params=["as it is", "cut small"])
def cut(request, monkeypatch):
    """Both as it is and with so short blocks and chunks that a few tokens are in many of them."""
    if request.param == "cut small":
        monkeypatch.setattr(decoding, "BLOCK", 7)
        monkeypatch.setattr(decoding, "SHORTEST_CHUNK", 2)
        monkeypatch.setattr(decoding, "WARM_UP", 1)


def paths_of(tag_set, n):
    for path in itertools.product(range(len(tag_set)), repeat=n):
        if is_legal([tag_set.tags[i] for i in path], tag_set.scheme):
            yield np.array(path)


def score_of(path, scores, transitions):
    score = scores[np.arange(len(path)), path].sum(dtype=np.float64)
    rows, columns = np.append(0, path + 1), np.append(path + 1, 0)
    return score + transitions[rows, columns].sum()


def by_brute_force(tag_set, scores, transitions):
    """The probability of each entity of one segment, from the scores of all legal paths."""
    no_start = np.zeros(len(scores), dtype=bool)
    total, weights = -np.inf, {}
    for path in paths_of(tag_set, len(scores)):
        score = score_of(path, scores, transitions)
        total = np.logaddexp(total, score)
        for span in tag_set.spans(path, no_start):
            weights[span] = np.logaddexp(weights.get(span, -np.inf), score)
    return {span: math.exp(weight - total) for span, weight in weights.items()}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("scale", [3.0, 300.0])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_probabilities_are_those_of_all_legal_sequences(scheme, scale, data):
    tag_set = TagSet(make_tags(["A", "B-c"], scheme), scheme)
    n_tags = len(tag_set)
    lengths = data.draw(st.lists(st.integers(1, 3 if scheme == "BILUO" else 4), min_size=1, max_size=3))
    numbers = st.floats(-1, 1, width=32).map(lambda x: round(x, 3) * scale)
    scores = data.draw(arrays(np.float32, (sum(lengths), n_tags), elements=numbers))
    transitions = np.zeros((n_tags + 1, n_tags + 1))
    if data.draw(st.booleans()):
        transitions = data.draw(arrays(np.float64, transitions.shape, elements=numbers))
    temperature = data.draw(st.sampled_from([1.0, 2.5]))
    is_start = np.zeros(len(scores), dtype=bool)
    expected = {}
    for start, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        is_start[start] = start > 0
        part = scores[start : start + length] / np.float32(temperature)
        for (first, last, label), p in by_brute_force(tag_set, part, transitions / temperature).items():
            expected[int(start) + first, int(start) + last, label] = p
    found = entity_probabilities(tag_set, scores, is_start, list(expected), transitions, temperature)
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-6 if scale < 10 else 1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("scale", [3.0, 300.0])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_partition_is_the_sum_over_all_legal_sequences(scheme, scale, data):
    """Over those that are left, where tokens may not have every tag."""
    tag_set = TagSet(make_tags(["A", "B-c"], scheme), scheme)
    n_tags = len(tag_set)
    lengths = data.draw(st.lists(st.integers(1, 3 if scheme == "BILUO" else 4), min_size=1, max_size=3))
    numbers = st.floats(-1, 1, width=32).map(lambda x: round(x, 3) * scale)
    scores = data.draw(arrays(np.float32, (sum(lengths), n_tags), elements=numbers))
    scores[data.draw(arrays(bool, scores.shape))] = -np.inf
    empty = np.isneginf(scores).all(axis=1)
    scores[empty, data.draw(st.integers(0, n_tags - 1))] = 1.0
    transitions = data.draw(arrays(np.float64, (n_tags + 1, n_tags + 1), elements=numbers))
    temperature = data.draw(st.sampled_from([1.0, 2.5]))
    starts = np.cumsum([0, *lengths])[:-1]
    expected = []
    for start, length in zip(starts, lengths, strict=True):
        part = scores[start : start + length] / np.float32(temperature)
        total = -np.inf
        for path in paths_of(tag_set, length):
            total = np.logaddexp(total, score_of(path, part, transitions / temperature))
        expected.append(total if np.isfinite(total) else np.nan)
    is_start = np.isin(np.arange(len(scores)), starts)
    softened = Lattice.of(tag_set, transitions / temperature)
    found, *_ = expectations(softened, scores / np.float32(temperature), *segment_bounds(is_start))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def by_forward_passes(tag_set, scores, spans):
    """The probability of entities of one segment: all paths with it over all paths, summed token by token in logarithms."""
    every = np.where(tag_set.legal, 0.0, -np.inf)
    goes_on = np.where(tag_set.continues, 0.0, -np.inf)
    changes = np.where(tag_set.continues, -np.inf, every)

    def total(span=None):
        first, last, label = span or (-1, -1, "")
        is_of_label = np.array([tag[2:] == label for tag in tag_set.tags])
        message = None
        for i, row in enumerate(scores.astype(np.float64)):
            if message is None:
                message = np.where(tag_set.legal_start, row, -np.inf)
            else:
                steps = changes if i in (first, last) else goes_on if first < i < last else every
                message = np.logaddexp.reduce(message[:, None] + steps, axis=0) + row
            if first <= i < last:
                message[~is_of_label] = -np.inf
        return np.logaddexp.reduce(message[tag_set.legal_end])

    whole = total()
    return [math.exp(total(span) - whole) for span in spans]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_long_documents(scheme, cut):
    rng = np.random.default_rng(3)
    n = 700
    tag_set = TagSet(make_tags(["A", "B"], scheme), scheme)
    scores = rng.normal(size=(n, len(tag_set)), scale=2).astype("float32")
    scores[100:450] -= 60  # what is in the middle makes all paths improbable
    scores[200:400, 1] += 8  # one entity that goes on for long, and a second of almost the same probability:
    scores[200:400, 2] += 8 - 1e-3
    is_start = np.zeros(n, dtype=bool)
    spans = tag_set.spans(best_path(tag_set, scores, is_start), is_start)
    chosen = [span for span in spans if span[1] - span[0] > 3] + spans[::9]
    expected = by_forward_passes(tag_set, scores, chosen)
    found = entity_probabilities(tag_set, scores, is_start, spans)
    np.testing.assert_allclose([found[spans.index(span)] for span in chosen], expected, atol=1e-6)
    assert np.isfinite(found).all() and (found > 0).all() and (found <= 1).all()


def test_what_lies_far_back_counts(cut):
    """Two labels go on side by side, and which one it is was decided at the first token."""
    tag_set = TagSet(make_tags(["A", "B"], "BIO"), "BIO")
    n = 300
    scores = np.full((n, 5), -40, dtype="float32")
    scores[:, [2, 4]] = 0.0
    scores[0] = [-40, 0, -40, math.log(3), -40]
    found = entity_probabilities(tag_set, scores, np.zeros(n, dtype=bool), [(0, n, "A"), (0, n, "B")])
    np.testing.assert_allclose(found, [0.25, 0.75], atol=1e-6)
    np.testing.assert_allclose(by_forward_passes(tag_set, scores, [(0, n, "A")]), [0.25], atol=1e-6)


def test_a_million_tokens_do_not_underflow():
    tag_set = TagSet(make_tags(["A"], "BIO"), "BIO")
    n = 1_000_000
    scores = np.tile(np.array([0, 1, -1], dtype="float32"), (n, 1))
    scores[0] = scores[-1] = [9, -200, -200]  # so that both ends are O
    alone = scores[:200]
    alone[-1] = scores[-1]
    found = entity_probabilities(tag_set, scores, np.zeros(n, dtype=bool), [(500_000, 500_002, "A"), (90, 91, "A")])
    expected = by_forward_passes(tag_set, alone, [(100, 102, "A"), (90, 91, "A")])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("span", [(0, 2, "A"), (1, 2, "A"), (0, 1, "B")])
def test_a_head_that_lacks_tags(span):
    """B-B can neither go on nor end: no path has it, however good it looks."""
    tag_set = TagSet(["O", "B-A", "L-A", "U-A", "B-B", "I-B"], "BILUO")
    scores = np.zeros((400, 6), dtype="float32")
    scores[:, [4, 5]] = 100
    legal = Lattice.of(tag_set)
    assert np.isneginf(legal.steps[:, [4, 5]]).all() and np.isneginf(legal.starts[[4, 5]]).all()
    found = entity_probabilities(tag_set, scores, np.zeros(400, dtype=bool), [span])
    np.testing.assert_allclose(found, by_forward_passes(tag_set, scores, [span]), atol=1e-6)


def test_nothing_to_compute():
    tag_set = TagSet(make_tags(["A"], "BIO"), "BIO")
    assert entity_probabilities(tag_set, np.zeros((0, 3), "float32"), np.zeros(0, bool), []).tolist() == []
    assert entity_probabilities(tag_set, np.zeros((2, 3), "float32"), np.zeros(2, bool), []).tolist() == []
