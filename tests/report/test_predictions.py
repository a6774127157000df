"""Predictions on the pipeline's own tokens, against spaCy's scorer; what is left out."""

import pytest
import spacy
from spacy.language import Language
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Corpus

from spacy_bertner.report import Settings, build_report
from spacy_bertner.report.metrics import entity_figures
from spacy_bertner.report.predictions import predict
from spacy_bertner.report.render import make_page

from ..conftest import SENTENCES
from .conftest import docs_of, ruler, save


def test_figures_are_those_of_spacy_evaluate(data):
    nlp = ruler()
    expected = nlp.evaluate(list(Corpus(data)(nlp)))
    report = build_report(nlp, data)
    micro = report["entities"]["micro"]
    assert [micro[n] for n in ("precision", "recall", "f1")] == [expected[f"ents_{n}"] for n in "prf"]
    assert 0.2 < micro["f1"] < 0.9
    for label, row in report["entities"]["labels"].items():
        expected_row = expected["ents_per_type"][label]
        assert [row[n] for n in ("precision", "recall", "f1")] == [expected_row[n] for n in "prf"]


def test_own_tokens_are_compared_as_spacy_does(tmp_path):
    """The pipeline has "Berlin-based" as one token and "cannot" as two, the gold has it the other way round."""
    nlp = ruler({"Berlin-based": "LOC", "can": "MISC", "Kolb": "PER", "Anna": "PER"}, has_infixes=False)
    gold = Doc(
        nlp.vocab,
        words=["Berlin", "-", "based", "Kolb", "cannot", "see", "Anna"],
        spaces=[False, False, True, True, True, True, False],
        ents=["B-LOC", "O", "O", "B-PER", "O", "O", "B-PER"],
    )
    known = save(tmp_path / "known.spacy", [gold])
    expected = nlp.evaluate(list(Corpus(known)(nlp)))
    found = predict(nlp, known)
    assert [e.key for e in found.documents[0].predicted] == [
        (0, 3, "LOC"), (3, 4, "PER"), (4, 5, "MISC"), (6, 7, "PER"),
    ]  # fmt: skip
    micro = entity_figures(found.documents)["micro"]
    assert [micro[n] for n in ("precision", "recall", "f1")] == [expected[f"ents_{n}"] for n in "prf"]
    assert [(lost.text, lost.label) for lost in found.misaligned] == [("Berlin", "LOC")]
    report = build_report(nlp, known)
    assert report["lost"]["misaligned"]["total"] == 1
    assert "1 gold entities do not align" in " ".join(report["warnings"])
    # With the gold's tokens all of it aligns
    found = predict(nlp, known, gold_tokens=True)
    assert not found.misaligned
    assert [e.key for e in found.documents[0].predicted] == [(3, 4, "PER"), (6, 7, "PER")]


@pytest.mark.parametrize(
    ("words", "spaces", "start", "end"),
    [
        (["in", "Ankara", "\n", "today"], [True, True, False, False], 1, 3),
        (["in", "\n\n", "Ankara", "today"], [True, False, True, False], 1, 3),
        (["in", "Ankara", "\u200b", "today"], [True, True, True, False], 1, 3),
        (["in", " ", "Ankara"], [True, False, False], 1, 2),
    ],
)
@pytest.mark.parametrize("key", [None, "sc"])
def test_gold_that_ends_with_whitespace_is_missed_and_named(words, spaces, start, end, key, tmp_path):
    """Compared as it is, as in spaCy's scorer; but the report says why it is missed."""
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "sc", "annotate_ents": True}).add_patterns(
        [{"label": "LOC", "pattern": "Ankara"}]
    )
    good = Doc(nlp.vocab, words=["Ankara"], ents=["B-LOC"])
    doc = Doc(nlp.vocab, words=words, spaces=spaces)
    doc.set_ents([Span(doc, start, end, "LOC")])
    for gold in (good, doc):
        gold.spans["sc"] = list(gold.ents)
    path = save(tmp_path / "data.spacy", [good, doc])
    report = build_report(nlp, path, settings=Settings(spans_key=key))
    examples = list(Corpus(path)(nlp))
    for example in examples:
        example.predicted = nlp(example.predicted)
    expected = get_ner_prf(examples)["ents_f"]
    assert report["entities"]["micro"]["f1"] == pytest.approx(expected) and expected < 0.7
    (lost,) = report["lost"]["blank_ends"]["examples"]
    assert lost["document"] == 2 and lost["label"] == "LOC" and lost["text"] == doc[start:end].text
    (warning,) = report["warnings"]
    text = repr(doc[start:end].text)
    assert warning.startswith(f"1 gold entities start or end with whitespace, the first in document 2: {text}. ")
    assert "Gold entities that start or end with whitespace, which count as missed: 1" in make_page(report, {})


def test_gold_with_whitespace_that_is_found_or_inside(tmp_path):
    nlp = spacy.blank("en")
    found = Doc(nlp.vocab, words=["Ankara", "\n"], spaces=[False, False], ents=["B-LOC", "I-LOC"])
    inside = Doc(nlp.vocab, words=["New", "\n", "York"], spaces=[False, False, False], ents=["B-LOC", "I-LOC", "I-LOC"])
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "LOC", "pattern": doc.text} for doc in (found, inside)])
    path = save(tmp_path / "data.spacy", [found, inside])
    report = build_report(nlp, path)
    assert report["entities"]["micro"]["f1"] == nlp.evaluate(list(Corpus(path)(nlp)))["ents_f"] == 1
    assert report["lost"]["blank_ends"]["total"] == 0 and not report["warnings"]


def test_missing_annotation_is_neither_right_nor_wrong(tmp_path):
    nlp = ruler({"Oslo": "LOC", "Kolb": "PER"})
    doc = Doc(nlp.vocab, words=["Oslo", "saw", "Kolb"])
    doc.set_ents([Span(doc, 2, 3, "PER")], missing=[doc[0:1]], default="outside")
    path = save(tmp_path / "data.spacy", [doc])
    report = build_report(nlp, path)
    assert report["entities"]["micro"]["f1"] == nlp.evaluate(list(Corpus(path)(nlp)))["ents_f"] == 1
    assert report["lost"]["ignored"]["examples"][0]["text"] == "Oslo"


def test_skipped_documents_are_named(tmp_path):
    nlp = ruler()

    @Language.component("breaks_on_bombs")
    def breaks(doc):
        if "bomb" in doc.text:
            raise RuntimeError("boom")
        return doc

    nlp.add_pipe("breaks_on_bombs", first=True)
    docs = [*docs_of(nlp.vocab), Doc(nlp.vocab), Doc(nlp.vocab, words=["unannotated"])]
    docs.insert(3, Doc(nlp.vocab, words=["bomb", "Kolb"], ents=["O", "B-PER"]))
    report = build_report(nlp, save(tmp_path / "data.spacy", docs))
    skipped = report["lost"]["skipped"]
    assert skipped["total"] == 3
    reasons = {item["document"]: item["reason"] for item in skipped["examples"]}
    assert reasons[4] == "could not be processed, so that its 1 entities are not in the figures: RuntimeError: boom"
    assert reasons[len(docs) - 1] == "has no tokens"
    assert reasons[len(docs)] == "has no entity annotation"
    assert report["counts"]["documents"] == len(SENTENCES)
    assert f"3 of {len(SENTENCES) + 3} documents could not be scored" in report["warnings"][0]


def test_words_longer_than_a_window_are_named(tmp_path, nlp, tagger):
    tagger(window=6, stride=3)
    doc = Doc(nlp.vocab, words=["Kolb", "unhappily" * 10, "Oslo"], ents=["B-PER", "O", "B-LOC"])
    report = build_report(nlp, save(tmp_path / "data.spacy", [doc]))
    (cut,) = report["lost"]["cut"]["examples"]
    assert cut["document"] == 1 and cut["reason"].startswith("a word of 90 characters, longer than a window")
    assert "1 words are longer than a window" in report["warnings"][-1]
