"""Reports: against seqeval, scikit-learn, nervaluate, SciPy, spaCy's own scorer, and counts made by hand."""

import json
import random
import re
import sys
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import spacy
from sklearn.metrics import classification_report as token_report
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span, SpanGroup
from spacy.training import Corpus
from spacy.vocab import Vocab
from typer.testing import CliRunner

from spacy_bertner.cli import bertner
from spacy_bertner.report import Settings, build_report, write_report
from spacy_bertner.report.compare import counts, differences, f1, paired_bootstrap
from spacy_bertner.report.confidence import confidence
from spacy_bertner.report.documents import Document, Entity, predict, read_gold
from spacy_bertner.report.errors import in_sentence, inconsistent, is_right, pairs_of
from spacy_bertner.report.metrics import breakdown, entity_figures, kind_figures, pair, tags, token_figures
from spacy_bertner.training.calibration import expected_calibration_error

from .conftest import SENTENCES

LABELS = ["LOC", "MISC", "ORG", "PER"]
NAMES = {"precision": "precision", "recall": "recall", "f1": "f1-score", "support": "support"}


def random_documents(n=60, seed=0) -> list[Document]:
    """Documents with dense entities, of which the predictions have many, other and further ones, with scores."""
    rng = random.Random(seed)

    def cover(length, dense):
        entities, i = [], 0
        while i < length:
            size = rng.choice([1, 1, 2, 3, 5])
            if rng.random() < dense and i + size <= length:
                entities.append(Entity(i, i + size, rng.choice(LABELS)))
                i += size
            else:
                i += 1
        return entities

    documents = []
    for number in range(1, n + 1):
        length = rng.choice([1, 4, 15, 40])
        gold = cover(length, 0.4)
        predicted = cover(length, 0.3) if rng.random() < 0.5 else [e for e in gold if rng.random() < 0.8]
        predicted = [e._replace(label=e.label if rng.random() < 0.8 else rng.choice(LABELS)) for e in predicted]
        predicted = [e._replace(score=rng.random()) for e in predicted]
        words = [rng.choice(["Oslo", "Kolb", "der", "x"]) for _ in range(length)]
        documents.append(Document(number, words, [True] * length, [0], None, gold, predicted))
    return documents


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


AVERAGES = ("micro", "macro", "weighted")


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


@pytest.mark.parametrize("seed", range(8))
def test_kinds_are_those_of_nervaluate(seed):
    nervaluate = pytest.importorskip("nervaluate", reason="nervaluate needs Python 3.11")
    documents = random_documents(seed=seed)
    names = {"strict": "strict", "exact": "exact", "partial": "partial", "type": "ent_type"}

    def spans(entities):  # its ends are inclusive
        return [{"label": e.label, "start": e.start, "end": e.end - 1} for e in entities]

    gold, predicted = [spans(d.gold) for d in documents], [spans(d.predicted) for d in documents]
    expected = nervaluate.Evaluator(gold, predicted, tags=LABELS, loader="dict").evaluate()
    found = kind_figures(documents)
    for kind, name in names.items():
        rows = [(found[kind]["micro"], expected["overall"][name])]
        rows += [(found[kind]["labels"][label], expected["entities"][label][name]) for label in LABELS]
        for row, other in rows:
            for key in ("correct", "incorrect", "partial", "missed", "spurious", "precision", "recall", "f1"):
                assert row[key] == pytest.approx(getattr(other, key)), (kind, key)
    assert found["strict"]["micro"]["f1"] == pytest.approx(entity_figures(documents)["micro"]["f1"])
    assert found["partial"]["micro"]["partial"] > 0 and found["type"]["micro"]["incorrect"] > 0


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


def test_breakdown_adds_up():
    documents = random_documents()
    scores = breakdown(documents, lambda _, entity: entity.end - entity.start)
    overall = breakdown(documents, lambda _, entity: 0)[0]
    assert [sum(getattr(s, n) for s in scores.values()) for n in ("tp", "fp", "fn")] == [
        overall.tp, overall.fp, overall.fn,
    ]  # fmt: skip
    assert len(scores) == 4


# Pipelines


def docs_of(vocab, sentences=SENTENCES):
    return [Doc(vocab, words=words.split(), ents=tags.split()) for words, tags in sentences]


def save(path, docs):
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@pytest.fixture
def data(tmp_path, nlp):
    return save(tmp_path / "data.spacy", docs_of(nlp.vocab))


def ruler(patterns=None, *, has_infixes=True) -> Language:
    """A pipeline that finds these mentions: right ones, other labels, other ends, and one that is none."""
    nlp = spacy.blank("en")
    if not has_infixes:
        nlp.tokenizer.infix_finditer = None
    patterns = patterns or {
        "Maria Kolb": "PER", "Dresden": "LOC", "Tarrant Group": "ORG", "Nordbank in": "ORG", "Lisbon": "LOC",
        "Paris": "LOC", "Harlan": "PER", "Oslo": "LOC", "Monday": "MISC", "Tallinn": "LOC", "Elbe Times reported": "LOC",
    }  # fmt: skip
    nlp.add_pipe("entity_ruler").add_patterns([{"label": v, "pattern": k} for k, v in patterns.items()])
    return nlp


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


def test_missing_annotation_is_neither_right_nor_wrong(tmp_path):
    nlp = ruler({"Oslo": "LOC", "Kolb": "PER"})
    doc = Doc(nlp.vocab, words=["Oslo", "saw", "Kolb"])
    doc.set_ents([Span(doc, 2, 3, "PER")], missing=[doc[0:1]], default="outside")
    path = save(tmp_path / "data.spacy", [doc])
    report = build_report(nlp, path)
    assert report["entities"]["micro"]["f1"] == nlp.evaluate(list(Corpus(path)(nlp)))["ents_f"] == 1
    assert report["lost"]["ignored"]["examples"][0]["text"] == "Oslo"


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
    exact = sum(map(is_right, pairs_of(documents)))
    assert kind["correct"] - exact == sum(found["boundary"])


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
    from spacy_bertner.report.errors import by_position

    rows = by_position([Document(1, words, [True] * 1000, [0], None, gold, [])])
    assert {row["name"]: row["support"] for row in rows} == {
        "1-50": 2,
        "51-100": 2,
        "101-200": 1,
        "401-800": 1,
        "801+": 2,
    }


def test_inconsistent_annotation():
    vocab = Vocab()
    sentences = [
        ("Oslo beat Oslo City", "B-ORG O B-LOC I-LOC"),
        ("In Oslo and Bonn", "O B-LOC O B-LOC"),
        ("Bonn", "O"),
        ("The Bonn bus", "O B-LOC O"),
        ("sees", "B-LOC"),
        ("he sees she sees", "O O O O"),
    ]
    data = docs_of(vocab, sentences)
    documents = [Document(i, [t.text for t in d], [True] * len(d), [0], None,
                          [Entity(e.start, e.end, e.label_) for e in d.ents]) for i, d in enumerate(data, 1)]  # fmt: skip
    assert inconsistent({"data": documents}) == [
        {"text": "Bonn", "labels": {"LOC": 2}, "unmarked": 1, "places": {"LOC": ["data", 2], "": ["data", 3]}},
        {
            "text": "Oslo",
            "labels": {"ORG": 1, "LOC": 1},
            "unmarked": 0,
            "places": {"ORG": ["data", 1], "LOC": ["data", 2]},
        },
    ]


def test_long_sentences_are_cut_around_the_entity():
    words = [f"w{i}" for i in range(100)]
    document = Document(1, words, [True] * 100, [0], None, [Entity(50, 52, "A")])
    text = "".join(s["text"] for s in in_sentence(document, document.gold, [Entity(51, 53, "B")]))
    assert text == "… " + " ".join(words[34:69]) + " …"


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


def test_ledger(data, tmp_path):
    from spacy_bertner.formats.convert import ReadOptions, convert

    (tmp_path / "odd.conll").write_text("Oslo B-LOC\nx I-PER\n\n", encoding="utf8")
    convert([str(tmp_path / "odd.conll")], tmp_path / "out", ReadOptions(repair=True), ledger=tmp_path / "ledger.json")
    report = build_report(ruler(), data, ledger=tmp_path / "ledger.json")
    assert report["lost"]["conversion"]["total"] == 1
    assert report["lost"]["conversion"]["examples"][0]["place"] == f"{tmp_path / 'odd.conll'}:2"


def test_folders_and_gpu_free_code(data):
    assert build_report(ruler(), data.parent)["counts"]["documents"] == len(SENTENCES)


# Scores


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


# Comparison


def test_bootstrap_is_that_of_scipy():
    from scipy.stats import bootstrap

    first, second = counts(random_documents(seed=1)), counts(random_documents(seed=2))
    second[:, 2] = first[:, 2]  # the same gold

    def difference(rows):
        totals = np.concatenate([first, second], axis=1)[rows].sum(axis=-2)
        return f1(totals[..., 3:]) - f1(totals[..., :3])

    places = np.arange(len(first))
    expected = bootstrap(
        (places,), lambda x, axis: difference(x), n_resamples=5000, method="percentile",
        rng=np.random.default_rng(0), batch=100,
    )  # fmt: skip
    found = paired_bootstrap(first, second, n_resamples=20_000)
    assert found["difference"] == pytest.approx(float(difference(places)))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found["low"] == pytest.approx(expected.confidence_interval.low, abs=0.06 * width)
    assert found["high"] == pytest.approx(expected.confidence_interval.high, abs=0.06 * width)
    samples = expected.bootstrap_distribution
    assert found["second_better"] == pytest.approx((samples > 0).mean(), abs=0.03)
    p = (np.sign(found["difference"]) * samples > 2 * abs(found["difference"])).mean()
    assert found["p"] == pytest.approx(p, abs=0.03)
    assert found == paired_bootstrap(first, second, n_resamples=20_000)


def test_bootstrap_of_equals_and_of_far_apart():
    rows = counts(random_documents())
    same = paired_bootstrap(rows, rows, 1000)
    assert same["difference"] == same["low"] == same["high"] == 0 and same["p"] == 1 and same["second_better"] == 0.5
    none = rows.copy()
    none[:, 0] = 0
    apart = paired_bootstrap(none, rows, 1000)
    assert apart["low"] > 0 and apart["p"] == 0 and apart["second_better"] == 1
    assert paired_bootstrap(rows, none, 1000)["difference"] == -apart["difference"]


def test_differences():
    gold = [Entity(0, 2, "A"), Entity(4, 5, "B"), Entity(6, 7, "A")]
    one = Document(1, ["w"] * 9, [True] * 9, [0], None, gold, [Entity(0, 2, "A"), Entity(6, 7, "B")])
    two = Document(1, ["w"] * 9, [True] * 9, [0], None, gold, [Entity(1, 2, "A"), Entity(4, 5, "B"), Entity(6, 7, "C")])
    assert differences(one, two) == [
        ("first", [gold[0]], [Entity(0, 2, "A")], [Entity(1, 2, "A")]),
        ("second", [gold[1]], [], [Entity(4, 5, "B")]),
        ("neither", [gold[2]], [Entity(6, 7, "B")], [Entity(6, 7, "C")]),
    ]


def test_comparison(data, tmp_path):
    other = ruler({"Maria Kolb": "PER", "Dresden": "ORG"})
    report = build_report(ruler(), data, other=other, settings=Settings(n_resamples=500))
    found = report["comparison"]
    assert found["entities"][0] == report["entities"]
    assert found["entities"][1] == build_report(other, data)["entities"]
    difference = found["entities"][1]["micro"]["f1"] - found["entities"][0]["micro"]["f1"]
    assert found["bootstrap"]["difference"] == pytest.approx(difference)
    assert sum(found["differences"].values()) == len(found["listed"]) > 5
    page = write_report(report, tmp_path / "out")[0].read_text(encoding="utf8")
    assert f"The second is {abs(100 * difference):.1f} points of F1 worse than the first" in page


# Files and the command


def run(*arguments):
    result = CliRunner().invoke(bertner, ["report", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def pipeline(tmp_path):
    ruler().to_disk(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_command(pipeline, data, tmp_path):
    code, output = run(pipeline, data, tmp_path / "out", "--train", data, "--compare", pipeline)
    assert code == 0, output
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {"report.html", "report.json", "report.md", "labels.png", "confusion.png"}
    report = json.loads((out / "report.json").read_text(encoding="utf8"))
    assert report["entities"] == build_report(ruler(), data)["entities"]
    assert f"F1 {report['entities']['micro']['f1']:.1%}" in output
    assert report["pipeline"] == f"{pipeline} (en_pipeline 0.0.0)"
    assert list(report) == [
        "format", "pipeline", "data", "train", "spans_key", "counts", "warnings", "entities", "kinds", "tokens", "errors",
        "confusion", "by_length", "by_position", "by_seen", "inconsistent", "confidence", "lost", "comparison",
    ]  # fmt: skip
    for name in ("labels.png", "confusion.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in (out / "report.md").read_text(encoding="utf8")
    # The same again, byte for byte, only where it is asked for
    before = {p: p.read_bytes() for p in out.iterdir()}
    (out / "notes.txt").write_text("mine", encoding="utf8")
    code, output = run(pipeline, data, out, "--train", data, "--compare", pipeline)
    assert code == 1 and f"{out}: is not empty; --force writes the report over an earlier one" in output
    code, output = run(pipeline, data, out, "--train", data, "--compare", pipeline, "--force")
    assert code == 0
    assert {p: p.read_bytes() for p in before} == before and (out / "notes.txt").exists()


def test_without_matplotlib(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    files = write_report(build_report(ruler(), data), tmp_path / "out")
    assert [path.name for path in files] == ["report.html", "report.json", "report.md"]
    assert 'pip install "spacy-bertner[plot]"' in files[2].read_text(encoding="utf8")


def bad_data(folder, kind):
    vocab = Vocab()
    path = folder / "bad.spacy"
    if kind == "empty file":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("Oslo B-LOC\n", encoding="utf8")
    elif kind == "cut":
        path.write_bytes(DocBin(docs=docs_of(vocab)).to_bytes()[:100])
    elif kind == "no documents":
        save(path, [])
    elif kind == "no gold":
        save(path, [Doc(vocab, words=["Oslo"])])
    elif kind == "no entities":
        save(path, [Doc(vocab, words=["Oslo"], ents=["O"])])
    elif kind == "other labels":
        save(path, [Doc(vocab, words=["Oslo"], ents=["B-GPE"])])
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty file", "the file is empty"),
        ("text", "is no DocBin; `python -m spacy bertner convert` makes one of CoNLL files"),
        ("cut", "is no DocBin"),
        ("no documents", "has no documents"),
        ("no gold", "no document can be scored; 1 of 1: has no entity annotation"),
        ("no entities", "the annotation has no entities: there is nothing to score"),
        ("other labels", "its labels (GPE) are others than those of the pipeline"),
        ("folder", "no .spacy file in this folder"),
        ("missing", "no such file or folder"),
    ],
)
def test_bad_data(kind, message, pipeline, tmp_path):
    path = bad_data(tmp_path, kind)
    code, output = run(pipeline, path, tmp_path / "out")
    assert code == 1 and f"report: {path}: {message}" in output
    assert not (tmp_path / "out").exists()


def test_bad_settings(pipeline, data, tmp_path):
    out = tmp_path / "out"
    code, output = run(tmp_path / "nowhere", data, out)
    assert code == 1 and "nowhere" in output
    assert "--n-bins: 0 is not a number above 0" in run(pipeline, data, out, "--n-bins", 0)[1]
    assert f"{data}: is a file" in run(pipeline, data, data)[1]
    code, output = run(pipeline, data, out, "--spans-key", "sc")
    assert code == 1 and "has no doc.spans['sc']; its span groups are: none" in output
    code, output = run(pipeline, data, out, "--ledger", data)
    assert code == 1 and f"{data}: is not what `convert --ledger` writes" in output
    save(tmp_path / "o.spacy", [Doc(Vocab(), words=["Oslo"], ents=["O"])])
    code, output = run(pipeline, data, out, "--train", tmp_path / "o.spacy")
    assert code == 1 and "o.spacy: the training data has no entities" in output
    assert not out.exists()


def test_labels_that_the_pipeline_lacks_are_a_warning(tmp_path):
    nlp = ruler({"Oslo": "LOC"})
    docs = [Doc(nlp.vocab, words=["Oslo", "Kolb", "Aas"], ents=["B-LOC", "B-PERSON", "B-PERSON"])]
    report = build_report(nlp, save(tmp_path / "data.spacy", docs))
    assert report["warnings"] == [
        "The pipeline does not have the labels PERSON (2) of the data: 2 of 3 entities cannot be found with the right "
        "label, and count as missed in the strict figures."
    ]
    assert report["entities"]["micro"]["recall"] == pytest.approx(1 / 3)


def test_markdown_holds_any_text(tmp_path):
    nlp = ruler({"Oslo": "LOC"})
    words = ["a|b", "<b>*x*", "`$1_[y](z)\n#"]
    doc = Doc(nlp.vocab, words=[*words, "Oslo"], ents=["B-LOC", "B-LOC", "B-LOC", "B-LOC"])
    path = write_report(build_report(nlp, save(tmp_path / "data.spacy", [doc])), tmp_path / "out")[2]
    text = path.read_text(encoding="utf8")
    (listed,) = re.findall(r"^- 1 x missed: \*\*LOC\*\* (a.*) → nothing$", text, re.MULTILINE)
    assert listed == r"a\|b"
    assert r"\<b\>\*x\*" in text and r"\`$1\_\[y\]\(z\) \#" in text
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_errors_that_are_not_listed_are_counted(data, tmp_path):
    report = build_report(ruler(), data, settings=Settings(max_errors=3))
    files = write_report(report, tmp_path / "out")
    page = files[0].read_text(encoding="utf8")
    assert page.count("<li data-kind") == 3
    assert f"{len(report['errors']['groups']) - 3} different errors" in page
    assert len(json.loads(files[1].read_text(encoding="utf8"))["errors"]["groups"]) > 3


def test_gold_is_read_without_a_pipeline(data):
    documents = list(read_gold(data, Vocab()))
    assert [d.mention(e) for d in documents[:2] for e in d.gold] == [
        "Maria Kolb",
        "Dresden",
        "Tarrant Group",
        "Nordbank",
    ]
    assert documents[0].text(0, 6) == "Maria Kolb lives in Dresden."  # with the spaces of running text
