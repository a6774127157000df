"""The losses and their gradients: cross-entropy of single tags, and the likelihood of tag sequences.

The latter is that of a linear-chain conditional random field (Lafferty et al. 2001), in which only legal sequences have a
probability (`decoding.Lattice`). Where tags are missing, it is the likelihood of all legal sequences with the tags that are
known (Tsuboi et al. 2008).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.training import Example
from thinc.backends import get_array_ops

from .decoding import Floats64, Lattice, expectations, segment_bounds
from .tags import MISSING, Bools1d, Floats2d, Ints1d, TagSet


class Gradient(list[Any]):
    """The gradient of the tag scores of some Docs, (n_tokens, n_tags) each, and what else an update needs.

    n_labelled: the number of tokens that the loss is summed over. transitions: the gradient of the transitions; None
        without a conditional random field.
    """

    def __init__(self, d_scores: Sequence[Any], n_labelled: int, transitions: NDArray | None = None) -> None:
        super().__init__(d_scores)
        self.n_labelled = n_labelled
        self.transitions = transitions


def encode_annotation(tag_set: TagSet, examples: Sequence[Example], has_row: Bools1d) -> tuple[Ints1d, set[str]]:
    """Return the index of the annotated tag of each token of all examples together, and the labels that `tag_set` lacks.

    has_row: (n_tokens,), False for tokens without scores.
    Returns the indices as (n_tokens,), `MISSING` where a token has no annotation, no scores or an unknown label.
    """
    parts, unknown = [], set()
    start = 0
    for eg in examples:
        end = start + len(eg.predicted)
        tags, labels = tag_set.encode(eg.get_aligned_ner(), has_row[start:end])
        parts.append(tags)
        unknown |= labels
        start = end
    return np.concatenate(parts), unknown


def tag_loss(
    tag_set: TagSet, scores: Sequence[Any], has_row: Bools1d, truth: Ints1d, transitions: NDArray | None
) -> tuple[Any, Gradient]:
    """Compute the loss of the tags of some Docs, summed over the labelled tokens, and its gradient.

    scores: the tag scores of each Doc, (n_tokens, n_tags), on any device.
    has_row: (n_tokens of all Docs,), False for tokens without scores.
    truth: (n_tokens of all Docs,), indices of tags, `MISSING` where there is none.
    transitions: as in `Lattice.of`, for the likelihood of sequences; None for the cross-entropy of single tags.
    Returns the loss, a number or an array without dimensions on the device, and the gradient.
    """
    ops = get_array_ops(scores[0])
    xp = ops.xp
    Y = xp.concatenate(scores)  # (n_tokens, n_tags)
    dY = xp.zeros_like(Y)
    d_transitions = None
    is_labelled = truth != MISSING
    if transitions is None:
        rows = xp.asarray(np.flatnonzero(is_labelled))
        loss, dY[rows] = cross_entropy(xp, Y[rows], xp.asarray(truth[is_labelled]))
    else:
        kept, ends = np.flatnonzero(has_row), np.cumsum([len(part) for part in scores])
        is_start = np.diff(np.searchsorted(ends, kept, side="right"), prepend=-1) != 0
        loss, d_rows, d_transitions = crf_loss(tag_set, transitions, ops.to_numpy(Y)[kept], is_start, truth[kept])
        dY[xp.asarray(kept)] = xp.asarray(d_rows, dtype=Y.dtype)
    return loss, Gradient(split_like(scores, dY), int(is_labelled.sum()), d_transitions)


def split_like(scores: Sequence[Any], dY: Any) -> list[Any]:
    """Split dY, (n_tokens, n_tags), into the parts of each Doc, as long as its scores."""
    return get_array_ops(dY).xp.split(dY, np.cumsum([len(part) for part in scores[:-1]]).tolist())


def cross_entropy(xp: Any, rows: Any, truth: Any) -> tuple[Any, Any]:
    """Sum the cross-entropy of rows of scores, (n_rows, n_tags), with their tags, (n_rows,); also return the gradient."""
    if not len(rows):
        return 0.0, rows
    rows = rows - rows.max(axis=1, keepdims=True)
    log_probs = rows - xp.log(xp.exp(rows).sum(axis=1, keepdims=True))
    d_rows = xp.exp(log_probs)
    places = xp.arange(len(rows))
    d_rows[places, truth] -= 1.0
    return -log_probs[places, truth].sum(), d_rows


def crf_loss(
    tag_set: TagSet, transitions: NDArray, scores: Floats2d, is_start: Bools1d, truth: Ints1d
) -> tuple[float, Floats64, Floats64]:
    """Compute the negative log-likelihood of the tags, summed over the segments, and its gradient.

    transitions: (n_tags + 1, n_tags + 1), as in `Lattice.of`.
    scores: (n_tokens, n_tags), finite; is_start: (n_tokens,), True where a new segment (a Doc) starts.
    truth: (n_tokens,), the indices of the tags, `MISSING` where there is none. A segment whose tags no legal sequence has
        (the head of a checkpoint may lack a tag between two of them) counts as one without tags.
    Returns the loss and its gradient with respect to scores and transitions.
    """
    d_scores, d_transitions = np.zeros(scores.shape), np.zeros(transitions.shape)
    is_first, is_last = segment_bounds(is_start)
    lattice = Lattice.of(tag_set, transitions)
    segments = np.cumsum(is_first) - 1
    kept = np.isin(segments, segments[truth != MISSING])
    while kept.any():
        firsts, lasts = is_first[kept], is_last[kept]
        given = scores[kept]
        is_other = (truth[kept, None] != MISSING) & (truth[kept, None] != np.arange(len(tag_set)))
        of_truth, tags, steps = expectations(lattice, np.where(is_other, -np.inf, given), firsts, lasts)
        if np.isnan(of_truth).any():
            kept &= ~np.isin(segments, segments[kept & is_first][np.isnan(of_truth)])
            continue
        of_all, all_tags, all_steps = expectations(lattice, given, firsts, lasts)
        d_scores[kept] = all_tags - tags
        return float((of_all - of_truth).sum()), d_scores, all_steps - steps
    return 0.0, d_scores, d_transitions
