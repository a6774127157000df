"""From tag scores to entities: which tokens are tagged, the entities of the best tag sequences, writing them to a Doc."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spacy.attrs import ENT_ID, ENT_IOB, ENT_KB_ID
from spacy.tokens import Doc, Span

from .confidence import set_scores
from .decoding import best_path
from .tags import Bools1d, Ints1d, TagSet

# Entities of one Doc: (first token, last token + 1, label, probability) each
Entities = list[tuple[int, int, str, float]]


@dataclass(frozen=True)
class TagRows:
    """The tag scores of the tokens of some Docs that are tagged.

    scores: (n_rows, n_tags), finite. is_first: (n_rows,), True if earlier tokens cannot be part of the same entity.
    tokens: (n_rows,), the index of the token, counted over all Docs. starts: (n_docs + 1,), the index of each Doc's first.
    """

    scores: NDArray[np.float32]
    is_first: Bools1d
    tokens: Ints1d
    starts: Ints1d

    def places(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the index of the Doc of each row, and the index of its token in that Doc."""
        tokens = self.tokens[np.asarray(rows, dtype=np.int64)]
        docs = np.searchsorted(self.starts, tokens, side="right") - 1
        return docs.tolist(), (tokens - self.starts[docs]).tolist()


def rows_to_tag(docs: Sequence[Doc], scores: NDArray[np.float32], *, keeps_ents: bool) -> TagRows:
    """Select the rows of the tokens that are tagged.

    docs: Docs, not all of them empty. scores: the tag scores of all their tokens, (n_tokens, n_tags); -inf for tokens that
        the model has no scores for.
    keeps_ents: whether tokens in existing entities, and blocked tokens, are left out.
    """
    n_tokens = len(scores)
    starts = np.cumsum([0] + [len(doc) for doc in docs])
    is_free, is_start = np.ones(n_tokens, dtype=bool), np.zeros(n_tokens, dtype=bool)
    if keeps_ents:
        is_free = _is_free(np.concatenate([doc.to_array(ENT_IOB) for doc in docs]))
        is_start[1:] = is_free[1:] & ~is_free[:-1]
    is_start[starts[:-1][np.diff(starts) > 0]] = True
    tokens = np.flatnonzero(is_free & ~np.isneginf(scores[:, 0]))
    # If the first token of a segment is not tagged, the segment starts at its first token that is
    segment = np.cumsum(is_start)[tokens]
    return TagRows(scores[tokens], np.diff(segment, prepend=-1) != 0, tokens, starts)


def best_spans(tag_set: TagSet, rows: TagRows, transitions: NDArray | None) -> list[tuple[int, int, str]]:
    """Find the entities of the best legal tag sequences: (first row, last row + 1, label) each, in order.

    transitions: as in `decoding.Lattice.of`; None if there are none.
    """
    tags = best_path(tag_set, rows.scores, rows.is_first, transitions)
    return tag_set.spans(tags, rows.is_first)


def write_ents(doc: Doc, scores: Mapping[tuple[int, int, str], float], overwrite: bool) -> None:
    """Write entities, and their scores, to `doc.ents`.

    scores: the score of each, by (first token, last token + 1, label).
    overwrite: whether to replace existing entities; if not, none of them has tokens in common with the new ones.
    """
    entities = [Span(doc, start, end, label=label) for start, end, label in scores]
    before = doc.to_array([ENT_IOB, ENT_ID, ENT_KB_ID])
    is_free = _is_free(before[:, 0]) | overwrite if before.any() else None
    if is_free is not None:
        clear_ids(doc, is_free)
    if is_free is None or is_free.all():
        doc.set_ents(entities)
    else:
        inside = {i for ent in entities for i in range(ent.start, ent.end)}
        missing = [Span(doc, i, i + 1) for i in np.flatnonzero(before[:, 0] == 0).tolist() if i not in inside]
        doc.set_ents(entities, outside=missing, default="unmodified")
    set_scores(doc, scores)


def clear_ids(doc: Doc, is_cleared: Bools1d) -> None:
    """Remove the `ent_id` and `ent_kb_id` of tokens, which `Doc.set_ents` leaves from an earlier entity.

    is_cleared: (n_tokens,), for which tokens.
    """
    has_id = doc.to_array([ENT_ID, ENT_KB_ID]).any(axis=1)
    for i in np.flatnonzero(has_id & is_cleared).tolist():
        doc[i].ent_id = doc[i].ent_kb_id = 0


def _is_free(iob: NDArray) -> Bools1d:
    """Return which tokens, by their ENT_IOB, are missing (0) or outside (2), that is neither in an entity nor blocked."""
    return (iob == 0) | (iob == 2)
