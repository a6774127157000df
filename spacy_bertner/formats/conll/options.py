"""What a user may set; everything else is detected."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from ...tags import SCHEME_NAMES
from ..records import ALIGNMENTS, UNITS

LAYOUTS = ("auto", "columns", "conllu", "conll2012", "webanno", "table", "inline")
TOOL_LAYOUTS = ("prodigy", "doccano", "label-studio", "brat", "spacy-json", "hf", "parquet", "argilla")
DELIMITERS = ("auto", "tab", "space", "comma")


@dataclass(frozen=True)
class ReadOptions:
    """How to read CoNLL files. What is None or "auto" is detected.

    word_col, tag_col, pos_col, layer_col: columns, counted from 1 as in `cut -f`, from the end if negative, or by name
        where the file names them. `pos_col` may be "none": `token.tag_` is not set. `layer_col` is a second layer of
        entities, or several, separated by commas.
    layout: "columns", "conllu" (CoNLL-U and CoNLL-U Plus), "conll2012" (OntoNotes), "webanno" (WebAnno TSV 3), "table" (a
        header row, as in HIPE), "inline" (`word|tag word|tag`, one sentence per line), an annotation tool's ("prodigy",
        "doccano", "label-studio", "brat", "spacy-json", "hf", "parquet", "argilla") or "auto".
    delimiter: "tab", "space" (any run of spaces and tabs), "comma" (with quotes, as in CSV) or "auto".
    scheme: a tag scheme of `spacy_bertner.tags.SCHEMES`, or another name of it, in any case.
    label: the label of entities in a file whose tags are just B, I and O.
    missing: markers of a missing annotation, besides `_`.
    misc_key: the key of the tags in the MISC column of CoNLL-U, such as `name`.
    n_sents: sentences per document in a file without document marks; 0: one document per file.
    encoding: of the files; a UTF-8 byte order mark is dropped.
    detokenize: set spaces by rules where the file does not give them.
    spans_key: the group of `doc.spans` for the second layer, "sc" by default; of annotation tools, for all entities, which
        may then overlap.
    lang: language code of the blank pipeline whose vocabulary is used, and with whose tokens entities must align where
        spaces are known.
    repair: repair what can be repaired, and record it, instead of failing.
    alignment: of entities by offset that do not start and end with a token: "strict" (fail), "contract" or "expand".
    offsets: what offsets count: "characters" (code points), "utf16" or "bytes".
    annotator: the one whose annotation is read, where a task has several.
    text_key: the key of the text in JSON; by default that of the tool.
    labels: the names of tags that are numbers, in order.
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
    n_sents: int = 1
    encoding: str = "utf-8"
    detokenize: bool = False
    spans_key: str | None = None
    lang: str = "en"
    repair: bool = False
    strict: bool = False
    alignment: str = "strict"
    offsets: str = "characters"
    annotator: str | None = None
    text_key: str | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choices = {"layout": (*LAYOUTS, *TOOL_LAYOUTS), "delimiter": DELIMITERS}
        for name, allowed in {**choices, "alignment": ALIGNMENTS, "offsets": tuple(UNITS)}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        if self.scheme is not None:
            if self.scheme.upper() not in SCHEME_NAMES:
                raise ValueError(f"scheme={self.scheme!r}: expected one of {', '.join(SCHEME_NAMES)}")
            object.__setattr__(self, "scheme", SCHEME_NAMES[self.scheme.upper()])
        missing = (self.missing,) if isinstance(self.missing, str) else tuple(self.missing)
        object.__setattr__(self, "missing", missing)
        if self.n_sents < 0:
            raise ValueError(f"n_sents={self.n_sents}: expected 0 (one document per file) or more")
        if self.spans_key == "":
            raise ValueError("spans_key='': expected a name")
        for name in ("word_col", "tag_col", "pos_col", "layer_col"):
            if str(getattr(self, name)).strip() in ("0", ""):
                raise ValueError(f"{name}={getattr(self, name)!r}: columns are counted from 1, or from the end with -1")
        try:
            with contextlib.suppress(UnicodeError):
                b"ab".decode(self.encoding)
        except (LookupError, ValueError) as err:
            raise ValueError(f"encoding={self.encoding!r}: not a known text encoding") from err

    @property
    def layer_key(self) -> str:
        """The group of `doc.spans` for the second layer of CoNLL files."""
        return self.spans_key or "sc"
