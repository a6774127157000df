"""The losses and their gradients: cross-entropy of single tags, and the likelihood of tag sequences.

The latter is that of a linear-chain conditional random field (Lafferty et al. 2001), in which only legal sequences have a
probability (`decoding.Lattice`). Where tags are missing, the likelihood is that of all legal sequences with the tags that
are there (Tsuboi et al. 2008).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from thinc.backends import get_array_ops

from .decoding import Floats64, Lattice, expectations, segment_bounds
from .tags import MISSING, Bools1d, Floats2d, Ints1d, TagSet


def tag_loss(
    tag_set: TagSet, Y: Any, truth: Ints1d, is_kept: Bools1d, ends: Sequence[int], transitions: NDArray | None
) -> tuple[Any, Any, Any, NDArray | None]:
    """Compute the loss of the tags of some Docs, summed over the labelled tokens, and its gradient.

    Y: the scores of all tokens, (n_tokens, n_tags), on any device.
    truth: (n_tokens,), numbers of tags, `MISSING` where there is none.
    is_kept: (n_tokens,), False for tokens without scores. ends: the number of each Doc's last token + 1.
    transitions: as in `Lattice.of`, for the likelihood of sequences; None for the cross-entropy of single tags.
    Returns the loss, a number or an array without dimensions on the device; the rows, an index on the device, that the
    gradient is for; that gradient, (n_rows, n_tags); and the gradient of the transitions, None without.
    """
    ops = get_array_ops(Y)
    xp = ops.xp
    if transitions is None:
        rows = np.flatnonzero(truth != MISSING)
        places = xp.asarray(rows)
        loss, d_rows = cross_entropy(xp, Y[places], xp.asarray(truth[rows]))
        return loss, places, d_rows, None
    rows = np.flatnonzero(is_kept)
    is_start = np.diff(np.searchsorted(ends, rows, side="right"), prepend=-1) != 0
    loss, d_rows, d_transitions = crf_loss(tag_set, transitions, ops.to_numpy(Y)[rows], is_start, truth[rows])
    return loss, xp.asarray(rows), xp.asarray(d_rows, dtype=Y.dtype), d_transitions


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
    truth: (n_tokens,), the numbers of the tags; `MISSING` where there is none. A segment of which no legal sequence has
        these tags (the head of a checkpoint may lack what leads from one to the other) counts as one without any.
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
