"""Training speed beside spaCy's own `transformer` + `ner`: the same encoder, the same words, interleaved in one run.

    python bench/training_speed.py [--encoder assets/encoder] [--data assets/demo/train.conll] [--rounds 5]
    python bench/training_speed.py --gpu --mixed-precision bf16 --size base

With `--size base` the encoder has the size of bert-base and random weights. Each round trains every system on the same
batches of about `--batch-words` words, one optimizer step per batch, first on whole documents and then on sentences.
`transformer` + `ner` is set up as spaCy's quick start for a GPU sets it up. Prints words per second (medians),
the ratio, and on a GPU the memory that a step takes.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import spacy
import torch
from peers import transformer_ner, write_base_encoder
from spacy.tokens import Doc
from spacy.training import Example, minibatch_by_words
from thinc.api import Adam, fix_random_seed

from spacy_bertner.formats.convert import read_conll


def bert_ner(encoder: str, mixed_precision: str | None) -> spacy.Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": encoder, "mixed_precision": mixed_precision or False}})
    return nlp


def batches(docs: list[Doc], size: int) -> list[list[Doc]]:
    return [list(batch) for batch in minibatch_by_words(docs, size=size, get_length=len)]


def train_once(nlp: spacy.Language, optimizer: Adam, batches_of_docs: list[list[Doc]]) -> float:
    """Take one step per batch; return the seconds."""
    examples = [[Example(Doc(nlp.vocab, words=[t.text for t in doc]), doc) for doc in docs] for docs in batches_of_docs]
    synchronize()
    start = time.perf_counter()
    for batch in examples:
        nlp.update(batch, drop=0.1, sgd=optimizer)
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="assets/encoder")
    parser.add_argument("--data", type=Path, default=Path("assets/demo/train.conll"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", type=int, default=4000, help="words trained on in a round")
    parser.add_argument("--batch-words", type=int, default=1000)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--mixed-precision", choices=["bf16", "fp16"])
    parser.add_argument("--size", choices=["base"], help="an encoder of this size, with random weights")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.gpu:
        spacy.require_gpu()
    with tempfile.TemporaryDirectory() as folder:
        compare(write_base_encoder(args.encoder, folder) if args.size else args.encoder, args)


def compare(encoder: str, args: argparse.Namespace) -> None:
    systems = {
        "bert_ner": bert_ner(encoder, args.mixed_precision),
        "the same in bf16": bert_ner(encoder, "bf16"),
        "transformer + ner": transformer_ner(encoder, args.mixed_precision),
    }
    optimizers = {}
    docs, n_words = [], 0
    for doc in read_conll(args.data, vocab=systems["bert_ner"].vocab):
        docs.append(doc)
        n_words += len(doc)
        if n_words >= args.words:
            break
    sentences = [sent.as_doc() for doc in docs for sent in doc.sents]
    for name, nlp in systems.items():
        fix_random_seed(0)
        nlp.initialize(lambda nlp=nlp: [Example(Doc(nlp.vocab, words=[t.text for t in d]), d) for d in docs])
        optimizers[name] = Adam(1e-4, L2=0.01, use_averages=False)
    print(
        f"{n_words} words a round, {args.rounds} rounds, torch {torch.__version__}, "
        + (torch.cuda.get_device_name() if args.gpu else f"{torch.get_num_threads()} threads")
        + f", {args.mixed_precision or 'float32'}"
    )
    for kind, units in (("documents", docs), ("sentences", sentences)):
        cut = batches(units, args.batch_words)
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        peak = dict.fromkeys(systems, 0)
        for round_ in range(args.rounds + 1):
            for name, nlp in systems.items():
                if args.gpu:
                    torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated() if args.gpu else 0
                taken = train_once(nlp, optimizers[name], cut)
                if round_:  # the first round warms up
                    seconds[name].append(taken)
                    peak[name] = torch.cuda.max_memory_allocated() - held if args.gpu else 0
        rates = {name: n_words / statistics.median(taken) for name, taken in seconds.items()}
        for name, rate in rates.items():
            line = f"{kind:10} {name:25} {rate:6.0f} words/s   {rate / rates['transformer + ner']:5.2f}"
            # Above what all systems together hold between their steps
            print(line + (f"   {peak[name] / 2**20:6.0f} MiB in a step" if args.gpu else ""))


if __name__ == "__main__":
    main()
