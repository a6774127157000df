"""How many entities a temperature needs: fit it on some sentences of the development file, measure it on the test file.

    python bench/calibration_size.py PIPELINE DEV.spacy TEST.spacy

Sentences are drawn, without putting them back, until the pipeline has found so many entities in them; 100 times.
"""

import sys
from pathlib import Path

import numpy as np
import spacy
from spacy.training import Corpus, Example

from spacy_bertner.training.calibration import Sample, _minimize

SIZES, N_DRAWS = (5, 10, 20, 50, 100), 100


def sentences(nlp, path):
    for eg in Corpus(path)(nlp):
        for sentence in eg.reference.sents:
            reference = sentence.as_doc()
            yield Example(spacy.tokens.Doc(nlp.vocab, words=[t.text for t in reference]), reference)


def merged(parts):
    """One sample of several."""
    sample = object.__new__(Sample)
    sample.tag_set, sample.transitions = parts[0].tag_set, parts[0].transitions
    sample.n_docs = sum(part.n_docs for part in parts)
    for name in ("scores", "is_first", "gold_scores"):
        setattr(sample, name, np.concatenate([getattr(part, name) for part in parts]))
    starts = np.cumsum([0, *(len(part.scores) for part in parts)]).tolist()
    sample.spans = [
        (first + start, last + start, label)
        for start, part in zip(starts, parts, strict=False)
        for first, last, label in part.spans
    ]
    sample.is_correct = [correct for part in parts for correct in part.is_correct]
    return sample


def main(pipeline, dev, test):
    nlp = spacy.load(pipeline)
    parts = [Sample(nlp, "bert_ner", [eg]) for eg in sentences(nlp, Path(dev))]
    whole = Sample(nlp, "bert_ner", sentences(nlp, Path(test)))
    before = whole.measure(1.0)
    everything = merged(parts)
    temperature = _minimize(everything.loss)
    print(f"test file, {before.n_entities} entities: error {before.error:.3f} without a temperature")
    print("entities  temperature, 5 % to 95 %  error  95 %   draws in which it is worse")
    rng = np.random.default_rng(0)
    for size in SIZES:
        temperatures, errors = [], []
        for _ in range(N_DRAWS):
            order = rng.permutation(len(parts))
            n = int(np.searchsorted(np.cumsum([len(parts[i].spans) for i in order]), size)) + 1
            temperatures.append(_minimize(merged([parts[i] for i in order[:n]]).loss))
            errors.append(whole.measure(temperatures[-1]).error)
        low, high = np.quantile(temperatures, [0.05, 0.95])
        n_worse = sum(error > before.error for error in errors)
        print(
            f"{size:8}  {low:12.2f} to {high:.2f}     {np.mean(errors):.3f}  {np.quantile(errors, 0.95):.3f}  {n_worse:4}",
            flush=True,
        )
    error = whole.measure(temperature).error
    print(f"{len(everything.spans):8}  {temperature:12.2f}             {error:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
