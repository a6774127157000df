"""The lattice of legal tag sequences: messages of the forward-backward algorithm, and the probability of an entity.

A path through the lattice gives every token a tag. Its score is the sum of the tags' scores and, where the model has
learnt such, of the transitions'; its probability is the softmax over all legal paths of its segment, as in a linear-chain
conditional random field (Lafferty et al. 2001). The forward-backward algorithm is that of Rabiner (1989).

All segments are laid end to end, and the whole is cut into chunks of equal length that run side by side. What a chunk is
given by the one before it is a guess at first (a few tokens soon tell what all of them do), and it runs again where that
one comes to say something else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tags import Bools1d, Bools2d, Floats2d, Ints1d, TagSet, split_tag

Floats64 = NDArray[np.float64]

# Tokens whose messages are in memory at once
BLOCK = 2**16
# A chunk has no fewer tokens; for a few more rows a NumPy call takes hardly longer
SHORTEST_CHUNK = 128
# Tokens that a chunk looks back on for its first guess
WARM_UP = 32
# What the guess may differ in, as the logarithm of a ratio of two messages
TOLERANCE = 1e-10
# Where the scores of a token differ by more, exp() of what matters may be zero in float64 (from -745 on; a legal path may
# have three such differences against one that is not)
WIDEST = 200.0


@dataclass(frozen=True)
class Semiring:
    """How paths are put together, and how their scores become and come from what is computed with.

    plus: of the scores of two paths. times, over: putting one to the end of another, and the inverse.
    product: of the matrices A and B, with `plus` and `times`.
    """

    exp: Callable[[Any], Any]
    log: Callable[[Any], Any]
    plus: np.ufunc
    times: np.ufunc
    over: np.ufunc
    product: Callable[[Floats64, Floats64], Floats64]


SUMS = Semiring(np.exp, np.log, np.add, np.multiply, np.divide, np.matmul)
# The same for scores that float64 has no exp() of; many times slower
LOG_SUMS = Semiring(
    np.positive, np.positive, np.logaddexp, np.add, np.subtract,
    lambda A, B: np.logaddexp.reduce(A[:, :, None] + B, axis=1),
)  # fmt: skip
# The best path in place of all of them
MAXIMA = Semiring(
    np.positive, np.positive, np.maximum, np.add, np.subtract, lambda A, B: (A[:, :, None] + B).max(axis=1)
)  # fmt: skip


@dataclass(frozen=True)
class Lattice:
    """What may follow what, in scores; -inf for what may not.

    steps: (n_tags, n_tags), from the row's tag to the column's.
    starts, ends: (n_tags,), of the first and last tag of a segment.
    continues: (n_tags, n_tags), True where the column's tag goes on with the entity of the row's.
    """

    steps: Floats64
    starts: Floats64
    ends: Floats64
    continues: Bools2d

    @classmethod
    def of(cls, tag_set: TagSet, transitions: NDArray | None = None) -> "Lattice":
        """Make the lattice of a tag set.

        transitions: (n_tags + 1, n_tags + 1), the scores of stepping from the row's tag to the column's; row 0 and
            column 0 stand for what is outside the segment, so that they hold the scores of its first and its last tag,
            and tag i has row and column i + 1. None for zeros. Those of illegal steps do not count.
        """
        n = len(tag_set)
        given = np.zeros((n + 1, n + 1)) if transitions is None else np.asarray(transitions, dtype=np.float64)
        # A tag that leads nowhere (the head of a checkpoint may lack the others of its label) would drown those that do
        leads_on, is_reached = tag_set.legal_end.copy(), tag_set.legal_start.copy()
        for _ in range(n):
            n_found = leads_on.sum() + is_reached.sum()
            leads_on |= (tag_set.legal & leads_on).any(axis=1)
            is_reached |= (tag_set.legal.T & is_reached).any(axis=1)
            if leads_on.sum() + is_reached.sum() == n_found:
                break
        is_used = leads_on & is_reached
        legal = tag_set.legal & is_used & is_used[:, None]
        return cls(
            np.where(legal, given[1:, 1:], -np.inf),
            np.where(tag_set.legal_start & is_used, given[0, 1:], -np.inf),
            np.where(tag_set.legal_end & is_used, given[1:, 0], -np.inf),
            tag_set.continues,
        )

    def backwards(self) -> "Lattice":
        """The same lattice, walked from the last token to the first."""
        return Lattice(self.steps.T, self.ends, self.starts, self.continues.T)

    def sums(self, scores: Floats2d) -> Semiring:
        """What to sum paths with, by how much the scores of a tag and of a step to it differ."""
        values = np.concatenate([self.steps.ravel(), self.starts, self.ends])
        values = values[np.isfinite(values)]
        tops = scores.max(axis=1)
        lows = np.where(np.isneginf(scores), tops[:, None], scores).min(axis=1)
        spread = float((tops - lows).max(initial=0.0)) + (2.0 * float(np.ptp(values)) if len(values) else 0.0)
        return SUMS if spread <= WIDEST else LOG_SUMS


def entity_probabilities(
    tag_set: TagSet,
    scores: Floats2d,
    is_start: Bools1d,
    spans: Sequence[tuple[int, int, str]],
    transitions: NDArray | None = None,
    temperature: float = 1.0,
) -> Floats64:
    """Compute for each span the probability that exactly this entity is there: these tokens, this label.

    That is the share of the legal tag sequences, each with the softmax of its score, in which the entity starts and ends
    where the span does. One that is longer, or shorter, or has another label, is another entity.

    tag_set: the tags.
    scores: (n_tokens, n_tags), finite.
    is_start: (n_tokens,), True where a new segment (a Doc) starts; the first token always does.
    spans: entities as `TagSet.spans` gives them, each within a segment.
    transitions: as in `Lattice.of`.
    temperature: scores and transitions are divided by it.
    Returns the probabilities, (n_spans,), with an error of no more than 1e-6.
    """
    if not len(spans):
        return np.zeros(0)
    if temperature != 1.0:
        scores = scores / temperature
        transitions = None if transitions is None else transitions / temperature
    firsts = np.array([first for first, _, _ in spans])
    lengths = np.array([last for _, last, _ in spans]) - firsts
    order = np.argsort(-lengths, kind="stable")  # so that those that go on longest stand in front
    firsts, lengths = firsts[order], lengths[order]
    lasts = firsts + lengths - 1
    is_first, is_last = segment_bounds(is_start)
    lattice = Lattice.of(tag_set, transitions)
    S = lattice.sums(scores)
    go_on = S.exp(np.where(lattice.continues, lattice.steps, -np.inf))
    change = S.exp(np.where(lattice.continues, -np.inf, lattice.steps))
    steps, starts, ends = S.exp(lattice.steps), S.exp(lattice.starts), S.exp(lattice.ends)

    before, after = np.maximum(firsts - 1, 0), np.minimum(lasts + 1, len(scores) - 1)
    wanted, places = np.unique(np.concatenate([before, lasts]), return_inverse=True)
    messages, shifts = forward(lattice, scores, is_first, wanted, S)
    message_before, message_last = np.split(messages[places], 2)
    wanted, places = np.unique(after, return_inverse=True)
    message_after = backward(lattice, scores, is_last, wanted, S)[places]

    # The forward messages again, of the paths with the entity alone
    labels = [split_tag(tag)[1] for tag in tag_set.tags]
    is_of_label = {label: np.array([other == label for other in labels]) for label in tag_set.labels}
    is_wanted = np.stack([is_of_label[spans[i][2]] for i in order])
    paths = np.where(is_first[firsts, None], starts, S.product(message_before, change))
    paths = np.where(is_wanted, paths, S.exp(-np.inf))
    paths = S.over(S.times(paths, _relative(scores[firsts], S)), shifts[firsts, None])
    for i in range(1, int(lengths[0])):
        n = int(np.searchsorted(-lengths, -i))  # so many have a token i
        tokens = firsts[:n] + i
        rows = S.times(S.product(paths[:n], go_on), _relative(scores[tokens], S))
        paths[:n] = S.over(rows, shifts[tokens, None])

    is_at_end = is_last[lasts, None]
    only = S.times(paths, np.where(is_at_end, ends, S.product(message_after, change.T)))
    every = S.times(message_last, np.where(is_at_end, ends, S.product(message_after, steps.T)))
    with np.errstate(divide="ignore"):
        shares = S.log(S.plus.reduce(only, axis=1)) - S.log(S.plus.reduce(every, axis=1))
    probabilities = np.empty(len(spans))
    probabilities[order] = np.exp(shares).clip(0.0, 1.0)
    return probabilities


def expectations(
    lattice: Lattice, scores: Floats2d, is_first: Bools1d, is_last: Bools1d
) -> tuple[Floats64, Floats64, Floats64]:
    """Sum over all paths of each segment, and compute how often each tag and each transition is on one.

    scores: (n_tokens, n_tags), at least one token; -inf for tags that a token cannot have.
    is_first, is_last: (n_tokens,), the first and last tokens of the segments.
    Returns the logarithms of the sums of exp(score), (n_segments,), and the gradient of their total: with respect to the
    scores, the probabilities of the tags, (n_tokens, n_tags); with respect to the transitions (`Lattice.of`), how many of
    each are expected, (n_tags + 1, n_tags + 1). A segment without a path has NaN for its sum, and makes NaN of the rest.
    """
    S = lattice.sums(scores)
    tokens = np.arange(len(scores))
    messages, shifts = forward(lattice, scores, is_first, tokens, S)
    messages_back = backward(lattice, scores, is_last, tokens, S)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = S.product(np.roll(messages_back, -1, axis=0), S.exp(lattice.steps.T))
        rest[is_last] = S.exp(lattice.ends)
        rest, messages, messages_back, shifts = S.log(rest), S.log(messages), S.log(messages_back), S.log(shifts)
        norms = np.logaddexp.reduce(messages + rest, axis=1)
        tags = np.exp(messages + rest - norms[:, None])
        sums = np.add.reduceat(shifts + scores.max(axis=1), np.flatnonzero(is_first)) + norms[is_last]
        transitions = np.zeros((scores.shape[1] + 1, scores.shape[1] + 1))
        transitions[0, 1:], transitions[1:, 0] = tags[is_first].sum(axis=0), tags[is_last].sum(axis=0)
        here, there = messages[~is_last] - norms[~is_last, None], messages_back[~is_first]
        for i, steps in enumerate(lattice.steps):
            transitions[i + 1, 1:] = np.exp(here[:, i, None] + steps + there).sum(axis=0)
    return np.where(np.isfinite(sums), sums, np.nan), tags, transitions


def best_path(tag_set: TagSet, scores: Floats2d, is_start: Bools1d, transitions: NDArray) -> Ints1d:
    """Find the best legal tag sequence of each segment, as `TagSet.decode` does, with the scores of transitions.

    scores: (n_tokens, n_tags), finite; is_start: (n_tokens,), True where a new segment starts.
    transitions: as in `Lattice.of`.
    Returns the numbers of the tags, (n_tokens,).
    """
    n = len(scores)
    is_first, is_last = segment_bounds(is_start)
    lattice = Lattice.of(tag_set, transitions)
    messages, _ = forward(lattice, scores, is_first, np.arange(n), MAXIMA)
    messages[is_last] += lattice.ends
    tags, steps, is_end = messages.argmax(axis=1).tolist(), lattice.steps.T, is_last.tolist()
    for i in range(n - 1, -1, -1):
        if not is_end[i]:
            tags[i] = int((messages[i] + steps[tags[i + 1]]).argmax())
    return np.array(tags, dtype=np.int64)


def segment_bounds(is_start: Bools1d) -> tuple[Bools1d, Bools1d]:
    """Say of each token whether it is the first and the last of a segment."""
    is_first = is_start.copy()
    is_first[:1] = True
    return is_first, np.append(is_first[1:], True)[: len(is_first)]


def forward(
    lattice: Lattice, scores: Floats2d, is_first: Bools1d, wanted: Ints1d, semiring: Semiring
) -> tuple[Floats64, Floats64]:
    """Compute the forward messages: for each tag the sum over all paths from the segment's first token that end there.

    scores: (n_tokens, n_tags); is_first: (n_tokens,), the first tokens of the segments.
    wanted: the tokens whose messages are returned, in order.
    Returns the messages, (n_wanted, n_tags), each over its greatest value, and these values, (n_tokens,): of what
    comes from the message before and the token's scores less their maximum.
    """
    n, n_tags = scores.shape
    messages, shifts = np.empty((len(wanted), n_tags)), np.empty(n)
    before = np.ones(n_tags)
    for low in range(0, n, BLOCK):
        high = min(low + BLOCK, n)
        found, shifts[low:high] = _scan(lattice, scores[low:high], is_first[low:high], before, semiring)
        before = found[-1]
        start, end = np.searchsorted(wanted, (low, high))
        messages[start:end] = found[wanted[start:end] - low]
    return messages, shifts


def backward(lattice: Lattice, scores: Floats2d, is_last: Bools1d, wanted: Ints1d, semiring: Semiring) -> Floats64:
    """Compute the backward messages, which sum over the paths from there to the segment's last token.

    Unlike Rabiner's they have the score of the token itself in them, as the forward messages do. The arguments are those
    of `forward`, but for `is_last`: the last tokens of the segments.
    """
    wanted = len(scores) - 1 - wanted[::-1]
    return forward(lattice.backwards(), scores[::-1], is_last[::-1], wanted, semiring)[0][::-1]


def _relative(scores: Floats2d, semiring: Semiring) -> Floats64:
    return semiring.exp(scores - scores.max(axis=1, keepdims=True).astype(np.float64))


def _scan(
    lattice: Lattice, scores: Floats2d, is_first: Bools1d, before: Floats64, semiring: Semiring
) -> tuple[Floats64, Floats64]:
    """Compute the messages of a stretch of tokens and their shifts (see `forward`).

    before: (n_tags,), the messages of the token before the stretch.

    That a chunk may go by messages that are nearly right: how much two messages differ, as the logarithm of the greatest
    ratio between their ratios (Hilbert's metric), never grows from token to token (Birkhoff 1957). So the differences add
    up to less than `TOLERANCE` times the number of chunks.
    """
    S = semiring
    n, n_tags = scores.shape
    length = min(n, max(SHORTEST_CHUNK, math.isqrt(n)))
    n_chunks = -(-n // length)
    n_padded = n_chunks * length
    # In the order in which they are needed: (length, n_chunks, ...)
    padded = np.zeros((n_padded, n_tags))
    padded[:n] = _relative(scores, S)
    values = np.ascontiguousarray(padded.reshape(n_chunks, length, n_tags).transpose(1, 0, 2))
    firsts = np.zeros(n_padded, dtype=bool)
    firsts[:n] = is_first
    firsts = np.ascontiguousarray(firsts.reshape(n_chunks, length).T)
    has_first = np.logical_or.reduce(firsts, axis=1).tolist()
    steps, starts = S.exp(lattice.steps), S.exp(lattice.starts)
    messages, shifts = np.empty_like(values), np.empty((length, n_chunks, 1))

    def run(chunks: Ints1d | slice, start: int = 0) -> None:
        rows = given[chunks]
        for i in range(start, length):
            rows = S.product(rows, steps)
            if has_first[i]:
                rows[firsts[i, chunks]] = starts
            S.times(rows, values[i, chunks], out=rows)
            shift = np.maximum.reduce(rows, axis=1, keepdims=True)
            S.over(rows, shift, out=rows)
            messages[i, chunks], shifts[i, chunks] = rows, shift

    given = np.tile(before, (n_chunks, 1))
    # Where no path leads to, and in the padding, the messages are NaN
    with np.errstate(divide="ignore", invalid="ignore"):
        if n_chunks > 1:
            given[1:] = 1.0
            run(slice(n_chunks), length - min(length, WARM_UP))
            given[1:] = messages[-1, :-1]
        run(slice(n_chunks))
        chunks = np.arange(1, n_chunks)
        while len(chunks):
            found = messages[-1, chunks - 1]
            ratios = S.log(found) - S.log(given[chunks])  # NaN where both are -inf
            is_other = ~(np.fmax.reduce(ratios, axis=1) - np.fmin.reduce(ratios, axis=1) <= TOLERANCE)
            chunks, found = chunks[is_other], found[is_other]
            given[chunks] = found
            if len(chunks):
                run(chunks)
            chunks = chunks[chunks < n_chunks - 1] + 1
    return messages.transpose(1, 0, 2).reshape(n_padded, n_tags)[:n], shifts.T.ravel()[:n]
