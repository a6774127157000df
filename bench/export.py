"""An exported pipeline beside transformers, on real data: the same tags, and the same scores once it is in a pipeline again.

    python bench/export.py PIPELINE CHECKPOINT TEST.spacy

PIPELINE is a trained one, CHECKPOINT what `python -m spacy bertner export` wrote of it; `bench/export.sh` makes both from
wikigold. Transformers sees sentences, each within one window, so that both see the same pieces. Three things are compared:
the tag with the highest score at each token, with `AutoModelForTokenClassification` and `AutoTokenizer`; the entities, with
`pipeline("token-classification", aggregation_strategy="first")`, in the sentences that its words are the tokens of and whose
best tags are legal as they stand (see docs/huggingface.md); and the scores of whole documents of the test file, with a
pipeline that starts from CHECKPOINT. Exits with 1 where one of them is not the same.
"""

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import spacy
import torch
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

SCORES = ("ents_p", "ents_r", "ents_f", "ents_per_type")


def is_legal(tags: list[str]) -> bool:
    """Whether every I- of tags of BIO goes on with an entity of its label."""
    return all(tag[0] != "I" or before[1:] == tag[1:] for before, tag in zip(["O", *tags], tags, strict=False))


def compare_with_transformers(nlp, folder: str, docs: list[Doc]) -> bool:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tagger = pipeline("token-classification", model=folder, aggregation_strategy="first", device="cpu")
    ner = nlp.get_pipe("bert_ner")
    n_words = n_same = n_entity_sentences = n_entities = n_same_sentences = 0
    difference = 0.0
    for sentence in docs:
        words = [token.text for token in sentence]
        encoding = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        assert encoding["input_ids"].shape[1] <= ner.model.attrs["window"], "a sentence longer than a window"
        with torch.no_grad():
            logits = model(**encoding).logits[0].numpy()
        first = [encoding.word_ids().index(i) for i in range(len(words))]
        doc = Doc(nlp.vocab, words=words)
        (scores,) = ner.model.predict([doc])
        tags = [model.config.id2label[i] for i in logits[first].argmax(axis=1).tolist()]
        ours = [ner.tag_set.tags[i] for i in scores.argmax(axis=1).tolist()]
        difference = max(difference, float(np.abs(scores - logits[first]).max()))
        n_words += len(words)
        n_same += sum(a == b for a, b in zip(tags, ours, strict=True))
        # The words of transformers' pipeline end at punctuation, too
        pieces = tokenizer(doc.text, return_offsets_mapping=True)
        starts = {start for start, end in pieces["offset_mapping"] if end}
        continues = {
            start
            for (start, end), id in zip(pieces["offset_mapping"], pieces["input_ids"], strict=True)
            if end and tokenizer.convert_ids_to_tokens(id).startswith("##")
        }
        if starts - continues != {token.idx for token in doc} or not is_legal(tags):
            continue
        n_entity_sentences += 1
        found = {(group["start"], group["end"], group["entity_group"]) for group in tagger(doc.text)}
        entities = {(ent.start_char, ent.end_char, ent.label_) for ent in nlp(doc).ents}
        n_entities += len(entities)
        n_same_sentences += entities == found
    print(
        f"{n_same} of {n_words} tokens in {len(docs)} sentences have the same tag; scores differ by at most {difference:.1e}"
    )
    print(
        f"{n_same_sentences} of {n_entity_sentences} sentences, with {n_entities} entities, have the same entities in "
        'pipeline("token-classification", aggregation_strategy="first")'
    )
    return n_same == n_words and n_same_sentences == n_entity_sentences > 0


def compare_with_itself(nlp, folder: str, docs: list[Doc]) -> bool:
    again = spacy.blank("en")
    again.add_pipe("bert_ner", config={"model": {"name": folder}})
    again.initialize()
    results, rows = [], []
    for one in (nlp, again):
        bare = [Doc(one.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc]) for doc in docs]
        results.append(one.evaluate([Example(a, b) for a, b in zip(bare, docs, strict=True)]))
        rows.append(np.concatenate(one.get_pipe("bert_ner").model.predict(bare)))
    difference = float(np.abs(rows[0] - rows[1]).max())
    for title, result in zip(("the pipeline", "in again"), results, strict=True):
        print(
            f"{title:13} P {100 * result['ents_p']:.2f} R {100 * result['ents_r']:.2f} F {100 * result['ents_f']:.2f}"
        )
    print(f"scores of {len(rows[0])} tokens in {len(docs)} documents differ by at most {difference:.1e}")
    return all(results[0][key] == results[1][key] for key in SCORES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("checkpoint")
    parser.add_argument("test")
    args = parser.parse_args()
    nlp = spacy.load(args.pipeline)
    docs = list(DocBin().from_disk(args.test).get_docs(nlp.vocab))
    sentences = [sentence.as_doc() for doc in docs for sentence in doc.sents]
    is_same = [
        compare_with_transformers(nlp, args.checkpoint, sentences),
        compare_with_itself(nlp, args.checkpoint, docs),
    ]
    sys.exit(0 if all(is_same) else "NOT the same")


if __name__ == "__main__":
    main()
