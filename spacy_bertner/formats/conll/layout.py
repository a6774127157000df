"""Which column of a file is what, found out from its first lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .options import ReadOptions
from .schemes import TagParser

CONLLU_COLUMNS = (
    *("ID", "FORM", "LEMMA", "UPOS", "XPOS"),
    *("FEATS", "HEAD", "DEPREL", "DEPS", "MISC"),
)
WORD_NAMES = ("TOKEN", "FORM", "WORD", "TOKENS", "WORDS")
TAG_NAMES = (
    *("NE-COARSE-LIT", "NE-COARSE", "NER", "NER-TAG", "NER_TAG", "NERTAG", "NE", "NE-TAG"),
    *("TAG", "TAGS", "LABEL", "LABELS", "BIO", "IOB", "IOB2", "ENTITY"),
)
POS_NAMES = ("XPOS", "POS", "UPOS")
LAYER_NAMES = ("NE-NESTED",)
MISC_KEYS = ("name", "NER", "NE", "ner", "ne")

DOC_COMMENT = re.compile(r"#\s*(newdoc\b|(begin|end) document\b|([\w.-]+:)?document_id\s*=)")
GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.*)")
_KEY_VALUE = re.compile(r"#\s*[\w.:-]+\s*=")
_RUN = re.compile(r"[ \t]+")
_ID = re.compile(r"\d+(-\d+|\.\d+)?")
_MOST = 0.9  # Of the lines of a sample, what makes a rule.

Split = Callable[[str], list[str]]


class LayoutError(ValueError):
    """The file as a whole cannot be read: the message says why, `line` is where it shows."""

    def __init__(self, what: str, line: int = 1, text: str | None = None) -> None:
        super().__init__(what)
        self.line = line
        self.text = text


@dataclass(frozen=True)
class Layout:
    """Where to find what in a line. Columns count from 0 here; None: not there.

    kind (str): "columns", "indexed", "germeval", "conllu", "table" or "inline".
    least, most (int): How many columns a line may have. With `least` = `most`, all have as many.
    header (int): Number of the line that names the columns, 0 if none does.
    """

    kind: str
    delimiter: str
    least: int
    most: int
    word: int
    tag: int | None
    pos: int | None = None
    layer: int | None = None
    misc: int | None = None
    misc_key: str | None = None
    index: int | None = None
    header: int = 0
    names: tuple[str, ...] = field(default=())

    def split(self, line: str) -> list[str]:
        """The columns of a line without its end."""
        if self.delimiter == "tab":
            return line.split("\t")
        return _RUN.split(line.strip(" \t"))

    def column(self, i: int | None) -> str | None:
        """What to call a column in messages and in the ledger: its name, or its number from 1."""
        if i is None:
            return None
        return self.names[i] if i < len(self.names) else str(i + 1)


def is_blank(line: str) -> bool:
    """Whether a line parts sentences: empty, or with nothing but white space."""
    return not line or line.isspace()


def starts_mark(text: str) -> bool:
    """Whether a text begins with -DOCSTART, in whatever case and with however many hyphens."""
    return text[:1] == "-" and text.lstrip("-")[:8].upper() == "DOCSTART"


def is_mark(fields: Sequence[str], word: int = 0) -> bool:
    """Whether a line marks the bound of a document."""
    return starts_mark(fields[0]) or (word < len(fields) and starts_mark(fields[word]))


def is_comment(line: str, fields: Sequence[str], layout: Layout, parse: TagParser) -> bool:
    """Whether a line that starts with `#` is a comment, and not a token.

    Where lines start with an index, it is. Elsewhere a token may start with `#`, and `#` may be
    one: a line with as many columns as the others, or with a tag at its end, is no comment.

    line (str), fields (Sequence[str]): The line, whole and split.
    layout (Layout), parse (TagParser): How the file is read.
    RETURNS (bool): Whether to pass over the line.
    """
    if layout.index is not None:
        return True
    if layout.least <= len(fields) <= layout.most:
        tag = fields[layout.tag] if layout.tag is not None and layout.tag < len(fields) else ""
        return not parse.is_tag(tag) and _KEY_VALUE.match(line) is not None
    if layout.kind == "inline":
        return line.startswith(("# ", "#\t")) and not any(
            parse.is_tag(item.rpartition("|")[2]) for item in fields if "|" in item
        )
    if DOC_COMMENT.match(line) or _KEY_VALUE.match(line):
        return True
    return line.startswith(("# ", "#\t")) and not parse.is_tag(_RUN.split(line)[-1])


def resolve_column(column: str | int | None, names: Sequence[str], n_columns: int, option: str) -> int | None:
    """A column as the user names it → its place, from 0.

    column (str | int | None): A name, a number from 1, or a negative number from the end.
    names (Sequence[str]): The columns' names, if the file has any.
    n_columns (int): How many columns the file has.
    option (str): For messages.
    RETURNS (int | None): The place; None for None. Raises LayoutError.
    """
    if column is None:
        return None
    text = str(column).strip()
    for i, name in enumerate(names):
        if name.lower() == text.lower():
            return i
    try:
        number = int(text)
    except ValueError:
        known = f"the file's are {', '.join(names)}" if names else "the file names no columns"
        raise LayoutError(f"{option}: no column is called '{text}'; {known}") from None
    if not 1 <= abs(number) <= n_columns:
        raise LayoutError(f"{option}: no column {number}; the file has {n_columns}")
    return number - 1 if number > 0 else n_columns + number


def detect_layout(sample: Sequence[str], options: ReadOptions, parse: TagParser) -> Layout:
    """Find out how a file is laid out.

    sample (Sequence[str]): Its first lines, without their ends.
    options (ReadOptions): What the user said about it.
    parse (TagParser): Knows tags from other text.
    RETURNS (Layout): The layout; for CoNLL-U with tags in MISC, `misc_key` may be left to find.
        Raises LayoutError.
    """
    layout = _detect(sample, options, parse)
    if layout.tag is not None and layout.tag in (layout.word, layout.layer):
        raise LayoutError(f"column {layout.column(layout.tag)} cannot be two things at once")
    return layout


def _detect(sample: Sequence[str], options: ReadOptions, parse: TagParser) -> Layout:
    """Try the layouts in turn, the most telling first."""
    if options.layout in ("auto", "conllu"):
        for line in sample:
            match = GLOBAL_COLUMNS.match(line)
            if match:
                return _conllu(match[1].split(), sample, options, parse)
            if not is_blank(line) and not line.startswith("#"):
                break
    if options.layout in ("auto", "table"):
        table = _table(sample, options)
        if table is not None:
            return table
        if options.layout == "table":
            raise LayoutError("no line names the columns, such as TOKEN and NE-COARSE-LIT")
    lines = [line for line in sample if not is_blank(line) and not starts_mark(line)]
    body = [line for line in lines if not line.startswith("#")] or lines
    if not body:
        raise LayoutError("the file holds no tokens")
    if options.layout in ("auto", "inline"):
        inline = _inline(body, options, parse)
        if inline is not None:
            return inline
        if options.layout == "inline":
            raise LayoutError("no line of the form word|tag word|tag")
    delimiter = options.delimiter if options.delimiter != "auto" else _delimiter(body, parse)
    split = Layout("columns", delimiter, 0, 0, 0, None).split
    counted = Counter(len(split(line.rstrip(" \t"))) for line in body)
    n_columns = counted.most_common(1)[0][0]
    if n_columns == 1 and any(parse.is_tag(split(line)[-1]) for line in body if len(split(line)) > 1):
        # Most lines lack their tag, which is for the faults to say, line by line.
        n_columns = next(n for n, _ in counted.most_common() if n > 1)
    if options.layout == "conllu":
        return _conllu([], sample, options, parse)
    if options.layout == "auto" and _is_indexed(sample, split):
        if n_columns >= len(CONLLU_COLUMNS) and delimiter == "tab":
            return _conllu([], sample, options, parse)
        return _indexed(body, split, delimiter, n_columns, options, parse)
    return _columns(body, split, delimiter, n_columns, options, parse)


def _delimiter(body: Sequence[str], parse: TagParser) -> str:
    """Tabs if every line has one; else runs of blanks if that gives all lines as many columns;
    else what most lines have."""
    tabs = sum("\t" in line.strip(" \t") for line in body)
    if tabs == 0:
        return "space"
    even = len({len(_RUN.split(line.strip(" \t"))) for line in body}) == 1
    if tabs == len(body):
        # Lines such as `word <tab> POS <space> tag` have tabs, but these alone part no columns.
        lines = [line.strip(" \t") for line in body]
        by_tabs = sum(parse.is_tag(line.rpartition("\t")[2]) for line in lines)
        by_blanks = sum(parse.is_tag(_RUN.split(line)[-1]) for line in lines)
        return "space" if even and by_blanks >= _MOST * len(lines) > by_tabs else "tab"
    return "space" if even or tabs <= len(body) / 2 else "tab"


def _columns(
    body: Sequence[str],
    split: Split,
    delimiter: str,
    n_columns: int,
    options: ReadOptions,
    parse: TagParser,
) -> Layout:
    """Word first, tag last, unless told otherwise."""
    if n_columns < 2:
        raise LayoutError("the file has one column: words without tags", 1, body[0])
    word = resolve_column(options.word_col, (), n_columns, "word column")
    tag = resolve_column(options.tag_col, (), n_columns, "tag column")
    layer = resolve_column(options.layer_col, (), n_columns, "layer column")
    word = 0 if word is None else word
    tag = n_columns - 1 if tag is None else tag
    pos = None
    if options.pos_col is None:
        # POS is second in CoNLL-2000, 2002 and 2003, third in the German part of CoNLL-2003,
        # where lemmas come before it. Tags of chunks or of a second layer are no POS.
        at = {3: 1, 4: 1, 5: 2}.get(n_columns)
        if at is not None and at not in (word, tag, layer) and not _is_tags(body, split, at, parse):
            pos = at
    elif options.pos_col != "none":
        pos = resolve_column(options.pos_col, (), n_columns, "POS column")
    return Layout("columns", delimiter, n_columns, n_columns, word, tag, pos, layer)


def _is_tags(body: Sequence[str], split: Split, at: int, parse: TagParser) -> bool:
    """Whether a column holds tags: nearly all of it, and at least one that is not just missing."""
    values = [fields[at] for fields in map(split, body) if at < len(fields)]
    tags = sum(parse.is_tag(value) for value in values)
    missing = sum(value in parse.markers for value in values)
    return tags > 0 and tags + missing >= _MOST * len(body)


def _is_indexed(sample: Iterable[str], split: Split) -> bool:
    """Whether lines start with a number that counts the tokens of a sentence, or of a text."""
    fits = total = last = 0
    starts = True
    for line in sample:
        if is_blank(line):
            starts = True
        elif line[0] != "#" and not starts_mark(line):
            fields = split(line)
            if len(fields) < 3 and total == 0:
                return False
            total += 1
            number = fields[0]
            if number.isdecimal() and number.isascii() and len(number) < 9:
                fits += int(number) == last + 1 or (starts and int(number) < 2)
                last = int(number)
            else:
                fits += _ID.fullmatch(number) is not None
            starts = False
    # Not quite all: a line may be at fault, and the next one then does not fit either.
    return total > 0 and fits >= 0.75 * total


def _indexed(
    body: Sequence[str],
    split: Split,
    delimiter: str,
    n_columns: int,
    options: ReadOptions,
    parse: TagParser,
) -> Layout:
    """Index, word, then tags: GermEval (two layers), Universal NER (comments behind the tag)."""
    word = resolve_column(options.word_col, (), n_columns, "word column")
    tag = resolve_column(options.tag_col, (), n_columns, "tag column")
    layer = resolve_column(options.layer_col, (), n_columns, "layer column")
    pos = None
    if options.pos_col not in (None, "none"):
        pos = resolve_column(options.pos_col, (), n_columns, "POS column")
    word = 1 if word is None else word
    candidates = [at for at in range(2, n_columns) if _is_tags(body, split, at, parse)]
    kind = "indexed"
    if tag is None:
        if candidates == [2, 3] and n_columns == 4:
            kind, tag = "germeval", 2
            layer = 3 if layer is None else layer
        else:
            tag = candidates[-1] if candidates else n_columns - 1
    if options.pos_col is None and tag > 2 and 2 not in candidates and n_columns <= 5:
        pos = 2
    least = max(at for at in (word, tag, layer, pos) if at is not None) + 1
    most = n_columns if kind == "germeval" else 1 << 30
    return Layout(kind, delimiter, least, most, word, tag, pos, layer, index=0)


def _conllu(names: Sequence[str], sample: Sequence[str], options: ReadOptions, parse: TagParser) -> Layout:
    """CoNLL-U: ten columns and perhaps more; CoNLL-U Plus: those that the first line names."""
    body = [line for line in sample if not is_blank(line) and not line.startswith("#")]
    body = [line for line in body if not starts_mark(line)]
    if not body:
        raise LayoutError("the file holds no tokens")
    split = Layout("conllu", "tab", 0, 0, 0, None).split
    counted = Counter(len(split(line)) for line in body).most_common(1)[0][0]
    if not names:
        extra = [str(i + 1) for i in range(len(CONLLU_COLUMNS), counted)]
        names = [*CONLLU_COLUMNS[: max(counted, 2)], *extra]
    upper = [name.upper() for name in names]
    by_name = {name: i for i, name in reversed(list(enumerate(upper)))}
    n_columns = len(names)
    word = resolve_column(options.word_col, names, n_columns, "word column")
    tag = resolve_column(options.tag_col, names, n_columns, "tag column")
    layer = resolve_column(options.layer_col, names, n_columns, "layer column")
    if word is None:
        word = next((by_name[name] for name in WORD_NAMES if name in by_name), None)
        if word is None:
            raise LayoutError(f"no column FORM among {' '.join(names)}: name the word column")
    misc = by_name.get("MISC")
    misc_key = options.misc_key
    if tag is None and misc_key is None:
        own = [i for i, name in enumerate(upper) if name.rpartition(":")[2] in TAG_NAMES]
        other = [i for i, name in enumerate(upper) if name not in CONLLU_COLUMNS and _is_tags(body, split, i, parse)]
        if own or other:
            tag = (own or other)[0]
        elif misc is not None and _is_tags(body, split, misc, parse):
            tag = misc
        elif misc is None:
            tag = n_columns - 1
    if tag is None and misc is None:
        raise LayoutError("no column MISC and no column of tags")
    if tag == misc:
        misc = None
    pos = None
    if options.pos_col is None:
        for name in POS_NAMES:
            at = by_name.get(name)
            if at is not None and any(len(fields) > at and fields[at] != "_" for fields in map(split, body)):
                pos = at
                break
    elif options.pos_col != "none":
        pos = resolve_column(options.pos_col, names, n_columns, "POS column")
    return Layout(
        kind="conllu",
        delimiter="tab",
        least=n_columns,
        most=n_columns,
        word=word,
        tag=tag,
        pos=pos,
        layer=layer,
        misc=misc,
        misc_key=misc_key,
        index=by_name.get("ID"),
        names=tuple(names),
    )


def _table(sample: Sequence[str], options: ReadOptions) -> Layout | None:
    """A first line that names the columns, one of them words, one of them tags."""
    first = next((i for i, s in enumerate(sample, 1) if not is_blank(s) and not s.startswith("#")), None)
    if first is None:
        return None
    line = sample[first - 1].rstrip(" \t")
    delimiter = "tab" if "\t" in line else "space"
    if options.delimiter != "auto":
        delimiter = options.delimiter
    names = Layout("table", delimiter, 0, 0, 0, None).split(line)
    upper = [name.strip().upper() for name in names]
    by_name = {name: i for i, name in reversed(list(enumerate(upper)))}
    word = next((by_name[name] for name in WORD_NAMES if name in by_name), None)
    tag = next((by_name[name] for name in TAG_NAMES if name in by_name), None)
    if word is None or tag is None:
        return None
    n_columns = len(names)
    word_asked = resolve_column(options.word_col, names, n_columns, "word column")
    tag_asked = resolve_column(options.tag_col, names, n_columns, "tag column")
    layer = resolve_column(options.layer_col, names, n_columns, "layer column")
    word = word if word_asked is None else word_asked
    tag = tag if tag_asked is None else tag_asked
    if layer is None:
        layer = next((by_name[name] for name in LAYER_NAMES if name in by_name), None)
    layer = None if layer == tag else layer
    pos = None
    if options.pos_col is None:
        pos = next((by_name[name] for name in POS_NAMES if name in by_name), None)
    elif options.pos_col != "none":
        pos = resolve_column(options.pos_col, names, n_columns, "POS column")
    least = max(at for at in (word, tag, layer, pos) if at is not None) + 1
    return Layout(
        kind="table",
        delimiter=delimiter,
        least=least,
        most=n_columns,
        word=word,
        tag=tag,
        pos=pos,
        layer=layer,
        misc=by_name.get("MISC"),
        header=first,
        names=tuple(names),
    )


def _inline(body: Sequence[str], options: ReadOptions, parse: TagParser) -> Layout | None:
    """`word|tag` or `word|POS|tag`, a sentence a line."""
    items = [item for line in body for item in _RUN.split(line.strip(" \t"))]
    tagged = sum("|" in item and parse.is_tag(item.rpartition("|")[2]) for item in items)
    if tagged == 0 or (options.layout == "auto" and tagged < _MOST * len(items)):
        return None
    pipes = Counter(min(item.count("|"), 2) for item in items)
    # A word may hold bars itself (`||O`), so two bars must be the rule to be columns.
    n_fields = 3 if pipes[2] >= _MOST * len(items) else 2
    pos = 1 if n_fields == 3 and options.pos_col != "none" else None
    return Layout("inline", "space", n_fields, n_fields, 0, n_fields - 1, pos)
