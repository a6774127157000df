"""Confidence: entity scores (`ent._.score`), and the settings threshold and temperature.

spaCy stores the value of a Span extension by the offsets of the span, so two spans at the same offsets share it. Here the
extension has a getter and a setter over a mapping from label (and id, as set by entity rulers) to score. The mapping is in
`doc.user_data` under the key that spaCy's own value would have, so spaCy copies, shifts and serializes it.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from spacy.tokens import Doc, Span

NAME = "score"

# One number for all labels, or one for each label
Threshold = float | dict[str, float] | None


def validate_threshold(threshold: Threshold) -> Threshold:
    """Return `threshold`; raise ValueError if it is not None, a number in [0, 1], or such numbers by label."""
    by_label = threshold if isinstance(threshold, dict) else {"": threshold}
    for label, value in by_label.items():
        if not _is_share(value) and not (value is None and threshold is None):
            of = f" for {label!r}" if isinstance(threshold, dict) else ""
            raise ValueError(
                f"threshold: {value!r}{of} is not a number from 0 to 1; allowed are null, one, or one by label"
            )
    return threshold


def validate_threshold_labels(threshold: Threshold, labels: Collection[str]) -> None:
    """Raise ValueError if there is a threshold for a label that is not among these labels."""
    if isinstance(threshold, Mapping) and (unknown := sorted(set(threshold) - set(labels))):
        raise ValueError(f"threshold: labels that are not known: {', '.join(unknown)}; known are {', '.join(labels)}")


def validate_temperature(temperature: float) -> float:
    """Return `temperature`; raise ValueError if it is not a number above 0."""
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 < temperature < math.inf:
        raise ValueError(f"temperature: {temperature!r} is not a number above 0; 1.0 leaves scores as they are")
    return temperature


def is_sure(label: str, score: float, threshold: Threshold) -> bool:
    """Return whether an entity with this label and score reaches the threshold; a label without one always does."""
    least = threshold.get(label) if isinstance(threshold, Mapping) else threshold
    return least is None or score >= least


def register_score() -> None:
    """Register the extension `span._.score`; every component does so when it is made.

    Raises ValueError if other code has registered a Span extension of that name.
    """
    extension = Span.get_extension(NAME)
    if extension is None:
        Span.set_extension(NAME, getter=get_score, setter=set_score)
    elif extension != (None, None, get_score, set_score):
        raise ValueError(
            f"bert_ner: the Span extension {NAME!r}, in which it stores entity scores, is already registered by other "
            f"code: {_describe(extension)}. Register that one under another name, or remove it with "
            f"Span.remove_extension({NAME!r})"
        )


def get_score(span: Span) -> float | None:
    """Return the model's probability of exactly this entity, its tokens and its label; None if it did not predict it."""
    data: dict[Any, Any] = span.doc.user_data
    scores = data.get(_place(span))
    return scores.get(_identity(span)) if isinstance(scores, Mapping) else None


def set_score(span: Span, score: Any) -> None:
    """Set the score of this span alone, not of other spans with the same tokens.

    score: a number in [0, 1], None for no score, or what `doc.to_json(underscore=["score"])` wrote for all spans there.
    Raises ValueError for any other value.
    """
    data: dict[Any, Any] = span.doc.user_data
    place = _place(span)
    if isinstance(score, Mapping):
        new = {str(identity): _checked(value) for identity, value in score.items()}
    else:
        old = data.get(place)
        new = {**(old if isinstance(old, Mapping) else {}), _identity(span): _checked(score)}
    new = {identity: value for identity, value in new.items() if value is not None}
    if new:
        data[place] = new
    else:
        data.pop(place, None)


def set_scores(doc: Doc, scores: Mapping[tuple[int, int, str], float]) -> None:
    """Set the scores of the entities of a Doc. Other entities keep their scores; scores of other spans are removed.

    scores: by (first token, last token + 1, label).
    """
    stored = [key for key in doc.user_data if isinstance(key, tuple) and key[:2] == ("._.", NAME)]
    if not stored and not scores:
        return
    given: dict[Any, Any] = {}
    for ent in doc.ents:
        score = scores.get((ent.start, ent.end, ent.label_), get_score(ent) if stored else None)
        if score is not None:
            given[_place(ent)] = {_identity(ent): float(score)}
    for key in stored:
        del doc.user_data[key]
    doc.user_data.update(given)


def _place(span: Span) -> tuple[str, str, int, int]:
    return "._.", NAME, span.start_char, span.end_char


def _identity(span: Span) -> str:
    return f"{span.label_}\t{span.id_}" if span.id else span.label_


def _checked(score: Any) -> float | None:
    if score is None:
        return None
    if not _is_share(score):
        raise ValueError(f"{NAME}: {score!r} is not a number from 0 to 1, or None")
    return float(score)


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float, np.floating)) and not isinstance(value, bool) and bool(0 <= value <= 1)


def _describe(extension: tuple[Any, ...]) -> str:
    default, method, getter, _ = extension
    function = method or getter
    if function is None:
        return f"with the default {default!r}"
    return f"with the {'method' if method else 'getter'} {getattr(function, '__qualname__', function)}"
