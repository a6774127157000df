"""Reliability and figures by threshold, against sums by hand."""

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span, SpanGroup

from spacy_bertner.report import Settings, build_report, write_report
from spacy_bertner.report.confidence import confidence
from spacy_bertner.report.documents import Document, Entity
from spacy_bertner.training.calibration import expected_calibration_error

from .conftest import random_documents, save


def test_confidence():
    documents = random_documents(n=200)
    found = confidence(documents, n_bins=10)
    scores = np.array([e.score for d in documents for e in d.predicted])
    right = np.array([any(e.key == g.key for g in d.gold) for d in documents for e in d.predicted])
    n_gold = sum(len(d.gold) for d in documents)
    assert found["scored"] == len(scores) and found["unscored"] == 0
    assert found["ece"] == expected_calibration_error(scores, right, 10)
    total = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in found["bins"]) / len(scores)
    assert total == pytest.approx(found["ece"])
    for row in found["thresholds"]:
        kept = scores >= row["threshold"]
        assert row["predicted"] == kept.sum()
        if kept.any():
            assert row["precision"] == pytest.approx(right[kept].mean())
        assert row["recall"] == pytest.approx(right[kept].sum() / n_gold)
    documents[0].predicted.append(Entity(0, 1, "X"))
    assert confidence(documents)["unscored"] == 1
    assert confidence([Document(1, ["a"], [True], [0], None, [], [Entity(0, 1, "X")])]) is None


def test_span_groups_with_scores(tmp_path, nlp):
    """Overlapping spans, as a spancat leaves them: scores are in the attributes of the group."""

    @Language.component("finds_all_pairs")
    def finds(doc):
        spans = [Span(doc, 0, 1, "A"), Span(doc, 0, 2, "B"), Span(doc, 2, 3, "A")]
        doc.spans["sc"] = SpanGroup(doc, spans=spans, attrs={"scores": np.array([0.9, 0.8, np.nan], dtype="f")})
        return doc

    pipeline = spacy.blank("en")
    pipeline.add_pipe("finds_all_pairs")
    docs = [Doc(nlp.vocab, words=["a", "b", "c"]), Doc(nlp.vocab, words=["d"])]
    docs[0].spans["sc"] = [Span(docs[0], 0, 1, "A"), Span(docs[0], 0, 3, "B")]
    path = save(tmp_path / "data.spacy", docs)
    report = build_report(pipeline, path, settings=Settings(spans_key="sc"))
    assert report["tokens"] is None
    assert report["entities"]["micro"]["f1"] == pytest.approx(2 * 1 / (3 + 2))
    assert report["confidence"]["scored"] == 2 and report["confidence"]["unscored"] == 1
    assert report["errors"]["kinds"] == {
        "type": 0, "boundary": 1, "type and boundary": 0, "missed": 0, "spurious": 1,
    }  # fmt: skip
    assert report["lost"]["skipped"]["examples"][0]["reason"].startswith("has no doc.spans['sc']")
    assert "entities overlap" in write_report(report, tmp_path / "out")[2].read_text(encoding="utf8")
