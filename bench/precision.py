"""Entity F1 in float32, bf16, ONNX Runtime and ONNX Runtime with 8 bits, of the same pipelines on the same documents.

    python bench/precision.py DATA.conll PIPELINE... [--n-sents 1]

Prints F1 of each pipeline in each precision, and the mean difference from torch in float32.
"""

import argparse
import os
import statistics
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import spacy
from spacy.tokens import Doc
from spacy.training import Example

from spacy_bertner.export.onnx import to_onnx
from spacy_bertner.formats.convert import ReadOptions, read_conll

KINDS = ("torch", "torch, bf16", "ONNX Runtime", "ONNX Runtime, 8 bits")


def load(path: Path, kind: str) -> spacy.Language:
    model = {"mixed_precision": "bf16" if kind == "torch, bf16" else False}
    nlp = spacy.load(path, config={"components": {"bert_ner": {"model": model}}})
    if kind.startswith("ONNX"):
        to_onnx(nlp, int8=kind.endswith("8 bits"))
    return nlp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("pipelines", type=Path, nargs="+")
    parser.add_argument("--n-sents", type=int, default=1, help="sentences in a document, where none are marked")
    args = parser.parse_args()
    f1: dict[str, list[float]] = {}
    for kind in KINDS:
        for path in args.pipelines:
            nlp = load(path, kind)
            docs = read_conll(args.data, ReadOptions(n_sents=args.n_sents), vocab=nlp.vocab)
            scores = nlp.evaluate([Example(Doc(nlp.vocab, words=[t.text for t in doc]), doc) for doc in docs])
            f1.setdefault(kind, []).append(100 * scores["ents_f"])
        differences = [a - b for a, b in zip(f1[kind], f1["torch"], strict=True)]
        each = "  ".join(f"{value:.2f}" for value in f1[kind])
        print(f"{kind:22}{each}   {statistics.mean(differences):+.2f}", flush=True)


if __name__ == "__main__":
    main()
