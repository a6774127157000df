"""Calibration: the expected calibration error against figures worked out by hand; the temperature against brute force."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from thinc.api import Adam

from spacy_bertner.training.calibration import calibrate, calibrate_pipeline, expected_calibration_error

from ..conftest import make_examples, scores_of
from ..test_decoding import by_brute_force


def test_error_worked_out_by_hand():
    # Two bins: (0, 0.5] has 0.5 (right) and 0.1 (wrong), (0.5, 1] has 0.9 (right), 0.8 (wrong), 1.0 (right)
    confidences, is_correct = [0.9, 0.5, 0.1, 0.8, 1.0], [True, True, False, False, True]
    expected = 2 / 5 * abs(0.5 - 0.3) + 3 / 5 * abs(2 / 3 - 0.9)
    assert expected_calibration_error(confidences, is_correct, 2) == pytest.approx(expected)
    assert expected_calibration_error(np.array(confidences, dtype="f"), np.array(is_correct), 1) == pytest.approx(
        abs(3 / 5 - 3.3 / 5)
    )


def test_error_by_loops():
    """As equation 3 of Guo et al. (2017) is written."""
    rng = np.random.default_rng(0)
    confidences, is_correct = rng.random(500), rng.random(500) < 0.7
    confidences[:4] = 0, 1, 1 / 15, 14 / 15
    expected = 0.0
    for m in range(1, 16):
        bin_ = [i for i, p in enumerate(confidences) if (m - 1) / 15 < p <= m / 15 or (m == 1 and p == 0)]
        if bin_:
            expected += len(bin_) / 500 * abs(np.mean(is_correct[bin_]) - np.mean(confidences[bin_]))
    assert expected_calibration_error(confidences, is_correct) == pytest.approx(expected)


def test_sure_and_right_or_wrong():
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1.0
    assert math.isnan(expected_calibration_error([], []))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [True, False]), r"got \(1,\) and \(2,\)"),
        (([1.5], [True]), r"confidences: not all are in \[0, 1\]"),
        (([float("nan")], [True]), "confidences: not all"),
        (([0.5], [True], 0), "n_bins: 0 is not"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(*arguments)


@pytest.mark.parametrize("crf", [False, True])
def test_temperature_by_brute_force(crf, tagger, nlp):
    """The probabilities of the entities by all tag sequences one by one."""
    ner = tagger("bert", crf=crf)
    rng = np.random.default_rng(0)
    sgd = Adam(5e-3)
    learnt = [("Maria Kolb", "B-PER I-PER"), ("in Oslo today", "O B-LOC O"), ("Dresden is", "B-LOC O")]
    for _ in range(40):
        nlp.update(make_examples(nlp, learnt), sgd=sgd, drop=0.0)
    n_tags = len(ner.tag_set)
    transitions = np.zeros((n_tags + 1, n_tags + 1))
    if crf:
        drawn = rng.normal(size=transitions.shape).astype("float32")
        ner.model.shims[0].module.transitions.data.copy_(ner.model.shims[0].module.transitions.data.new_tensor(drawn))
        transitions = ner.transitions()
    examples = []
    for words, span in [
        ("Maria Kolb", (0, 2, "PER")),
        ("in Oslo today", (1, 2, "LOC")),
        ("Dresden is", (0, 1, "ORG")),
        ("Nothing", None),
    ]:
        doc = Doc(nlp.vocab, words=words.split())
        doc.set_ents([Span(doc, *span)] if span else [])
        if span is None:
            doc.set_ents([], missing=[doc[:]])  # not annotated: what is found there is neither right nor wrong
        examples.append(Example(Doc(nlp.vocab, words=words.split()), doc))
    scores = scores_of(ner, [eg.predicted for eg in examples])
    found = [[(e.start, e.end, e.label_) for e in doc.ents] for doc in nlp.pipe(eg.predicted.copy() for eg in examples)]
    assert found == [[(0, 2, "PER")], [(1, 2, "LOC")], [(0, 1, "LOC")], found[3]]

    def loss(temperature):
        likelihoods = []
        for rows, ents, is_correct in zip(scores, found, (True, True, False), strict=False):
            probabilities = by_brute_force(ner.tag_set, rows / np.float32(temperature), transitions / temperature)
            likelihoods += [probabilities[ent] if is_correct else 1 - probabilities[ent] for ent in ents]
        return -np.log(likelihoods).mean()

    before, after = calibrate(nlp, "bert_ner", examples)
    assert before.loss == pytest.approx(loss(1.0), rel=1e-4)
    best = minimize_scalar(lambda x: loss(math.exp(x)), bounds=(-3, 3), method="bounded")
    assert abs(best.x) < 2.9  # inside of what is searched
    assert after.temperature == pytest.approx(math.exp(best.x), rel=1e-2)
    assert after.loss == pytest.approx(loss(after.temperature), rel=1e-4) and after.loss <= before.loss
    assert ner.cfg["temperature"] == nlp.get_pipe_config("bert_ner")["temperature"] == after.temperature


# What `spacy bertner calibrate` says


def swapped(sentences):
    """The same words with other labels."""
    return [(words, tags.replace("PER", "x").replace("LOC", "PER").replace("x", "LOC")) for words, tags in sentences]


SURE = [("Maria Kolb", "B-PER I-PER"), ("in Oslo today", "O B-LOC O"), ("Dresden is", "B-LOC O")]


@pytest.mark.parametrize(
    ("n", "data", "test", "is_few", "is_worse"),
    [
        (3, SURE, None, True, False),
        (16, SURE, None, True, False),
        (17, SURE, None, False, False),
        (17, swapped(SURE), SURE, False, True),  # the scores of what is right become lower
        (3, swapped(SURE), SURE, True, True),
        (17, SURE, SURE, False, False),
    ],
)
def test_few_entities_and_a_larger_error_are_named(n, data, test, is_few, is_worse, tagger, nlp, tmp_path):
    tagger("bert")
    sgd = Adam(5e-3)
    for _ in range(40):
        nlp.update(make_examples(nlp, SURE), sgd=sgd, drop=0.0)
    paths = []
    for name, sentences in (("data", data), ("test", test)):
        if sentences is not None:
            docs = [eg.reference for eg in make_examples(nlp, sentences * n)]
            DocBin(docs=docs).to_disk(tmp_path / f"{name}.spacy")
            paths.append(tmp_path / f"{name}.spacy")
    lines = list(calibrate_pipeline(nlp, *paths))
    few = f"  Warning: {3 * n} entities are few: with fewer than 50, a fitted temperature may make the scores worse."
    worse = f"  Warning: the calibration error on {paths[-1]} became larger: keep the pipeline as it was"
    assert any(line.startswith(few) for line in lines) == is_few
    assert any(line.startswith(worse) for line in lines) == is_worse
    assert len(lines) == 1 + len(paths) + is_few + is_worse
