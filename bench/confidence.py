"""What the probabilities of entities cost: their share of prediction, and how they grow with the length of a document.

    python bench/confidence.py PIPELINE [--words 20000] [--long 100000] [--rounds 3]

PIPELINE is a trained one. wikigold is predicted as sentences, as documents of 400 words, and sentence by sentence with
`nlp(doc)`; then as one document of so many words. Shares are of processor time, with one thread, medians over the rounds.
Finally the probabilities alone for one document of a million words, with the scores of that document repeated.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"

import common
import numpy as np
import spacy

from spacy_bertner import component
from spacy_bertner.decoding import best_path, entity_probabilities


class Clock:
    """Stands in for a function, and adds up the processor time that it takes."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.seconds = 0.0
        self.last: tuple = ()

    def __call__(self, *args: Any) -> Any:
        start = time.process_time()
        found = self.function(*args)
        self.seconds += time.process_time() - start
        self.last = args
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--long", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    nlp = spacy.load(args.pipeline)
    clock = Clock(entity_probabilities)
    component.entity_probabilities = clock
    sentences = common.read_sentences(common.default_files(), args.words)
    documents = common.join(sentences, 400)
    long = [common.join_all(common.repeat(sentences, args.long))]
    cases: list[tuple[str, list, Callable, int]] = [
        ("sentences, nlp.pipe", sentences, lambda docs: list(nlp.pipe(docs, batch_size=1000)), args.rounds),
        (
            "documents of 400 words, nlp.pipe",
            documents,
            lambda docs: list(nlp.pipe(docs, batch_size=1000)),
            args.rounds,
        ),
        ("sentences, one by one", sentences[:200], lambda docs: [nlp(doc) for doc in docs], args.rounds),
        (f"one document of {args.long:,} words", long, lambda docs: list(nlp.pipe(docs)), 1),
    ]
    print(common.machine_line(common.describe_machine()))
    for name, docs, predict, rounds in cases:
        shares, speeds = [], []
        for _ in range(rounds):
            fresh = common.Data(name, docs).fresh_docs(nlp.vocab)
            clock.seconds = 0.0
            _, seconds, _ = common.timed(lambda fresh=fresh, predict=predict: predict(fresh))
            shares.append(clock.seconds / seconds)
            speeds.append(sum(map(len, docs)) / seconds)
        print(f"{name:35} {statistics.median(speeds):8,.0f} words/s {100 * statistics.median(shares):7.2f} % of it")
    tag_set, scores, is_start, *_ = clock.last
    times = -(-1_000_000 // len(scores))
    scores, is_start = np.tile(scores, (times, 1))[:1_000_000], np.zeros(1_000_000, dtype=bool)
    spans = tag_set.spans(best_path(tag_set, scores, is_start), is_start)
    _, seconds, _ = common.timed(lambda: entity_probabilities(tag_set, scores, is_start, spans))
    print(f"one document of 1,000,000 words: the probabilities of {len(spans):,} entities in {seconds:.2f} s")


if __name__ == "__main__":
    main()
