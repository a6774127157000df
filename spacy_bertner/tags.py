"""Tag schemes: tags and labels, legal sequences, the best legal path, tags and spans.

A *label* is an entity type (`PER`); a *tag* is a label with the position inside the entity (`B-PER`), or `O`.
Schemes are those of Ramshaw and Marcus (1995; `IOB1`), Tjong Kim Sang and Veenstra (1999; `BIO`, also called IOB2),
Ratinov and Roth (2009; `BILUO`) and plain `IO`, which cannot tell two neighbouring entities of one label apart.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

Bools1d = NDArray[np.bool_]
Bools2d = NDArray[np.bool_]
Ints1d = NDArray[np.int64]
Floats2d = NDArray[np.floating]


class Scheme(NamedTuple):
    """A tag scheme as files and heads write it.

    like: the scheme of the component that has the same tags, perhaps with other letters; None if only files use it.
    prefixes: its letters; those of the component's schemes in the order in which the tags of a label are numbered.
    aliases: its other names.
    """

    like: str | None
    prefixes: str
    aliases: tuple[str, ...] = ()


# The only table of tag schemes. A row added here is accepted by `convert --scheme`, and detected; if several fit a file
# equally well, the first one is chosen. A row only gives other letters to the tags of `like`: new rules also need `TagSet`
SCHEMES = {
    "IOB2": Scheme("BIO", "BI", ("BIO", "BIO2")),
    "BIOES": Scheme("BILUO", "BIES", ("IOBES",)),
    "BILOU": Scheme("BILUO", "BILU", ("BILUO", "BIOUL")),
    "BMES": Scheme("BILUO", "BMES", ("BMESO",)),
    "BMEWO": Scheme("BILUO", "BMEW", ("BMEOW",)),
    "IOB1": Scheme("IOB1", "IB", ("BIO1",)),
    "IO": Scheme("IO", "I"),
    "BIOS": Scheme(None, "BIS", ("BISO",)),
    "IOE2": Scheme(None, "IE"),
    "IOE1": Scheme(None, "IE"),
}
# The place in an entity that a prefix stands for, in BILUO: beginning, inside, last, unit (the only token)
ROLES = {"B": "B", "I": "I", "M": "I", "L": "L", "E": "L", "U": "U", "S": "U", "W": "U"}
# The schemes of the component, with their prefixes
PREFIXES = {like: prefixes for name, (like, prefixes, aliases) in SCHEMES.items() if like in (name, *aliases)}
# A label needs all the prefixes of at least one of these, or no entity of it can begin
FIRST_PREFIXES = {"BIO": ("B",), "BILUO": ("U", "BL"), "IOB1": ("I",), "IO": ("I",)}
# If the names of a head fit several schemes, the first of these is chosen
PREFERENCE = ("IO", "BIO", "IOB1", "BILUO")
OUTSIDE = "O"
MISSING = -1


# From all names of the schemes to their keys in `SCHEMES`
SCHEME_NAMES = {alias: name for name, scheme in SCHEMES.items() for alias in (name, *scheme.aliases)}


def find_scheme(name: str) -> Scheme:
    """Return the scheme with this key in `SCHEMES` or alias, in any case.

    Raises ValueError if there is none, or only files use it.
    """
    scheme = SCHEMES.get(SCHEME_NAMES.get(str(name).upper(), ""))
    if scheme is None or scheme.like is None:
        fault = "is unknown" if scheme is None else "is read from files, but not predicted"
        allowed = (alias for alias, key in SCHEME_NAMES.items() if SCHEMES[key].like)
        raise ValueError(f"scheme: {name!r} {fault}; allowed are {', '.join(allowed)}")
    return scheme


def validate_scheme(scheme: str) -> str:
    """Return the key of `PREFIXES` that a scheme has the tags of. Raises as `find_scheme`."""
    return cast(str, find_scheme(scheme).like)


def written_prefixes(scheme: str) -> dict[str, str]:
    """Return how a scheme writes the prefixes of the component's tags if it has other letters (see `ReadTags.written`)."""
    return {ROLES[letter]: f"{letter}-" for letter in find_scheme(scheme).prefixes if ROLES[letter] != letter}


def validate_label(label: str) -> str:
    """Return `label`; raise ValueError where no tag can be made of it."""
    if not isinstance(label, str):
        raise ValueError(f"labels: {label!r} is a {type(label).__name__}; a label is a string")
    if not label.strip():
        raise ValueError(f"labels: {label!r} is empty; a label is a string that is not blank")
    if label in (OUTSIDE, "-"):
        raise ValueError(
            f"labels: {label!r} is reserved ('O' marks tokens outside, '-' missing annotation); rename the label"
        )
    if label.startswith("!"):
        raise ValueError(
            f"labels: {label!r} is negative annotation, as of Prodigy and the setting incorrect_spans_key of spaCy's ner, "
            "which bert_ner does not learn from; remove these entities from the data"
        )
    return label


def make_tags(labels: Iterable[str], scheme: str) -> list[str]:
    """Make the tags for the labels: `O` first, then those of each label together.

    labels: entity labels, in the order wanted.
    scheme: a key of `PREFIXES`.
    """
    validate_scheme(scheme)
    return [OUTSIDE] + [f"{prefix}-{validate_label(label)}" for label in labels for prefix in PREFIXES[scheme]]


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into prefix and label: `B-product-car` into `B` and `product-car`, `O` into `O` and ``."""
    prefix, _, label = tag.partition("-")
    return prefix, label


@dataclass(frozen=True)
class ReadTags:
    """The tags of a head as this package has them, and how their names write them.

    tags: the tags, each a prefix of `scheme`, a hyphen and a label, or `O`.
    scheme: a key of `PREFIXES`.
    written: how a prefix is written where that is not the prefix and a hyphen: {"L": "E-", "U": "S-"} for BIOES,
        {"I": ""} for names that are bare labels.
    """

    tags: list[str]
    scheme: str
    written: dict[str, str] = field(default_factory=dict)


def read_tags(names: Sequence[str], scheme: str | None = None) -> ReadTags:
    """Read the tags off the names that a token-classification head has for its columns.

    names: the names, in order: `O` and tags of one of `SCHEMES`, or bare labels, which are tags of IO. `B-` and `I-` are
        both in BIO and in IOB1: taken for BIO, unless a label lacks its `B-`.
    scheme: the scheme that they must be of; None to detect it.
    Raises ValueError for names of no scheme, or not of the one given.
    """
    placeholders = [name for name in names if re.fullmatch(r"LABEL_\d+", name)]
    if placeholders:
        raise ValueError(
            f"they are placeholders ({', '.join(placeholders[:3])}, …): say what the columns stand for in "
            'transformer_config = {"id2label": {"0": "O", "1": "B-PER", …}}'
        )
    if OUTSIDE not in names:
        raise ValueError(f"there is no 'O' among them. {_RENAME}")
    pairs = [split_tag(name) for name in names]
    inside = [name for name in names if name != OUTSIDE]
    tags = list(names)
    written: dict[str, str] = {}
    if inside and all(name in ROLES for name in inside):
        example = ", ".join(f'"{i}": "{name if name == OUTSIDE else name + "-NAME"}"' for i, name in enumerate(names))
        raise ValueError(
            f"their prefixes ({', '.join(inside)}) have no label: name it in transformer_config = "
            f'{{"id2label": {{{example}}}}}'
        )
    if any(prefix in ROLES and label for prefix, label in pairs):
        for i, (prefix, label) in enumerate(pairs):
            role = ROLES.get(prefix, prefix)
            if role != prefix and label:
                tags[i] = f"{role}-{label}"
                written[role] = f"{prefix}-"
    elif inside and any(all(re.search(pattern, name) for name in inside) for pattern in _OTHER_SPELLINGS):
        raise ValueError(f"{inside[0]!r} is no tag: a tag is a prefix, a hyphen and a label (B-PER). {_RENAME}")
    else:
        tags = [name if name == OUTSIDE else f"I-{name}" for name in names]
        written = {"I": ""}
    candidates = PREFERENCE if scheme is None else (validate_scheme(scheme),)
    for candidate in candidates:
        fault = _fault(tags, candidate)
        if fault is None:
            return ReadTags(tags, candidate, written)
    if scheme is None:
        raise ValueError(f"they follow none of the schemes {', '.join(PREFIXES)}: {_fault(tags, 'BIO')}. {_RENAME}")
    raise ValueError(f"they do not fit scheme = {scheme!r}: {fault}; set scheme to what they follow, or to null")


# Prefixes at the end, or before something else than a hyphen
_OTHER_SPELLINGS = (r"[\W_][BILUESM]$", r"^[BILUESM][\W_]")
_RENAME = (
    'Rename them in transformer_config = {"id2label": {"0": "O", "1": "B-PER", …}}; a column that stands for no tag is null '
    "there, and never predicted"
)


def write_tags(tags: Sequence[str], written: dict[str, str]) -> list[str]:
    """Write tags as a head names its columns: the reverse of `read_tags`."""
    names = []
    for tag in tags:
        prefix, label = split_tag(tag)
        names.append(tag if tag == OUTSIDE else written.get(prefix, f"{prefix}-") + label)
    return names


def _fault(tags: Sequence[str], scheme: str) -> str | None:
    """Say why the tags cannot be of the scheme; None where they can."""
    try:
        labels = TagSet(tags, scheme).labels
    except ValueError as err:
        return str(err)
    for label in labels:
        if not any(all(f"{prefix}-{label}" in tags for prefix in found) for found in FIRST_PREFIXES[scheme]):
            return f"they cannot begin an entity {label!r} in {scheme}"
    return None


class TagSet:
    """The tags of one model and what their scheme allows.

    tags: the tags in the order of the model's columns. `O` may stand anywhere.
    scheme: a key of `PREFIXES`.

    legal: (n_tags, n_tags), True where the column's tag may follow the row's.
    legal_start, legal_end: (n_tags,), True where a sequence may start or end with the tag.
    continues: (n_tags, n_tags), True where the column's tag continues the entity of the row's tag.
    """

    def __init__(self, tags: Sequence[str], scheme: str) -> None:
        self.tags = tuple(tags)
        self.scheme = validate_scheme(scheme)
        self._index = {tag: i for i, tag in enumerate(self.tags)}
        pairs = [split_tag(tag) for tag in self.tags]
        for tag, (prefix, label) in zip(self.tags, pairs, strict=True):
            if tag != OUTSIDE and (prefix not in PREFIXES[scheme] or not label):
                raise ValueError(
                    f"tags: {tag!r} is not of the scheme {scheme}; allowed are 'O' and "
                    f"{', '.join(f'{p}-…' for p in PREFIXES[scheme])}"
                )
        if len(self._index) != len(self.tags) or OUTSIDE not in self._index:
            raise ValueError(f"tags: each tag once and 'O' among them, not {list(self.tags)}")
        self.outside = self._index[OUTSIDE]
        prefixes = np.array([prefix for prefix, _ in pairs])
        labels = np.array([label for _, label in pairs])
        is_in = prefixes != OUTSIDE
        same = (labels[:, None] == labels[None, :]) & is_in[:, None] & is_in[None, :]
        n = len(self.tags)
        self.legal_start: Bools1d = np.ones(n, dtype=bool)
        self.legal_end: Bools1d = np.ones(n, dtype=bool)
        if scheme == "BIO":
            self.continues: Bools2d = same & (prefixes == "I")[None, :]
            self.legal: Bools2d = self.continues | (prefixes != "I")[None, :]
            self.legal_start = prefixes != "I"
        elif scheme == "BILUO":
            is_open = np.isin(prefixes, ["B", "I"])
            goes_on = np.isin(prefixes, ["I", "L"])
            self.continues = same & is_open[:, None] & goes_on[None, :]
            self.legal = self.continues | (~is_open[:, None] & ~goes_on[None, :])
            self.legal_start, self.legal_end = ~goes_on, ~is_open
        else:  # IOB1, IO: B- only between two entities of one label, I- anywhere
            self.continues = same & (prefixes == "I")[None, :]
            self.legal = same | (prefixes != "B")[None, :]
            self.legal_start = prefixes != "B"

    def __len__(self) -> int:
        return len(self.tags)

    @property
    def labels(self) -> tuple[str, ...]:
        """The entity labels, each once, in the order of their first tag."""
        return tuple(dict.fromkeys(split_tag(tag)[1] for tag in self.tags if tag != OUTSIDE))

    def encode(self, biluo: Sequence[str | None], is_kept: Bools1d | None = None) -> tuple[Ints1d, set[str]]:
        """Turn the BILUO tags of one Doc, as spaCy's `Example.get_aligned_ner` returns them, into indices of this set.

        biluo: one tag per token; None if the annotation is missing.
        is_kept: (n_tokens,), False for tokens that are left out in decoding; None if all are kept. The others are tagged as
            if those were not there, so that what is learned can be predicted.
        Returns the indices, (n_tokens,), `MISSING` for tokens that have no annotation or are left out, and the labels that
        this set does not have: their tokens are `MISSING` too, since they are not outside.
        """
        entities: list[
            tuple[int, str]
        ] = []  # for each token, the index of its entity and its label; no label if outside
        n_entities = 0
        for tag in biluo:
            prefix, label = split_tag(tag) if tag not in (None, "-") else ("", "")
            n_entities += prefix in ("B", "U")
            entities.append((n_entities if label else -1, label))
        ids = np.full(len(biluo), MISSING, dtype=np.int64)
        unknown: set[str] = set()
        kept = range(len(biluo)) if is_kept is None else np.flatnonzero(is_kept).tolist()
        if not kept:
            return ids, unknown
        outside = -1, ""
        for before, i, after in zip([None, *kept[:-1]], kept, [*kept[1:], None], strict=True):
            entity, label = entities[i]
            if not label:
                if biluo[i] == OUTSIDE:
                    ids[i] = self.outside
                continue
            left = outside if before is None else entities[before]
            right = outside if after is None else entities[after]
            is_first, is_last = left[0] != entity, right[0] != entity
            if self.scheme == "BIO":
                prefix = "B" if is_first else "I"
            elif self.scheme == "BILUO":
                prefix = ("U" if is_last else "B") if is_first else ("L" if is_last else "I")
            elif self.scheme == "IOB1":
                prefix = "B" if is_first and left[1] == label else "I"
            else:
                prefix = "I"
            number = self._index.get(f"{prefix}-{label}")
            if number is None:
                unknown.add(label)
            else:
                ids[i] = number
        return ids, unknown

    def spans(self, tags: Ints1d, is_start: Bools1d) -> list[tuple[int, int, str]]:
        """Return the entities of a legal tag sequence: (first token, last token + 1, label) each, in order.

        tags: (n_tokens,), indices of tags. is_start: (n_tokens,), True where a new segment starts.
        """
        if not len(tags):
            return []
        inside = tags != self.outside
        is_continued = np.zeros(len(tags), dtype=bool)
        is_continued[1:] = self.continues[tags[:-1], tags[1:]] & ~is_start[1:]
        starts = np.flatnonzero(inside & ~is_continued)
        # An entity ends where the next token does not continue it
        ends = np.flatnonzero(inside & ~np.append(is_continued[1:], False)) + 1
        return [
            (int(start), int(end), split_tag(self.tags[tags[start]])[1])
            for start, end in zip(starts, ends, strict=True)
        ]
