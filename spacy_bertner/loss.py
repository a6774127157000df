"""The likelihood of tag sequences in a linear-chain conditional random field (Lafferty et al. 2001), and its gradient.

Only legal sequences have a probability (`decoding.Lattice`). Where tags are missing, the likelihood is that of all legal
sequences with the tags that are there (Tsuboi et al. 2008).
"""

import numpy as np
from numpy.typing import NDArray

from .decoding import Floats64, Lattice, expectations, segment_bounds
from .tags import MISSING, Bools1d, Floats2d, Ints1d, TagSet


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
