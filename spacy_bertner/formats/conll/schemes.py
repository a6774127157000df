"""Tag schemes: what a tag means, which scheme a file follows, where entities begin.

An entity begins by one rule for all schemes, that of `conlleval`: at a tag whose prefix begins an
entity, and at a tag that would continue one where there is none of its label to continue. The
scheme decides only which tags and which successions are faults, so that a mended file and a clean
one are read alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# Prefixes of each scheme. The order is that of preference where a file fits several.
SCHEMES: dict[str, str] = {
    "IO": "I",
    "IOB1": "BI",
    "IOB2": "BI",
    "BIOES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEWO": "BMEW",
}
OTHER_NAMES = {
    "BIO": "IOB2",
    "BIO1": "IOB1",
    "BIO2": "IOB2",
    "IOBES": "BIOES",
    "BILUO": "BILOU",
    "BIOUL": "BILOU",
    "BMESO": "BMES",
    "BMEOW": "BMEWO",
}
# The three roles of a prefix: begin an entity, continue it, end it. S, U and W do two at once.
BEGIN = frozenset("BSUW")
INSIDE = frozenset("IM")
END = frozenset("EL")
SINGLE = frozenset("SUW")
PREFIXES = BEGIN | INSIDE | END

_MISSPELT = re.compile(r"([BIMELSUWbimelsuw])([-_:/.|\u2010-\u2014\u2212])\s*(\S.*)")


def resolve_scheme(name: str) -> str:
    """The canonical name of a tag scheme.

    name (str): A name in any case; BIO, IOBES, BILUO and such are understood.
    RETURNS (str): One of `SCHEMES`. Raises ValueError if there is none of that name.
    """
    upper = name.upper()
    upper = OTHER_NAMES.get(upper, upper)
    if upper not in SCHEMES:
        raise ValueError(f"scheme={name!r}: expected one of {', '.join(SCHEMES)} (or BIO, BILUO)")
    return upper


@dataclass(frozen=True)
class Tag:
    """A tag taken apart. `prefix` is "O", "_" (no annotation) or a letter of `PREFIXES`; `fault`
    says what is wrong with it as written, `mended` what it is read as instead."""

    prefix: str
    label: str = ""
    fault: str | None = None
    mended: str | None = None

    def __str__(self) -> str:
        return f"{self.prefix}-{self.label}" if self.label else self.prefix


OUTSIDE = Tag("O")
MISSING = Tag("_")


class TagParser(dict[str, Tag]):
    """Tags as written → `Tag`. A dict, since a file of millions of tokens has a few dozen tags.

    missing (Iterable[str]): Markers of a missing annotation besides `_`.
    bare (bool): Whether a label without a prefix is a tag (only in scheme IO, if asked for).
    """

    def __init__(self, missing: Iterable[str] = (), bare: bool = False) -> None:
        super().__init__()
        self.markers = {"_", *missing}
        self.bare = bare

    def __missing__(self, text: str) -> Tag:
        tag = self[text] = self._parse(text)
        return tag

    def is_tag(self, text: str) -> bool:
        """Whether this is a well-formed tag that is not just a missing annotation."""
        tag = self[text]
        return tag.fault is None and tag.prefix != "_"

    def _parse(self, text: str) -> Tag:
        text = text.strip()
        if text in self.markers:
            return MISSING
        if text == "O":
            return OUTSIDE
        if len(text) > 2 and text[1] == "-" and text[0] in PREFIXES and not text[2].isspace():
            return Tag(text[0], text[2:])
        if not text:
            return Tag("_", "", "no tag", "missing annotation")
        if text in ("o", "0", "\uff2f"):
            return Tag("O", "", f"tag '{text}' instead of O", "O")
        match = _MISSPELT.fullmatch(text)
        if match:
            prefix, label = match[1].upper(), match[3]
            return Tag(prefix, label, f"tag '{text}' is of no known form", f"{prefix}-{label}")
        if self.bare and len(text) > 1 and "-" not in (text[0], text[1]):
            return Tag("I", text)
        lacks = "names no label" if text in PREFIXES else "is of no known form"
        return Tag("_", "", f"tag '{text}' {lacks}", "missing annotation")


def begins(prev: Tag | None, tag: Tag) -> bool:
    """Whether an entity begins at a tag, in every scheme.

    prev (Tag | None): The tag before it in the sentence, None at the start.
    tag (Tag): The tag.
    RETURNS (bool): True at the first token of an entity.
    """
    if not tag.label:
        return False
    return tag.prefix in BEGIN or not _open(prev, tag.label)


def _open(prev: Tag | None, label: str) -> bool:
    """Whether an entity of this label can go on after a tag."""
    return prev is not None and prev.label == label and prev.prefix not in SINGLE and prev.prefix not in END


def check(prev: Tag | None, tag: Tag | None, scheme: str) -> tuple[str, str, int] | None:
    """What is wrong with one tag after another, if anything.

    prev, tag (Tag | None): Two neighbours; None before the first tag and after the last one of a
        sentence.
    scheme (str): A name of `SCHEMES`.
    RETURNS (tuple[str, str, int] | None): What is wrong, how it is mended, and which of the two
        it is about (0: `tag`, -1: `prev`).
    """
    prefixes = SCHEMES[scheme]
    closing = len(prefixes) == 4
    if tag is not None and tag.label:
        if tag.prefix not in prefixes:
            how = "begins" if begins(prev, tag) else "continues"
            return f"{tag} is no tag of scheme {scheme}", f"{how} an entity", 0
        if scheme == "IOB1" and tag.prefix == "B" and not _open(prev, tag.label):
            return (
                f"{tag} {_after(prev)}: in scheme IOB1, B- only parts two entities of one label",
                "begins an entity",
                0,
            )
        if scheme not in ("IO", "IOB1") and tag.prefix not in BEGIN and not _open(prev, tag.label):
            return f"{tag} {_after(prev)} (scheme {scheme})", "begins an entity", 0
    if closing and prev is not None and prev.label and prev.prefix in prefixes:
        is_open = prev.prefix not in SINGLE and prev.prefix not in END
        if is_open and (tag is None or begins(prev, tag) or not tag.label):
            what = "the sentence ends" if tag is None else f"{tag} follows"
            return f"{prev} is not closed: {what} (scheme {scheme})", "the entity ends here", -1
    return None


def _after(prev: Tag | None) -> str:
    return "begins a sentence" if prev is None else f"follows {prev}"


# Two neighbouring tags as written (None: the sentence's start or end) → how often.
Bigrams = Counter[tuple[str | None, str | None]]


def count_faults(bigrams: Bigrams, parse: TagParser, scheme: str) -> int:
    """How many neighbours in a file break a scheme's rules."""
    return sum(
        count
        for (a, b), count in bigrams.items()
        if check(None if a is None else parse[a], None if b is None else parse[b], scheme)
    )


def detect_scheme(bigrams: Bigrams, parse: TagParser) -> str | None:
    """Find out which scheme a file follows: the one with the fewest faults in the whole file.

    bigrams (Bigrams): All neighbouring tags of the file.
    parse (TagParser): Takes tags apart.
    RETURNS (str | None): The scheme's name, or None if the file has no entities.
    """
    used: set[str] = set()
    for _, text in bigrams:
        if text is not None and parse[text].label:
            used.add(parse[text].prefix)
    if not used:
        return None
    if used == {"I"}:
        return "IO"
    best, fewest = "IOB2", count_faults(bigrams, parse, "IOB2")
    for scheme, prefixes in SCHEMES.items():
        if scheme == "IO" or (len(prefixes) == 4 and used <= {"B", "I"}):
            continue
        faults = count_faults(bigrams, parse, scheme)
        # In IOB1 a B- only ever parts two neighbours; one B- elsewhere says it is not IOB1. Were
        # it a matter of numbers, many I- after O would turn an IOB2 file with faults into IOB1.
        if scheme == "IOB1" and faults:
            continue
        if faults < fewest:
            best, fewest = scheme, faults
    return best


def count_entities(bigrams: Bigrams, parse: TagParser) -> Counter[str]:
    """How many entities of each label begin in a file."""
    counts: Counter[str] = Counter()
    for (a, b), count in bigrams.items():
        if b is not None and begins(None if a is None else parse[a], parse[b]):
            counts[parse[b].label] += count
    return counts
