"""A training config made for some data and an encoder: what `spacy bertner init` writes.

How many steps there are depends on the data, and so does the learning rate, which falls until the last step: no fixed config
is right for two corpora. `init.jinja` has the settings that are the same for all.
"""

import json
import math
import random
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import spacy
from jinja2 import Environment, PackageLoader, StrictUndefined
from spacy.language import Language
from spacy.schemas import ConfigSchemaTraining
from spacy.training import Corpus, Example
from spacy.training.batchers import minibatch_by_words
from spacy.training.initialize import init_nlp
from spacy.util import registry, resolve_dot_names
from thinc.api import Config, CupyOps, get_current_ops

from ..files import atomic_write, read_docs
from ..span_groups import annotated_entities, validate_spans_key

# Words in a batch, and the share by which documents may exceed it. At equal epochs 300 words are as good as 600 or better:
# there are twice as many steps
BATCH_WORDS, TOLERANCE = 300, 0.2
# Epochs, unless they would make fewer or more steps than these
EPOCHS, FEWEST_EPOCHS, MOST_EPOCHS = 10, 4, 100
FEWEST_STEPS, MOST_STEPS = 500, 3000
# The scores of this many evaluations are compared, at least and at most
EVALUATIONS = 10, 20
WARMUP, WINDOW = 0.1, 256
# Learning rates by the width of the encoder: the smaller, the higher
LEARN_RATES = ((512, "1e-4"), (1024, "5e-5"), (math.inf, "2e-5"))
# What is timed
TIMED_BATCHES, TIMED_SECONDS, TIMED_WORDS = 8, 10.0, 3000


@dataclass(frozen=True)
class Part:
    """Training or development data: number of documents and of words, and the number of entities of each label.

    n_sentences: None where they are unknown.
    """

    path: Path
    n_docs: int
    n_sentences: int | None
    n_words: int
    entities: dict[str, int]

    @property
    def labels(self) -> str:
        """The labels, each with its number of entities."""
        return ", ".join(f"{label} {n:,}" for label, n in self.entities.items())

    def __str__(self) -> str:
        n_entities = sum(self.entities.values())
        docs = f"{self.n_docs:,} document{'s' * (self.n_docs != 1)}"
        if self.n_sentences is not None:
            docs += f" of {self.n_sentences:,} sentences" if self.n_sentences > self.n_docs else " of one sentence each"
        return f"{docs}, {self.n_words:,} words, {n_entities:,} entities: {self.labels}"


@dataclass(frozen=True)
class Schedule:
    """How long to train.

    epochs: how often on all data. n_batches, n_words: the mean number of batches in an epoch, and of words in a batch.
    steps: training steps, all epochs together. eval_frequency: steps from one evaluation to the next.
    """

    epochs: int
    n_batches: int
    n_words: int
    steps: int
    eval_frequency: int

    @property
    def n_evaluations(self) -> int:
        """How many scores are compared, without that of the first step."""
        return self.steps // self.eval_frequency

    @property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""
        return max(round(WARMUP * self.steps), 1)

    @property
    def patience(self) -> int:
        """Steps without a better score after which training stops, 0 for never."""
        return self.steps // 2 if self.n_evaluations >= EVALUATIONS[0] else 0

    def __str__(self) -> str:
        return (
            f"{self.steps:,} steps, {self.epochs} epoch{'s' * (self.epochs > 1)} of about {self.n_batches:,} batches of "
            f"{self.n_words:,} words, {self.n_evaluations} evaluations"
        )


@dataclass(frozen=True)
class Plan:
    """The text of a config, the command that trains with it, the data, how long to train, and the GPU (-1: the CPU)."""

    text: str
    command: str
    train: Part
    dev: Part
    schedule: Schedule
    gpu_id: int


def make_config(
    path: Path,
    train: Path,
    dev: Path,
    encoder: str,
    *,
    epochs: int | None = None,
    gpu_id: int = -1,
    lang: str = "en",
    spans_key: str | None = None,
) -> Plan:
    """Make a training config for the component `bert_ner`.

    path: where the config will be, for a comment in it. train, dev: .spacy files, or folders of them. encoder: hub name or
        folder of the checkpoint to start from.
    epochs: how often to train on the data; None for a number that suits their size. gpu_id: the GPU that will train, -1 for
        the CPU; it need not be there now. lang: the language of the pipeline. spans_key: the group of `doc.spans` to learn;
        None for `doc.ents`.

    Raises ValueError for data or an encoder that cannot be used, ImportError for an unknown language.
    """
    if epochs is not None and epochs < 1:
        raise ValueError(f"--epochs: {epochs} is not a number of epochs, 1 or more")
    validate_spans_key(spans_key)
    for option, value in (("--train", train), ("--dev", dev), ("--encoder", encoder), ("--spans-key", spans_key)):
        if "$" in str(value):
            raise ValueError(f"{option}: {value}: has a $, with which spaCy's configs begin a variable; rename it")
    nlp = spacy.blank(lang)
    train_part, lengths = _read(train, nlp, spans_key)
    dev_part, _ = _read(dev, nlp, spans_key)
    schedule = make_schedule(lengths, epochs)
    device = [] if gpu_id < 0 else ["--gpu-id", str(gpu_id)]
    command = shlex.join(["python", "-m", "spacy", "train", str(path), "--output", "training", *device])
    text = _render(command, train_part, dev_part, encoder, schedule, lang, spans_key)
    return Plan(text, command, train_part, dev_part, schedule, gpu_id)


def _read(path: Path, nlp: Language, spans_key: str | None) -> tuple[Part, list[int]]:
    """Return the figures of .spacy files, and the number of words of each document, as training will have it."""
    lengths, entities, groups = [], Counter[str](), set[str]()
    n_sentences, are_sentences_known = 0, True
    for example in Corpus(path).make_examples(nlp, read_docs(path, nlp.vocab)):
        lengths.append(len(example))
        entities.update(entity.label_ for entity in annotated_entities(example.reference, spans_key))
        groups.update(example.reference.spans)
        if example.reference.has_annotation("SENT_START"):
            n_sentences += sum(1 for _ in example.reference.sents)
        else:
            are_sentences_known = False
    if not lengths:
        raise ValueError(f"{path}: has no documents")
    if not entities:
        place = "doc.ents" if spans_key is None else f"doc.spans[{spans_key!r}]"
        others = f"; --spans-key takes them from doc.spans, whose groups are {sorted(groups)}" if groups else ""
        raise ValueError(f"{path}: has no entities (in {place}) in {len(lengths):,} document(s){others}")
    known = n_sentences if are_sentences_known else None
    return Part(path, len(lengths), known, sum(lengths), dict(entities.most_common())), lengths


def make_schedule(
    lengths: Sequence[int],
    epochs: int | None = None,
    batcher: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    evaluations: tuple[int, int] = EVALUATIONS,
) -> Schedule:
    """Plan a training run: the batches of all epochs are made as training will make them.

    lengths: number of words of each document. epochs: how often to train on them; None for 10, more where these are fewer
        than 500 steps, as a new head has to be learned whatever the size of the corpus, and fewer where they are more than
        3,000, but at least 4. batcher: [training.batcher] of a config; None for the one that `init` writes.
    evaluations: how many there are, at least and at most.
    """
    batcher = batcher or partial(minibatch_by_words, size=BATCH_WORDS, tolerance=TOLERANCE)
    documents = [range(n) for n in lengths]  # all that a batcher looks at is their length
    shuffle = random.Random(0).shuffle

    def count() -> int:
        shuffle(documents)
        return sum(1 for _ in batcher(documents))

    counts = [count()]
    if epochs is None:
        at_least, at_most = -(-FEWEST_STEPS // counts[0]), MOST_STEPS // counts[0]
        epochs = min(max(EPOCHS, at_least), max(FEWEST_EPOCHS, at_most), MOST_EPOCHS)
    counts += [count() for _ in range(1, epochs)]
    steps = sum(counts)
    # The last step has to be evaluated: of these numbers of evaluations, the one that adds fewest steps
    low, high = evaluations
    n = min(range(low, high + 1), key=lambda n: -steps % n) if steps >= low else steps
    eval_frequency = -(-steps // n)
    n_batches, n_words = round(steps / epochs), round(sum(lengths) * epochs / steps)
    return Schedule(epochs, n_batches, n_words, eval_frequency * n, eval_frequency)


def _render(
    command: str,
    train: Part,
    dev: Part,
    encoder: str,
    schedule: Schedule,
    lang: str,
    spans_key: str | None,
) -> str:
    """Return the text of the config; raises CheckpointError for an encoder that cannot be used."""
    from ..model.checkpoint import encoder_option, has_token_head, load_without_weights, max_positions

    with encoder_option():
        empty = load_without_weights(encoder)
    has_head, width, positions = has_token_head(empty.config), empty.config.hidden_size, max_positions(empty)
    window = min(WINDOW, positions or WINDOW)
    values = {
        "train": str(train.path),
        "dev": str(dev.path),
        "encoder": encoder,
        "lang": lang,
        "scheme": None if has_head else "BIO",
        "spans_key": spans_key,
        "window": window,
        "stride": window - max(window // 16, 1),
        "steps": schedule.steps,
        "eval_frequency": schedule.eval_frequency,
        "patience": schedule.patience,
        "warmup": schedule.warmup,
        "batch_words": BATCH_WORDS,
        "tolerance": TOLERANCE,
    }
    comments = {
        "command": " ".join(command.split()),
        "labels": " ".join(train.labels.split()),  # on one line
        "n_words": f"{train.n_words:,}",
        "n_batches": schedule.n_batches,
        "epochs": schedule.epochs,
        "has_head": has_head,
        "scores": "ents" if spans_key is None else f"spans_{spans_key}",
        "positions": positions,
        "width": width,
        "learn_rate": next(rate for limit, rate in LEARN_RATES if width < limit),
    }
    settings = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return _render_template("init.jinja", **settings, **comments)


def _render_template(name: str, **values: Any) -> str:
    loader = PackageLoader("spacy_bertner", "training")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.get_template(name).render(values)


def write_config(plan: Plan, path: Path) -> Language:
    """Initialize the pipeline by the config, as training will, then write the config.

    Returns the initialized pipeline. Raises what `spacy train` raises before it trains, and OSError.
    """
    nlp = init_nlp(Config().from_str(plan.text), use_gpu=plan.gpu_id if isinstance(get_current_ops(), CupyOps) else -1)
    with atomic_write(path) as file:
        file.write(plan.text.encode())
    return nlp


def write_space(plan: Plan, path: Path) -> None:
    """Write a search space for `tune` that fits the data and the config of a plan; raises OSError."""
    rate = Config().from_str(plan.text)["training"]["optimizer"]["learn_rate"]["initial_rate"]
    low, high = (f"{factor * rate:.2g}" for factor in (0.25, 4))
    # Documents are not divided: with long ones, smaller batches would not differ
    is_long = plan.train.n_words / plan.train.n_docs > BATCH_WORDS / 2
    sizes = [BATCH_WORDS * n // 2 for n in ((2, 4, 8) if is_long else (1, 2, 4))]
    text = _render_template("space.jinja", epochs=plan.schedule.epochs, sizes=sizes, low=low, high=high)
    with atomic_write(path) as file:
        file.write(text.encode())


def estimate_seconds(nlp: Language, plan: Plan) -> float:
    """Estimate how long training will take, from a few batches, part of the development data, and saving the pipeline once.

    nlp: the initialized pipeline, which learns in this. plan: the run.
    """
    T = registry.resolve(nlp.config.interpolate()["training"], schema=ConfigSchemaTraining)
    corpora = resolve_dot_names(nlp.config.interpolate(), [T["train_corpus"], T["dev_corpus"]])
    examples, dev = list(corpora[0](nlp)), corpora[1](nlp)
    random.Random(0).shuffle(examples)
    batches = list(islice(T["batcher"](examples), TIMED_BATCHES + 1))
    first, timed = batches[0], batches[1:] or batches  # what the first batch does once is not timed
    nlp.update(first, drop=T["dropout"], sgd=T["optimizer"])
    n_words, start = 0, _now(plan.gpu_id)
    for batch in timed:
        nlp.update(batch, drop=T["dropout"], sgd=T["optimizer"])
        n_words += sum(map(len, batch))
        if _now(plan.gpu_id) - start > TIMED_SECONDS:
            break
    per_word = (_now(plan.gpu_id) - start) / n_words
    training = plan.schedule.epochs * plan.train.n_words * per_word
    sample: list[Example] = []
    while sum(map(len, sample)) < min(TIMED_WORDS, plan.dev.n_words):
        sample.append(next(dev))
    start = _now(plan.gpu_id)
    nlp.evaluate(sample)
    evaluation = (_now(plan.gpu_id) - start) * plan.dev.n_words / sum(map(len, sample))
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        nlp.to_disk(folder)
    saving = perf_counter() - start
    return training + (plan.schedule.n_evaluations + 1) * (evaluation + saving)


def format_seconds(seconds: float) -> str:
    """Return a duration with as many digits as an estimate deserves."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _now(gpu_id: int) -> float:
    """Return the time at which a GPU has done its work."""
    if gpu_id >= 0:
        import torch

        torch.cuda.synchronize()
    return perf_counter()
