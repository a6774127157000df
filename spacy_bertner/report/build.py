"""A report as one dictionary, of which `report.json`, `report.html`, `report.md` and the plots are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import srsly
from spacy.language import Language
from spacy.vocab import Vocab

from . import compare, errors
from .confidence import confidence
from .documents import DataError, Document, Lost, Predicted, predict, read_gold
from .metrics import entity_figures, kind_figures, token_figures

# The version of the keys in report.json
FORMAT = 1
# Sentences shown of one error; things shown of those that were lost
N_SENTENCES = 3
N_LOST = 50


@dataclass(frozen=True)
class Settings:
    """How to make a report.

    spans_key: look at this group of `doc.spans`; None: at `doc.ents`.
    gold_tokens: give the pipeline the tokens of the gold annotation, where it would make its own of the text.
    batch_size: documents in a batch; None: the pipeline's own.
    n_bins: bins of the reliability diagram.
    max_errors: most errors listed in the page, the most frequent first; `report.json` has all of them.
    n_resamples, seed: of the bootstrap.

    Raises ValueError for values outside their range.
    """

    spans_key: str | None = None
    gold_tokens: bool = False
    batch_size: int | None = None
    n_bins: int = 10
    max_errors: int = 500
    n_resamples: int = compare.N_RESAMPLES
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
    train: the training data, likewise, to tell entities that are in it from others.
    other: a second pipeline to compare with. ledger: what `convert --ledger` wrote when it made the data.

    Returns the report, ready for JSON; docs/report.md has its keys. Raises DataError where none can be made.
    """
    settings, data = settings or Settings(), Path(data)
    training = _read_training(Path(train), settings) if train is not None else None
    lost_before = _read_ledger(Path(ledger)) if ledger is not None else None
    found = _predict(nlp, data, settings)
    documents = found.documents
    pairs = errors.pairs_of(documents)
    mistakes = [both for both in pairs if not errors.is_right(both)]
    groups = errors.frequent(mistakes)
    return {
        "format": FORMAT,
        "pipeline": found.pipeline,
        "data": str(data),
        "train": None if train is None else str(train),
        "spans_key": settings.spans_key,
        "counts": {
            "documents": len(documents),
            "tokens": sum(map(len, documents)),
            "gold": sum(len(document.gold) for document in documents),
            "predicted": sum(len(document.predicted) for document in documents),
        },
        "warnings": _warnings(found),
        "entities": entity_figures(documents),
        "kinds": kind_figures(documents),
        "tokens": None if _has_overlaps(documents) else token_figures(documents),
        "errors": {
            "total": len(mistakes),
            **errors.kinds_of_error(mistakes),
            "max_listed": settings.max_errors,
            "groups": [_group(group) for group, _ in groups],
        },
        "confusion": errors.confusion(pairs),
        "by_length": errors.by_length(documents),
        "by_position": errors.by_position(documents),
        "by_seen": None if training is None else errors.by_seen(documents, errors.mentions(training)),
        "inconsistent": errors.inconsistent(
            {"data": documents} if training is None else {"data": documents, "train": training}
        ),
        "confidence": confidence(documents, settings.n_bins),
        "lost": {
            "skipped": _lost(found.skipped),
            "misaligned": _lost(found.misaligned),
            "cut": _lost(found.cut),
            "ignored": _lost(found.ignored),
            "conversion": lost_before,
        },
        "comparison": None if other is None else _comparison(found, _predict(other, data, settings), settings),
    }


def _predict(nlp: Language, data: Path, settings: Settings) -> Predicted:
    """Predict, and make sure that there is something to report on."""
    found = predict(
        nlp,
        data,
        spans_key=settings.spans_key,
        gold_tokens=settings.gold_tokens,
        batch_size=settings.batch_size,
    )
    if not found.documents:
        reasons = Counter(lost.reason for lost in found.skipped)
        if not reasons:
            raise DataError(f"{data}: has no documents")
        (reason, n), *_ = reasons.most_common(1)
        raise DataError(f"{data}: no document can be scored; {n} of {len(found.skipped)}: {reason}")
    labels = {entity.label for document in found.documents for entity in document.gold}
    if not labels:
        raise DataError(f"{data}: the annotation has no entities: there is nothing to score")
    if found.labels is not None and not labels & found.labels:
        raise DataError(
            f"{data}: its labels ({', '.join(sorted(labels))}) are others than those of the pipeline {found.pipeline} "
            f"({', '.join(sorted(found.labels))}): rename those of the data"
        )
    return found


def _read_training(path: Path, settings: Settings) -> list[Document]:
    documents = [item for item in read_gold(path, Vocab(), settings.spans_key) if isinstance(item, Document)]
    if not any(document.gold for document in documents):
        raise DataError(f"{path}: the training data has no entities")
    return documents


def _read_ledger(path: Path) -> dict[str, Any]:
    """What a ledger of `convert` says was mended or dropped, or does not align with the pipeline's own tokens."""
    try:
        files = srsly.read_json(path)["files"]
        found = [
            {"document": None, "text": entry["text"], "label": None, "place": f"{file['input']}:{entry['line']}",
             "reason": f"{entry['reason']}; {entry['action']}"}
            for file in files for entry in file["entries"]
        ]  # fmt: skip
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(f"{path}: is not what `convert --ledger` writes ({err!r})") from None
    return {"total": len(found), "examples": found[:N_LOST]}


def _warnings(found: Predicted) -> list[str]:
    """What a reader must know before they believe a figure."""
    warnings = []
    if found.labels is not None:
        gold = Counter(entity.label for document in found.documents for entity in document.gold)
        unknown = {label: n for label, n in sorted(gold.items()) if label not in found.labels}
        if unknown:
            named = ", ".join(f"{label} ({n})" for label, n in unknown.items())
            warnings.append(
                f"The pipeline does not have the labels {named} of the data: {sum(unknown.values())} of {gold.total()} "
                "entities cannot be found with the right label, and count as missed in the strict figures."
            )
    if found.skipped:
        n = len(found.skipped)
        warnings.append(f"{n} of {n + len(found.documents)} documents could not be scored and are not in the figures.")
    if found.misaligned:
        warnings.append(
            f"{len(found.misaligned)} gold entities do not align with the pipeline's tokens: "
            "they cannot be found, and count as missed."
        )
    if found.cut:
        warnings.append(f"{len(found.cut)} words are longer than a window; the model sees the start of them alone.")
    return warnings


def _has_overlaps(documents: Sequence[Document]) -> bool:
    """Whether entities overlap, so that a token would need several tags."""
    return any(
        left.end > right.start
        for document in documents
        for entities in (document.gold, document.predicted)
        for left, right in pairwise(entities)
    )


def _group(group: Sequence[errors.Mistake]) -> dict[str, Any]:
    kind, gold_label, gold_text, label, text = group[0].what
    return {
        "kind": kind,
        "count": len(group),
        "gold": None if gold_label is None else {"label": gold_label, "text": gold_text},
        "predicted": None if label is None else {"label": label, "text": text},
        "documents": [mistake.document.number for mistake in group],
        "examples": [errors.describe(mistake) for mistake in group[:N_SENTENCES]],
    }


def _lost(found: Sequence[Lost]) -> dict[str, Any]:
    return {"total": len(found), "examples": [lost._asdict() for lost in found[:N_LOST]]}


def _comparison(first: Predicted, second: Predicted, settings: Settings) -> dict[str, Any]:
    """Both on the documents that both could process."""
    one = {document.number: document for document in first.documents}
    two = {document.number: document for document in second.documents}
    both = sorted(one.keys() & two.keys())
    sides = [one[number] for number in both], [two[number] for number in both]
    listed: list[dict[str, Any]] = []
    better: Counter[str] = Counter()
    for left, right in zip(*sides, strict=True):
        for which, gold, ours, others in compare.differences(left, right):
            better[which] += 1
            listed.append(
                {
                    "better": which,
                    "document": left.number,
                    "gold": [errors.describe_entity(left, entity) for entity in gold],
                    "first": [errors.describe_entity(left, entity) for entity in ours],
                    "second": [errors.describe_entity(left, entity) for entity in others],
                    "sentence": errors.in_sentence(left, gold, [] if gold else [*ours, *others]),
                }
            )
    return {
        "pipelines": [first.pipeline, second.pipeline],
        "entities": [entity_figures(side) for side in sides],
        "bootstrap": compare.paired_bootstrap(
            compare.counts(sides[0]), compare.counts(sides[1]), settings.n_resamples, settings.seed
        ),
        "n_not_both": len(one.keys() ^ two.keys()),
        "differences": {name: better[name] for name in ("first", "second", "neither")},
        "listed": listed,
    }
