"""Layers that listen to a component upstream: whether it is there, and has seen the Docs.

Listeners of spaCy and spacy-transformers name that component in an attribute, those of spacy-curated-transformers in the
`attrs` of a plain Thinc model.
"""

from collections.abc import Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.ty import ListenedToComponent
from thinc.api import Model


def listeners(model: Model) -> list[Model]:
    """Return the layers of a model that listen to a component upstream."""
    return [node for node in model.walk() if _upstream_name(node) is not None]


def _upstream_name(node: Model) -> str | None:
    """Return the name of the component that a layer listens to, "*" for any; None if it listens to none."""
    if "_TRANSFORMER_LISTENER" in node.attrs:  # spacy-curated-transformers; nlp.replace_listeners deletes the mark
        return node.attrs["_upstream_name"]
    return getattr(node, "upstream_name", None)


def check_upstream(model: Model, component: Any, nlp: Language) -> None:
    """Raise ValueError if the model of `component` listens to a component that is not before it in the pipeline."""
    name = component.name
    before: list[str] = []
    found: set[int] = set()
    for other, pipe in nlp.pipeline:
        if pipe is component:
            break
        before.append(other)
        if isinstance(pipe, ListenedToComponent):
            pipe.find_listeners(component)
            found.update(id(listener) for listener in pipe.listeners)
    for listener in listeners(model):
        if id(listener) not in found:
            raise ValueError(
                f"{name}: its model has a {listener.name}, which {_need(listener)}, and there is none before it in "
                f"the pipeline (there: {', '.join(before) or 'nothing'}). {_REMEDY.format(name=name)}"
            )


_REMEDY = (
    "Add one before it, or give it a layer of its own in [components.{name}.model.tok2vec]: where the component comes "
    'from another pipeline, replace_listeners = ["model.tok2vec"] beside its source, or nlp.replace_listeners, does that'
)


def check_vectors(model: Model, docs: Sequence[Doc], is_train: bool) -> None:
    """Raise ValueError for Docs without vectors, for which a listener would return zeros."""
    for listener in listeners(model):
        if is_train and _has_batch(listener):
            continue
        if all(_has_vectors(listener, doc) for doc in docs if len(doc)):
            continue
        raise ValueError(
            f"The model of bert_ner has a {listener.name}, which {_need(listener)}, and no such component has seen "
            "these Docs. Is it excluded, disabled or after bert_ner? Enable it, or give bert_ner a layer of its own "
            "with nlp.replace_listeners before it is saved"
            + ("; where it is frozen, name it in [training] annotating_components" if is_train else "")
        )


def _need(listener: Model) -> str:
    upstream = _upstream_name(listener)
    if upstream != "*":
        return f"needs the component {upstream!r}"
    if listener.name == "tok2vec-listener":
        return "needs a component 'tok2vec'"
    return f"needs a component {'transformer' if hasattr(listener, 'upstream_name') else 'curated_transformer'!r}"


def _has_batch(listener: Model) -> bool:
    """Return whether the component upstream has passed the vectors of a batch on, as in training."""
    state = listener.attrs.get("_state")  # of spacy-curated-transformers
    return getattr(listener, "_batch_id", getattr(state, "batch_id", None)) is not None


def _has_vectors(listener: Model, doc: Doc) -> bool:
    if listener.name == "tok2vec-listener":
        return doc.tensor.size > 0
    return Doc.has_extension("trf_data") and doc._.trf_data is not None
