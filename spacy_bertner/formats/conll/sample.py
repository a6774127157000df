"""The first lines of a file, and what its columns look like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import ne

from ...tags import OUTSIDE
from ..source import Source
from .layout import BLANKS, Layout, split_line, starts_mark
from .options import ReadOptions
from .schemes import TagParser
from .stateful import is_bracket

RULE = 0.9  # the share of the lines that makes something a rule
_INDEX = re.compile(r"\d+(-\d+|\.\d+)?")
_DOCUMENT_ID = re.compile(r"(?:doc|file|art)\D*\d*\D*", re.IGNORECASE)  # doc1.s2 is a sentence


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
            by_commas = [split_line(line, "comma") for line in lines if "," in line]
            n_tags = sum(self.parse.is_tag(fields[-1]) for fields in by_commas)
            return "comma" if n_tags >= RULE * (len(lines) - 1) and n_tags else "space"
        n_tags = sum(self.parse.is_tag(line.rpartition("\t")[2]) for line in lines)
        if n_tabs == len(lines) and n_tags >= RULE * len(lines):
            return "tab"
        by_blanks = [BLANKS.split(line) for line in lines]
        is_even = len({len(fields) for fields in by_blanks}) == 1
        if n_tabs < len(lines):
            return "space" if is_even or n_tabs <= len(lines) / 2 else "tab"
        # Lines such as `word <tab> POS <space> tag` have tabs, but not only these separate columns
        n_tags_by_blanks = sum(self.parse.is_tag(fields[-1]) for fields in by_blanks)
        return "space" if is_even and n_tags_by_blanks >= RULE * len(lines) > n_tags else "tab"

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
        n_tags, n_left = 0, (1 - RULE) * len(rows)
        for row in rows:
            if at < len(row) and self.parse.is_tag(row[at]):
                n_tags += 1
            elif at >= len(row) or row[at] not in self.parse.markers:
                n_left -= 1
                if n_left < -1e-9:
                    return False
        return n_tags > 0

    def tag_columns(self) -> list[int]:
        """Return the columns that hold tags; where bare labels are tags too, only those with an O.

        Of two columns, one must hold the words, even if all of them look like tags.
        """
        columns = [i for i in range(self.n_columns) if self.is_tags(i)]
        if self.n_columns == len(columns) == 2:
            columns = columns[1:]
        return [i for i in columns if not self.parse.is_bare or OUTSIDE in self.column(i)]

    def column(self, at: int) -> list[str]:
        """Return the values of a column."""
        return [row[at] if at < len(row) else "" for row in self.rows]

    def has_brackets(self, at: int) -> bool:
        """Say whether a column holds tags as `(PERSON*`, `*` and `*)`."""
        values = self.column(at)
        return any(value[:1] == "(" and value[-1] in "*)" for value in values) and (
            sum(map(is_bracket, values)) >= RULE * len(values)
        )

    def is_group(self, places: Sequence[int], others: Sequence[int]) -> bool:
        """Say whether the last of some columns, with the others of them, numbers sentences or documents.

        It does if its values come in runs, and never return, unless they are numbers.

        others: the columns of which one must have more values.
        """
        values = self.column(places[-1])
        if 2 * sum(map(ne, values, values[1:])) > len(values):
            return False
        keys = [tuple(row[i].strip() for i in places) for row in self.rows if len(row) > places[-1]]
        n_values, runs = len(set(values)), [key for key, _ in groupby(keys)]
        are_numbers = all(value.isdecimal() for value in values)
        is_unique = are_numbers or (len(keys) > 2 and len(runs) == len(set(runs)))
        return is_unique and len(keys) >= 2 * len(runs) and any(len(set(self.column(i))) > n_values for i in others)

    def groups(self, places: Sequence[int], has_token_ids: bool = False) -> tuple[tuple[int, bool], ...]:
        """Say of the columns with ids which stand for documents: by their values, or as they go on after a blank line."""
        if len(places) > 1:
            return tuple((at, at != places[-1]) for at in places)
        layout = Layout("", self.delimiter, 0, 0, 0, has_token_ids=has_token_ids)
        found = []
        for at in places:
            last, is_blank = "", False
            is_document = _DOCUMENT_ID.fullmatch(self.column(at)[0]) is not None
            for line in self.lines:
                if not line.strip():
                    is_blank = True
                elif line[0] != "#" and not starts_mark(line):
                    value = layout.group(split_line(line, self.delimiter), at)
                    is_document |= is_blank and value == last
                    last, is_blank = value, False
            found.append((at, is_document))
        return tuple(found)

    def is_indexed(self) -> bool:
        """Say whether lines start with a number that counts the tokens of a sentence or of the file."""
        n_numbers = sum(row[0][:1].isdecimal() for row in self.rows)
        if len(self.rows[0]) < 3 or n_numbers < 0.75 * len(self.rows):
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
