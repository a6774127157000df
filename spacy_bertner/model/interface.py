"""What `bert_ner` asks of its model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import CupyOps, Model
from thinc.backends import get_array_ops
from thinc.types import Floats2d

# The attribute of a model that holds its `Interface`
NAME = "bert_ner"


class TagScores(list[Floats2d]):
    """The tag scores of some Docs, (n_tokens, n_tags) each, and which tokens of all of them together have any.

    has_row: (n_tokens,), in main memory, so that nobody has to wait for a GPU to learn it.
    """

    def __init__(self, rows: Sequence[Floats2d], has_row: NDArray[np.bool_]) -> None:
        super().__init__(rows)
        self.has_row = has_row


def scored_tokens(scores: Sequence[Floats2d]) -> NDArray[np.bool_]:
    """Return which tokens of all Docs together have tag scores, (n_tokens,).

    scores: what a model returned for the Docs; without `TagScores.has_row`, -inf marks the tokens that have none.
    """
    if isinstance(scores, TagScores):
        return scores.has_row
    return np.concatenate([~np.isneginf(get_array_ops(Y).to_numpy(Y[:, 0])) for Y in scores])


def _predict_scores(model: Model, docs: Sequence[Doc]) -> NDArray[np.float32]:
    rows = model.predict(list(docs))
    return model.ops.to_numpy(rows[0] if len(rows) == 1 else model.ops.xp.concatenate(rows))


def _has_rows(model: Model, doc: Doc) -> NDArray[np.bool_]:
    return np.ones(len(doc), dtype=bool)


def _group(model: Model, docs: Sequence[Doc]) -> list[tuple[list[int], list[Doc]]]:
    return [(list(range(len(docs))), list(docs))] if any(len(doc) for doc in docs) else []


def _resize(model: Model, n_tags: int) -> None:
    raise ValueError(
        f"the model {model.name!r} has a fixed number of tags: labels cannot be added once it is initialized"
    )


def _is_on_gpu(model: Model) -> bool:
    return isinstance(model.ops, CupyOps)


def _no_words(model: Model, doc: Doc) -> list[int]:
    return []


def _nothing(model: Model, *args: Any) -> None:
    """Stand in for what a model does not have."""


@dataclass(frozen=True)
class Interface:
    """What `bert_ner` asks of its model beyond what every Thinc model can do; the model has it as its attribute `NAME`.

    The defaults suit any model from Docs to tag scores, (n_tokens, n_tags) for each Doc, -inf for tokens without scores. The
    first argument of each function is the model.

    owns_encoder: whether the model shares no layer with other components. If so, its Docs may be grouped, and Docs without
        annotation left out.
    predict_scores: returns the scores of the tokens of all Docs together, (n_tokens, n_tags), in main memory.
    has_rows: returns which tokens of a Doc have scores, (n_tokens,).
    group: groups Docs so that an update on each group needs one pass through the encoder; returns for each group the
        positions of its Docs, and the Docs to call the model with.
    is_on_gpu: returns whether a GPU computes; a forked process cannot use it.
    load_checkpoint: loads pretrained weights and returns the names of the rows of their head, None without a head; None if
        the model starts from its config.
    check_upstream: raises ValueError if a component that the model listens to is missing; is given the component and `nlp`.
    resize: sets the number of rows of the head, keeping the rows that it has.
    add_labelled: is told how many labelled tokens were added to the gradient; the step divides by their number.
    transitions: returns the scores of transitions (see `decoding.Lattice.of`), None if there are none.
    add_transition_gradient: adds to their gradient.
    cut_words: returns the positions of the words of a Doc of which the encoder sees only the first pieces.
    """

    owns_encoder: bool = False
    predict_scores: Callable[[Model, Sequence[Doc]], NDArray[np.float32]] = _predict_scores
    has_rows: Callable[[Model, Doc], NDArray[np.bool_]] = _has_rows
    group: Callable[[Model, Sequence[Doc]], Sequence[tuple[list[int], list[Doc]]]] = _group
    is_on_gpu: Callable[[Model], bool] = _is_on_gpu
    load_checkpoint: Callable[[Model], list[str] | None] | None = None
    check_upstream: Callable[[Model, Any, Any], None] = _nothing
    resize: Callable[[Model, int], None] = _resize
    add_labelled: Callable[[Model, int], None] = _nothing
    transitions: Callable[[Model], NDArray | None] = _nothing
    add_transition_gradient: Callable[[Model, NDArray], None] = _nothing
    cut_words: Callable[[Model, Doc], list[int]] = _no_words


def interface_of(model: Model) -> Interface:
    """Return the interface of a model; the defaults if it has none of its own."""
    return model.attrs.get(NAME, Interface())
