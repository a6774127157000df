"""What tags mean, where entities begin, and which scheme of `tags.SCHEMES` a file follows.

Where an entity begins is the same for all schemes, as in `conlleval`: at a tag whose prefix begins an entity, and at a tag
that would continue one where there is none of its label to continue. The scheme only decides which tags and sequences are
faults, so that a repaired file and a clean one are read alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...tags import OUTSIDE, ROLES, SCHEMES

UNANNOTATED = "_"  # the tag of a token whose annotation is missing
EDGE = "\n\n"  # stands before the first tag of a sentence and after the last; no tag can hold a line feed
_MISSPELT = re.compile(r"([BIMELSUWbimelsuw])([-_:/.|\u2010-\u2014\u2212])\s*(\S.*)")

Bigrams = Counter[tuple[str, str]]  # two neighbouring tags as written, or `EDGE` → how often


@dataclass(frozen=True)
class Tag:
    """A tag, read.

    prefix: a letter of `ROLES`, `OUTSIDE` or `UNANNOTATED`. label: empty where there is no entity.
    fault: what is wrong with the tag as written. repaired: what it is read as instead.
    """

    prefix: str
    label: str = ""
    fault: str | None = None
    repaired: str | None = None

    def __str__(self) -> str:
        return f"{self.prefix}-{self.label}" if self.label else self.prefix


class TagParser(dict[str, Tag]):
    """Tags as written → `Tag`. A dict, since a file of millions of tokens has a few dozen tags.

    missing: markers of a missing annotation besides `_`.
    is_bare: whether a label without a prefix is a tag; only where the user says that the scheme is IO.
    """

    def __init__(self, missing: Iterable[str] = (), is_bare: bool = False) -> None:
        super().__init__()
        self[EDGE] = Tag(EDGE)
        self.markers = {UNANNOTATED, *missing}
        self.is_bare = is_bare

    def __missing__(self, text: str) -> Tag:
        tag = self[text] = self._parse(text)
        return tag

    def is_tag(self, text: str) -> bool:
        """Say whether this is a well-formed tag, other than a missing annotation."""
        tag = self[text]
        return tag.fault is None and tag.prefix != UNANNOTATED

    def _parse(self, text: str) -> Tag:
        text = text.strip()
        if text in self.markers:
            return Tag(UNANNOTATED)
        if text == OUTSIDE:
            return Tag(OUTSIDE)
        if len(text) > 2 and text[1] == "-" and text[0] in ROLES and not text[2].isspace():
            return Tag(text[0], text[2:])
        if not text:
            return Tag(UNANNOTATED, "", "no tag", "missing annotation")
        if text in ("o", "0", "\uff2f"):
            return Tag(OUTSIDE, "", f"tag '{text}' instead of O", "O")
        if match := _MISSPELT.fullmatch(text):
            prefix, label = match[1].upper(), match[3]
            return Tag(prefix, label, f"tag '{text}' is of no known form", f"{prefix}-{label}")
        if self.is_bare and len(text) > 1 and "-" not in text[:2]:
            return Tag("I", text)
        fault = "names no label" if text in ROLES else "is of no known form"
        return Tag(UNANNOTATED, "", f"tag '{text}' {fault}", "missing annotation")


def begins(before: Tag, tag: Tag) -> bool:
    """Say whether an entity begins at a tag, in whatever scheme."""
    return bool(tag.label) and (ROLES[tag.prefix] in "BU" or not _is_open(before, tag.label))


def _is_open(before: Tag, label: str) -> bool:
    """Say whether an entity of this label can continue after a tag."""
    return before.label == label and ROLES[before.prefix] in "BI"


def find_violation(before: Tag, tag: Tag, scheme: str) -> tuple[str, str, bool] | None:
    """Find what is wrong, by a scheme of `SCHEMES`, with two neighbouring tags.

    Returns what is wrong, how it is repaired, and whether the tag to blame is the earlier one; None if all is well.
    """
    kind, prefixes = SCHEMES[scheme].like, SCHEMES[scheme].prefixes
    if tag.label:
        if tag.prefix not in prefixes:
            repair = "begins an entity" if begins(before, tag) else "continues an entity"
            return f"{tag} is no tag of scheme {scheme}", repair, False
        if not _is_open(before, tag.label):
            place = f"{tag} begins a sentence" if before.prefix == EDGE else f"{tag} follows {before}"
            is_first = ROLES[tag.prefix] in "BU"
            if kind == "IOB1" and is_first:
                what = f"{place}: in scheme {scheme}, B- only separates two entities of one label"
                return what, "begins an entity", False
            if kind in ("BIO", "BILUO") and not is_first:
                return f"{place} (scheme {scheme})", "begins an entity", False
    is_closed = kind != "BILUO" or before.prefix not in prefixes or ROLES[before.prefix] in "LU"
    if not is_closed and (not tag.label or begins(before, tag)):
        after = "the sentence ends" if tag.prefix == EDGE else f"{tag} follows"
        return f"{before} is not closed: {after} (scheme {scheme})", "the entity ends here", True
    return None


def count_violations(bigrams: Bigrams, parse: TagParser, scheme: str) -> int:
    """Count the violations of a scheme in a file."""
    return sum(n for (before, tag), n in bigrams.items() if find_violation(parse[before], parse[tag], scheme))


def detect_scheme(bigrams: Bigrams, parse: TagParser) -> str | None:
    """Detect the scheme of a file: that with the fewest violations; None if the file has no entities."""
    used = {parse[tag].prefix for _, tag in bigrams if parse[tag].label}
    if not used:
        return None
    if used == {"I"}:
        return "IO"
    counts: dict[str, int] = {}
    for name, scheme in SCHEMES.items():
        if scheme.like == "IO" or (scheme.like == "BILUO" and used <= {"B", "I"}):
            continue
        n = count_violations(bigrams, parse, name)
        # One B- that does not separate two entities shows that it is not IOB1. If numbers decided, an IOB2 file with many
        # faulty I- after O would be taken for IOB1
        if scheme.like != "IOB1" or n == 0:
            counts[name] = n
    return min(counts, key=counts.__getitem__)


def count_entities(bigrams: Mapping[tuple[str, str], int], parse: TagParser) -> Counter[str]:
    """Count the entities of a file, by label."""
    counts: Counter[str] = Counter()
    for (before, tag), n in bigrams.items():
        if begins(parse[before], parse[tag]):
            counts[parse[tag].label] += n
    return counts
