"""What a user may say about an input; everything left out is found out from the file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from .schemes import resolve_scheme

LAYOUTS = ("auto", "columns", "conllu", "table", "inline")
DELIMITERS = ("auto", "tab", "space")


@dataclass(frozen=True)
class ReadOptions:
    """How to read CoNLL files.

    word_col, tag_col, pos_col, layer_col (str | int | None): Columns, counted from 1 as in
        `cut -f`, from the end if negative, or by name where the file names its columns. None:
        found out. `pos_col` may be "none": `token.tag_` is left alone. `layer_col` is a second
        layer of entities, which goes to `doc.spans[spans_key]`.
    layout (str): "columns", "conllu" (CoNLL-U and CoNLL-U Plus), "table" (a header row, as in
        HIPE), "inline" (`word|tag word|tag`, one sentence a line), or "auto".
    delimiter (str): "tab", "space" (any run of spaces and tabs) or "auto".
    scheme (str | None): One of `spacy_bertner.formats.conll.schemes.SCHEMES` or their other names. None:
        found out from the whole file.
    missing (tuple[str, ...]): Markers of a missing annotation, besides `_`.
    misc_key (str | None): Key of the tags in the MISC column of CoNLL-U, such as `name`.
    n_sents (int): Sentences a document in a file without document marks; 0: one document a file.
    encoding (str): Encoding of the files; a UTF-8 byte order mark is dropped.
    detokenize (bool): Where the file says nothing about spaces, set them by rules.
    spans_key (str): Where the second layer goes.
    lang (str): Language code of the blank pipeline that makes the vocabulary and the tokens to
        which entities must align where spaces are known.
    repair (bool): Mend what can be mended, and note it, instead of failing.

    Raises ValueError on a value outside its range.
    """

    word_col: str | int | None = None
    tag_col: str | int | None = None
    pos_col: str | int | None = None
    layer_col: str | int | None = None
    layout: str = "auto"
    delimiter: str = "auto"
    scheme: str | None = None
    missing: tuple[str, ...] = ()
    misc_key: str | None = None
    n_sents: int = 10
    encoding: str = "utf-8"
    detokenize: bool = False
    spans_key: str = "sc"
    lang: str = "en"
    repair: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout={self.layout!r}: expected one of {', '.join(LAYOUTS)}")
        if self.delimiter not in DELIMITERS:
            raise ValueError(f"delimiter={self.delimiter!r}: expected one of {', '.join(DELIMITERS)}")
        if self.scheme is not None:
            object.__setattr__(self, "scheme", resolve_scheme(self.scheme))
        missing = (self.missing,) if isinstance(self.missing, str) else tuple(self.missing)
        object.__setattr__(self, "missing", missing)
        if self.n_sents < 0:
            raise ValueError(f"n_sents={self.n_sents}: expected 0 (one document a file) or more")
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
