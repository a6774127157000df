"""Decoding: the best legal tag sequence, and the probability of an entity.

A path gives every token of a segment (a Doc) a tag. Its score is the sum of the scores of its tags and, where the model has
learned them, of its transitions. Its probability is the softmax over all legal paths, as in a linear-chain conditional
random field (Lafferty et al. 2001). All sums are kept as logarithms.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .tags import Bools1d, Bools2d, Floats2d, Ints1d, TagSet, split_tag

Floats64 = NDArray[np.float64]
# From what is known of the paths up to the tags of one token, (n, n_tags), to the tags of the next
Step = Callable[[Floats64], Floats64]

# Tokens whose messages are in memory at once
BLOCK = 2**16
# Fewest tokens in a chunk: a NumPy call takes hardly longer for a few more rows
SHORTEST_CHUNK = 128
# Tokens before a chunk that its first guess is computed from
WARM_UP = 32
# How far the guess may be off, as the logarithm of a ratio of two messages
TOLERANCE = 1e-10
# If the scores of a token differ by more than this, exp() of a path that matters may be zero in float64 (below exp(-745)): a
# legal path may have three such differences against an illegal one
WIDEST = 200.0


@dataclass(frozen=True)
class Lattice:
    """What may follow what, as scores; -inf for what is illegal.

    steps: (n_tags, n_tags), from the row's tag to the column's.
    starts, ends: (n_tags,), of the first and last tag of a segment.
    continues: (n_tags, n_tags), True where the column's tag continues the entity of the row's tag.
    """

    steps: Floats64
    starts: Floats64
    ends: Floats64
    continues: Bools2d

    @classmethod
    def of(cls, tag_set: TagSet, transitions: NDArray | None = None) -> "Lattice":
        """Make the lattice of a tag set.

        transitions: (n_tags + 1, n_tags + 1), the scores of steps from the row's tag to the column's. Tag i has row and
            column i + 1; row 0 and column 0 hold the scores of a segment's first and last tag. None for zeros. Scores of
            illegal steps are ignored.
        """
        n = len(tag_set)
        given = np.zeros((n + 1, n + 1)) if transitions is None else np.asarray(transitions, dtype=np.float64)
        # Tags that no complete path contains (the head of a checkpoint may lack the other tags of a label) are illegal
        reaches_end, is_reached = tag_set.legal_end, tag_set.legal_start
        for _ in range(n):
            reaches_end = reaches_end | (tag_set.legal & reaches_end).any(axis=1)
            is_reached = is_reached | (tag_set.legal.T & is_reached).any(axis=1)
        is_used = reaches_end & is_reached
        return cls(
            np.where(tag_set.legal & is_used & is_used[:, None], given[1:, 1:], -np.inf),
            np.where(tag_set.legal_start & is_used, given[0, 1:], -np.inf),
            np.where(tag_set.legal_end & is_used, given[1:, 0], -np.inf),
            tag_set.continues,
        )


def segment_bounds(is_start: Bools1d) -> tuple[Bools1d, Bools1d]:
    """Return for each token whether it is the first, and whether it is the last, of a segment; (n_tokens,) both.

    is_start: (n_tokens,), True where a new segment starts; the first token always does.
    """
    is_first = is_start.copy()
    is_first[:1] = True
    return is_first, np.append(is_first[1:], True)[: len(is_first)]


def best_path(tag_set: TagSet, scores: Floats2d, is_start: Bools1d, transitions: NDArray | None = None) -> Ints1d:
    """Find the legal tag sequence of each segment with the highest score.

    Without transitions the best tag of each token is the answer wherever these tags are legal together. Around each place
    where they are not, a stretch is searched as if it stood alone; if its ends do not go with the tags beside it, a longer
    one is. The parts of a path cannot score more together than each part at its best, so a result that is legal as a whole
    is the best one.

    scores: (n_tokens, n_tags), finite.
    is_start: (n_tokens,), True where a new segment starts.
    transitions: as in `Lattice.of`.
    Returns the indices of the tags, (n_tokens,).
    """
    is_first, is_last = segment_bounds(is_start)
    lattice = Lattice.of(tag_set, transitions)
    bounds = np.append(np.flatnonzero(is_first), len(scores))
    scores = _with_edges(_with_edges(scores, is_first, lattice.starts), is_last, lattice.ends)
    if transitions is not None:
        return _viterbi(lattice, scores, is_first)
    tags: Ints1d = scores.argmax(axis=1)
    is_searched = np.zeros(len(scores), dtype=bool)
    reach = 4
    while True:
        illegal = np.flatnonzero(np.isneginf(lattice.steps[np.roll(tags, 1), tags]) & ~is_first)
        if not len(illegal):
            return tags
        segment = np.searchsorted(bounds, illegal, side="right") - 1
        lows, highs = np.maximum(illegal - reach, bounds[segment]), np.minimum(illegal + reach, bounds[segment + 1])
        for low, high in zip(lows, highs, strict=True):
            is_searched[low:high] = True
        is_stretch_first = is_first | ~np.roll(is_searched, 1)
        tags[is_searched] = _viterbi(lattice, scores[is_searched], is_stretch_first[is_searched])
        reach *= 4


def _viterbi(lattice: Lattice, scores: Floats2d, is_first: Bools1d) -> Ints1d:
    """Find the best path of each segment (Forney 1973).

    scores: (n_tokens, n_tags), with those of the edges (see `_with_edges`). is_first: (n_tokens,), the first tokens of the
        segments.
    Returns the indices of the tags, (n_tokens,).
    """
    messages, _ = forward(_maximum(lattice.steps), scores, is_first, np.arange(len(scores)))
    tags, steps, is_last = messages.argmax(axis=1).tolist(), lattice.steps.T, np.append(is_first[1:], True).tolist()
    for i in range(len(tags) - 1, -1, -1):
        if not is_last[i]:
            tags[i] = int((messages[i] + steps[tags[i + 1]]).argmax())
    return np.array(tags, dtype=np.int64)


def entity_probabilities(
    tag_set: TagSet,
    scores: Floats2d,
    is_start: Bools1d,
    spans: Sequence[tuple[int, int, str]],
    transitions: NDArray | None = None,
    temperature: float = 1.0,
) -> Floats64:
    """Compute for each span the probability that exactly this entity is there: these tokens, this label.

    It is the share of the legal paths, each weighted by its probability, in which an entity of this label starts and ends
    where the span does. A longer or shorter entity, or one of another label, is another entity.

    scores: (n_tokens, n_tags), finite.
    is_start: (n_tokens,), True where a new segment starts.
    spans: (first token, last token + 1, label) each, within a segment.
    transitions: as in `Lattice.of`.
    temperature: scores and transitions are divided by it.
    Returns the probabilities, (n_spans,), exact to 1e-6.
    """
    if not len(spans):
        return np.zeros(0)
    if temperature != 1.0:
        scores = scores / temperature
        transitions = None if transitions is None else transitions / temperature
    firsts = np.array([first for first, _, _ in spans])
    lengths = np.array([end for _, end, _ in spans]) - firsts
    order = np.argsort(-lengths, kind="stable")  # longest first
    firsts, lengths = firsts[order], lengths[order]
    lasts = firsts + lengths - 1
    is_first, is_last = segment_bounds(is_start)
    lattice = Lattice.of(tag_set, transitions)
    is_wide = _is_wide(lattice, scores)
    changes = np.where(lattice.continues, -np.inf, lattice.steps)

    before, after = np.maximum(firsts - 1, 0), np.minimum(lasts + 1, len(scores) - 1)
    wanted, places = np.unique(np.concatenate([before, lasts]), return_inverse=True)
    scores_back = _with_edges(scores, is_last, lattice.ends)
    scores = _with_edges(scores, is_first, lattice.starts)
    messages, shifts = forward(_sum(lattice.steps, is_wide), scores, is_first, wanted)
    message_before, message_last = np.split(messages[places], 2)
    wanted, places = np.unique(after, return_inverse=True)
    message_after = backward(_sum(lattice.steps.T, is_wide), scores_back, is_last, wanted)[places]

    # The forward messages again, of the paths with the entity alone
    labels = np.array([split_tag(tag)[1] for tag in tag_set.tags])
    is_of_label = labels == np.array([spans[i][2] for i in order])[:, None]
    paths = np.where(is_first[firsts, None], 0.0, _sum(changes, is_wide)(message_before))
    paths = np.where(is_of_label, paths, -np.inf) + _relative(scores[firsts]) - shifts[firsts, None]
    follow = _sum(np.where(lattice.continues, lattice.steps, -np.inf), is_wide)
    for i in range(1, int(lengths[0])):
        n = int(np.searchsorted(-lengths, -i))  # the entities that have a token i
        tokens = firsts[:n] + i
        paths[:n] = follow(paths[:n]) + _relative(scores[tokens]) - shifts[tokens, None]

    is_at_end = is_last[lasts, None]
    rest = np.where(is_at_end, lattice.ends, _sum(changes.T, is_wide)(message_after))
    rest_of_all = np.where(is_at_end, lattice.ends, _sum(lattice.steps.T, is_wide)(message_after))
    shares = np.logaddexp.reduce(paths + rest, axis=1) - np.logaddexp.reduce(message_last + rest_of_all, axis=1)
    probabilities = np.empty(len(spans))
    probabilities[order] = np.exp(shares).clip(0.0, 1.0)
    return probabilities


def expectations(
    lattice: Lattice, scores: Floats2d, is_first: Bools1d, is_last: Bools1d
) -> tuple[Floats64, Floats64, Floats64]:
    """Sum over all paths of each segment, and compute how often each tag and each transition occurs.

    scores: (n_tokens, n_tags), at least one token; -inf for tags that a token cannot have.
    is_first, is_last: (n_tokens,), the first and last tokens of the segments.
    Returns the logarithms of the sums of exp(score), (n_segments,), and the gradient of their total with respect to the
    scores, which is the probability of each tag, (n_tokens, n_tags), and with respect to the transitions (`Lattice.of`),
    which is the expected number of each, (n_tags + 1, n_tags + 1). A segment without a path has NaN for its sum, and makes
    the rest NaN.
    """
    tokens = np.arange(len(scores))
    is_wide = _is_wide(lattice, scores)
    back = _sum(lattice.steps.T, is_wide)
    messages_back = backward(back, _with_edges(scores, is_last, lattice.ends), is_last, tokens)
    scores = _with_edges(scores, is_first, lattice.starts)
    messages, shifts = forward(_sum(lattice.steps, is_wide), scores, is_first, tokens)
    with np.errstate(invalid="ignore"):
        rest = back(np.roll(messages_back, -1, axis=0))
        rest[is_last] = lattice.ends
        norms = np.logaddexp.reduce(messages + rest, axis=1)
        tags = np.exp(messages + rest - norms[:, None])
        sums = np.add.reduceat(shifts + scores.max(axis=1), np.flatnonzero(is_first)) + norms[is_last]
        transitions = np.zeros((scores.shape[1] + 1, scores.shape[1] + 1))
        transitions[0, 1:], transitions[1:, 0] = tags[is_first].sum(axis=0), tags[is_last].sum(axis=0)
        here, there = messages[~is_last] - norms[~is_last, None], messages_back[~is_first]
        for i, steps in enumerate(lattice.steps):
            transitions[i + 1, 1:] = np.exp(here[:, i, None] + steps + there).sum(axis=0)
    return np.where(np.isfinite(sums), sums, np.nan), tags, transitions


def forward(step: Step, scores: Floats2d, is_first: Bools1d, wanted: Ints1d) -> tuple[Floats64, Floats64]:
    """Compute the forward messages (Rabiner 1989): for each tag, the sum over the paths from the segment's start to it.

    step: from `_sum`, or from `_maximum` for the score of the best path in place of the sum.
    scores: (n_tokens, n_tags), with those of the first tags. is_first: (n_tokens,), the first tokens of the segments.
    wanted: (n_wanted,), the tokens whose messages are returned, in order.
    Returns the messages, (n_wanted, n_tags), less the highest of each token; and how much each token adds to what is
    subtracted, (n_tokens,), beside the maximum of its scores.
    """
    messages, shifts = np.empty((len(wanted), scores.shape[1])), np.empty(len(scores))
    before = np.zeros(scores.shape[1])
    for low in range(0, len(scores), BLOCK):
        high = min(low + BLOCK, len(scores))
        block, shifts[low:high] = _scan(step, scores[low:high], is_first[low:high], before)
        before = block[-1]
        start, end = np.searchsorted(wanted, (low, high))
        messages[start:end] = block[wanted[start:end] - low]
    return messages, shifts


def backward(step: Step, scores: Floats2d, is_last: Bools1d, wanted: Ints1d) -> Floats64:
    """Compute the backward messages: for each tag, the sum over the paths from it to the segment's end.

    Unlike Rabiner's they include the score of the token itself, as the forward messages do. The arguments are those of
    `forward`, mirrored: a step back, the scores of the last tags, the last tokens of the segments.
    """
    wanted = len(scores) - 1 - wanted[::-1]
    return forward(step, scores[::-1], is_last[::-1], wanted)[0][::-1]


def _scan(step: Step, scores: Floats2d, is_first: Bools1d, before: Floats64) -> tuple[Floats64, Floats64]:
    """Compute the messages of consecutive tokens and their shifts (see `forward`).

    The tokens are cut into chunks of equal length that run side by side. A chunk starts from a guess of the messages before
    it (a few tokens determine them almost), and runs again if the chunk before ends with others. That is exact enough: how
    far two messages are apart, measured by the largest ratio between their ratios (Hilbert's metric), never grows from token
    to token (Birkhoff 1957), so the errors add up to less than `TOLERANCE` times the number of chunks. Token by token, a
    document of 50,000 words would take several percent of the encoder's time.

    before: (n_tags,), the messages of the token before the first.
    """
    n, n_tags = scores.shape
    length = min(n, max(SHORTEST_CHUNK, math.isqrt(n)))
    n_chunks = -(-n // length)
    padding = n_chunks * length - n
    # Token i of all chunks side by side: (length, n_chunks, ...)
    values = np.pad(_relative(scores), ((0, padding), (0, 0))).reshape(n_chunks, length, n_tags)
    values = np.ascontiguousarray(values.transpose(1, 0, 2))
    firsts: Bools2d = np.ascontiguousarray(np.pad(is_first, (0, padding)).reshape(n_chunks, length).T)
    has_first = {int(i) for i in np.flatnonzero(firsts.any(axis=1))}
    messages, shifts = np.empty_like(values), np.empty((length, n_chunks, 1))

    def run(chunks: Ints1d | slice, start: int = 0) -> None:
        rows = given[chunks]
        for i in range(start, length):
            rows = step(rows)
            if i in has_first:
                rows[firsts[i, chunks]] = 0.0
            rows += values[i, chunks]
            shift = rows.max(axis=1, keepdims=True)
            rows -= shift
            messages[i, chunks], shifts[i, chunks] = rows, shift

    given = np.tile(before, (n_chunks, 1))
    with np.errstate(invalid="ignore"):  # NaN where no path leads to, and in the padding
        if n_chunks > 1:
            given[1:] = 0.0
            run(slice(n_chunks), length - min(length, WARM_UP))
            given[1:] = messages[-1, :-1]
        run(slice(n_chunks))
        chunks = np.arange(1, n_chunks)
        while len(chunks):
            actual = messages[-1, chunks - 1]
            differences = actual - given[chunks]  # NaN where both are -inf
            spread = np.fmax.reduce(differences, axis=1) - np.fmin.reduce(differences, axis=1)
            is_other = ~(spread <= TOLERANCE)
            chunks = chunks[is_other]
            given[chunks] = actual[is_other]
            if len(chunks):
                run(chunks)
            chunks = chunks[chunks < n_chunks - 1] + 1
    return messages.transpose(1, 0, 2).reshape(-1, n_tags)[:n], shifts.T.ravel()[:n]


def _with_edges(scores: Floats2d, is_edge: Bools1d, edges: Floats64) -> Floats64:
    """Add the scores of the first (or last) tags to those of the first (or last) tokens of segments."""
    return np.where(is_edge[:, None], scores + edges, scores)


def _relative(scores: Floats2d) -> Floats64:
    with np.errstate(invalid="ignore"):  # NaN for a token without any legal tag
        return scores - scores.max(axis=1, keepdims=True)


def _is_wide(lattice: Lattice, scores: Floats2d) -> bool:
    """Whether scores of one token, with those of the steps to it, differ by more than `WIDEST`."""
    steps = np.concatenate([lattice.steps.ravel(), lattice.starts, lattice.ends])
    steps = steps[np.isfinite(steps)]
    highest = scores.max(axis=1)
    lowest = np.where(np.isneginf(scores), highest[:, None], scores).min(axis=1)
    spread = float((highest - lowest).max(initial=0.0)) + (2.0 * float(np.ptp(steps)) if len(steps) else 0.0)
    return spread > WIDEST


def _maximum(steps: Floats64) -> Step:
    """Return the function from A, (n, n_tags), to the maxima over j of A[:, j] + steps[j], (n, n_tags)."""
    return lambda A: (A[:, :, None] + steps).max(axis=1)


def _sum(steps: Floats2d, is_wide: bool) -> Step:
    """Return the function from A, (n, n_tags), to log(exp(A) @ exp(steps)), (n, n_tags).

    is_wide: whether to sum without exp(), which could underflow; many times slower.
    """
    if is_wide:
        return lambda A: np.logaddexp.reduce(A[:, :, None] + steps, axis=1)
    exp_steps = np.exp(steps)

    def step(A: Floats64) -> Floats64:
        with np.errstate(divide="ignore"):
            return np.log(np.exp(A) @ exp_steps)

    return step
