"""Words per second, in prediction and in training, beside what people use today, and beside what the machine could do.

    python bench/throughput.py [--rounds 3] [--words N] [--systems bert_ner bare-model ...]
    python bench/throughput.py --gpu --mixed-precision bf16 --size base

All systems run the same encoder on the same words in one process: each round runs every system once, each time in another
order, after a first round that warms up and is not counted. Figures are medians over the rounds; ratios are the medians of
the ratios within a round. Data is wikigold, else the demo corpus.

Inputs of prediction: sentences (one Doc each), documents of 400 words that know their sentences, and one document of 50,000
words. Docs are made before the clock starts, for all spaCy systems alike, and new ones for each round; `bert_ner` starts
each round without the pieces of words that it has seen. `bert_ner` and `transformer+ner` run at the batch size of 64, 256
and 1,024 that was fastest in one pass. A peer that cannot take an input is left out, or gets it cut up, and a line says so.

  bert_ner            float32
  bert_ner/bf16       mixed precision, where the processor has the arithmetic
  bert_ner/onnx       ONNX Runtime, float32
  bert_ner/onnx-int8  ONNX Runtime, most weights of 8 bits
  bare-model          encoder and head called with the batches that the component makes, ready-made: nothing around them
  transformer+ner     spaCy's quick-start config for a GPU
  hf-pipeline         transformers.pipeline("token-classification") on texts, in batches of 32, overlap of 64 pieces
  tutorial-loop       every sentence padded to 128 pieces, in batches of 32
  spacy-hf-pipelines  spacy-huggingface-pipelines, in batches of 32, else its defaults

An untrained head makes illegal tags everywhere, which costs time in decoding that no trained one takes. So `bert_ner` and
`transformer+ner` are trained first, on the first `--head-words` words at the same rate; the Hugging Face systems get
`bert_ner`'s weights.

Systems in training, one optimizer step per batch of about 1,000 words, on sentences and on documents:

  bert_ner              with the settings of configs/demo.cfg
  bert_ner/bf16         the same in mixed precision, where the processor has the arithmetic
  transformer+ner       as above
  transformer+ner/sorted    the same with the batches of its quick-start config, which are sorted by length and of 2,000
                        padded words, and so fewer steps
  hf                    padding to the longest of the batch, fused AdamW, gradient clipped; sentences only
  tutorial-loop         batches of 32 sentences, padded to 128 pieces, AdamW; sentences only

All have the encoder's own rates of dropout. Both Hugging Face systems get their sentences tokenized beforehand.

The limit is the time that the matrix products of one pass over the input take, at the rate at which this machine multiplies
matrices of the encoder's own shapes: its own weights, times a batch of as many rows as `bert_ner` puts into one, measured
just before each run of a system. One pass is every word piece once, in windows of at most 256 without overlap or padding:
the multiply-adds of all linear layers and of both products of attention. Training takes three times as many. "Machine" is
the share of that rate that a system makes use of with all that it computes, overlap and padding too.
"""

import argparse
import contextlib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # transformers.pipeline would switch it off for all that follow

import common
import peers
import spacy
import torch
from common import ROOT, Data, examples, timed
from limit import DTYPES, Limits, counted
from spacy.attrs import ENT_IOB
from spacy.training import minibatch_by_words
from spacy.training.batchers import minibatch_by_padded_size
from spacy.util import load_config
from summary import OURS, PEER, TITLES, median_rates, summarize, table, write
from thinc.api import Adam, fix_random_seed, set_gpu_allocator
from torch import nn

from spacy_bertner.component import BertNER
from spacy_bertner.model.bert_token_classifier import BATCH_OVERHEAD, DEFAULT_BATCH_PIECES
from spacy_bertner.model.devices import supports

BATCH_SIZES = (64, 256, 1024)


class LeftOut(Exception):
    """A system cannot run here, or cannot take an input; the message says why."""


@dataclass
class System:
    """What is measured.

    prepare: takes an input, and whatever is not measured; returns what is, to be called once.
    count: takes the input and what that call returned; returns how many words were predicted or learned from, and how many
        entities were found, where that can be told.
    encoder: the module that word pieces go through, to count them; None where there is no torch module.
    precision: the type of the limit to compare with, a key of `DTYPES`.
    batch_sizes: those that were chosen, by the input.
    """

    prepare: Callable[[Data], Callable[[], Any]]
    count: Callable[[Data, Any], tuple[int, int | None]]
    encoder: nn.Module | None
    precision: str = "float32"
    batch_sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class Setup:
    """What systems are made of.

    encoder: folder of the checkpoint. folder: a place for files. docs: what heads are trained on.
    mixed_precision: the type for the systems that are not of one by name.
    """

    encoder: str
    folder: Path
    docs: list
    mixed_precision: str | None
    device: torch.device

    @property
    def precision(self) -> str:
        return self.mixed_precision or "float32"

    @property
    def budget(self) -> int:
        return DEFAULT_BATCH_PIECES[self.device.type]

    @cached_property
    def trained(self) -> Path:
        """Folder of a `bert_ner` pipeline, trained a little."""
        nlp = demo_pipeline(self.encoder)
        train_a_little(nlp, self.docs)
        nlp.to_disk(self.folder / "bert_ner")
        return self.folder / "bert_ner"

    @cached_property
    def hf_checkpoint(self) -> str:
        return peers.write_hf_checkpoint(spacy.load(self.trained), self.encoder, self.folder / "hf")

    @property
    def thinc_precision(self) -> str | None:
        """The type of spaCy's own mixed precision: Thinc has it on a GPU alone, and float16 alone."""
        return "fp16" if self.mixed_precision and self.device.type == "cuda" else None

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.mixed_precision is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.mixed_precision])


def demo_pipeline(encoder: str, **settings: Any) -> spacy.Language:
    """`bert_ner` as configs/demo.cfg has it, not initialized."""
    config = load_config(ROOT / "configs/demo.cfg", interpolate=False)["components"]["bert_ner"]
    config["model"] = {**config["model"], "name": encoder, **settings}
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={key: value for key, value in config.items() if key != "factory"})
    return nlp


def initialize(nlp: spacy.Language, docs: Sequence) -> Adam:
    fix_random_seed(0)
    nlp.initialize(lambda: examples(nlp, docs))
    return Adam(1e-4, L2=0.01, grad_clip=1.0, use_averages=False)


def train_a_little(nlp: spacy.Language, docs: Sequence, learn_rate: float = 2e-4) -> None:
    """One pass in small batches: 8,000 words are enough to find about as many entities as there are, if the wrong ones."""
    optimizer = initialize(nlp, docs)
    optimizer.learn_rate = learn_rate
    for batch in batches(docs, 200):
        nlp.update(examples(nlp, batch), drop=0.1, sgd=optimizer)


def batches(docs: Iterable, size: int) -> list[list]:
    return [list(batch) for batch in minibatch_by_words(docs, size=size, get_length=len)]


# Systems that predict


def check_precision(setup: Setup, precision: str) -> None:
    """Leave a system out that computes in a type which the processor does not have."""
    if not supports(setup.device, DTYPES[precision]):
        raise LeftOut(f"this processor has no arithmetic in {precision}")


def bert_ner(setup: Setup, precision: str = "float32", **settings: Any) -> System:
    """The component with other settings of its model, as `spacy.load` takes them."""
    if precision != "float32":
        check_precision(setup, precision)
        settings["mixed_precision"] = precision
    nlp = spacy.load(setup.trained, config={"components": {"bert_ner": {"model": settings}}})
    encoder = nlp.get_pipe("bert_ner").model.shims[0].module.encoder  # type: ignore[attr-defined]
    return spacy_system(nlp, encoder, precision)


def transformer_ner(setup: Setup) -> System:
    """spaCy's `transformer` + `ner`."""
    nlp = peers.transformer_ner(setup.encoder, setup.thinc_precision)
    train_a_little(nlp, setup.docs)
    encoder = nlp.get_pipe("transformer").model.transformer  # type: ignore[attr-defined]
    return spacy_system(nlp, encoder, setup.thinc_precision or "float32")


def spacy_system(nlp: spacy.Language, encoder: nn.Module | None, precision: str) -> System:
    chosen: dict[str, int] = {}
    shims = [pipe.model.shims[0] for _, pipe in nlp.components if isinstance(pipe, BertNER)]

    def pipe(docs: list, batch_size: int) -> list:
        return list(nlp.pipe(docs, batch_size=batch_size))

    def prepare(data: Data) -> Callable[[], list]:
        if data.name not in chosen:
            sizes = sorted({min(size, len(data.docs)) for size in BATCH_SIZES})
            if len(sizes) > 1:
                pipe(data.fresh_docs(nlp.vocab)[:64], 64)  # the first pass of all is slower
                seconds = {n: timed(partial(pipe, data.fresh_docs(nlp.vocab), n))[0] for n in sizes}
                sizes.sort(key=seconds.__getitem__)
                print(f"    batch size: {sizes[0]} of {', '.join(map(str, sorted(sizes)))}")
            chosen[data.name] = sizes[0]
        for shim in shims:
            shim.pieces = None  # type: ignore[attr-defined]  # with what it knows of words
        return partial(pipe, data.fresh_docs(nlp.vocab), chosen[data.name])

    return System(prepare, count_decided, encoder, precision, chosen)


def count_decided(_: Data, docs: list) -> tuple[int, int]:
    """Count tokens for which it was decided whether they are in an entity, and entities."""
    return sum(int((doc.to_array(ENT_IOB) != 0).sum()) for doc in docs), sum(len(doc.ents) for doc in docs)


def bare_model(setup: Setup) -> System:
    """Encoder and head on the batches of the component, made beforehand."""
    settings = {"mixed_precision": setup.mixed_precision or False}
    nlp = spacy.load(setup.trained, config={"components": {"bert_ner": {"model": settings}}})
    shim = nlp.get_pipe("bert_ner").model.shims[0]  # type: ignore[attr-defined]
    list(nlp.pipe(["A first text makes the encoder of pieces."]))

    def prepare(data: Data) -> Callable[[], list]:
        # Those of all Docs together: sorted by length
        docs = data.fresh_docs(nlp.vocab)
        ready = list(shim.pieces.encode(docs, setup.budget, BATCH_OVERHEAD[setup.device.type]))
        return partial(shim.predict, ready, sum(map(len, docs)))

    return System(prepare, count_scored, shim.module.encoder, setup.precision)


def count_scored(_: Data, scores: Any) -> tuple[int, None]:
    """Count tokens that have scores."""
    return int((scores[:, 0] > -float("inf")).sum()), None


def bert_ner_onnx(setup: Setup, *, int8: bool) -> System:
    """The component on ONNX Runtime."""
    if setup.device.type != "cpu":
        raise LeftOut("the component runs ONNX Runtime on the CPU")
    if importlib.util.find_spec("onnxruntime") is None:
        raise LeftOut("ONNX Runtime is not installed")
    from spacy_bertner.export.onnx import to_onnx

    nlp = spacy.load(setup.trained)
    to_onnx(nlp, int8=int8)
    return spacy_system(nlp, None, "float32")


def hf_pipeline(setup: Setup) -> System:
    """The pipeline of transformers, on texts."""
    from transformers import pipeline

    pipe = pipeline(
        "token-classification",
        model=setup.hf_checkpoint,
        device=setup.device,
        batch_size=32,
        aggregation_strategy="simple",
        stride=64,
    )

    def predict(texts: list[str]) -> list:
        with setup.autocast():
            return pipe(texts)

    # With a stride nothing is cut off
    return System(lambda data: partial(predict, data.texts), all_words, pipe.model.base_model, setup.precision)


def all_words(data: Data, results: list) -> tuple[int, int]:
    """Count all words, if there is a result for each text: which words it has seen the pipeline does not tell."""
    results = [results] if len(data.docs) == 1 and results and isinstance(results[0], dict) else results
    return data.n_words if len(results) == len(data.docs) else 0, sum(map(len, results))


def tutorial_loop(setup: Setup) -> System:
    """Sentences padded to 128 pieces; documents go on in the next row."""
    model, tokenizer = peers.load_hf(setup.hf_checkpoint, setup.device)

    def prepare(data: Data) -> Callable[[], list]:
        def predict() -> list[list[str]]:
            with setup.autocast():
                return peers.padded_loop(model, tokenizer, data.words, is_cut=data.name != "sentences")

        return predict

    return System(prepare, lambda _, tags: (sum(map(len, tags)), None), model.base_model, setup.precision)


def spacy_hf_pipelines(setup: Setup) -> System:
    """spacy-huggingface-pipelines: the pipeline of transformers on a Doc's text, its spans set as entities."""
    if importlib.util.find_spec("spacy_huggingface_pipelines") is None:
        raise LeftOut("spacy-huggingface-pipelines is not installed")
    nlp = spacy.blank("en")
    nlp.add_pipe("hf_token_pipe", config={"model": setup.hf_checkpoint, "kwargs": {"batch_size": 32}})
    encoder = nlp.get_pipe("hf_token_pipe").hf_pipeline.model.base_model  # type: ignore[attr-defined]

    def prepare(data: Data) -> Callable[[], list]:
        docs = data.fresh_docs(nlp.vocab)

        def predict() -> list:
            with setup.autocast():
                return list(nlp.pipe(docs))

        return predict

    return System(prepare, count_decided, encoder, setup.precision)


PREDICTORS: dict[str, Callable[[Setup], System]] = {
    OURS: bert_ner,
    "bert_ner/bf16": partial(bert_ner, precision="bf16"),
    "bert_ner/onnx": partial(bert_ner_onnx, int8=False),
    "bert_ner/onnx-int8": partial(bert_ner_onnx, int8=True),
    "bare-model": bare_model,
    PEER: transformer_ner,
    "hf-pipeline": hf_pipeline,
    "tutorial-loop": tutorial_loop,
    "spacy-hf-pipelines": spacy_hf_pipelines,
}
# Inputs that a system does not get as the others do
CUT = {
    (PEER, "long"): "all windows of the document in one batch",
    ("tutorial-loop", "sentences"): "what is longer than 128 pieces is dropped",
    ("tutorial-loop", "documents"): "cut into rows of 128 pieces, without overlap",
    ("tutorial-loop", "long"): "cut into rows of 128 pieces, without overlap",
    ("hf-pipeline", "documents"): "cut by the pipeline into windows of 512 pieces",
    ("hf-pipeline", "long"): "cut by the pipeline into windows of 512 pieces",
}


# Systems that train


def train_bert_ner(setup: Setup, precision: str | None = None) -> System:
    if precision:
        check_precision(setup, precision)
    nlp = demo_pipeline(setup.encoder, mixed_precision=precision or setup.mixed_precision or False)
    optimizer = initialize(nlp, setup.docs)
    shim = nlp.get_pipe("bert_ner").model.shims[0]  # type: ignore[attr-defined]
    return spacy_training(nlp, optimizer, shim.module.encoder, precision or setup.precision)


def train_transformer_ner(setup: Setup, *, by_length: bool = False) -> System:
    nlp = peers.transformer_ner(setup.encoder, setup.thinc_precision)
    optimizer = initialize(nlp, setup.docs)
    encoder = nlp.get_pipe("transformer").model.transformer  # type: ignore[attr-defined]
    return spacy_training(nlp, optimizer, encoder, setup.thinc_precision or "float32", by_length=by_length)


def spacy_training(
    nlp: spacy.Language, optimizer: Adam, encoder: nn.Module, precision: str, *, by_length: bool = False
) -> System:
    def prepare(data: Data) -> Callable[[], int]:
        if by_length:
            cut = [list(docs) for docs in minibatch_by_padded_size(data.docs, size=2000, buffer=256, get_length=len)]
        else:
            cut = batches(data.docs, 1000)
        ready = [examples(nlp, docs) for docs in cut]

        def train() -> int:
            for batch in ready:
                nlp.update(batch, drop=0.1, sgd=optimizer)
            return sum(len(eg.predicted) for batch in ready for eg in batch)

        return train

    return System(prepare, lambda _, n: (n, None), encoder, precision)


def train_hf(setup: Setup, *, is_tutorial: bool) -> System:
    model, tokenizer = peers.load_hf(setup.hf_checkpoint, setup.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **({} if is_tutorial else {"fused": True}))
    length = 128 if is_tutorial else 512

    def prepare(data: Data) -> Callable[[], int]:
        if data.name != "training on sentences":
            raise LeftOut("takes sentences only")
        cut = [data.docs[i : i + 32] for i in range(0, len(data.docs), 32)] if is_tutorial else batches(data.docs, 1000)
        ready = [peers.hf_examples(docs, tokenizer, list(model.config.label2id), length) for docs in cut]

        def train() -> int:
            model.train()
            for batch in ready:
                arrays = peers.hf_collate(batch, tokenizer.pad_token_id, setup.device, 128 if is_tutorial else None)
                with setup.autocast():
                    loss = model(**arrays).loss
                loss.backward()
                if not is_tutorial:
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            return sum(label != -100 for batch in ready for _, labels in batch for label in labels)

        return train

    return System(prepare, lambda _, n: (n, None), model.base_model, setup.precision)


TRAINERS: dict[str, Callable[[Setup], System]] = {
    OURS: train_bert_ner,
    "bert_ner/bf16": partial(train_bert_ner, precision="bf16"),
    PEER: train_transformer_ner,
    f"{PEER}/sorted": partial(train_transformer_ner, by_length=True),
    "hf": partial(train_hf, is_tutorial=False),
    "tutorial-loop": partial(train_hf, is_tutorial=True),
}


# Measuring


def build(builders: dict[str, Callable[[Setup], System]], setup: Setup, left_out: dict[str, str]) -> dict[str, System]:
    systems = {}
    for name, builder in builders.items():
        try:
            systems[name] = builder(setup)
        except LeftOut as reason:
            left_out[name] = str(reason)
            print(f"{name}: left out: {reason}", flush=True)
    return systems


def measure(
    data: Data, systems: dict[str, System], limits: Limits, n_rounds: int, left_out: dict[str, str]
) -> list[dict[str, Any]]:
    """Run the rounds on one input; return one row per measurement."""
    print(f"{data.name}: {data.n_words} words", flush=True)
    rows, ran, words, entities = [], {}, {}, {}
    for name, system in list(systems.items()):
        print(f"  {name}", flush=True)
        try:
            work = system.prepare(data)
            with counted(system.encoder, limits.products) as ran[name]:
                words[name], entities[name] = system.count(data, work())
        except LeftOut as reason:
            left_out[f"{name}, {data.name}"] = str(reason)
            print(f"    left out: {reason}", flush=True)
            continue
        if words[name] < data.n_words:
            print(f"    only {words[name]} of {data.n_words} words")
        elif system.encoder is not None and ran[name]["pieces"] < limits.n_word_pieces(data):
            raise RuntimeError(f"{name} says that it had every word, but not every word piece went through its encoder")
        if (name, data.name) in CUT:
            print(f"    {CUT[name, data.name]}")
    names = list(words)
    for round_ in range(n_rounds):
        for place in range(len(names)):
            name = names[(place + round_) % len(names)]
            work = systems[name].prepare(data)
            rates = limits.measure_rates()
            seconds, cpu_seconds, _ = timed(work)
            print(f"  {round_ + 1} {name:20} {words[name] / seconds:8.0f} words/s", flush=True)
            rows.append(
                {
                    "input": data.name,
                    "system": name,
                    "round": round_ + 1,
                    "seconds": seconds,
                    "cpu_seconds": cpu_seconds,
                    "words": words[name],
                    "entities": entities[name],
                    "precision": systems[name].precision,
                    "rates": rates,
                    "batch_size": systems[name].batch_sizes.get(data.name),
                    "load": os.getloadavg()[0],
                    **ran[name],
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default=str(ROOT / "assets/encoder"))
    parser.add_argument("--data", type=Path, nargs="+", help="CoNLL files in place of wikigold")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, help="use so many words of the data, in the long document too")
    parser.add_argument("--training-words", type=int, default=4000, help="words trained on in a round")
    parser.add_argument("--head-words", type=int, default=8000, help="words that heads are trained on beforehand")
    names = list(dict.fromkeys([*PREDICTORS, *TRAINERS]))
    parser.add_argument("--systems", nargs="+", choices=names, default=names)
    parser.add_argument("--inputs", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--mixed-precision", choices=["bf16"], help="for all systems that are not of a type by name")
    parser.add_argument("--size", choices=["base"], help="an encoder of this size, with random weights")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/work/throughput")
    args = parser.parse_args()
    device = torch.device("cuda" if args.gpu else "cpu")
    if args.mixed_precision and not supports(device, DTYPES[args.mixed_precision]):
        parser.error(f"this {device} has no arithmetic in {args.mixed_precision}")
    common.start_again_with(common.KEEP_MEMORY)
    warnings.filterwarnings("ignore")
    from transformers import logging

    logging.set_verbosity_error()
    if args.gpu:
        set_gpu_allocator("pytorch")
        spacy.require_gpu()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        encoder = peers.write_base_encoder(args.encoder, str(base)) if args.size else args.encoder
        results = compare(args, encoder, Path(folder), device)
    print("\n" + table(results))
    write(results, args.out)


def compare(args: argparse.Namespace, encoder: str, folder: Path, device: torch.device) -> dict[str, Any]:
    files = args.data or common.default_files()
    sentences = common.read_sentences(files, args.words)
    part = common.read_sentences(files, min(args.training_words, args.words or args.training_words))
    inputs = [
        Data("sentences", sentences),
        Data("documents", common.join(sentences, 400)),
        Data("long", [common.join_all(common.repeat(sentences, args.words or 50_000))]),
        Data("training on sentences", part),
        Data("training on documents", common.join(part, 400)),
    ]
    inputs = [data for data in inputs if data.name in args.inputs]
    setup = Setup(encoder, folder, common.read_sentences(files, args.head_words), args.mixed_precision, device)
    left_out: dict[str, str] = {}
    kinds = {"predict": PREDICTORS, "train": TRAINERS}
    kinds = {kind: {name: kinds[kind][name] for name in kinds[kind] if name in args.systems} for kind in kinds}
    print(f"heads are trained on {args.head_words} words", flush=True)
    limits, rows, summary, about = None, [], [], {}
    precisions = {"float32"}  # of all kinds, since the last limits are those of the table
    for kind, builders in kinds.items():
        kind_inputs = [data for data in inputs if data.name.startswith("training") == (kind == "train")]
        if not kind_inputs or not builders:
            continue
        systems = build(builders, setup, left_out)
        precisions |= {system.precision for system in systems.values()}
        limits = Limits(spacy.load(setup.trained), setup.budget, precisions)
        for data in kind_inputs:
            measured = measure(data, systems, limits, args.rounds, left_out)
            rows += measured
            if measured:
                summary += summarize(data, measured, limits.multiply_adds(data))
                about[data.name] = {
                    "docs": len(data.docs),
                    "words": data.n_words,
                    "entities": sum(len(doc.ents) for doc in data.docs),
                    "pieces": limits.n_pieces(data),
                    "multiply_adds": limits.multiply_adds(data),
                }
    machine = common.describe_machine()
    config = encoder_size(encoder)
    title = (
        f"{config['n_layers']} layers of width {config['width']}, {args.rounds} rounds, "
        f"{args.mixed_precision or 'float32'}; {common.machine_line(machine)}"
    )
    return {
        "title": title,
        "machine": machine,
        "encoder": config,
        "settings": {
            "rounds": args.rounds,
            "head_words": args.head_words,
            "mixed_precision": args.mixed_precision,
            "batch_pieces": setup.budget,
            "data": [f"{path.parent.name}/{path.name}" for path in files],
        },
        "inputs": about,
        "rates": median_rates(rows),
        "summary": summary,
        "cut": {
            f"{system}, {name}": note
            for (system, name), note in CUT.items()
            if system in args.systems and name in about
        },
        "left_out": left_out,
        "measurements": rows,
    }


def encoder_size(encoder: str) -> dict[str, Any]:
    """Size of the encoder."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(encoder)
    return {"type": config.model_type, "n_layers": config.num_hidden_layers, "width": config.hidden_size}


if __name__ == "__main__":
    main()
