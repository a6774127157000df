"""Merged DocBins against spaCy's own."""

import io

import pytest
from spacy.tokens import DocBin, Span

from spacy_bertner.annotate.docbin import merge_docbins

from .conftest import TEXTS


@pytest.mark.parametrize("n", [0, 1, 20])
def test_merged_docbins_are_spacys_own_bytes(n, ner):
    docs = list(ner.pipe(TEXTS[:n]))
    for i, doc in enumerate(docs):
        doc.user_data["i"] = i
        doc.cats = {"a": i / 3}
        doc.spans["sc"] = [Span(doc, 0, 1, "X")]
    bins = [DocBin(docs=[doc], store_user_data=True).to_bytes() for doc in docs]
    file = io.BytesIO()
    assert merge_docbins(bins, file) == n
    if n:
        assert file.getvalue() == DocBin(docs=docs, store_user_data=True).to_bytes()
    assert len(DocBin(store_user_data=True).from_bytes(file.getvalue())) == n
