"""A report as one dictionary, from which `report.json`, `report.html`, `report.md` and the plots are made."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import srsly
from spacy.language import Language
from spacy.vocab import Vocab

from ..files import DataError
from . import errors, metrics
from .annotation import inconsistent, mentions
from .compare import N_RESAMPLES, comparison
from .confidence import confidence
from .documents import Document, read_gold, shorten
from .matching import kind_figures
from .predictions import Predicted, predict

# The version of the keys in report.json
FORMAT = 1
# What is left out of the figures, and how many examples are listed of each
LOST = ("skipped", "misaligned", "blank_ends", "cut", "ignored")
N_LOST = 50


@dataclass(frozen=True)
class Settings:
    """How to make a report.

    spans_key: take entities from this group of `doc.spans`; None: from `doc.ents`.
    gold_tokens: give the pipeline the tokens of the gold annotation, instead of the text.
    batch_size: documents per batch; None: the pipeline's setting.
    n_bins: bins of the reliability diagram.
    max_errors: errors listed in the page, the most frequent first; `report.json` has all of them.
    n_resamples, seed: of the bootstrap.

    Raises ValueError for values out of range.
    """

    spans_key: str | None = None
    gold_tokens: bool = False
    batch_size: int | None = None
    n_bins: int = 10
    max_errors: int = 500
    n_resamples: int = N_RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_bins", "max_errors", "n_resamples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')}: {value} is not a number above 0")
        if self.seed < 0:
            raise ValueError(f"--seed: {self.seed} is negative")


def build_report(
    nlp: Language,
    data: str | Path,
    *,
    train: str | Path | None = None,
    other: Language | None = None,
    ledger: str | Path | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Score a pipeline and find out where it goes wrong.

    nlp: the pipeline. data: a .spacy file with gold entities, or a folder of them.
    train: the training data, likewise, to tell entities that it contains from others.
    other: a second pipeline to compare with. ledger: the file that `convert --ledger` wrote for the data.

    Returns the report, ready for JSON; docs/report.md describes its keys. Raises DataError for data that cannot be scored.
    """
    settings, data = settings or Settings(), Path(data)
    training = _read_training(Path(train), settings) if train is not None else None
    converted = _read_ledger(Path(ledger)) if ledger is not None else None
    predicted = _predict(nlp, data, settings)
    second = _predict(other, data, settings) if other is not None else None
    documents = predicted.documents
    pairs = errors.pairs_of(documents)
    parts = {"data": documents} if training is None else {"data": documents, "train": training}
    return {
        "format": FORMAT,
        "pipeline": predicted.pipeline,
        "data": str(data),
        "train": None if train is None else str(train),
        "spans_key": settings.spans_key,
        "counts": {
            "documents": len(documents),
            "tokens": sum(map(len, documents)),
            "gold": sum(len(document.gold) for document in documents),
            "predicted": sum(len(document.predicted) for document in documents),
        },
        "warnings": _warnings(predicted),
        "entities": metrics.entity_figures(documents),
        "kinds": kind_figures(documents),
        "tokens": None if _has_overlaps(documents) else metrics.token_figures(documents),
        "errors": {**errors.error_figures(pairs), "max_listed": settings.max_errors},
        "confusion": errors.confusion(pairs),
        "by_length": metrics.by_length(documents),
        "by_position": metrics.by_position(documents),
        "by_seen": None if training is None else metrics.by_seen(documents, mentions(training)),
        "inconsistent": inconsistent(parts),
        "confidence": confidence(documents, settings.n_bins),
        "lost": {name: _lost([item._asdict() for item in getattr(predicted, name)]) for name in LOST}
        | {"conversion": converted},
        "comparison": second and comparison(predicted, second, settings.n_resamples, settings.seed),
    }


def _predict(nlp: Language, data: Path, settings: Settings) -> Predicted:
    """Run a pipeline; raises DataError if there is nothing to report on."""
    predicted = predict(
        nlp, data, spans_key=settings.spans_key, gold_tokens=settings.gold_tokens, batch_size=settings.batch_size
    )
    if not predicted.documents:
        reasons = Counter(lost.reason for lost in predicted.skipped)
        if not reasons:
            raise DataError(f"{data}: has no documents")
        (reason, n), *_ = reasons.most_common(1)
        raise DataError(f"{data}: no document can be scored; {n} of {len(predicted.skipped)}: {reason}")
    labels = {entity.label for document in predicted.documents for entity in document.gold}
    if not labels:
        raise DataError(f"{data}: the annotation has no entities: there is nothing to score")
    if predicted.labels is not None and not labels & predicted.labels:
        raise DataError(
            f"{data}: none of its labels ({', '.join(sorted(labels))}) is one of the pipeline {predicted.pipeline} "
            f"({', '.join(sorted(predicted.labels))}): rename those of the data"
        )
    return predicted


def _read_training(path: Path, settings: Settings) -> list[Document]:
    documents = [item for item in read_gold(path, Vocab(), settings.spans_key) if isinstance(item, Document)]
    if not any(document.gold for document in documents):
        raise DataError(f"{path}: the training data has no entities")
    return documents


def _read_ledger(path: Path) -> dict[str, Any]:
    """Return what `convert` repaired or dropped, according to its ledger."""
    try:
        entries = [
            {"document": None, "text": entry["text"], "label": None, "place": f"{file['input']}:{entry['line']}",
             "reason": f"{entry['reason']}; {entry['action']}"}
            for file in srsly.read_json(path)["files"] for entry in file["entries"]
        ]  # fmt: skip
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(f"{path}: is not what `convert --ledger` writes ({err!r})") from None
    return _lost(entries)


def _lost(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"total": len(items), "examples": items[:N_LOST]}


def _warnings(predicted: Predicted) -> list[str]:
    """Return what a reader must know before believing a figure."""
    warnings = []
    if predicted.labels is not None:
        gold = Counter(entity.label for document in predicted.documents for entity in document.gold)
        unknown = {label: n for label, n in sorted(gold.items()) if label not in predicted.labels}
        if unknown:
            named = ", ".join(f"{label} ({n})" for label, n in unknown.items())
            warnings.append(
                f"The pipeline does not have the labels {named} of the data: {sum(unknown.values())} of {gold.total()} "
                "entities cannot be found with the right label, and count as missed in the strict figures."
            )
    if predicted.skipped:
        n = len(predicted.skipped)
        total = n + len(predicted.documents)
        warnings.append(f"{n} of {total} documents could not be scored and are not in the figures.")
    if predicted.misaligned:
        warnings.append(
            f"{len(predicted.misaligned)} gold entities do not align with the pipeline's tokens: "
            "they cannot be found, and count as missed."
        )
    if predicted.blank_ends:
        first = predicted.blank_ends[0]
        warnings.append(
            f"{len(predicted.blank_ends)} gold entities start or end with whitespace, the first in document "
            f"{first.document}: {shorten(first.text)!r}. bert_ner never predicts these, nor does spaCy's ner, and they "
            "count as missed: shorten them in the data as docs/report.md shows."
        )
    if predicted.cut:
        warnings.append(f"{len(predicted.cut)} words are longer than a window; the model sees only their start.")
    return warnings


def _has_overlaps(documents: Sequence[Document]) -> bool:
    """Return whether entities overlap, so that a token would need several tags."""
    return any(
        left.end > right.start
        for document in documents
        for entities in (document.gold, document.predicted)
        for left, right in pairwise(entities)
    )
