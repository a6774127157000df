"""Docs: as spaCy's own converter makes them, where it can; missing annotation stays missing."""

import pytest
import spacy
from spacy.tokens import Doc

from spacy_bertner.formats.conll.docs import make_tokenizer, make_vocab

from ..helpers import read, same_as_spacy

CLEAN = "\n".join(
    [
        "-DOCSTART- -X- O O\n",
        "EU NNP B-NP B-ORG",
        "rejects VBZ B-VP O",
        "German JJ B-NP B-MISC",
        "call NN I-NP I-MISC",
        "British JJ B-NP B-MISC",
        ". . O O\n",
        "Peter NNP B-NP B-PER",
        "Blackburn NNP I-NP I-PER\n",
        "-DOCSTART- -X- O O\n",
        "BRUSSELS NNP B-NP B-LOC",
        "1996-08-22 CD I-NP O\n",
    ]
)


def test_same_entities_as_spacy_on_clean_conll2003():
    same_as_spacy(CLEAN)


def test_missing_annotation_is_masked():
    from spacy.training import Example

    (doc,) = read("Anna B-PER\nmet _\nBob O\n")
    assert [token.ent_iob for token in doc] == [3, 0, 2]
    eg = Example(Doc(doc.vocab, words=["Anna", "met", "Bob"]), doc)
    assert eg.get_aligned_ner() == ["U-PER", None, "O"]


@pytest.mark.parametrize("lang", ["en", "de", "ar", "zh"])
def test_the_tokenizer_is_that_of_a_blank_pipeline(lang):
    expected = spacy.blank(lang).tokenizer
    tokenizer = make_tokenizer(lang, make_vocab(lang))
    assert type(tokenizer) is type(expected)
    text = "Dr. Ayla can't, z.B. (3km) http://a.b/c :) \u4e1c\u4eac"
    assert [token.text for token in tokenizer(text)] == [token.text for token in expected(text)]
