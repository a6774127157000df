"""The layout of a file, detected from its first lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

from ..source import Source
from .layout import BLANKS, Layout, split_line, starts_mark
from .options import ReadOptions
from .schemes import TagParser

CONLLU_COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
# Names of columns, in order of preference
WORD_NAMES = ("TOKEN", "FORM", "WORD", "TOKENS", "WORDS")
TAG_NAMES = (
    *("NE-COARSE-LIT", "NE-COARSE", "NER", "NER-TAG", "NER_TAG", "NERTAG", "NE", "NE-TAG"),
    *("TAG", "TAGS", "LABEL", "LABELS", "BIO", "IOB", "IOB2", "ENTITY"),
)
POS_NAMES = ("XPOS", "POS", "UPOS")
LAYER_NAMES = ("NE-NESTED",)

_GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.*)")
_INDEX = re.compile(r"\d+(-\d+|\.\d+)?")
_SAME = 0.5  # of words hardly any is that of the line before
_GROUP_NAMES = (re.compile(r"SENT"), re.compile(r"DOC"))
_RULE = 0.9  # the share of the lines that makes something a rule
_COLUMN_TITLES = {"word": "word column", "tag": "tag column", "layer": "layer column", "pos": "POS column"}


@dataclass
class Sample:
    """The first lines of a file, without their ends, and what the user said about it."""

    source: Source
    lines: Sequence[str]
    options: ReadOptions
    parse: TagParser

    @cached_property
    def body(self) -> list[str]:
        """The lines that may hold tokens."""
        filled = [line for line in self.lines if line.strip() and not starts_mark(line)]
        return [line for line in filled if not line.startswith("#")] or filled

    @cached_property
    def delimiter(self) -> str:
        """Tabs if every line has one; else blanks if these give all lines as many columns; else what most lines have."""
        if self.options.delimiter != "auto":
            return self.options.delimiter
        lines = [line.strip(" \t") for line in self.body]
        n_tabs = sum("\t" in line for line in lines)
        if n_tabs == 0:
            return "space"
        by_blanks = [BLANKS.split(line) for line in lines]
        is_even = len({len(fields) for fields in by_blanks}) == 1
        if n_tabs < len(lines):
            return "space" if is_even or n_tabs <= len(lines) / 2 else "tab"
        # Lines such as `word <tab> POS <space> tag` have tabs, but not only these separate columns
        n_tags = sum(self.parse.is_tag(line.rpartition("\t")[2]) for line in lines)
        n_tags_by_blanks = sum(self.parse.is_tag(fields[-1]) for fields in by_blanks)
        return "space" if is_even and n_tags_by_blanks >= _RULE * len(lines) > n_tags else "tab"

    @cached_property
    def rows(self) -> list[list[str]]:
        """The columns of each line of the body."""
        return [split_line(line, self.delimiter) for line in self.body]

    @cached_property
    def n_columns(self) -> int:
        """How many columns most lines have."""
        counts = Counter(len(split_line(line.rstrip(" \t"), self.delimiter)) for line in self.body).most_common()
        if counts[0][0] == 1 and any(len(row) > 1 and self.parse.is_tag(row[-1]) for row in self.rows):
            # Most lines lack their tag: a fault of each of them
            return next(n for n, _ in counts if n > 1)
        return counts[0][0]

    def is_tags(self, at: int, rows: Sequence[Sequence[str]] | None = None) -> bool:
        """Say whether a column holds tags: nearly all of it, and at least one that is not just missing."""
        rows = self.rows if rows is None else rows
        values = [row[at] for row in rows if at < len(row)]
        n_tags = sum(self.parse.is_tag(value) for value in values)
        n_missing = sum(value in self.parse.markers for value in values)
        return n_tags > 0 and n_tags + n_missing >= _RULE * len(rows)

    def is_group(self, at: int) -> bool:
        """Say whether a column tells sentences or documents apart, and the next one does not.

        Most lines then have the value of the line before, and no value comes back after another.
        """

        def share_of_same(at: int) -> float:
            same = [a[at] == b[at] for a, b in pairwise(self.rows) if at < min(len(a), len(b))]
            return sum(same) / max(len(same), 1)

        runs = [value for value, _ in groupby(row[at] for row in self.rows)]
        return 1 < len(runs) == len(set(runs)) and share_of_same(at) > _SAME > share_of_same(at + 1)

    def is_over_blank_lines(self, at: int) -> bool:
        """Say whether a value of this column continues after a blank line: it then stands for a document."""
        last, is_after_blank = None, False
        for line in self.lines:
            fields = split_line(line, self.delimiter)
            if not line.strip():
                is_after_blank = True
            elif at < len(fields) and not starts_mark(line):
                if is_after_blank and fields[at] == last:
                    return True
                last, is_after_blank = fields[at], False
        return False

    def is_indexed(self) -> bool:
        """Say whether lines start with a number that counts the tokens of a sentence or of the file."""
        if len(self.rows[0]) < 3:
            return False
        n_fit, last, is_first = 0, 0, True
        for line in self.lines:
            if not line.strip():
                is_first = True
            elif line[0] != "#" and not starts_mark(line):
                index = split_line(line, self.delimiter)[0]
                if index.isdecimal() and index.isascii() and len(index) < 9:
                    n_fit += int(index) == last + 1 or (is_first and int(index) < 2)
                    last = int(index)
                else:
                    n_fit += _INDEX.fullmatch(index) is not None
                is_first = False
        # After a faulty line the next one does not fit either
        return n_fit >= 0.75 * len(self.rows)


def detect_layout(sample: Sample) -> Layout:
    """Detect the layout of a file; `misc_key` is None where it has yet to be found. Raises ConversionError."""
    if not sample.body:
        raise sample.source.error("the file holds no tokens")
    layouts = (detect(sample) for name, detect in _DETECTORS.items() if sample.options.layout in ("auto", name))
    layout = next(filter(None, layouts), None)
    if layout is None:
        raise sample.source.error(_NOT_THIS[sample.options.layout])
    if layout.tag is not None and layout.tag in (layout.word, layout.layer):
        raise sample.source.error(f"column {layout.title(layout.tag)} cannot be two things at once")
    return layout


def _chosen(sample: Sample, names: Sequence[str], n_columns: int) -> dict[str, Any]:
    """Find the columns that the user chose.

    names: the names of the columns, if the file has any.
    Returns places counted from 0, by role; without those that are to be detected. Raises ConversionError.
    """
    places: dict[str, Any] = {}
    for role, title in _COLUMN_TITLES.items():
        column = getattr(sample.options, f"{role}_col")
        if column is None or (role == "pos" and column == "none"):
            continue
        text = str(column).strip()
        by_name = [i for i, name in enumerate(names, 1) if name.lower() == text.lower()]
        try:
            number = by_name[0] if by_name else int(text)
        except ValueError:
            known = f"the file's are {', '.join(names)}" if names else "the file names no columns"
            raise sample.source.error(f"{title}: no column is called '{text}'; {known}") from None
        if not 1 <= abs(number) <= n_columns:
            raise sample.source.error(f"{title}: no column {number}; the file has {n_columns}")
        places[role] = number - 1 if number > 0 else n_columns + number
    return places


def _named(names: Iterable[str]) -> dict[str, int]:
    """Return the places of names, in capitals; the first place of one that occurs twice."""
    return {name.strip().upper(): i for i, name in reversed(list(enumerate(names)))}


def _first(places: dict[str, int], names: Sequence[str]) -> int | None:
    """Return the place of the first of these names that there is."""
    return next((places[name] for name in names if name in places), None)


def _conllu_plus(sample: Sample) -> Layout | None:
    """CoNLL-U Plus, whose first line names the columns; where the user says so, CoNLL-U without that line too."""
    for line in sample.lines:
        if match := _GLOBAL_COLUMNS.match(line):
            return _conllu(sample, match[1].split())
        if line.strip() and not line.startswith("#"):
            break
    return _conllu(sample, []) if sample.options.layout == "conllu" else None


def _conllu(sample: Sample, names: Sequence[str]) -> Layout:
    """Ten columns or more, or those named; tags in one of them or in MISC."""
    options = sample.options
    rows = [line.split("\t") for line in sample.body if not line.startswith("#")]
    if not rows:
        raise sample.source.error("the file holds no tokens")
    if not names:
        n_columns = Counter(map(len, rows)).most_common(1)[0][0]
        names = [*CONLLU_COLUMNS[: max(n_columns, 2)], *map(str, range(len(CONLLU_COLUMNS) + 1, n_columns + 1))]
    n_columns = len(names)
    by_name = _named(names)
    at = {"misc": by_name.get("MISC"), "tag": None, **_chosen(sample, names, n_columns)}
    at.setdefault("word", _first(by_name, WORD_NAMES))
    if at["word"] is None:
        raise sample.source.error(f"no column FORM among {' '.join(names)}: name the word column")
    if at["tag"] is None and options.misc_key is None:
        named = [i for name, i in by_name.items() if name.rpartition(":")[2] in TAG_NAMES]
        others = [i for name, i in by_name.items() if name not in CONLLU_COLUMNS and sample.is_tags(i, rows)]
        if named or others:
            at["tag"] = min(named or others)
        elif at["misc"] is None:
            at["tag"] = n_columns - 1
        elif sample.is_tags(at["misc"], rows):
            at["tag"] = at["misc"]
    if at["tag"] is None and at["misc"] is None:
        raise sample.source.error("no column MISC and no column of tags")
    if at["tag"] == at["misc"]:
        at["misc"] = None
    if options.pos_col is None:
        places = [by_name[name] for name in POS_NAMES if name in by_name]
        at["pos"] = next((i for i in places if any(row[i] != "_" for row in rows if len(row) > i)), None)
    at["index"] = by_name.get("ID")
    return Layout("conllu", "tab", n_columns, n_columns, **at, misc_key=options.misc_key, names=tuple(names))


def _table(sample: Sample) -> Layout | None:
    """A header row that names a column of words and one of tags, as in HIPE."""
    options = sample.options
    header = next((line for line in sample.lines if line.strip() and not line.startswith("#")), "").rstrip(" \t")
    delimiter = options.delimiter
    if delimiter == "auto":
        delimiter = "tab" if "\t" in header else "space"
    names = split_line(header, delimiter)
    by_name = _named(names)
    word, tag = _first(by_name, WORD_NAMES), _first(by_name, TAG_NAMES)
    if word is None or tag is None:
        return None
    at = {"word": word, "tag": tag, **_chosen(sample, names, len(names))}
    layer, pos = _first(by_name, LAYER_NAMES), _first(by_name, POS_NAMES)
    if layer is not None and layer != at["tag"]:
        at.setdefault("layer", layer)
    if pos is not None and options.pos_col is None:
        at["pos"] = pos
    least = max(at.values()) + 1
    free = {name: i for name, i in by_name.items() if i not in at.values()}
    groups = [(i, pattern) for pattern in _GROUP_NAMES for name, i in free.items() if pattern.search(name)]
    if groups:
        at |= {"group": groups[0][0], "is_group_doc": groups[0][1].pattern == "DOC"}
    return Layout("table", delimiter, least, len(names), **at, misc=by_name.get("MISC"), names=tuple(names))


def _inline(sample: Sample) -> Layout | None:
    """`word|tag` or `word|POS|tag`, one sentence per line."""
    items = [item for line in sample.body for item in BLANKS.split(line.strip(" \t"))]
    n_tagged = sum("|" in item and sample.parse.is_tag(item.rpartition("|")[2]) for item in items)
    if n_tagged == 0 or (sample.options.layout == "auto" and n_tagged < _RULE * len(items)):
        return None
    # A word may hold bars itself (`||O`), so two bars must be the rule to separate columns
    n_fields = 3 if sum(item.count("|") >= 2 for item in items) >= _RULE * len(items) else 2
    pos = 1 if n_fields == 3 and sample.options.pos_col != "none" else None
    return Layout("inline", "space", n_fields, n_fields, 0, n_fields - 1, pos)


def _indexed(sample: Sample) -> Layout | None:
    """An index, the word, then tags: GermEval (two layers), Universal NER (comments after the tag). CoNLL-U if longer."""
    if not sample.is_indexed():
        return None
    n_columns = sample.n_columns
    if n_columns >= len(CONLLU_COLUMNS) and sample.delimiter == "tab":
        return _conllu(sample, [])
    at = {"word": 1, **_chosen(sample, (), n_columns)}
    candidates = [i for i in range(2, n_columns) if sample.is_tags(i)]
    kind, most = "indexed", 1 << 30
    if "tag" not in at:
        if candidates == [2, 3] and n_columns == 4:
            kind, most = "germeval", n_columns
            at = {"tag": 2, "layer": 3, **at}
        else:
            at["tag"] = candidates[-1] if candidates else n_columns - 1
    if sample.options.pos_col is None and at["tag"] > 2 and 2 not in candidates and n_columns <= 5:
        at["pos"] = 2
    return Layout(kind, sample.delimiter, max(at.values()) + 1, most, **at, index=0)


def _columns(sample: Sample) -> Layout:
    """The word first, the tag last."""
    n_columns = sample.n_columns
    if n_columns < 2:
        raise sample.source.error("the file has one column: words without tags", 1, sample.body[0])
    chosen = _chosen(sample, (), n_columns)
    # A column of ids before the words
    n_before = int(n_columns > 2 and 0 not in chosen.values() and sample.is_group(0))
    at = {"word": n_before, "tag": n_columns - 1, **chosen}
    if n_before:
        at |= {"group": 0, "is_group_doc": sample.is_over_blank_lines(0)}
    if sample.options.pos_col is None:
        # POS is second in CoNLL-2000, 2002 and 2003, third in the German part of CoNLL-2003, after the lemma. Tags of
        # chunks or of a second layer are no POS
        pos = {3: 1, 4: 1, 5: 2}.get(n_columns - n_before, -1) + n_before
        if pos > n_before and pos not in at.values() and not sample.is_tags(pos):
            at["pos"] = pos
    return Layout("columns", sample.delimiter, n_columns, n_columns, **at)


# By the option `layout`, in the order in which they are tried; None of one says that the file is not like this
_DETECTORS = {
    "conllu": _conllu_plus,
    "table": _table,
    "inline": _inline,
    "indexed": _indexed,
    "columns": _columns,
}
_NOT_THIS = {
    "table": "no line names the columns, such as TOKEN and NE-COARSE-LIT",
    "inline": "no line of the form word|tag word|tag",
}
