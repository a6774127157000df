"""Figures against seqeval and scikit-learn; by length, position and training data against counts by hand."""

from collections import Counter
from itertools import chain

import pytest
from sklearn.metrics import classification_report as token_report

from spacy_bertner.report import build_report
from spacy_bertner.report.documents import Document, Entity
from spacy_bertner.report.metrics import breakdown, by_position, entity_figures, tags, token_figures

from .conftest import LABELS, docs_of, random_documents, ruler, save

NAMES = {"precision": "precision", "recall": "recall", "f1": "f1-score", "support": "support"}
AVERAGES = ("micro", "macro", "weighted")


def bio(documents):
    return ([tags(side(d), len(d)) for d in documents] for side in (lambda d: d.gold, lambda d: d.predicted))


def check_figures(found, expected, rows):
    for name, row in rows.items():
        for ours, theirs in NAMES.items():
            assert row[ours] == pytest.approx(expected[name][theirs]), (name, ours)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mode", ["strict", "default"])
def test_entities_are_those_of_seqeval(mode, seed):
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    documents = random_documents(seed=seed)
    gold, predicted = bio(documents)
    settings = {"mode": "strict", "scheme": IOB2} if mode == "strict" else {}
    expected = classification_report(gold, predicted, output_dict=True, zero_division=0, **settings)
    found = entity_figures(documents)
    assert set(found["labels"]) == set(LABELS)
    assert 0.1 < found["micro"]["f1"] < 0.9
    check_figures(found, expected, found["labels"])
    check_figures(found, {a: expected[f"{a} avg"] for a in AVERAGES}, {a: found[a] for a in AVERAGES})


@pytest.mark.parametrize("seed", range(5))
def test_tokens_are_those_of_scikit_learn(seed):
    documents = random_documents(seed=seed)
    gold, predicted = (list(chain.from_iterable(side)) for side in bio(documents))
    found = token_figures(documents)
    all_tags = sorted(set(gold) | set(predicted))
    assert list(found["tags"]) == all_tags and "O" in all_tags
    settings = {"output_dict": True, "zero_division": 0}
    expected = token_report(gold, predicted, labels=all_tags, **settings)
    expected["micro avg"] = dict.fromkeys(("precision", "recall", "f1-score"), expected["accuracy"])
    expected["micro avg"]["support"] = len(gold)
    check_figures(found, expected, found["tags"])
    check_figures(found, {a: expected[f"{a} avg"] for a in AVERAGES}, {a: found[a] for a in AVERAGES})
    expected = token_report(gold, predicted, labels=[tag for tag in all_tags if tag != "O"], **settings)
    check_figures(found, {a: expected[f"{a} avg"] for a in AVERAGES}, found["entity_tags"])


def test_tokens_without_annotation_are_left_out():
    document = Document(
        1, ["a", "b", "c"], [True] * 3, [0], [True, False, True], [Entity(0, 1, "X")], [Entity(0, 1, "X")]
    )
    found = token_figures([document])
    assert {tag: row["support"] for tag, row in found["tags"].items()} == {"B-X": 1, "O": 1}
    assert found["micro"]["f1"] == 1


def test_breakdown_adds_up():
    documents = random_documents()
    scores = breakdown(documents, lambda _, entity: entity.end - entity.start)
    overall = breakdown(documents, lambda _, entity: 0)[0]
    assert [sum(getattr(s, n) for s in scores.values()) for n in ("tp", "fp", "fn")] == [
        overall.tp, overall.fp, overall.fn,
    ]  # fmt: skip
    assert len(scores) == 4


def test_by_length_place_and_training(data, tmp_path):
    nlp = ruler()
    train = save(
        tmp_path / "train.spacy",
        docs_of(nlp.vocab, [("Dresden is not Maria Kolb , Paris", "B-ORG O O B-PER I-PER O B-MISC")]),
    )
    report = build_report(nlp, data, train=train)
    rows = {row["name"]: row for row in report["by_length"]}
    lengths = Counter(str(len(ent)) for doc in docs_of(nlp.vocab) for ent in doc.ents)
    assert {name: row["support"] for name, row in rows.items()} == lengths and len(lengths) == 4
    seen = {row["name"]: (row["support"], row["predicted"]) for row in report["by_seen"]}
    # Dresden as ORG is in training, as LOC under another label, and so is Paris
    assert seen["seen in training"] == (2, 1)
    assert seen["seen with another label"] == (2, 4)
    total = report["entities"]["micro"]["support"]
    assert sum(row["support"] for row in report["by_seen"]) == total
    assert [(row["name"], row["support"]) for row in report["by_position"]] == [("1-50", total)]
    assert build_report(nlp, data)["by_seen"] is None


def test_positions_count_from_one():
    words = ["x"] * 1000
    gold = [Entity(i, i + 1, "A") for i in (0, 49, 50, 99, 100, 799, 800, 999)]
    rows = by_position([Document(1, words, [True] * 1000, [0], None, gold, [])])
    assert {row["name"]: row["support"] for row in rows} == {
        "1-50": 2,
        "51-100": 2,
        "101-200": 1,
        "401-800": 1,
        "801+": 2,
    }
