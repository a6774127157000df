"""Entities in a group of `doc.spans` instead of `doc.ents`: learning from them, and writing them.

For training, the group is copied to the entities of a new reference, so that the rest is the same as with `doc.ents`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example
from spacy.util import filter_spans


def validate_spans_key(key: str | None) -> str | None:
    """Return `key`; raise ValueError if it is not None or a string that is not blank."""
    if key is not None and (not isinstance(key, str) or not key.strip()):
        raise ValueError(f"spans_key: {key!r} is not a key of doc.spans; allowed are null, for doc.ents, and a name")
    return key


def annotated_entities(doc: Doc, key: str | None) -> Iterable[Span]:
    """Return the spans of a group of `doc.spans`, none if there is no such group; `doc.ents` if the key is None."""
    return doc.ents if key is None else doc.spans.get(key, ())


def scored_spans(doc: Doc, key: str | None) -> Iterator[tuple[Span, Any]]:
    """Yield the spans of a group of `doc.spans`, or `doc.ents` without a key, each with its score as it is stored.

    The score of an entity is `ent._.score`, which may be an extension of other code; that of a span is in the group's
    `attrs["scores"]`, as spaCy's spancat writes it. None if there is none.
    """
    spans = annotated_entities(doc, key)
    if key is None:
        has_score = Span.has_extension("score")
        yield from ((ent, ent._.score if has_score else None) for ent in spans)
    elif isinstance(spans, SpanGroup):
        scores: Any = spans.attrs.get("scores", ())
        yield from zip(spans, scores if len(scores) == len(spans) else [None] * len(spans), strict=True)


def with_group_as_entities(example: Example, key: str) -> tuple[Example, list[Span]]:
    """Return the example with the spans of a group of its reference as the entities of the reference.

    Tags cannot express overlapping spans. Of spans that overlap, the longest is kept, or the first of equally long ones; the
    other tokens of the spans left out become missing annotation, since they are not outside either. Without such a group all
    tokens do.

    example: the example, which does not change. key: the key in `doc.spans`.
    Returns the new example, and the spans that were left out.
    """
    doc = example.reference
    reference = Doc(  # a full copy would take longer
        doc.vocab,
        words=[token.text for token in doc],
        spaces=[bool(token.whitespace_) for token in doc],
        sent_starts=[token.is_sent_start for token in doc],
    )
    if key not in doc.spans:
        return Example(example.predicted, reference), []
    spans = [Span(reference, s.start, s.end, label=s.label_) for s in doc.spans[key] if len(s)]
    kept = filter_spans(spans)
    inside = {i for span in kept for i in range(span.start, span.end)}
    # Of duplicate spans one is kept, and nothing is lost
    known = set(map(_identity, kept))
    left_out = [span for span in spans if _identity(span) not in known]
    beside = {i for span in left_out for i in range(span.start, span.end)} - inside
    reference.set_ents(kept, missing=[reference[i : i + 1] for i in sorted(beside)], default="outside")
    return Example(example.predicted, reference), left_out


def write_group(doc: Doc, key: str, scores: Mapping[tuple[int, int, str], float], overwrite: bool) -> None:
    """Write entities to a group of `doc.spans`, with their scores in its `attrs["scores"]`, as spaCy's spancat does.

    scores: the entities, (first token, last token + 1, label) each, and their scores.
    overwrite: whether to replace the spans of the group. If not, they stay before the new ones, with their scores, NaN for
        spans without one; a span that is predicted again gets its new score.
    """
    spans, old, attrs = [], [], {}
    if not overwrite and key in doc.spans:
        group = doc.spans[key]
        attrs = group.attrs
        known: Sequence[float] = group.attrs.get("scores", ())
        known = known if len(known) == len(group) else [float("nan")] * len(group)
        for span, score in zip(group, known, strict=True):
            if _identity(span) not in scores:
                spans.append(span)
                old.append(score)
    spans += [Span(doc, start, end, label=label) for start, end, label in scores]
    values = np.array([*old, *scores.values()], dtype="float32")
    doc.spans[key] = SpanGroup(doc, name=key, attrs={**attrs, "scores": values}, spans=spans)


def _identity(span: Span) -> tuple[int, int, str]:
    return span.start, span.end, span.label_
