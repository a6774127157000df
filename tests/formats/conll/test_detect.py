"""Every dialect is detected and read: what is expected is written by hand beside each small file in `dialects/`."""

import json
from collections import Counter
from pathlib import Path

import pytest

from spacy_bertner.formats.convert import ReadOptions, convert, read_conll

from ..helpers import DIALECTS, NAMES, check_docs, from_bin


def test_there_are_dialects():
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_dialect(name, tmp_path):
    expected = json.loads((DIALECTS / f"{name}.json").read_text(encoding="utf-8"))
    options = ReadOptions(**expected.get("options", {}))
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
