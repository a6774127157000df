"""What a user may set; everything else is detected."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from ...tags import SCHEME_NAMES

LAYOUTS = ("auto", "columns", "conllu", "conll2012", "webanno", "table", "inline")
DELIMITERS = ("auto", "tab", "space", "comma")


@dataclass(frozen=True)
class ReadOptions:
    """How to read CoNLL files. What is None or "auto" is detected.

    word_col, tag_col, pos_col, layer_col: columns, counted from 1 as in `cut -f`, from the end if negative, or by name
        where the file names them. `pos_col` may be "none": `token.tag_` is not set. `layer_col` is a second layer of
        entities, or several, separated by commas.
    layout: "columns", "conllu" (CoNLL-U and CoNLL-U Plus), "conll2012" (OntoNotes), "webanno" (WebAnno TSV 3), "table" (a
        header row, as in HIPE), "inline" (`word|tag word|tag`, one sentence per line) or "auto".
    delimiter: "tab", "space" (any run of spaces and tabs), "comma" (with quotes, as in CSV) or "auto".
    scheme: a tag scheme of `spacy_bertner.tags.SCHEMES`, or another name of it, in any case.
    label: the label of entities in a file whose tags are just B, I and O.
    missing: markers of a missing annotation, besides `_`.
    misc_key: the key of the tags in the MISC column of CoNLL-U, such as `name`.
    n_sents: sentences per document in a file without document marks; 0: one document per file.
    encoding: of the files; a UTF-8 byte order mark is dropped.
    detokenize: set spaces by rules where the file does not give them.
    spans_key: the group of `doc.spans` for the second layer.
    lang: language code of the blank pipeline whose vocabulary is used, and with whose tokens entities must align where
        spaces are known.
    repair: repair what can be repaired, and record it, instead of failing.
    strict: fail also for the few tags that violate the scheme found, where entities are read alike in the next best one.

    Raises ValueError for values outside their range.
    """

    word_col: str | int | None = None
    tag_col: str | int | None = None
    pos_col: str | int | None = None
    layer_col: str | int | None = None
    layout: str = "auto"
    delimiter: str = "auto"
    scheme: str | None = None
    label: str | None = None
    missing: tuple[str, ...] = ()
    misc_key: str | None = None
    n_sents: int = 10
    encoding: str = "utf-8"
    detokenize: bool = False
    spans_key: str = "sc"
    lang: str = "en"
    repair: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout={self.layout!r}: expected one of {', '.join(LAYOUTS)}")
        if self.delimiter not in DELIMITERS:
            raise ValueError(f"delimiter={self.delimiter!r}: expected one of {', '.join(DELIMITERS)}")
        if self.scheme is not None:
            if self.scheme.upper() not in SCHEME_NAMES:
                raise ValueError(f"scheme={self.scheme!r}: expected one of {', '.join(SCHEME_NAMES)}")
            object.__setattr__(self, "scheme", SCHEME_NAMES[self.scheme.upper()])
        missing = (self.missing,) if isinstance(self.missing, str) else tuple(self.missing)
        object.__setattr__(self, "missing", missing)
        if self.n_sents < 0:
            raise ValueError(f"n_sents={self.n_sents}: expected 0 (one document per file) or more")
        if not self.spans_key:
            raise ValueError("spans_key='': expected a name")
        for name in ("word_col", "tag_col", "pos_col", "layer_col"):
            if str(getattr(self, name)).strip() in ("0", ""):
                raise ValueError(f"{name}={getattr(self, name)!r}: columns are counted from 1, or from the end with -1")
        try:
            with contextlib.suppress(UnicodeError):
                b"ab".decode(self.encoding)
        except (LookupError, ValueError) as err:
            raise ValueError(f"encoding={self.encoding!r}: not a known text encoding") from err
