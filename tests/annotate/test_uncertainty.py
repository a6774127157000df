"""The entropies against all legal sequences, the choice against one worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from spacy.tokens import Doc

from spacy_bertner.annotate.records import Record
from spacy_bertner.annotate.uncertainty import Candidate, choose, tag_entropies


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_entropies_are_those_of_all_legal_sequences(ner, temperature):
    component = ner.get_pipe("bert_ner")
    component.cfg["temperature"] = temperature
    tags = component.tag_set
    docs = [Doc(ner.vocab, ["Kolb", "left", "Oslo"]), Doc(ner.vocab, []), Doc(ner.vocab, ["Elbe"])]
    rows = np.split(component.tag_rows(docs).scores.astype(float) / temperature, [3])
    found = tag_entropies(component, docs)
    assert [len(of_doc) for of_doc in found] == [3, 0, 1]
    for scores, of_doc in zip(rows, (found[0], found[2]), strict=True):
        shares = np.zeros(scores.shape)
        for path in itertools.product(range(len(tags)), repeat=len(scores)):
            is_legal = tags.legal_start[path[0]] and tags.legal_end[path[-1]]
            if is_legal and all(tags.legal[a, b] for a, b in itertools.pairwise(path)):
                weight = math.exp(sum(scores[i, tag] for i, tag in enumerate(path)))
                for i, tag in enumerate(path):
                    shares[i, tag] += weight
        shares /= shares.sum(axis=1, keepdims=True)
        entropies = [-sum(p * math.log(p) for p in row if p > 0) for row in shares.tolist()]
        np.testing.assert_allclose(of_doc, entropies, rtol=1e-6)


def candidate(name, words, entropies):
    return Candidate(Record(name, 0, ""), sum(entropies) / len(words), words, np.array(entropies))


def test_choice_is_spread():
    pool = [
        candidate("first", [1, 2], [0.9, 0.1]),  # 0.5
        candidate("the same again", [1, 2], [0.9, 0.08]),  # 0.49, and 0.245 beside the first
        candidate("one word in common", [1, 3], [0.4, 0.4]),  # 0.4, and 0.3 beside it
        candidate("nothing in common", [4, 5, 6], [0.9, 0.0, 0.0]),  # 0.3
        candidate("sure", [7], [0.01]),
    ]
    chosen = [record.source for record in choose(pool, 4)]
    assert chosen == ["first", "one word in common", "nothing in common", "the same again"]
    assert len(choose(pool, 9)) == 5
