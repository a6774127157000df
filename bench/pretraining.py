"""A tiny BERT from random weights, fine-tuned on the demo corpus as it is, and after pre-training on that corpus's text.

    python bench/pretraining.py > bench/results/pretraining.txt

The encoder (two layers of 128, cased, 500 word pieces) has seen nothing else, so that the difference is what pre-training on
one's own text gives. The pre-training reads the words of the training file, without the tags; the fine-tuning is that of
`configs/demo.cfg` with another learning rate, the same for both. A few minutes with one thread.
"""

import os
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import spacy
import torch
from common import DEMO, describe_machine, examples, machine_line
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as train_nlp
from spacy.util import load_config
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from spacy_bertner.formats.convert import read_conll
from spacy_bertner.pretrain import Settings, pretrain

SEEDS = (0, 1, 2)
N_PIECES = 500
PRETRAINING = {"window": 64, "max_steps": 1000, "batch_size": 16, "learn_rate": 2e-3}
FINE_TUNING = 1e-3  # learning rate


def make_encoder(folder: Path, seed: int) -> None:
    """Write a tiny BERT with random weights and a tokenizer trained on the demo's text."""
    texts = [" ".join(token.text for token in doc) for doc in read_conll(DEMO[0])]
    tokenizer = BertWordPieceTokenizer(lowercase=False)
    tokenizer.train_from_iterator(texts, vocab_size=N_PIECES, show_progress=False)
    folder.mkdir()
    tokenizer.save_model(str(folder))
    fast = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False)
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    BertForMaskedLM(BertConfig(vocab_size=len(fast), **sizes)).save_pretrained(folder)


def fine_tuned(encoder: Path, folder: Path, seed: int) -> tuple[float, float]:
    """Fine-tune an encoder by `spacy train`'s functions; return the F1 of the best model on development and test file."""
    config = load_config(Path(__file__).parent.parent / "configs/demo.cfg", interpolate=False)
    for part, path in zip(("train", "dev"), DEMO, strict=False):
        DocBin(docs=list(read_conll(path))).to_disk(folder / f"{part}.spacy")
        config["paths"][part] = str(folder / f"{part}.spacy")
    config["paths"]["encoder"] = str(encoder)
    config["system"]["seed"] = seed
    config["training"]["logger"] = {"@loggers": "spacy.ConsoleLogger.v1"}
    config["training"]["optimizer"]["learn_rate"]["initial_rate"] = FINE_TUNING
    with Path(os.devnull).open("w") as null:
        train_nlp(init_nlp(config), folder, use_gpu=-1, stdout=null, stderr=null)
    nlp = spacy.load(folder / "model-best")
    dev, test = (nlp.evaluate(examples(nlp, read_conll(path)))["ents_f"] for path in DEMO[1:])
    return dev, test


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_encoder(folder / "random", seed)
            result = pretrain(
                [DEMO[0]], folder / "pretrained", str(folder / "random"), Settings(**PRETRAINING, seed=seed)
            )
            scores: list[float] = []
            for kind in ("random", "pretrained"):
                (folder / f"{kind}-ner").mkdir()
                scores += fine_tuned(folder / kind, folder / f"{kind}-ner", seed)
            found.append((result.perplexity[0], result.perplexity[result.best_step], *scores))
            print(seed, result.best_step, found[-1], file=sys.stderr, flush=True)
    print(f"A tiny BERT on the demo corpus, pre-trained ({PRETRAINING}) or not: python bench/pretraining.py")
    print(machine_line(describe_machine()))
    print(f"{result.n_pieces:,} word pieces, {result.n_blocks} blocks to train on, {result.n_held_out} held out\n")
    print("      perplexity of held-out text   F1 (dev / test) from random weights    pre-trained")
    rows = [*zip(map(str, SEEDS), found, strict=True), ("mean", tuple(map(statistics.mean, zip(*found, strict=True))))]
    for name, (before, after, *f1) in rows:
        figures = "{:25.1%} /{:6.1%} {:8.1%} /{:6.1%}".format(*f1)
        print(f"{name:>4} {before:16,.0f} ->{after:7,.1f} {figures}")


if __name__ == "__main__":
    main()
