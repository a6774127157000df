"""The layout of a file, detected from its first lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from .choose import choose_tags, find_pos, find_word
from .layout import BLANKS, Layout, split_line
from .sample import RULE, Sample
from .stateful import is_bracket

CONLLU_COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
# Names of columns, in order of preference
WORD_NAMES = ("TOKEN", "FORM", "WORD", "TOKENS", "WORDS")
TAG_NAMES = (
    *("NE-COARSE-LIT", "NE-COARSE", "NER", "NER-TAG", "NER_TAG", "NERTAG", "NE", "NE-TAG", "NER_TAGS", "NER-TAGS"),
    *("NER_LABELS", "GOLD", "TAG", "TAGS", "LABEL", "LABELS", "BIO", "IOB", "IOB2", "ENTITY"),
)
POS_NAMES = ("XPOS", "POS", "UPOS")
LAYER_NAMES = ("NE-NESTED",)

_GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.*)")
_LANGUAGE = re.compile(r"([a-z]{2,3}(?:-[a-z]+)*:).")  # before each word, as in WikiANN
_SENTENCE_AND_TOKEN = re.compile(r"\d+[.-]\d+")
_COLUMN_TITLES = {"word": "word column", "tag": "tag column", "layer": "layer column", "pos": "POS column"}
# Names of columns with the ids of sentences and documents, in letters alone
_SENTENCE_NAMES = ("SENTENCE", "SENTENCES", "SENTENCEID", "SENTENCEIDX", "SENTENCENUMBER", "SENTID", "SENT", "SENTNUM")
_DOCUMENT_NAMES = (
    "DOC",
    "DOCID",
    "DOCUMENT",
    "DOCUMENTID",
    "ARTICLE",
    "ARTICLEID",
    "FILE",
    "FILENAME",
    "FILEID",
    "TEXTID",
)


def detect_layout(sample: Sample) -> Layout:
    """Detect the layout of a file; `misc_key` is None where it has yet to be found. Raises ConversionError."""
    if not sample.body:
        raise sample.source.error("the file holds no tokens")
    layouts = (detect(sample) for name, detect in _DETECTORS.items() if sample.options.layout in ("auto", name))
    layout = next(filter(None, layouts), None)
    if layout is None:
        raise sample.source.error(_NOT_THIS[sample.options.layout])
    if layout.tag is not None and layout.tag in (layout.word, *layout.layers):
        raise sample.source.error(f"column {layout.title(layout.tag)} cannot be two things at once")
    words = sample.column(layout.word)
    if len(words) > 2 and layout.kind in ("columns", "indexed", "table") and (match := _LANGUAGE.match(words[-1])):
        is_header = layout.kind == "table"
        if all(word.startswith(match[1]) and word != match[1] for word in words[is_header:]):
            layout = replace(layout, prefix=match[1])
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
        if role == "layer":
            places["layers"] = tuple(_place(sample, text, title, names, n_columns) for text in str(column).split(","))
        else:
            places[role] = _place(sample, str(column), title, names, n_columns)
    return places


def _place(sample: Sample, text: str, title: str, names: Sequence[str], n_columns: int) -> int:
    text = text.strip()
    by_name = [i for i, name in enumerate(names, 1) if name.lower() == text.lower()]
    try:
        number = by_name[0] if by_name else int(text)
    except ValueError:
        known = f"the file's are {', '.join(names)}" if names else "the file names no columns"
        raise sample.source.error(f"{title}: no column is called '{text}'; {known}") from None
    if not 1 <= abs(number) <= n_columns:
        raise sample.source.error(f"{title}: no column {number}; the file has {n_columns}")
    return number - 1 if number > 0 else n_columns + number


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
        delimiter = "tab" if "\t" in header else "comma" if "," in header else "space"
    names = split_line(header, delimiter)
    by_name = _named(names)
    word, tag = _first(by_name, WORD_NAMES), _first(by_name, TAG_NAMES)
    if word is None or tag is None:
        return None
    at = {"word": word, "tag": tag, **_chosen(sample, names, len(names))}
    layer, pos = _first(by_name, LAYER_NAMES), _first(by_name, POS_NAMES)
    if layer is not None and layer != at["tag"]:
        at.setdefault("layers", (layer,))
    if pos is not None and options.pos_col is None:
        at["pos"] = pos
    letters = ["".join(filter(str.isalpha, name)).upper() for name in names]
    groups = [(i, True) for i, name in enumerate(letters) if name in _DOCUMENT_NAMES]
    groups += [(i, False) for i, name in enumerate(letters) if name in _SENTENCE_NAMES]
    if not groups and delimiter == sample.delimiter:
        groups = list(
            sample.groups([i for i in range(at["word"]) if i != at["tag"] and sample.is_group([i], [at["word"]])])
        )
    at |= {"misc": by_name.get("MISC"), "groups": tuple(groups)}
    return Layout("table", delimiter, _least(at), len(names), **at, names=tuple(names))


def _inline(sample: Sample) -> Layout | None:
    """`word|tag` or `word|POS|tag`, one sentence per line."""
    if not any("|" in line for line in sample.body):
        return None
    items = [item for line in sample.body for item in BLANKS.split(line.strip(" \t"))]
    n_tagged = sum("|" in item and sample.parse.is_tag(item.rpartition("|")[2]) for item in items)
    if n_tagged == 0 or (sample.options.layout == "auto" and n_tagged < RULE * len(items)):
        return None
    lines = [BLANKS.split(line.strip(" \t")) for line in sample.body]
    after_label = [
        after for line in lines for item, after in pairwise(line) if sample.parse[item.rpartition("|")[2]].label
    ]
    if after_label and sum("|" not in item for item in after_label) >= RULE * len(after_label):
        raise sample.source.error(
            "labels hold blanks, which separate words in this layout: write them without", 1, sample.body[0]
        )
    # A word may hold bars itself (`||O`), so two bars must be the rule to separate columns
    n_fields = 3 if sum(item.count("|") >= 2 for item in items) >= RULE * len(items) else 2
    pos = 1 if n_fields == 3 and sample.options.pos_col != "none" else None
    return Layout("inline", "space", n_fields, n_fields, 0, n_fields - 1, pos)


def _indexed(sample: Sample) -> Layout | None:
    """An index, the word, then tags: GermEval (two layers), Universal NER (comments after the tag). CoNLL-U if longer."""
    if not sample.is_indexed():
        return None
    n_columns = sample.n_columns
    if n_columns >= len(CONLLU_COLUMNS) and sample.delimiter == "tab":
        return _conllu(sample, [])
    at = {"word": 1, "index": 0, **_chosen(sample, (), n_columns)}
    tagged = [i for i in sample.tag_columns() if i > 1]
    if sum(_SENTENCE_AND_TOKEN.fullmatch(value) is not None for value in sample.column(0)) >= RULE * len(sample.rows):
        at |= {"groups": sample.groups([0], has_token_ids=True), "has_token_ids": True}
    choose_tags(sample, tagged, at)
    if sample.options.pos_col is None and at["tag"] > 2 and 2 not in tagged and n_columns <= 5:
        at["pos"] = 2
    is_germeval = at.get("layers") == (3,) and n_columns == 4
    kind, most = ("germeval", n_columns) if is_germeval else ("indexed", 1 << 30)
    return Layout(kind, sample.delimiter, _least(at), most, **at)


def _conll2012(sample: Sample) -> Layout | None:
    """CoNLL-2012 and OntoNotes: the word is fourth, entities are in brackets in the eleventh column, others follow."""
    n_fit = sum(len(row) > 11 and is_bracket(row[10]) for row in sample.rows)
    if n_fit < RULE * len(sample.rows):
        return None
    at = {"word": 3, "tag": 10, "pos": 4, "index": 2, **_chosen(sample, (), 11)}
    if sample.options.pos_col == "none":
        at["pos"] = None
    return Layout("conll2012", sample.delimiter, 11, 1 << 30, **at, decode="brackets")


def _webanno(sample: Sample) -> Layout | None:
    """WebAnno TSV 3: `1-1`, offsets, the word, then a column for each feature that the lines `#T_SP=` declare."""
    first = next(filter(str.strip, sample.lines))
    if not first.startswith("#FORMAT=WebAnno TSV 3"):
        return None
    declared = [
        line.partition("=")[2].split("|") for line in sample.lines if line.startswith(("#T_SP=", "#T_CH=", "#T_RL="))
    ]
    names = ["id", "offsets", "token"]
    for type_name, *features in declared:
        names += [f"{type_name.rpartition('.')[2]}.{feature}" for feature in features]
    at = {"word": 2, **_chosen(sample, names, max(len(names), sample.n_columns))}
    if "tag" not in at:
        values = [i for i, name in enumerate(names) if name == "NamedEntity.value"]
        if not values:
            raise sample.source.error(
                f"no column NamedEntity.value among {', '.join(names[3:])}: name it with --tag-col"
            )
        at["tag"] = values[0]
    at |= {"index": 0, "groups": ((0, False),), "has_token_ids": True, "decode": "webanno", "names": tuple(names)}
    return Layout("webanno", "tab", _least(at), 1 << 30, **at)


def _columns(sample: Sample) -> Layout:
    """The word first, the tag last, unless the columns say something else."""
    n_columns = sample.n_columns
    if n_columns < 2:
        raise sample.source.error("the file has one column: words without tags", 1, sample.body[0])
    at = _chosen(sample, (), n_columns)
    tagged = sample.tag_columns()
    bracketed = [] if tagged else [i for i in range(n_columns) if sample.has_brackets(i)]
    choose_tags(sample, tagged or bracketed, at)
    if sample.has_brackets(at["tag"]):
        at["decode"] = "brackets"
    elif sample.delimiter == "space" and _has_labels_with_blanks(sample, at["tag"]):
        n_columns = at["tag"] + 1
    if "word" not in at:
        at |= find_word(sample, [i for i in range(n_columns) if i not in tagged and i != at["tag"]])
    pos = find_pos(sample, tagged, at) if sample.options.pos_col is None else None
    if pos is not None and pos < n_columns:
        at["pos"] = pos
    return Layout("columns", sample.delimiter, n_columns, n_columns, **at)


def _has_labels_with_blanks(sample: Sample, tag: int) -> bool:
    """Say whether lines end after an O, and only go on after a tag with a label: as in `Ayla B-Full Name`."""
    rows = [(sample.parse[row[tag]], len(row) - 1 > tag) for row in sample.rows if len(row) > tag]
    return len({is_longer for _, is_longer in rows}) == 2 and all(
        bool(tag.label) == is_longer for tag, is_longer in rows
    )


def _least(at: dict[str, Any]) -> int:
    """Return how many columns a line must have to hold word, tags and POS."""
    return 1 + max(at["word"], at["tag"], at.get("pos") or 0, *at.get("layers", ()))


# By the option `layout`, in the order in which they are tried; None of one says that the file is not like this
_DETECTORS = {
    "conllu": _conllu_plus,
    "webanno": _webanno,
    "conll2012": _conll2012,
    "table": _table,
    "inline": _inline,
    "indexed": _indexed,
    "columns": _columns,
}
_NOT_THIS = {
    "webanno": "no line #FORMAT=WebAnno TSV 3",
    "conll2012": "no eleventh column of named entities in brackets, such as (PERSON*",
    "table": "no line names the columns, such as TOKEN and NE-COARSE-LIT",
    "inline": "no line of the form word|tag word|tag",
}
