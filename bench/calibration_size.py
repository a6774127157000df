"""How many entities a temperature needs: fit it on some entities of the development file, measure it on the test file.

    python bench/calibration_size.py PIPELINE DEV.spacy TEST.spacy

Entities that the pipeline finds are drawn 100 times, without putting them back.
"""

import copy
import sys
from pathlib import Path

import numpy as np
import spacy
from spacy.training import Corpus

from spacy_bertner.training.calibration import Sample, _minimize

SIZES, N_DRAWS = (5, 10, 20, 50, 100), 100


def drawn(sample, numbers):
    """The sample with some of its entities."""
    part = copy.copy(sample)
    part.spans, part.is_correct = ([items[i] for i in numbers] for items in (sample.spans, sample.is_correct))
    return part


def main(pipeline, dev, test):
    nlp = spacy.load(pipeline)
    sample, whole = (Sample(nlp, "bert_ner", list(Corpus(Path(path))(nlp))) for path in (dev, test))
    before = whole.measure(1.0)
    n_all = len(sample.spans)
    print(f"test file, {before.n_entities} entities: error {before.error:.3f} without a temperature")
    print("entities  temperature, 5 % to 95 %  error  95 %   draws in which it is worse")
    rng = np.random.default_rng(0)
    for size in (*SIZES, n_all):
        draws = [rng.permutation(n_all)[:size] for _ in range(1 if size == n_all else N_DRAWS)]
        temperatures = [_minimize(drawn(sample, draw).loss) for draw in draws]
        errors = [whole.measure(temperature).error for temperature in temperatures]
        low, high = np.quantile(temperatures, [0.05, 0.95])
        n_worse = sum(error > before.error for error in errors)
        high_error = np.quantile(errors, 0.95)
        print(
            f"{size:8}  {low:12.2f} to {high:.2f}     {np.mean(errors):.3f}  {high_error:.3f}  {n_worse:4}", flush=True
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
