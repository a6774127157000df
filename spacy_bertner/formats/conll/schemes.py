"""What tags mean, where entities begin, and which scheme of `tags.SCHEMES` a file follows.

Where an entity begins is the same for all schemes, as in `conlleval`: at a tag whose prefix begins an entity, and at a tag
that would continue one where there is none of its label to continue. The scheme only decides which tags and sequences are
faults, so that a repaired file and a clean one are read alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ...tags import OUTSIDE, ROLES, SCHEMES

UNANNOTATED = "_"  # the tag of a token whose annotation is missing
_MISSPELT = re.compile(r"([BIMELSUWbimelsuw])([-_:/.|\u2010-\u2014\u2212])\s*(\S.*)")

# Two neighbouring tags as written (None: the start or end of a sentence) → how often
Bigrams = Counter[tuple[str | None, str | None]]


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


def begins(before: Tag | None, tag: Tag) -> bool:
    """Say whether an entity begins at a tag, in whatever scheme; `before` is None at the start of a sentence."""
    return bool(tag.label) and (ROLES[tag.prefix] in "BU" or not _is_open(before, tag.label))


def _is_open(before: Tag | None, label: str) -> bool:
    """Say whether an entity of this label can continue after a tag."""
    return before is not None and before.label == label and ROLES[before.prefix] in "BI"


@dataclass(frozen=True)
class Violation:
    """What a tag does against a scheme, how it is repaired, and whether it is the earlier of the two tags looked at."""

    what: str
    repair: str
    is_earlier: bool = False


def find_violation(before: Tag | None, tag: Tag | None, scheme: str) -> Violation | None:
    """Find what is wrong, by a scheme of `SCHEMES`, with two neighbouring tags; None at the start or end of a sentence."""
    kind, prefixes = SCHEMES[scheme].like, SCHEMES[scheme].prefixes
    if tag is not None and tag.label:
        if tag.prefix not in prefixes:
            repair = "begins an entity" if begins(before, tag) else "continues an entity"
            return Violation(f"{tag} is no tag of scheme {scheme}", repair)
        place = f"{tag} begins a sentence" if before is None else f"{tag} follows {before}"
        if not _is_open(before, tag.label):
            is_first = ROLES[tag.prefix] in "BU"
            if kind == "IOB1" and is_first:
                what = f"{place}: in scheme {scheme}, B- only separates two entities of one label"
                return Violation(what, "begins an entity")
            if kind in ("BIO", "BILUO") and not is_first:
                return Violation(f"{place} (scheme {scheme})", "begins an entity")
    if kind == "BILUO" and before is not None and before.prefix in prefixes and _is_open(before, before.label):
        if tag is None:
            return Violation(
                f"{before} is not closed: the sentence ends (scheme {scheme})", "the entity ends here", True
            )
        if not tag.label or begins(before, tag):
            return Violation(f"{before} is not closed: {tag} follows (scheme {scheme})", "the entity ends here", True)
    return None


def count_violations(bigrams: Bigrams, parse: TagParser, scheme: str) -> int:
    """Count the violations of a scheme in a file."""
    total = 0
    for (before, tag), n in bigrams.items():
        earlier, later = (None if text is None else parse[text] for text in (before, tag))
        total += n * (find_violation(earlier, later, scheme) is not None)
    return total


def detect_scheme(bigrams: Bigrams, parse: TagParser) -> str | None:
    """Detect the scheme of a file: that with the fewest violations; None if the file has no entities."""
    used = {parse[text].prefix for _, text in bigrams if text is not None and parse[text].label}
    if not used:
        return None
    if used == {"I"}:
        return "IO"
    best, fewest = "", 0
    for name, scheme in SCHEMES.items():
        if scheme.like == "IO" or (scheme.like == "BILUO" and used <= {"B", "I"}):
            continue
        n = count_violations(bigrams, parse, name)
        # One B- that does not separate two entities shows that it is not IOB1. If numbers decided, an IOB2 file with many
        # faulty I- after O would be taken for IOB1
        if (scheme.like != "IOB1" or n == 0) and (not best or n < fewest):
            best, fewest = name, n
    return best


def count_entities(bigrams: Bigrams, parse: TagParser) -> Counter[str]:
    """Count the entities of a file, by label."""
    counts: Counter[str] = Counter()
    for (before, tag), n in bigrams.items():
        if tag is not None and begins(None if before is None else parse[before], parse[tag]):
            counts[parse[tag].label] += n
    return counts
