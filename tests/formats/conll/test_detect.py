"""Every dialect is detected and read: what is expected is written by hand beside each small file in `dialects/`."""

import json
from collections import Counter
from pathlib import Path

import pytest

from spacy_bertner.formats.convert import ReadOptions, convert, read_conll

from ..helpers import DIALECTS, NAMES, check_docs, from_bin, read


def test_there_are_dialects():
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_dialect(name, tmp_path):
    expected = json.loads((DIALECTS / f"{name}.json").read_text(encoding="utf-8"))
    options = ReadOptions(**{"n_sents": 0, **expected.get("options", {})})
    check_docs(list(read_conll(DIALECTS / name, options)), expected["docs"])
    # The same through the DocBin, and with the ledger's figures.
    book = convert([DIALECTS / name], tmp_path, options)
    check_docs(from_bin(tmp_path / f"{Path(name).stem}.spacy"), expected["docs"])
    (record,) = book.files
    assert record.scheme == expected["scheme"]
    assert record.documents == len(expected["docs"])
    sents = [sentence for doc in expected["docs"] for sentence in doc["sents"]]
    assert record.sentences in (None, len(sents))
    assert record.tokens == sum(len(sentence) for sentence in sents)
    labels = Counter(ent.split(" ")[1] for doc in expected["docs"] for ent in doc["ents"])
    assert record.entities == labels
    assert record.missing == sum(len(doc.get("missing", [])) for doc in expected["docs"])


# A column of sentence or document ids, which is not that of the words

SENTENCES = [
    [("Ayla", "B-PER"), ("sleeps", "O"), (".", "O")],
    [("Oslo", "B-LOC"), ("rains", "O")],
    [("Bodil", "B-PER")],
]


def with_ids(ids, between="", header="", sep="\t", columns=lambda word, tag: [word, tag]):
    lines = [header] if header else []
    for i, sentence in zip(ids, SENTENCES, strict=True):
        names = i if isinstance(i, list) else [i] * len(sentence)
        lines += [sep.join([name, *columns(*token)]) for name, token in zip(names, sentence, strict=True)]
        if between is not None:
            lines += [between]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        with_ids("012"),
        with_ids("012", between=None),
        with_ids(["doc1.s1", "doc1.s2", "doc1.s3"], between=None, sep=" "),
        with_ids("123", columns=lambda word, tag: [word, "NN", tag]),
        with_ids("123", between=None, header="sentence_id\twords\tlabels"),
        with_ids(["Sentence: 1", "Sentence: 2", "Sentence: 3"], between=None, header="Sentence #\tWord\tTag"),
        with_ids([["Sentence: 1", "", ""], ["Sentence: 2", ""], ["Sentence: 3"]], None, "Sentence #\tWord\tTag"),
        with_ids("012", between=None, header="sent_id words ner", sep=" "),
    ],
)
def test_sentence_ids(text):
    (doc,) = read(text)
    assert [[token.text for token in sent] for sent in doc.sents] == [[word for word, _ in s] for s in SENTENCES]
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Ayla", "PER"), ("Oslo", "LOC"), ("Bodil", "PER")]


@pytest.mark.parametrize(
    "text", [with_ids("aab", columns=lambda word, tag: [word, "NN", tag]), with_ids("112", None, "doc_id\tword\tner")]
)
def test_document_ids(text):
    docs = read(text)
    assert [[token.text for token in doc] for doc in docs] == [["Ayla", "sleeps", ".", "Oslo", "rains"], ["Bodil"]]
    assert [len(doc.ents) for doc in docs] == [2, 1]


def test_a_word_that_is_repeated_is_no_id():
    (doc,) = read(
        "no\tUH\tO\nno\tUH\tO\nno\tUH\tO\nAyla\tNNP\tB-PER\nsaid\tVBD\tO\nto\tTO\tO\nBodil\tNNP\tB-PER\n.\t.\tO\n"
    )
    assert doc[0].text == "no" and doc[3].text == "Ayla" and doc[0].tag_ == "UH"
    (doc,) = read("1\tAyla\tB-PER\n1\truns\tO\n\n2\tOslo\tB-LOC\n2\trains\tO\n", word_col=1)
    assert [token.text for token in doc] == ["1", "1", "2", "2"]
