"""What `spacy debug data` says of entities, for pipelines with `bert_ner`: that command knows the factory `ner` alone.

The figures are those of its own functions; what cannot be learnt (`data_faults.Faults`) is added.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacy import util
from spacy.cli.debug_data import (
    NEW_LABEL_THRESHOLD,
    _compile_gold,
    _get_examples_without_label,
)
from spacy.language import Language
from spacy.training import Example
from spacy.util import resolve_dot_names
from wasabi import MESSAGES, Printer

from ..data_faults import Faults, Kind
from ..model.interface import interface_of
from ..span_groups import with_group_as_entities


@dataclass
class EntityCheck:
    """What was found in one corpus.

    counts: entities of each label, as the pipeline's tokens have them.
    n_docs, n_words: the documents, and the words of their annotation.
    n_misaligned_words: words that are not one token of the pipeline.
    n_misaligned: tokens of entities that do not align with the pipeline's tokens (tag "-").
    n_missing: words without annotation.
    n_blank, n_punctuation: entities with whitespace as their first or last token, those of punctuation alone.
    n_crossing: tokens that start a sentence inside an entity.
    without: for each label with few entities, the documents without it.
    faults: what cannot be learnt, with the first places.
    texts: the texts.
    """

    counts: dict[str, int]
    n_docs: int
    n_words: int
    n_misaligned_words: int
    n_misaligned: int
    n_missing: int
    n_blank: int
    n_punctuation: int
    n_crossing: int
    without: dict[str, int]
    faults: list[Kind] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)

    @property
    def rare(self) -> dict[str, int]:
        """The labels with few entities (by spaCy's measure), and how many they have."""
        return {label: self.counts[label] for label in self.without}


def check_examples(nlp: Language, examples: Sequence[Example], name: str = "bert_ner") -> EntityCheck:
    """Count what there is to learn and what stands in its way.

    nlp: an initialized pipeline. examples: the corpus, as its tokens have it. name: of a `bert_ner` component.
    """
    component: Any = nlp.get_pipe(name)
    has_rows, key = interface_of(component.model).has_rows, component.cfg["spans_key"]
    faults = Faults(component.labels, lambda doc: has_rows(component.model, doc).tolist(), key)
    for example in examples:
        faults.add(example)
    if key is not None:
        examples = [with_group_as_entities(example, key)[0] for example in examples]
    gold = _compile_gold(examples, ["ner"], nlp, make_proj=False)
    counts = {label: n for label, n in gold["ner"].most_common() if label != "-"}
    n_missing = n_punctuation = 0
    for example in examples:
        n_missing += sum(token.ent_iob == 0 for token in example.reference)
        n_punctuation += sum(all(token.is_punct for token in entity) for entity in example.reference.ents)
    return EntityCheck(
        counts,
        n_docs=len(examples),
        n_words=gold["n_words"],
        n_misaligned_words=gold["n_misaligned_words"],
        n_misaligned=gold["ner"]["-"],
        n_missing=n_missing,
        n_blank=gold["ws_ents"],
        n_punctuation=n_punctuation,
        n_crossing=gold["boundary_cross_ents"],
        without={
            label: _get_examples_without_label(examples, label, "ner")
            for label, n in counts.items()
            if n <= NEW_LABEL_THRESHOLD
        },
        faults=faults.kinds,
        texts=gold["texts"],
    )


def check_data(config_path: Path, overrides: dict[str, Any], msg: Printer) -> bool:
    """Check the training and development data of a config and print what is found.

    config_path: a training config with a `bert_ner` component. overrides: settings to change, `{"paths.train": …}`.
    msg: what prints.
    Returns whether there was no error. Raises ValueError for a config without `bert_ner`, and what loading raises.
    """
    config = util.load_config(config_path, overrides=overrides)
    nlp = util.load_model_from_config(config, auto_fill=True)
    names = [name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory == "bert_ner"]
    if not names:
        raise ValueError(
            f"{config_path}: its pipeline ({', '.join(nlp.pipe_names) or 'empty'}) has no component bert_ner; "
            "`python -m spacy debug data` checks the others"
        )
    settings = nlp.config.interpolate()["training"]
    train_corpus, dev_corpus = resolve_dot_names(
        nlp.config.interpolate(), [settings["train_corpus"], settings["dev_corpus"]]
    )
    with warnings.catch_warnings():  # all of it is said below
        warnings.filterwarnings(
            "ignore", message=r"[^:]*: (of \d+ documents|labels in the development data|spans_key is)"
        )
        nlp.initialize(lambda: train_corpus(nlp))
    corpora = {"training": list(train_corpus(nlp)), "development": list(dev_corpus(nlp))}
    for i, name in enumerate(names):
        component: Any = nlp.get_pipe(name)
        model_labels, key = set(component.labels), component.cfg["spans_key"]
        checks = {part: check_examples(nlp, corpus, name) for part, corpus in corpora.items()}
        msg.info(
            f"Component: {name}{f', doc.spans[{key!r}]' if key else ''}; {len(model_labels)} label(s): "
            f"{', '.join(sorted(model_labels))}"
        )
        if i == 0:
            if shared := len(checks["training"].texts & checks["development"].texts):
                msg.warn(f"{shared} training text(s) also in the development data")
            else:
                msg.good("No overlap between training and development data")
        for part, check in checks.items():
            print_check(check, part, model_labels, msg)
    return not msg.counts[MESSAGES.FAIL]


def print_check(check: EntityCheck, part: str, model_labels: set[str], msg: Printer) -> None:
    """Print the figures of one corpus, in the words of `spacy debug data`."""
    msg.divider(f"Entities in the {part} data")
    msg.info(f"{check.n_docs} document(s), {check.n_words} word(s), {sum(check.counts.values())} entities")
    if not check.n_docs:
        msg.fail(f"No {part} documents")
        return
    rows = [(label, n, f"{100 * n / sum(check.counts.values()):.1f}%") for label, n in check.counts.items()]
    msg.table(rows, header=("Label", "Entities", "Share"), divider=True, aligns=("l", "r", "r"))
    msg.text(f"{check.n_misaligned} missing value(s) (tokens with '-' label)")
    msg.text(f"{check.n_missing} word(s) without annotation")
    if check.n_misaligned_words:
        msg.warn(f"{check.n_misaligned_words} misaligned tokens")
    for kind in check.faults:
        msg.warn(str(kind))
    if check.n_blank:
        msg.fail(f"{check.n_blank} invalid whitespace entity spans")
    else:
        msg.good("No entities consisting of or starting/ending with whitespace")
    if check.n_punctuation:
        msg.warn(f"{check.n_punctuation} entities of punctuation alone")
    else:
        msg.good("No entities of punctuation alone")
    if check.n_crossing:
        msg.warn(f"{check.n_crossing} entity span(s) crossing sentence boundaries")
    else:
        msg.good("No entities crossing sentence boundaries")
    if part != "training":
        return
    if absent := model_labels - set(check.counts):
        msg.warn(f"Some model labels are not present in the train data: {', '.join(sorted(absent))}")
    for label, n in check.rare.items():
        msg.warn(f"Low number of examples for label '{label}' ({n}); {NEW_LABEL_THRESHOLD} and more are better")
    if not check.rare:
        msg.good("Good amount of examples for all labels")
    if everywhere := [label for label, n in check.without.items() if n == 0]:
        msg.warn(f"No examples for texts without {', '.join(everywhere)}")
    else:
        msg.good("Examples without occurrences available for all labels")
