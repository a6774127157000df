"""What tags mean, where entities begin, and which scheme of `tags.SCHEMES` a file follows.

Where an entity begins is the same for all schemes, as in `conlleval`: at a tag whose prefix begins an entity, and at a tag
that would continue one where there is none of its label to continue. The scheme only decides which tags and sequences are
faults, so that a repaired file and a clean one are read alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...tags import OUTSIDE, ROLES, SCHEMES

UNANNOTATED = "_"  # the tag of a token whose annotation is missing
EDGE = "\n\n"  # stands before the first tag of a sentence and after the last; no tag can hold a line feed
# Other forms of tags, which a file must keep to throughout, and what O may be in them
SPELLINGS: dict[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    "B_PER": (re.compile(r"(?P<prefix>[BIMELSUW])[_:/](?P<label>\S+)"), (OUTSIDE,)),
    "PER-B": (re.compile(r"(?P<label>[^\W\d_]\S*)[-_/](?P<prefix>[BIMELSUW])"), (OUTSIDE, "-")),
}
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
    label: the label of tags that are just a prefix; None if these are faults.
    spelling: a key of `SPELLINGS`, where tags are not written B-PER.
    """

    def __init__(
        self, missing: Iterable[str] = (), is_bare: bool = False, label: str | None = None, spelling: str | None = None
    ) -> None:
        super().__init__()
        self.label = label
        self.outside: tuple[str, ...] = (OUTSIDE,)
        self.spelling: re.Pattern[str] | None = None
        if spelling:
            self.spelling, self.outside = SPELLINGS[spelling]
        self[EDGE] = Tag(EDGE)
        self.markers = {UNANNOTATED, *missing}
        self.is_bare = is_bare

    def __missing__(self, text: str) -> Tag:
        tag = self._parse(text)
        if tag.label.startswith("!"):  # as of Prodigy, and of spaCy's setting incorrect_spans_key
            fault = f"'{tag.label}' is negative annotation, which cannot be learned from: remove it"
            tag = Tag(UNANNOTATED, "", fault, "missing annotation")
        self[text] = tag
        return tag

    def is_tag(self, text: str) -> bool:
        """Say whether this is a well-formed tag, other than a missing annotation."""
        tag = self[text]
        return tag.fault is None and tag.prefix != UNANNOTATED

    def _parse(self, text: str) -> Tag:
        text = text.strip()
        if text in self.markers:
            return Tag(UNANNOTATED)
        if text in self.outside:
            return Tag(OUTSIDE)
        if self.spelling and (match := self.spelling.fullmatch(text)):
            text = f"{match['prefix']}-{match['label']}"
        if len(text) > 2 and text[1] == "-" and text[0] in ROLES and not text[2].isspace():
            return Tag(text[0], text[2:])
        if self.label and text in ROLES:
            return Tag(text, self.label)
        if not text:
            return Tag(UNANNOTATED, "", "no tag", "missing annotation")
        if text in ("o", "0", "\uff2f"):
            return Tag(OUTSIDE, "", f"tag '{text}' instead of O", "O")
        if match := _MISSPELT.fullmatch(text):
            prefix, label = match[1].upper(), match[3]
            return Tag(prefix, label, f"tag '{text}' is of no known form", f"{prefix}-{label}")
        if self.is_bare and len(text) > 1 and "-" not in text[:2]:
            return Tag("I", text)
        fault = "names no label: --label NAME does" if text in ROLES else "is of no known form"
        return Tag(UNANNOTATED, "", f"tag '{text}' {fault}", "missing annotation")


def detect_spelling(lines: Sequence[str]) -> str | None:
    """Detect how a file writes its tags: a key of `SPELLINGS` if nearly all lines have a tag in that form, else None."""
    text, n_lines = "\n".join(lines), len(lines)
    n_standard = _count_items(r"[BIMELSUW]-[^\s|]+", text)
    for name, (pattern, outside) in SPELLINGS.items():
        n_entities = _count_items(pattern.pattern.replace(r"\S", r"[^\s|]"), text)
        if (
            n_entities > n_standard
            and n_entities + sum(_count_items(re.escape(o), text) for o in outside) >= 0.9 * n_lines
        ):
            return name
    return None


def _count_items(pattern: str, text: str) -> int:
    """Count the matches of a pattern between blanks, ends of lines and bars."""
    return sum(1 for _ in re.finditer(rf"(?<![^\s|])(?:{pattern})(?![^\s|])", text))


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
    like, prefixes, _ = SCHEMES[scheme]
    kind = like or scheme
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
            if kind in ("BIO", "BILUO", "BIOS") and not is_first:
                return f"{place} (scheme {scheme})", "begins an entity", False
    if before.prefix not in prefixes or (tag.label and not begins(before, tag)):
        return None  # no entity ends here
    is_closed = ROLES[before.prefix] in "LU"
    if kind in ("BILUO", "IOE2") and not is_closed:
        after = "the sentence ends" if tag.prefix == EDGE else f"{tag} follows"
        return f"{before} is not closed: {after} (scheme {scheme})", "the entity ends here", True
    if kind == "BIOS" and before.prefix == "B":
        return f"{before} is the only token of an entity: in scheme BIOS, that is S-", "is an entity", True
    if kind == "IOE1" and is_closed and tag.label != before.label:
        return f"{before}: in scheme IOE1, E- only separates two entities of one label", "the entity ends here", True
    return None


def count_violations(bigrams: Bigrams, parse: TagParser, scheme: str) -> int:
    """Count the violations of a scheme in a file."""
    return sum(n for (before, tag), n in bigrams.items() if find_violation(parse[before], parse[tag], scheme))


def rank_schemes(bigrams: Bigrams, parse: TagParser) -> list[tuple[str, int]]:
    """Return the schemes that a file may follow with their violations, the best first; none if it has no entities."""
    used = {parse[tag].prefix for _, tag in bigrams if parse[tag].label}
    if used <= {"I"}:
        return [("IO", 0)] if used else []
    counts = {
        name: count_violations(bigrams, parse, name)
        for name, scheme in SCHEMES.items()
        if scheme.like != "IO" and (scheme.like in ("BIO", "IOB1") or not used <= {"B", "I"})
    }
    ranking = sorted(counts.items(), key=lambda item: item[1])
    # A B- that does not separate two entities speaks against IOB1. By plain numbers an IOB2 file with many faulty I- after O
    # would be taken for IOB1, so IOB1 must fit ten times better
    best = min(n for name, n in ranking if name != "IOB1")
    return sorted(ranking, key=lambda item: item[0] == "IOB1" and 10 * item[1] >= best)


def count_entities(bigrams: Mapping[tuple[str, str], int], parse: TagParser) -> Counter[str]:
    """Count the entities of a file, by label."""
    counts: Counter[str] = Counter()
    for (before, tag), n in bigrams.items():
        if begins(parse[before], parse[tag]):
            counts[parse[tag].label] += n
    return counts
