"""What `spacy debug data` reports on entities, for pipelines with `bert_ner`: that command only knows the factory `ner`.

The figures come from its own functions; what cannot be learned (`data_faults.Faults`) is added.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacy import util
from spacy.cli.debug_data import NEW_LABEL_THRESHOLD, _compile_gold, _get_examples_without_label
from spacy.language import Language
from spacy.training import Example
from spacy.util import resolve_dot_names
from wasabi import MESSAGES, Printer

from ..component import components_of
from ..data_faults import Faults, check_corpora
from ..model.interface import interface_of
from ..span_groups import with_group_as_entities


def check_data(config_path: Path, overrides: dict[str, Any], msg: Printer) -> bool:
    """Check the training and development data of a config and print the results.

    config_path: a training config with a `bert_ner` component. overrides: settings to change, `{"paths.train": …}`.
    msg: the printer.
    Returns whether there was no error. Raises ValueError for a config without `bert_ner`, and what loading raises.
    """
    nlp = util.load_model_from_config(util.load_config(config_path, overrides=overrides), auto_fill=True)
    components = components_of(nlp)
    if not components:
        raise ValueError(
            f"{config_path}: its pipeline ({', '.join(nlp.pipe_names) or 'empty'}) has no component bert_ner; "
            "`python -m spacy debug data` checks the others"
        )
    check_corpora(nlp)
    config = nlp.config.interpolate()
    corpora = resolve_dot_names(config, [config["training"]["train_corpus"], config["training"]["dev_corpus"]])
    with warnings.catch_warnings():  # all of it is printed below
        warnings.filterwarnings(
            "ignore", message=r"[^:]*: (of \d+ documents|labels in the development data|spans_key is)"
        )
        nlp.initialize(lambda: corpora[0](nlp))
    train, dev = (list(corpus(nlp)) for corpus in corpora)
    for i, (name, component) in enumerate(components.items()):
        labels, key = component.labels, component.cfg["spans_key"]
        msg.info(
            f"Component: {name}{f', doc.spans[{key!r}]' if key else ''}; {len(labels)} label(s): "
            f"{', '.join(sorted(labels))}"
        )
        if i == 0:
            shared = len({eg.predicted.text for eg in train} & {eg.predicted.text for eg in dev})
            no_overlap = "No overlap between training and development data"
            _print_problem(msg, shared, f"{shared} training text(s) also in the development data", no_overlap)
        _check_corpus(nlp, component, train, "training", msg)
        _check_corpus(nlp, component, dev, "development", msg)
    return not msg.counts[MESSAGES.FAIL]


def _check_corpus(nlp: Language, component: Any, examples: Sequence[Example], part: str, msg: Printer) -> None:
    """Print what there is to learn in a corpus and what prevents it, in the words of `spacy debug data`.

    component: a `bert_ner` of the initialized pipeline. part: "training" or "development".
    """
    has_rows, key = interface_of(component.model).has_rows, component.cfg["spans_key"]
    faults = Faults(component.labels, lambda doc: has_rows(component.model, doc).tolist(), key)
    for example in examples:
        faults.add(example)
    if key is not None:
        examples = [with_group_as_entities(example, key)[0] for example in examples]
    gold = _compile_gold(examples, ["ner"], nlp, make_proj=False)
    counts = {label: n for label, n in gold["ner"].most_common() if label != "-"}
    total = sum(counts.values())
    msg.divider(f"Entities in the {part} data")
    msg.info(f"{len(examples)} document(s), {gold['n_words']} word(s), {total} entities")
    if not examples:
        msg.fail(f"No {part} documents")
        return
    rows = [(label, n, f"{100 * n / total:.1f}%") for label, n in counts.items()]
    msg.table(rows, header=("Label", "Entities", "Share"), divider=True, aligns=("l", "r", "r"))
    n_missing = sum(token.ent_iob == 0 for example in examples for token in example.reference)
    msg.text(f"{gold['ner']['-']} missing value(s) (tokens with '-' label)")
    msg.text(f"{n_missing} word(s) without annotation")
    if n := gold["n_misaligned_words"]:
        msg.warn(f"{n} misaligned tokens")
    for kind in faults.kinds:
        msg.warn(str(kind))
    if n := gold["ws_ents"]:
        msg.fail(f"{n} invalid whitespace entity spans")
    else:
        msg.good("No entities consisting of or starting/ending with whitespace")
    n = sum(all(token.is_punct for token in entity) for example in examples for entity in example.reference.ents)
    _print_problem(msg, n, f"{n} entities of punctuation alone", "No entities of punctuation alone")
    n = gold["boundary_cross_ents"]
    crossing = "No entities crossing sentence boundaries"
    _print_problem(msg, n, f"{n} entity span(s) crossing sentence boundaries", crossing)
    if part == "training":
        _check_labels(component.labels, counts, examples, msg)


def _check_labels(labels: Sequence[str], counts: dict[str, int], examples: Sequence[Example], msg: Printer) -> None:
    """Print which labels lack examples, or texts without them; `counts` has the number of entities of each label."""
    if absent := set(labels) - set(counts):
        msg.warn(f"Some model labels are not present in the train data: {', '.join(sorted(absent))}")
    rare = {label: n for label, n in counts.items() if n <= NEW_LABEL_THRESHOLD}
    for label, n in rare.items():
        msg.warn(f"Low number of examples for label '{label}' ({n}); {NEW_LABEL_THRESHOLD} and more are better")
    if not rare:
        msg.good("Good amount of examples for all labels")
    everywhere = [label for label in rare if not _get_examples_without_label(examples, label, "ner")]
    without = "Examples without occurrences available for all labels"
    _print_problem(msg, len(everywhere), f"No examples for texts without {', '.join(everywhere)}", without)


def _print_problem(msg: Printer, count: int, problem: str, none: str) -> None:
    """Print a warning if there are any problems of a kind, else that there are none."""
    if count:
        msg.warn(problem)
    else:
        msg.good(none)
