"""A check of the development data, to be named in a training config."""

import warnings
from collections import Counter
from collections.abc import Callable

from spacy.language import Language
from spacy.util import resolve_dot_names

from ..component import components_of
from ..data_faults import check_corpora
from ..span_groups import annotated_entities


def make_check_dev_corpus() -> Callable[[Language], Language]:
    """Make a callback for `[initialize.after_init]`: it warns of labels that the development data alone has.

    Such entities can never be found; all of them count as missed in the scores that training chooses its best model by.
    """
    return check_dev_corpus


def check_dev_corpus(nlp: Language) -> Language:
    """Warn if `[training] dev_corpus` has no entities, or has labels that a `bert_ner` was not initialized with."""
    config = nlp.config.interpolate()
    place = config.get("training", {}).get("dev_corpus")
    if not place:
        return nlp
    check_corpora(nlp)
    (corpus,) = resolve_dot_names(config, [place])
    components = components_of(nlp)
    counts_of: dict[str, Counter[str]] = {name: Counter() for name in components}
    is_empty = True
    for example in corpus(nlp):
        is_empty = False
        for name, component in components.items():
            entities = annotated_entities(example.reference, component.cfg["spans_key"])
            counts_of[name].update(entity.label_ for entity in entities)
    for name, counts in counts_of.items():
        if not counts:
            warnings.warn(
                f"{name}: the development data ({place}) {'is empty' if is_empty else 'has no entities'}: the scores are 0 "
                "or missing, and the best model is not chosen by them",
                stacklevel=2,
            )
    for name, component in components.items():
        if component.learns_labels:
            continue
        unseen = {label: n for label, n in counts_of[name].items() if label not in component.labels}
        if unseen:
            warnings.warn(
                f"{name}: labels in the development data alone, which can never be found and count as missed: "
                + ", ".join(f"{label} ({n} entities)" for label, n in sorted(unseen.items())),
                stacklevel=2,
            )
    return nlp
