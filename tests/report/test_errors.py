"""Errors by kind, in their sentences, and confusion of labels, against counts by hand."""

from collections import Counter

import pytest

from spacy_bertner.report import build_report
from spacy_bertner.report.documents import Document, Entity
from spacy_bertner.report.errors import in_sentence, pairs_of
from spacy_bertner.report.matching import kind_figures

from .conftest import LABELS, random_documents, ruler


def test_errors_by_kind(data):
    report = build_report(ruler(), data)
    by_words: Counter = Counter()
    for group in report["errors"]["groups"]:
        sides = [group[side] and group[side]["text"] for side in ("gold", "predicted")]
        by_words[(group["kind"], *sides)] += group["count"]
    expected = {
        ("type", "Dresden", "Dresden"): 1,
        ("type", "Lisbon", "Lisbon"): 1,
        ("boundary", "Nordbank", "Nordbank in"): 1,
        ("type and boundary", "Elbe Times", "Elbe Times reported"): 1,
        ("type and boundary", "Lisbon Post", "Lisbon"): 1,
        ("type and boundary", "Paris Adeyemi", "Paris"): 1,
        ("type and boundary", "Harlan Freight", "Harlan"): 1,
        ("spurious", None, "Monday"): 1,
        ("missed", "Nordbank", None): 1,
    }
    assert {key: by_words.get(key) for key in expected} == expected
    kinds = report["errors"]["kinds"]
    assert sum(kinds.values()) == report["errors"]["total"] == sum(by_words.values())
    assert kinds["type"] == 2 and kinds["boundary"] == 1 and kinds["spurious"] == 1
    assert report["errors"]["boundaries"] == {"too long": 2, "too short": 3, "shifted": 0}
    first = next(g for g in report["errors"]["groups"] if g["kind"] == "boundary")["examples"][0]
    assert "".join(s["text"] for s in first["sentence"]) == "The Tarrant Group bought Nordbank in March."
    assert [(s["text"], s.get("gold"), s.get("predicted")) for s in first["sentence"]][2:5] == [
        ("Nordbank", "ORG", "ORG"), (" ", None, "ORG"), ("in", None, "ORG"),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_confusion_adds_up(seed):
    documents = random_documents(seed=seed)
    from spacy_bertner.report.errors import confusion

    found = confusion(pairs_of(documents))
    gold = Counter(e.label for d in documents for e in d.gold)
    predicted = Counter(e.label for d in documents for e in d.predicted)
    for i, label in enumerate(found["labels"]):
        assert sum(found["matrix"][i]) + found["missed"][i] == gold[label]
        assert sum(row[i] for row in found["matrix"]) + found["spurious"][i] == predicted[label]
    kind = kind_figures(documents)["type"]["micro"]
    assert sum(found["matrix"][i][i] for i in range(len(LABELS))) == kind["correct"]
    assert sum(found["missed"]) == kind["missed"] and sum(found["spurious"]) == kind["spurious"]
    exact = sum(match.kind is None for match in pairs_of(documents))
    assert kind["correct"] - exact == sum(found["boundary"])


def test_long_sentences_are_cut_around_the_entity():
    words = [f"w{i}" for i in range(100)]
    document = Document(1, words, [True] * 100, [0], None, [Entity(50, 52, "A")])
    text = "".join(s["text"] for s in in_sentence(document, document.gold, [Entity(51, 53, "B")]))
    assert text == "… " + " ".join(words[34:69]) + " …"
