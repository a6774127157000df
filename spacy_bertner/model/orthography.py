"""Orthographic classes: what a word looks like, as an input to encoders that lower-case it."""

import unicodedata

from spacy.vocab import Vocab

# What a word looks like, which uncased encoders do not see; numbered from 1, since 0 is for special and padding pieces
ORTHOGRAPHY = ("", "lower", "title", "upper", "initial", "mixed", "digit", "punct", "other", "blank")
N_ORTHOGRAPHY = len(ORTHOGRAPHY)
# Which words have which class. A saved model keeps the definition that it was trained with. Since 2, combining marks,
# invisible characters and apostrophes inside a word do not hide its capitals
ORTHOGRAPHY_VERSION = 2
APOSTROPHES = "'\u2019\u02bc\u02b9\u2018\uff07"


def is_blank(text: str) -> bool:
    """Return whether a word has only whitespace, control and format characters."""
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") for char in text)


def orthographic_class(vocab: Vocab, orth: int, version: int = ORTHOGRAPHY_VERSION) -> int:
    """Return the index in `ORTHOGRAPHY` of what a lexeme looks like, by spaCy's lexical attributes.

    version: that of the definition, see `ORTHOGRAPHY_VERSION`.
    """
    lexeme = vocab[orth]
    if is_blank(lexeme.text):
        name = "blank"
    elif lexeme.is_lower:
        name = "lower"
    elif lexeme.is_upper:
        name = "upper" if sum(map(str.isalpha, lexeme.text)) > 1 else "initial"
    elif lexeme.is_title:
        name = "title"
    elif lexeme.is_digit or lexeme.like_num:
        name = "digit"
    elif lexeme.is_punct:
        name = "punct"
    elif lexeme.is_alpha and any(map(str.isupper, lexeme.text)):
        name = "mixed"
    else:
        name = "other" if version < 2 else _class_of_letters(lexeme.text)
    return ORTHOGRAPHY.index(name)


def _class_of_letters(text: str) -> str:
    """Return the name of the class of a word by its letters alone; "other" if it has anything else than letters."""
    composed = unicodedata.normalize("NFC", text)
    letters = "".join(
        char
        for char in composed
        if char not in APOSTROPHES and unicodedata.category(char) not in ("Mn", "Mc", "Me", "Cf")
    )
    if not letters.isalpha():
        return "other"
    if letters.isupper():
        return "upper" if len(letters) > 1 else "initial"
    if letters.islower():
        return "lower"
    if letters.istitle():
        return "title"
    return "mixed" if any(map(str.isupper, letters)) else "other"
