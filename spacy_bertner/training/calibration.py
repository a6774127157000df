"""How reliable confidence scores are: the expected calibration error, and a temperature that reduces it.

Temperature scaling (Guo et al. 2017) divides all tag scores by one number, fitted on data that the model was not trained on.
The predicted entities stay the same; only their scores change. The temperature is fitted to these scores, the probabilities
of entities (Kuleshov and Liang 2015); the likelihood of tag sequences depends on the tokens outside entities as well.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from spacy.attrs import ENT_IOB
from spacy.language import Language
from spacy.training import Corpus, Example
from spacy.util import minibatch

from ..component import BertNER, components_of
from ..decoding import Floats64, entity_probabilities
from ..entities import best_spans
from ..files import docbin_files
from ..span_groups import with_group_as_entities
from ..tags import Bools1d, Floats2d

# Range of the temperature
LOWEST, HIGHEST = 0.05, 20.0
# Relative precision of the fitted temperature
PRECISION = 1e-4
# What is left to chance where an entity is sure, so that its logarithm is finite
TINY = 1e-9
# With fewer entities, a fitted temperature may make the scores worse (bench/results/calibration_size.txt)
FEW_ENTITIES = 50


@dataclass(frozen=True)
class Calibration:
    """How well calibrated a component is on some documents.

    temperature: that of the component. loss: mean negative log-likelihood of whether a predicted entity is correct, by its
    score. error: expected calibration error of the entities' scores. n_entities: number of these entities.
    """

    temperature: float
    loss: float
    error: float
    n_entities: int


def calibrate(nlp: Language, name: str, examples: Iterable[Example]) -> tuple[Calibration, Calibration]:
    """Fit the temperature of a component and set it in the component and in the pipeline's config.

    The fitted temperature minimizes the negative log-likelihood of which of the predicted entities are correct. Entities of
    tokens without annotation are left out.

    nlp: the pipeline. name: the name of its `bert_ner` component. examples: annotated documents, not trained on.

    Returns the figures on the examples before and after. Raises ValueError if there is no such component, or it finds no
    entity in text that is annotated.
    """
    sample = Sample(nlp, name, examples)
    component = _component(nlp, name)
    before = sample.measure(component.cfg["temperature"])
    temperature = _minimize(sample.loss)
    component.cfg["temperature"] = nlp.get_pipe_config(name)["temperature"] = temperature
    return before, sample.measure(temperature)


def measure(nlp: Language, name: str, examples: Iterable[Example]) -> Calibration:
    """Measure how well calibrated a component is; the arguments and errors are those of `calibrate`."""
    return Sample(nlp, name, examples).measure(_component(nlp, name).cfg["temperature"])


def confidence_bins(confidences: ArrayLike, is_correct: ArrayLike, n_bins: int = 15) -> list[dict[str, Any]]:
    """Put predictions into bins of equal width by their confidence, open below and closed above.

    confidences: (n,), in [0, 1]. is_correct: (n,), whether each prediction is correct. n_bins: number of bins; 15 as in Guo
        et al. (2017).

    Returns the bins with predictions: `low`, `high`, `count`, mean `confidence`, and `accuracy`, the share of correct ones.
    Raises ValueError if the lengths differ, a confidence is not in [0, 1], or there is no bin.
    """
    confidence, correct = np.asarray(confidences, dtype=np.float64), np.asarray(is_correct, dtype=bool)
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise ValueError(
            f"confidences and is_correct: expected two shapes (n,), got {confidence.shape} and {correct.shape}"
        )
    if n_bins < 1:
        raise ValueError(f"n_bins: {n_bins} is not 1 or more")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences: not all are in [0, 1]")
    bins = np.maximum(np.ceil(confidence * n_bins).astype(int) - 1, 0)
    counts, sums, n_correct = (
        np.bincount(bins, weights, n_bins).tolist() for weights in (None, confidence, correct.astype(float))
    )
    return [
        {
            "low": i / n_bins,
            "high": (i + 1) / n_bins,
            "count": count,
            "confidence": sums[i] / count,
            "accuracy": n_correct[i] / count,
        }
        for i, count in enumerate(counts)
        if count
    ]


def expected_calibration_error(confidences: ArrayLike, is_correct: ArrayLike, n_bins: int = 15) -> float:
    """Compute the expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3).

    The error of a bin is the distance between the accuracy and the mean confidence of its predictions. The arguments and
    errors are those of `confidence_bins`.

    Returns the mean error of the bins, weighted by their size, in [0, 1]; NaN where there are no predictions.
    """
    bins = confidence_bins(confidences, is_correct, n_bins)
    if not bins:
        return math.nan
    return sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / sum(b["count"] for b in bins)


def calibrate_pipeline(nlp: Language, data: Path, test: Path | None = None) -> Iterator[str]:
    """Calibrate every `bert_ner` component of a pipeline.

    nlp: the pipeline. data: a .spacy file to fit the temperatures on. test: another one, to measure before and after.

    Yields lines that describe the changes, and warn where the fit means little or made the error larger.
    Raises ValueError as `calibrate` does, and if there is no such component.
    """
    names = list(components_of(nlp))
    if not names:
        raise ValueError(
            f"the pipeline has no bert_ner component; its components are {', '.join(nlp.pipe_names) or 'none'}"
        )
    paths = [path for path in (data, test) if path is not None]
    for path in paths:
        docbin_files(path)
    corpora = {path: list(Corpus(path)(nlp)) for path in paths}
    for name in names:
        test_before = None if test is None else measure(nlp, name, corpora[test])
        before, after = calibrate(nlp, name, corpora[data])
        yield f"{name}: temperature {before.temperature:.3f} -> {after.temperature:.3f}"
        yield _describe_change(data, before, after)
        if before.n_entities < FEW_ENTITIES:
            yield (
                f"  Warning: {before.n_entities} entities are few: with fewer than {FEW_ENTITIES}, a fitted temperature may "
                "make the scores worse. Calibrate on more documents"
            )
        path = data
        if test is not None and test_before is not None:
            path, before, after = test, test_before, measure(nlp, name, corpora[test])
            yield _describe_change(path, before, after)
        if after.error > before.error:
            yield (
                f"  Warning: the calibration error on {path} became larger: keep the pipeline as it was, or calibrate on "
                "more documents"
            )


def _describe_change(path: Path, before: Calibration, after: Calibration) -> str:
    return (
        f"  {path}: negative log-likelihood of an entity {before.loss:.3f} -> {after.loss:.3f}; expected calibration "
        f"error of {after.n_entities} entities {before.error:.4f} -> {after.error:.4f}"
    )


class Sample:
    """Tag scores and entities of a component on annotated documents, none of which depend on the temperature.

    The arguments and errors are those of `calibrate`.
    """

    def __init__(self, nlp: Language, name: str, examples: Iterable[Example]) -> None:
        component = _component(nlp, name)
        self.tag_set, self.transitions = component.tag_set, component.transitions()
        self.spans: list[tuple[int, int, str]] = []  # in rows
        self.is_correct: list[bool] = []
        scores, is_first = [], []
        n_rows = 0
        later = nlp.pipe_names[nlp.pipe_names.index(name) :]
        for batch in minibatch(examples, nlp.batch_size):
            docs = list(nlp.pipe([eg.predicted.copy() for eg in batch if len(eg.predicted)], disable=later))
            references = [eg.reference for eg in batch if len(eg.predicted)]
            if not docs:
                continue
            pairs = [Example(doc, reference) for doc, reference in zip(docs, references, strict=True)]
            if component.cfg["spans_key"] is not None:
                pairs = [with_group_as_entities(eg, component.cfg["spans_key"])[0] for eg in pairs]
            rows = component.tag_rows(docs)
            scores.append(rows.scores)
            is_first.append(rows.is_first)
            gold_entities = [GoldEntities(eg) for eg in pairs]
            spans = best_spans(self.tag_set, rows, self.transitions)
            of_doc, starts = rows.places([first for first, _, _ in spans])
            _, ends = rows.places([last - 1 for _, last, _ in spans])
            for (first, last, label), i, start, end in zip(spans, of_doc, starts, ends, strict=True):
                is_correct = gold_entities[i].contain(start, end + 1, label)
                if is_correct is not None:
                    self.spans.append((n_rows + first, n_rows + last, label))
                    self.is_correct.append(is_correct)
            n_rows += len(rows.scores)
        if not self.spans:
            raise ValueError(
                f"{name}: no entity is predicted in documents with annotation: there is nothing to calibrate on"
            )
        self.scores: Floats2d = np.concatenate(scores)
        self.is_first: Bools1d = np.concatenate(is_first)

    def confidences(self, temperature: float) -> Floats64:
        """Return the scores of the entities."""
        return entity_probabilities(self.tag_set, self.scores, self.is_first, self.spans, self.transitions, temperature)

    def loss(self, temperature: float) -> float:
        """Return the mean negative log-likelihood of whether an entity is correct."""
        confidences = np.clip(self.confidences(temperature), TINY, 1 - TINY)
        return -float(np.log(np.where(self.is_correct, confidences, 1 - confidences)).mean())

    def measure(self, temperature: float) -> Calibration:
        """Return the figures at a temperature."""
        error = expected_calibration_error(self.confidences(temperature), self.is_correct)
        return Calibration(temperature, self.loss(temperature), error, len(self.spans))


def _component(nlp: Language, name: str) -> BertNER:
    if name not in (components := components_of(nlp)):
        raise ValueError(f"{name!r} is not a bert_ner component of the pipeline, which has {', '.join(nlp.pipe_names)}")
    return components[name]


class GoldEntities:
    """The annotated entities of an example, in tokens of the reference."""

    def __init__(self, example: Example) -> None:
        self.entities = {(ent.start, ent.end, ent.label_) for ent in example.reference.ents}
        self.x2y = example.alignment.x2y
        self.is_missing = example.reference.to_array(ENT_IOB) == 0

    def contain(self, start: int, end: int, label: str) -> bool | None:
        """Return whether an entity, in tokens of the prediction, is annotated; None if unknown, as in spaCy's scorer."""
        tokens = self.x2y[start:end]
        if not len(tokens) or self.is_missing[tokens[0] : tokens[-1] + 1].any():
            return None
        return (int(tokens[0]), int(tokens[-1]) + 1, label) in self.entities


def _minimize(loss: Callable[[float], float]) -> float:
    """Return the temperature with the least loss, by golden-section search (Kiefer 1953) over its logarithm.

    The scores of right and wrong entities fall as the temperature rises, so that the loss has one minimum. (SciPy, which has
    such a search, is not among the dependencies of this package, of spaCy or of transformers.)
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(math.exp(left)), loss(math.exp(right))
    while high - low > PRECISION:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(math.exp(right))
    return math.exp((low + high) / 2)
