"""What CoNLL files look like: their names, their columns, their comments and document marks."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .schemes import TagParser

# The endings of files that are taken from a folder; a file given by its name is read in any case
SUFFIXES = frozenset(
    {
        *(".conll", ".conllu", ".conllup", ".conllubio", ".conll02", ".conll03", ".cupt", ".iob", ".iob1", ".iob2"),
        *(".iobes", ".bio", ".bio2", ".bioes", ".bilou", ".biluo", ".bmes", ".bmewo", ".ner", ".tsv", ".txt", ".tok"),
        *(".tags", ".col", ".data", ".train", ".dev", ".devel", ".valid", ".test", ".testa", ".testb"),
    }
)
# Texts that lie beside data
_NOT_DATA = ("readme", "license", "licence", "copying", "notice", "changelog", "requirements")

DOC_MARK = "-DOCSTART- -X- O O"  # as it is written: the only form that spaCy's converter knows
DOC_COMMENT = re.compile(
    r"#\s*(newdoc\b|(begin|end) document\b|([\w.-]+:)?document_id\s*=)"
    r"|#{2,}\s*(MEDLINE|PMID|PMCID|DOI|DOC|DOCID|DOCUMENT|ARTICLE|FILE)\s*[:=]",  # such as ###MEDLINE:95369245 of JNLPBA
    re.IGNORECASE,
)
BLANKS = re.compile(r"[ \t]+")
_TOKEN_ID = re.compile(r"[.-]\d+$")
_KEY_VALUE = re.compile(r"#\s*[\w.:-]+\s*=")


def is_conll(path: Path) -> bool:
    """Say whether a file in a folder is taken for data, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.stem.lower().startswith(_NOT_DATA)


def split_line(line: str, delimiter: str) -> list[str]:
    """Split a line without its end into columns, at tabs, at runs of blanks or, with quotes, at commas."""
    if delimiter == "comma":
        try:
            return next(csv.reader([line]), [""])
        except csv.Error:
            return line.split(",")
    return line.split("\t") if delimiter == "tab" else BLANKS.split(line.strip(" \t"))


@dataclass(frozen=True)
class Layout:
    """Which column is what. Columns are counted from 0; None if there is none.

    kind: "columns", "indexed", "germeval", "conllu", "conll2012", "webanno", "table" or "inline".
    delimiter: "tab", "space" or "comma".
    least, most: how many columns a line may have.
    misc_key: the key of the tags in the column `misc`, where `tag` is None.
    layers: further layers of entities.
    groups: columns with the id of a sentence or document, and whether it is a document. A new id starts a new one.
    has_token_ids: whether the ids hold that of the token too, as 3-1 and 3.1.
    decode: a key of `stateful.DECODERS`, where a tag depends on the line before.
    prefix: what all words begin with that is no part of them, such as `en:`.
    names: the names of the columns, where the file has them; in a table, a line like this is no token.
    """

    kind: str
    delimiter: str
    least: int
    most: int
    word: int
    tag: int | None = None
    pos: int | None = None
    layers: tuple[int, ...] = ()
    misc: int | None = None
    misc_key: str | None = None
    index: int | None = None
    groups: tuple[tuple[int, bool], ...] = ()
    has_token_ids: bool = False
    decode: str | None = None
    prefix: str = ""
    names: tuple[str, ...] = ()

    def split(self, line: str) -> list[str]:
        """Split a line without its end into columns."""
        return split_line(line, self.delimiter)

    def group(self, fields: Sequence[str], at: int) -> str:
        """Return the id of a sentence or document in a column; empty where it is that of the line before."""
        value = fields[at].strip() if at < len(fields) else ""
        return _TOKEN_ID.sub("", value) if self.has_token_ids else value

    def title(self, at: int) -> str:
        """Return the name of a column, or its number from 1."""
        return self.names[at] if at < len(self.names) else str(at + 1)

    def titles(self) -> dict[str, str | None]:
        """Return the titles of the columns that are used, by what is in them."""
        places = {role: getattr(self, role) for role in ("word", "tag", "pos", "misc")}
        places |= {"document" if is_doc else "sentence": at for at, is_doc in self.groups}
        titles: dict[str, str | None] = {role: self.title(at) for role, at in places.items() if at is not None}
        if self.layers:
            titles["layer"] = ", ".join(map(self.title, self.layers))
        return titles if self.tag is not None else titles | {"tag": f"MISC, {self.misc_key}="}


def starts_mark(text: str) -> bool:
    """Say whether a text begins with -DOCSTART, in any case and with any number of hyphens."""
    return text[:1] == "-" and text.lstrip("-")[:8].upper() == "DOCSTART"


def is_comment(line: str, fields: Sequence[str], layout: Layout, parse: TagParser) -> bool:
    """Say whether a line that starts with `#` is a comment, not a token.

    Where lines start with an index, it is. Elsewhere a token may start with `#`, or be `#`: a line with as many columns as
    the others, or with a tag at its end, is no comment, unless blanks separate the columns and there is no tag in its place.

    line, fields: the line, whole and split.
    """
    if layout.index is not None:
        return True
    if layout.least <= len(fields) <= layout.most:
        tag = fields[layout.tag] if layout.tag is not None and layout.tag < len(fields) else ""
        if parse.is_tag(tag):
            return False
        is_text = layout.delimiter == "space" and layout.tag is not None and not parse[tag].label
        return _KEY_VALUE.match(line) is not None or (is_text and parse[tag].repaired == "missing annotation")
    is_spaced = line.startswith(("# ", "#\t"))
    if layout.kind == "inline":
        return is_spaced and not any(parse.is_tag(item.rpartition("|")[2]) for item in fields if "|" in item)
    if DOC_COMMENT.match(line) or _KEY_VALUE.match(line):
        return True
    return is_spaced and not parse.is_tag(BLANKS.split(line)[-1])
