"""Figures by length, position and training data, against counts by hand."""

from collections import Counter

from spacy_bertner.report import build_report
from spacy_bertner.report.documents import Document, Entity

from .conftest import docs_of, ruler, save


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
    from spacy_bertner.report.breakdowns import by_position

    rows = by_position([Document(1, words, [True] * 1000, [0], None, gold, [])])
    assert {row["name"]: row["support"] for row in rows} == {
        "1-50": 2,
        "51-100": 2,
        "101-200": 1,
        "401-800": 1,
        "801+": 2,
    }
