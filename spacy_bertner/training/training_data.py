"""A check of the development data, to be named in a training config."""

import warnings
from collections.abc import Callable

from spacy.language import Language
from spacy.util import resolve_dot_names

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
    (corpus,) = resolve_dot_names(config, [place])
    components = {name: pipe for name, pipe in nlp.pipeline if nlp.get_pipe_meta(name).factory == "bert_ner"}
    counts_of: dict[str, dict[str, int]] = {name: {} for name in components}
    examples = list(corpus(nlp))
    for example in examples:
        for name, component in components.items():
            counts = counts_of[name]
            for entity in annotated_entities(example.reference, component.cfg["spans_key"]):  # type: ignore[attr-defined]
                counts[entity.label_] = counts.get(entity.label_, 0) + 1
    for name, counts in counts_of.items():
        if not counts:
            what = "has no entities" if examples else "is empty"
            warnings.warn(
                f"{name}: the development data ({place}) {what}: the scores are 0 or missing, and the best model is not "
                "chosen by them",
                stacklevel=2,
            )
    for name, component in components.items():
        if component.learns_labels:  # type: ignore[attr-defined]
            continue
        labels, counts = component.labels, counts_of[name]  # type: ignore[attr-defined]
        unseen = {label: n for label, n in counts.items() if label not in labels}
        if unseen:
            warnings.warn(
                f"{name}: labels in the development data alone, which can never be found and count as missed: "
                + ", ".join(f"{label} ({n} entities)" for label, n in sorted(unseen.items())),
                stacklevel=2,
            )
    return nlp
