"""The work around the encoder: processor time per word of `nlp.pipe` with an encoder of one layer of width 32.

    python bench/host.py [ENCODER] [--words 20000] [--rounds 5] [--profile]

ENCODER gives the tokenizer. The small encoder is trained for a few steps, so that entities are about as frequent as with a
real one. Input: texts of sentences, their ready-made Docs, and ready-made Docs of 400 words; with and without scores of
entities. Microseconds per word, medians over the rounds, one thread.
--profile prints the functions that take the longest.
"""

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"

import common
import numpy as np
import spacy
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from spacy_bertner import component
from spacy_bertner.model.torch_module import TokenClassifier


def make_pipeline(tokenizer_of: str, folder: Path, sentences: list) -> spacy.Language:
    """Train the small encoder a little."""
    from throughput import demo_pipeline, train_a_little

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    nlp = demo_pipeline(str(folder))
    train_a_little(nlp, sentences, learn_rate=1e-2)
    return nlp


def no_scores(_: Any, rows: Any, is_first: Any, spans: list, *rest: Any) -> np.ndarray:
    return np.ones(len(spans))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", nargs="?", default="assets/encoder")
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sentences = common.read_sentences(common.default_files(), args.words)
    with tempfile.TemporaryDirectory() as folder:
        nlp = make_pipeline(args.encoder, Path(folder), sentences)
    inputs = {
        "sentences": common.Data("sentences", sentences),
        "documents": common.Data("documents", common.join(sentences, 400)),
    }
    scores_of = component.entity_probabilities
    cases = [(name, how) for name in inputs for how in ("texts", "Docs", "Docs, no scores")]
    times: dict[tuple[str, str], list[tuple[float, float]]] = {case: [] for case in cases}
    forward, in_encoder = TokenClassifier.forward, [0.0]

    def clocked(*values: Any, **named: Any) -> Any:
        start = time.process_time()
        scores = forward(*values, **named)
        in_encoder[0] += time.process_time() - start
        return scores

    TokenClassifier.forward = clocked  # type: ignore[method-assign]
    for i in range(args.rounds + 1):
        for name, how in cases:
            data = inputs[name]
            given = data.texts if how == "texts" else data.fresh_docs(nlp.vocab)
            component.entity_probabilities = scores_of if how != "Docs, no scores" else no_scores
            profile = cProfile.Profile() if args.profile and i == args.rounds and how != "Docs, no scores" else None
            if profile:
                profile.enable()
            in_encoder[0] = 0.0
            _, seconds, docs = common.timed(lambda given=given: list(nlp.pipe(given, batch_size=1000)))
            if profile:
                profile.disable()
                print(f"\n{name}, {how}: {sum(len(doc.ents) for doc in docs)} entities, {sum(map(len, docs))} words")
                pstats.Stats(profile).sort_stats("tottime").print_stats(30)
            elif i:
                n = sum(map(len, docs)) / 1e6
                times[name, how].append(((seconds - in_encoder[0]) / n, in_encoder[0] / n))
    for (name, how), values in times.items():
        around, inside = (statistics.median(part) for part in zip(*values, strict=True))
        print(f"{name:10} {how:16} {around:6.2f} µs per word around the encoder, {inside:6.2f} in it")


if __name__ == "__main__":
    main()
