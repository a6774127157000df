"""Print precision, recall and F1 by label, F1 on mentions never seen in training, and those of a gazetteer.

    python scripts/evaluate_unseen.py training/model-best corpus/train.spacy corpus/test.spacy [--output metrics/unseen.json]

A mention is unseen where the training data has no entity of the same words and label; the F1 on the unseen counts among the
predictions only those that are unseen too. The gazetteer marks, longest first, all words that are an entity in the training
data, with the label they have there most often: what a list of names alone gets.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import spacy
from spacy.matcher import PhraseMatcher
from spacy.scorer import PRFScore
from spacy.tokens import Doc
from spacy.util import filter_spans
from wasabi import msg

from spacy_bertner.report.annotation import mentions
from spacy_bertner.report.documents import Document, read_gold
from spacy_bertner.report.metrics import breakdown
from spacy_bertner.report.predictions import predict


def gazetteer(nlp: spacy.Language, labels: dict[str, Counter]) -> spacy.Language:
    """Make a pipeline that marks mentions by their words, each with its most frequent label."""
    matcher = PhraseMatcher(nlp.vocab)
    for mention, counts in labels.items():
        matcher.add(counts.most_common(1)[0][0], [Doc(nlp.vocab, words=mention.split(" "))])
    plain = spacy.blank(nlp.lang, vocab=nlp.vocab)

    @spacy.Language.component("gazetteer")
    def mark(doc: Doc) -> Doc:
        doc.ents = filter_spans(matcher(doc, as_spans=True))
        return doc

    plain.add_pipe("gazetteer")
    return plain


def score(documents: list[Document], seen: dict[str, Counter] | None = None) -> PRFScore:
    """Score the entities exactly; with `seen`, only those whose words and label are not among them."""
    scores = breakdown(
        documents, lambda doc, ent: True if seen is None or ent.label not in seen.get(doc.mention(ent), ()) else None
    )
    return scores.get(True, PRFScore())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline")
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--gpu-id", type=int, default=-1)
    args = parser.parse_args()
    if args.gpu_id >= 0:
        spacy.require_gpu(args.gpu_id)
    nlp = spacy.load(args.pipeline)
    seen = mentions(doc for doc in read_gold(args.train, nlp.vocab) if isinstance(doc, Document))
    model = predict(nlp, args.test, gold_tokens=True).documents
    names = predict(gazetteer(nlp, seen), args.test, gold_tokens=True).documents
    n_mentions = sum(len(doc.gold) for doc in model)
    n_unseen = sum(ent.label not in seen.get(doc.mention(ent), ()) for doc in model for ent in doc.gold)

    by_label = {label: s.to_dict() for label, s in sorted(breakdown(model, lambda _, ent: ent.label).items())}
    rows = [(label, *(f"{scores[k] * 100:.1f}" for k in "prf")) for label, scores in by_label.items()]
    results = {
        "all mentions": score(model),
        f"unseen in train ({n_unseen} of {n_mentions})": score(model, seen),
        "gazetteer, all mentions": score(names),
    }
    rows += [(name, *(f"{v * 100:.1f}" for v in (s.precision, s.recall, s.fscore))) for name, s in results.items()]
    msg.table(rows, header=("", "P", "R", "F1"), aligns=("l", "r", "r", "r"), divider=True)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        scores = {name: s.to_dict() for name, s in results.items()}
        args.output.write_text(json.dumps({"labels": by_label, **scores}, indent=2), encoding="utf8")


if __name__ == "__main__":
    main()
