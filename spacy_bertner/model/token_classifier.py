"""The architecture over a `tok2vec` sublayer, so that several components can share one `transformer` or `tok2vec`.

The head is that of `BertForTokenClassification` (Devlin et al. 2019, section 5.3): dropout and one linear layer, over the
sublayer's vector of each token.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from spacy.attrs import ORTH
from spacy.tokens import Doc
from thinc.api import Dropout, Linear, Model
from thinc.layers.resizable import resize_linear_weighted
from thinc.types import Floats2d, Ints1d

from .interface import NAME, Interface, TagScores
from .listener import check_upstream, check_vectors
from .orthography import is_blank


def TokenClassifier(tok2vec: Model[list[Doc], list[Floats2d]], crf: bool = False) -> Model[list[Doc], list[Floats2d]]:
    """A linear head over the token vectors of another layer, a listener to a shared transformer for instance.

    tok2vec: a model from Docs to token vectors, (n_tokens, width) per Doc.
    crf: whether to learn scores of transitions between tags too, a conditional random field (Lafferty et al. 2001).

    Returns a model from Docs to tag scores, (n_tokens, n_tags) per Doc; -inf for tokens with only whitespace, control and
    format characters. The gradient is summed over the tokens, like that of spaCy's tagger, so that components that share a
    layer have equal weight in it.
    """
    linear = Linear()
    model: Model[list[Doc], list[Floats2d]] = Model(
        "token_classifier",
        forward,
        init=init,
        layers=[tok2vec, Dropout(), linear],
        dims={"nO": None},
        attrs={
            "resize_output": resize,  # spaCy looks for it
            NAME: Interface(
                has_rows=has_rows,
                check_upstream=check_upstream,
                resize=resize,
                # Not as an attribute, which would be saved and, when loaded, override the config
                transitions=partial(transitions, crf=crf),
                add_transition_gradient=add_transition_gradient,
            ),
        },
        refs={"tok2vec": tok2vec, "output_layer": linear},
    )
    return model


def forward(
    model: Model[list[Doc], list[Floats2d]], docs: Sequence[Doc], is_train: bool
) -> tuple[list[Floats2d], Callable]:
    """Score the tags of every token."""
    tok2vec, dropout, linear = model.layers
    ops = model.ops
    lengths = [len(doc) for doc in docs]
    if not any(lengths):  # their vectors may have no width
        return [ops.alloc2f(0, model.get_dim("nO")) for _ in docs], lambda dY: []
    check_vectors(model, docs, is_train)
    vectors, backprop_vectors = tok2vec(docs, is_train)
    X, backprop_dropout = dropout(ops.flatten(vectors), is_train)  # (n_tokens, width)
    Y, backprop_linear = linear(X, is_train)  # (n_tokens, n_tags)
    has_row = ~_is_blank_token(docs)
    Y[ops.xp.asarray(np.flatnonzero(~has_row))] = -ops.xp.inf
    counts = cast(Ints1d, np.asarray(lengths, dtype="i"))

    def backprop(dY: list[Floats2d]) -> list[Doc]:
        dX = backprop_dropout(backprop_linear(ops.flatten(dY)))
        return backprop_vectors(ops.unflatten(dX, counts))

    return TagScores(ops.unflatten(Y, counts), has_row), backprop


def init(model: Model[list[Doc], list[Floats2d]], X: list[Doc] | None = None, Y: Any = None) -> None:
    """Initialize the sublayer, and a new head for the number of tags (nO) and the width of the sublayer.

    X: some Docs, not all of them empty. Y: not used.
    """
    if X is None:
        raise ValueError("The width of the sublayer is unknown: pass some Docs to initialize with")
    tok2vec, _, linear = model.layers
    tok2vec.initialize(X=X)
    linear.set_dim("nO", model.get_dim("nO"), force=True)
    linear.set_dim("nI", model.ops.flatten(tok2vec.predict(X)).shape[1], force=True)
    linear.initialize()
    if linear.has_param("transitions"):
        linear.set_param("transitions", model.ops.alloc2f(model.get_dim("nO") + 1, model.get_dim("nO") + 1))


def resize(model: Model, n_tags: int) -> None:
    """Set the number of rows of the head, keeping the rows that it has; new rows are zero."""
    old = model.layers[2]
    transitions: Any = old.get_param("transitions") if old.has_param("transitions") else None
    if transitions is not None:
        old.set_param("transitions", None)  # they are resized in two dimensions
    # A new layer: the optimizer starts anew, since its averages no longer fit
    model.layers[2] = resize_linear_weighted(old, n_tags)
    if transitions is not None:
        n = min(len(transitions), n_tags + 1)
        new: Any = model.ops.alloc2f(n_tags + 1, n_tags + 1)
        new[:n, :n] = transitions[:n, :n]
        model.layers[2].set_param("transitions", new)
    model.set_ref("output_layer", model.layers[2])
    model.set_dim("nO", n_tags, force=True)


def transitions(model: Model, *, crf: bool) -> NDArray[np.float32] | None:
    """Return a copy of the scores of transitions (see `decoding.Lattice.of`), zero at first; None if `crf` is False.

    Raises ValueError if the model was trained with transitions but `crf` is False.
    """
    linear = model.get_ref("output_layer")
    if linear.has_param("transitions"):
        if not crf:
            raise ValueError("crf: false is set, but the model was trained with transitions: set crf = true")
        return np.array(model.ops.to_numpy(linear.get_param("transitions")))
    n_tags = model.maybe_get_dim("nO")
    return np.zeros((n_tags + 1, n_tags + 1), dtype="float32") if crf and n_tags else None


def add_transition_gradient(model: Model, d_transitions: NDArray) -> None:
    """Add to the gradient of the transitions."""
    linear = model.get_ref("output_layer")
    if not linear.has_param("transitions"):
        linear.set_param("transitions", model.ops.alloc2f(*d_transitions.shape))
    linear.inc_grad("transitions", model.ops.asarray2f(cast(Floats2d, d_transitions)))


def has_rows(model: Model, doc: Doc) -> NDArray[np.bool_]:
    """Return which tokens of a Doc get scores, (n_tokens,)."""
    return ~_is_blank_token([doc])


def _is_blank_token(docs: Sequence[Doc]) -> NDArray[np.bool_]:
    """Return which tokens of all Docs together have no visible character, (n_tokens,)."""
    orths = np.concatenate([doc.to_array(ORTH) for doc in docs])
    words, places = np.unique(orths, return_inverse=True)
    strings = docs[0].vocab.strings
    return np.array([is_blank(strings[int(word)]) for word in words], dtype=bool)[places]
