"""Inconsistent annotation, against a list by hand."""

from spacy.vocab import Vocab

from spacy_bertner.report.annotation import inconsistent
from spacy_bertner.report.documents import Document, Entity

from .conftest import docs_of


def test_inconsistent_annotation():
    vocab = Vocab()
    sentences = [
        ("Oslo beat Oslo City", "B-ORG O B-LOC I-LOC"),
        ("In Oslo and Bonn", "O B-LOC O B-LOC"),
        ("Bonn", "O"),
        ("The Bonn bus", "O B-LOC O"),
        ("sees", "B-LOC"),
        ("he sees she sees", "O O O O"),
    ]
    data = docs_of(vocab, sentences)
    documents = [Document(i, [t.text for t in d], [True] * len(d), [0], None,
                          [Entity(e.start, e.end, e.label_) for e in d.ents]) for i, d in enumerate(data, 1)]  # fmt: skip
    assert inconsistent({"data": documents}) == [
        {"text": "Bonn", "labels": {"LOC": 2}, "unmarked": 1, "places": {"LOC": ["data", 2], "": ["data", 3]}},
        {
            "text": "Oslo",
            "labels": {"ORG": 1, "LOC": 1},
            "unmarked": 0,
            "places": {"ORG": ["data", 1], "LOC": ["data", 2]},
        },
    ]
