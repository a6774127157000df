"""Merged DocBins, and those made in parts, against spaCy's own."""

import io

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span

from spacy_bertner.formats import docbin
from spacy_bertner.formats.docbin import DocSpool, merge_docbins

from ..conftest import SENTENCES

NLP = spacy.blank("en")


def make_docs(n):
    docs = [NLP.make_doc(text) for text, _ in SENTENCES[:n]]
    for i, doc in enumerate(docs):
        doc.ents = [Span(doc, 0, 1, "PER")]
        doc.user_data["i"] = i
        doc.cats = {"a": i / 3}
        doc.spans["sc"] = [Span(doc, 0, 1, "X")]
    return docs


@pytest.mark.parametrize("n", [0, 1, 20])
def test_merged_docbins_are_spacys_own_bytes(n):
    docs = make_docs(n)
    bins = [DocBin(docs=[doc], store_user_data=True).to_bytes() for doc in docs]
    file = io.BytesIO()
    assert merge_docbins(bins, file) == len(docs)
    if n:
        assert file.getvalue() == DocBin(docs=docs, store_user_data=True).to_bytes()
    assert len(DocBin(store_user_data=True).from_bytes(file.getvalue())) == len(docs)


@pytest.mark.parametrize("size", [1, 25, 10**6])
@pytest.mark.parametrize("n", [0, 1, 20])
def test_parts_make_spacys_own_bytes(n, size, monkeypatch):
    monkeypatch.setattr(docbin, "PART_TOKENS", size)
    docs, file, spool = [*make_docs(n), Doc(NLP.vocab)], io.BytesIO(), DocSpool()
    for doc in docs[: n // 2]:
        spool.add(doc)
    first = spool.cut()
    for doc in docs[n // 2 :]:
        spool.add(doc)
    read = [doc for part in spool.bins(first) for doc in part.get_docs(NLP.vocab)]
    assert [doc.text for doc in read] == [doc.text for doc in docs[n // 2 :]]
    assert [doc.to_bytes(exclude=["user_data"]) for doc in spool.docs(NLP.vocab)] == [
        doc.to_bytes(exclude=["user_data"]) for doc in docs
    ]
    spool.write(file)
    spool.close()
    assert file.getvalue() == DocBin(docs=docs).to_bytes()
