"""What `bert_ner` asks of its model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import CupyOps, Model
from thinc.backends import get_array_ops

NAME = "bert_ner"


def _predict_scores(model: Model, docs: Sequence[Doc]) -> NDArray[np.float32]:
    rows = model.predict(list(docs))
    return model.ops.to_numpy(rows[0] if len(rows) == 1 else model.ops.xp.concatenate(rows))


def _has_rows(model: Model, docs: Sequence[Doc], Y: Any = None) -> NDArray[np.bool_]:
    if Y is None:
        return np.ones(sum(map(len, docs)), dtype=bool)
    return ~np.isneginf(get_array_ops(Y).to_numpy(Y[:, 0]))


def _group(model: Model, docs: Sequence[Doc]) -> list[list[int]]:
    return [list(range(len(docs)))] if any(len(doc) for doc in docs) else []


def _resize(model: Model, n_tags: int) -> None:
    raise ValueError(
        f"the model {model.name!r} has a fixed number of tags: labels cannot be added once it is initialized"
    )


def _is_on_gpu(model: Model) -> bool:
    return isinstance(model.ops, CupyOps)


def _no_words(model: Model, doc: Doc) -> list[int]:
    return []


def _nothing(model: Model, *args: Any) -> None:
    """For a model that has no such thing."""


@dataclass(frozen=True)
class Interface:
    """What `bert_ner` asks of its model beside what every Thinc model can do; it is in the model's attribute `NAME`.

    The defaults hold for any model from Docs to rows of tag scores, (n_tokens, n_tags) for each Doc, -inf for tokens that it
    has no scores for. Each function takes the model first.

    owns_encoder: whether the model shares no layer with other components: then its Docs may be grouped, and those that
        teach nothing be left out.
    predict_scores: gives the scores of all Docs' tokens together, (n_tokens, n_tags), in main memory.
    has_rows: says of all Docs' tokens whether the model has scores for them, (n_tokens,); Y are these scores, if known.
    group: groups Docs, by their places, so that an update on each group needs one pass.
    is_on_gpu: whether a GPU computes, which a forked process cannot use.
    load_checkpoint: loads pretrained weights, and gives the names of their head's rows, None without a head. None where
        the model starts from its config.
    check_upstream: raises ValueError where a component that the model listens to is missing; takes the component and `nlp`.
    resize: gives the head so many rows, keeping those it has.
    add_labelled: is told of how many labelled tokens the gradient is; the step divides by their number.
    transitions: gives the scores of transitions (see `decoding.Lattice.of`), None without.
    add_transition_gradient: adds to their gradient.
    cut_words: gives the places of a Doc's words of which the encoder sees only the first pieces.
    """

    owns_encoder: bool = False
    predict_scores: Callable[[Model, Sequence[Doc]], NDArray[np.float32]] = _predict_scores
    has_rows: Callable[..., NDArray[np.bool_]] = _has_rows
    group: Callable[[Model, Sequence[Doc]], list[list[int]]] = _group
    is_on_gpu: Callable[[Model], bool] = _is_on_gpu
    load_checkpoint: Callable[[Model], list[str] | None] | None = None
    check_upstream: Callable[[Model, Any, Any], None] = _nothing
    resize: Callable[[Model, int], None] = _resize
    add_labelled: Callable[[Model, int], None] = _nothing
    transitions: Callable[[Model], NDArray | None] = _nothing
    add_transition_gradient: Callable[[Model, NDArray], None] = _nothing
    cut_words: Callable[[Model, Doc], list[int]] = _no_words


def interface_of(model: Model) -> Interface:
    """Return the interface of a model; the defaults where it has none of its own."""
    return model.attrs.get(NAME, Interface())
