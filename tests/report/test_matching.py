"""Pairs of gold entities and predictions by hand; figures of the four kinds against nervaluate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_bertner.report.documents import Document, Entity
from spacy_bertner.report.errors import confusion, error_figures, pairs_of
from spacy_bertner.report.matching import kind_figures, pair
from spacy_bertner.report.metrics import entity_figures

from .conftest import LABELS, random_documents

NAMES = {"strict": "strict", "exact": "exact", "partial": "partial", "type": "ent_type"}
KEYS = ("correct", "incorrect", "partial", "missed", "spurious", "precision", "recall", "f1")


def nervaluate_figures(sides, labels):
    nervaluate = pytest.importorskip("nervaluate", reason="nervaluate needs Python 3.11")
    gold, predicted = (  # its ends are inclusive
        [[{"label": e.label, "start": e.start, "end": e.end - 1} for e in entities] for entities in side]
        for side in sides
    )
    return nervaluate.Evaluator(gold, predicted, tags=labels, loader="dict").evaluate()


def best_first(document, labels):
    """The entities with these labels in the order in which they should be paired: nervaluate takes them as they come."""
    gold, predicted = ([e for e in side if e.label in labels] for side in (document.gold, document.predicted))
    pairs = pair(gold, predicted, by_label=True)

    def rank(both):
        gold, predicted = both
        distance = abs(gold.start - predicted.start) + abs(gold.end - predicted.end)
        return gold.span != predicted.span, gold.label != predicted.label, distance

    ranked = sorted((both for both in pairs if None not in both), key=rank)
    ranked += [both for both in pairs if None in both]
    return [[both[side] for both in ranked if both[side] is not None] for side in (0, 1)]


@pytest.mark.parametrize("seed", range(8))
def test_kinds_are_those_of_nervaluate(seed):
    documents = random_documents(seed=seed)
    expected = nervaluate_figures(([d.gold for d in documents], [d.predicted for d in documents]), LABELS)
    rows = {
        name: [expected["overall"][name], *(expected["entities"][label][name] for label in LABELS)]
        for name in NAMES.values()
    }
    # Of overlapping entities nervaluate pairs the first ones, even where later ones have the same label
    rows["ent_type"] = [
        nervaluate_figures(zip(*(best_first(d, labels) for d in documents), strict=True), labels)["overall"]["ent_type"]
        for labels in (LABELS, *([label] for label in LABELS))
    ]
    found = kind_figures(documents)
    for kind, name in NAMES.items():
        ours = [found[kind]["micro"], *(found[kind]["labels"][label] for label in LABELS)]
        for row, other in zip(ours, rows[name], strict=True):
            for key in KEYS:
                assert row[key] == pytest.approx(getattr(other, key)), (kind, key)
    assert found["strict"]["micro"]["f1"] == pytest.approx(entity_figures(documents)["micro"]["f1"])
    assert found["partial"]["micro"]["partial"] > 0 and found["type"]["micro"]["incorrect"] > 0


@pytest.mark.parametrize("n_tokens", [99, 100, 101, 300])
def test_small_overlaps_are_those_of_nervaluate(n_tokens):
    gold, predicted = [Entity(0, n_tokens, "A")], [Entity(n_tokens - 1, n_tokens + 5, "A")]
    expected = nervaluate_figures(([gold], [predicted]), ["A"])["overall"]
    found = kind_figures([Document(1, ["x"] * 400, [True] * 400, [0], None, gold, predicted)])
    for kind, name in NAMES.items():
        for key in KEYS:
            assert found[kind]["micro"][key] == getattr(expected[name], key)
    assert found["type"]["micro"]["correct"] == (n_tokens <= 100)


spans = st.builds(
    lambda start, n, label: Entity(start, start + n, label),
    st.integers(0, 12),
    st.integers(1, 8),
    st.sampled_from("AB"),
)


@given(spans, st.lists(spans, max_size=4), st.randoms())
def test_order_does_not_matter(entity, others, rng):
    """Neither that of the lists nor that in the text: the same from right to left, for gold and predictions alike."""

    def figures(gold, predicted):
        documents = [Document(1, ["x"] * 20, [True] * 20, [0], None, gold, predicted)]
        pairs = pairs_of(documents)
        errors = error_figures(pairs)
        return kind_figures(documents), confusion(pairs), errors["kinds"], errors["boundaries"]

    shuffled = rng.sample(others, len(others))
    mirrored = [Entity(20 - e.end, 20 - e.start, e.label) for e in (entity, *others)]
    assert figures([entity], others) == figures([entity], shuffled) == figures(mirrored[:1], mirrored[1:])
    assert figures(others, [entity]) == figures(shuffled, [entity]) == figures(mirrored[1:], mirrored[:1])


@pytest.mark.parametrize("labels", ["AB", "BA"])
def test_the_same_label_comes_first(labels):
    predicted = [Entity(0, 2, labels[0]), Entity(2, 4, labels[1])]
    documents = [Document(1, ["x"] * 4, [True] * 4, [0], None, [Entity(0, 4, "A")], predicted)]
    counts = kind_figures(documents)["type"]["micro"]
    assert [counts[key] for key in KEYS[:5]] == [1, 0, 0, 0, 1]
    assert confusion(pairs_of(documents))["matrix"] == [[1, 0], [0, 0]]
    assert error_figures(pairs_of(documents))["kinds"] == {
        "type": 0, "boundary": 1, "type and boundary": 0, "missed": 0, "spurious": 1,
    }  # fmt: skip


def test_pairs():
    a, b = Entity(0, 2, "A"), Entity(3, 6, "B")
    # The same comes first, then the same tokens, then by overlap; with `by_label` those of one label
    nested = [Entity(0, 5, "A"), Entity(0, 2, "A")]
    assert pair(nested, [Entity(0, 2, "A")], by_label=True) == [(nested[1], nested[1]), (nested[0], None)]
    assert pair([a, b], [Entity(1, 4, "B")], by_label=True) == [(a, None), (b, Entity(1, 4, "B"))]
    assert pair([a, b], [Entity(1, 4, "B")], by_label=False) == [(a, Entity(1, 4, "B")), (b, None)]
    # The one whose ends are closest
    near = [Entity(0, 2, "A"), Entity(2, 6, "A")]
    assert pair(near, [Entity(1, 6, "A")], by_label=True) == [(near[0], None), (near[1], Entity(1, 6, "A"))]
    assert pair([a], [Entity(2, 3, "A")], by_label=True) == [(a, None), (None, Entity(2, 3, "A"))]
    assert pair([], [], by_label=True) == []


def test_pairing_a_long_document_is_quick_enough():
    """Neighbours that overlap in a chain, 100,000 of them: what were quadratic would not end."""
    gold = [Entity(4 * i, 4 * i + 3, "A") for i in range(100_000)]
    predicted = [Entity(4 * i + 2, 4 * i + 5, "A") for i in range(100_000)]
    pairs = pair(gold, predicted, by_label=False)
    assert all(g is not None and p is not None and p.start == g.start + 2 for g, p in pairs)
