"""Entity F1 and pieces computed on long documents, by window and overlap.

    python bench/windows.py DATA.conll PIPELINE... > bench/results/windows.txt

The sentences of the data are joined to documents of 400 words, and given with and without their boundaries. Pieces are those
that the encoder computes, by those that the documents have; attention takes time by the mean length of a window.
"""

import argparse
import os
import statistics
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import spacy
from common import describe_machine, join, machine_line, read_sentences
from spacy.tokens import Doc
from spacy.training import Example

WORDS = 400
SETTINGS = ((512, 480), (256, 192), (256, 240), (256, 254), (128, 96), (128, 120))


def load(path: Path, window: int, stride: int) -> spacy.Language:
    model = {"window": window, "stride": stride, "mixed_precision": False}
    return spacy.load(path, config={"components": {"bert_ner": {"model": model}}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("pipelines", type=Path, nargs="+")
    args = parser.parse_args()
    print(f"python bench/windows.py {args.data.parent.name}/{args.data.name}, {len(args.pipelines)} pipelines")
    print(f"documents of {WORDS} words; {machine_line(describe_machine())}\n")
    head = f"{'pieces':>8}{'length':>8}{'F1':>8}"
    print(f"{'':14}{'with sentences':<46}without\nwindow stride {head:46}{head}")
    for window, stride in SETTINGS:
        cells = []
        for has_sentences in (True, False):
            f1 = []
            for path in args.pipelines:
                nlp = load(path, window, stride)
                gold = join(read_sentences([args.data]), WORDS)
                docs = [
                    Doc(nlp.vocab, [t.text for t in doc], sent_starts=[t.is_sent_start for t in doc]) for doc in gold
                ]
                if not has_sentences:
                    docs = [Doc(nlp.vocab, words=[t.text for t in doc]) for doc in gold]
                examples = [Example(doc, of_doc) for doc, of_doc in zip(docs, gold, strict=True)]
                f1.append(100 * nlp.evaluate(examples)["ents_f"])
            encoder = nlp.get_pipe("bert_ner").model.shims[0].pieces  # made when it was needed
            assert encoder.window == window
            pieces = encoder.pieces(docs)
            lengths = [
                w.end - w.start + window - encoder.capacity for of_doc in pieces for w in encoder.windows(of_doc)
            ]
            share = sum(lengths) / sum(len(of_doc.ids) for of_doc in pieces)
            mean = sum(n * n for n in lengths) / sum(lengths)
            each = ", ".join(f"{x:.1f}" for x in f1)
            cells.append(f"{share:8.2f}{mean:8.0f}{statistics.mean(f1):8.1f} ({each})")
        print(f"{window:6} {stride:6} {cells[0]:46}{cells[1]}", flush=True)


if __name__ == "__main__":
    main()
