"""How unsure a pipeline is of a text, and which texts to choose by that.

The measure is the entropy of the tags of a text's tokens, on average per token: the token entropy of Settles & Craven, "An
Analysis of Active Learning Strategies for Sequence Labeling Tasks" (2008). Sums would prefer long texts, so that Shen
et al., "Deep Active Learning for Named Entity Recognition" (2018), divide by the length too. Unlike the scores of entities,
entropies also show names that are almost found. They are exact, from the probabilities of each token's tags over all legal
sequences.

To spread the choice over the corpus, texts are chosen one after another, and the entropy of a token counts half as much for
each chosen text that has the same word: a second text about the same name, from the same document or a near-duplicate comes
later. Gains only shrink, so most need not be computed again (lazy greedy selection, Minoux 1978).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..component import BertNER
from ..decoding import Lattice, expectations, segment_bounds
from .records import Record


@dataclass(frozen=True)
class Candidate:
    """A text that may be chosen.

    gain: its entropy per token. words, entropies: of its tokens, (n_tokens,) each; the words in lower case.
    """

    record: Record
    gain: float
    words: Sequence[int]
    entropies: NDArray[np.float64]

    def gain_beside(self, seen: Counter[int]) -> float:
        """Return what it adds to chosen texts. seen: how many of these have a word."""
        shares = 0.5 ** np.array([seen[word] for word in self.words])
        return float(self.entropies @ shares) / len(self.words)


def tag_entropies(component: BertNER, docs: list[Doc]) -> list[NDArray[np.float64]]:
    """Compute the entropy of each token's tag over all legal tag sequences, (n_tokens,) for each Doc, in nats.

    A token that is not tagged has 0.
    """
    starts = np.cumsum([len(doc) for doc in docs])
    entropies = np.zeros(starts[-1] if docs else 0)
    if len(entropies) and len((rows := component.tag_rows(docs)).tokens):
        temperature, transitions = component.cfg["temperature"], component.transitions()
        lattice = Lattice.of(component.tag_set, None if transitions is None else transitions / temperature)
        is_first, is_last = segment_bounds(rows.is_first)
        _, tags, _ = expectations(lattice, rows.scores.astype(np.float64) / temperature, is_first, is_last)
        entropies[rows.tokens] = -(tags * np.log(tags, where=tags > 0, out=np.zeros_like(tags))).sum(axis=1)
    return np.split(entropies, starts[:-1]) if docs else []


def choose(candidates: Sequence[Candidate], n: int) -> list[Record]:
    """Choose n candidates, one after another, each the one that adds most to those before."""
    seen: Counter[int] = Counter()
    heap = [(-candidate.gain, i) for i, candidate in enumerate(candidates)]
    heapify(heap)
    chosen: list[Record] = []
    while heap and len(chosen) < n:
        _, i = heappop(heap)
        gain = candidates[i].gain_beside(seen)
        if heap and (-gain, i) > heap[0]:  # another may add more
            heappush(heap, (-gain, i))
        else:
            chosen.append(candidates[i].record)
            seen.update(set(candidates[i].words))
    return chosen
