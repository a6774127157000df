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
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import filter_spans
from wasabi import msg


def gazetteer(nlp: spacy.Language, train: list[Doc]) -> spacy.Language:
    """Make a pipeline that marks the entities of the training data by their words."""
    labels: dict[tuple[str, ...], Counter] = {}
    for doc in train:
        for ent in doc.ents:
            labels.setdefault(tuple(t.text for t in ent), Counter())[ent.label_] += 1
    matcher = PhraseMatcher(nlp.vocab)
    for words, counts in labels.items():
        matcher.add(counts.most_common(1)[0][0], [Doc(nlp.vocab, words=list(words))])
    plain = spacy.blank(nlp.lang, vocab=nlp.vocab)

    @spacy.Language.component("gazetteer")
    def mark(doc: Doc) -> Doc:
        doc.ents = filter_spans(matcher(doc, as_spans=True))
        return doc

    plain.add_pipe("gazetteer")
    return plain


def examples_of(nlp: spacy.Language, docs: list[Doc]) -> list[Example]:
    predicted = nlp.pipe(
        Doc(nlp.vocab, words=[t.text for t in d], spaces=[bool(t.whitespace_) for t in d]) for d in docs
    )
    return [Example(p, reference) for p, reference in zip(predicted, docs, strict=True)]


def score(examples: list[Example], seen: set | None = None) -> PRFScore:
    """Score the entities exactly; with `seen`, only those whose words and label are not among them."""

    def keys(doc: Doc) -> set:
        return {
            (ent.start_char, ent.end_char, ent.label_)
            for ent in doc.ents
            if seen is None or (ent.text, ent.label_) not in seen
        }

    total = PRFScore()
    for eg in examples:
        total.score_set(keys(eg.predicted), keys(eg.reference))
    return total


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
    train = list(DocBin().from_disk(args.train).get_docs(nlp.vocab))
    test = list(DocBin().from_disk(args.test).get_docs(nlp.vocab))
    seen = {(ent.text, ent.label_) for doc in train for ent in doc.ents}
    mentions = [(ent.text, ent.label_) for doc in test for ent in doc.ents]
    n_unseen = sum(mention not in seen for mention in mentions)
    model, names = examples_of(nlp, test), examples_of(gazetteer(nlp, train), test)

    by_label = nlp.evaluate(model)["ents_per_type"]
    rows = [(label, *(f"{scores[k] * 100:.1f}" for k in "prf")) for label, scores in sorted(by_label.items())]
    results = {
        "all mentions": score(model),
        f"unseen in train ({n_unseen} of {len(mentions)})": score(model, seen),
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
