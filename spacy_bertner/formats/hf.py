"""Datasets of Hugging Face as JSON Lines: `tokens` and `ner_tags`, as names or as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .conll.schemes import EDGE, UNANNOTATED, Bigrams, TagParser, begins, find_violation, rank_schemes
from .records import Record, take_list

TAG_KEYS = ("ner_tags", "tags", "ner", "labels")


def recognise(value: Any) -> bool:
    """Say whether a value is a row with tokens and tags."""
    return isinstance(value, dict) and isinstance(value.get("tokens"), list) and _tag_key(value) is not None


def _tag_key(value: dict[str, Any]) -> str | None:
    return next((key for key in TAG_KEYS if key in value), None)


def read_words(value: Any) -> list[str]:
    """Return the tokens of a row; raise ValueError for what is none."""
    if not isinstance(value, dict) or "tokens" not in value:
        raise ValueError("has no tokens and ner_tags")
    words = take_list(value, "tokens")
    if not all(isinstance(word, str) and word for word in words):
        raise ValueError("has a token that is no text or empty")
    return words


def read_row(value: Any, labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the tokens and tags of a row; raise ValueError for what is none.

    labels: the names of tags that are numbers, as `features["ner_tags"].feature.names` has them.
    """
    words, key = read_words(value), _tag_key(value)
    if key is None:
        raise ValueError("has no tokens and ner_tags")
    tags = take_list(value, key)
    if len(words) != len(tags):
        raise ValueError(f"has {len(words)} tokens and {len(tags)} {key}")
    if any(type(tag) is int for tag in tags):
        if not labels:
            raise ValueError(
                f"{key} are numbers: --labels O,B-PER,I-PER names them, in the order of the dataset's features"
            )
        for tag in tags:
            if type(tag) is not int or not 0 <= tag < len(labels):
                raise ValueError(f"{key}: {tag!r} is none of the {len(labels)} --labels")
        tags = [labels[tag] for tag in tags]
    if not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"{key}: a tag is neither a name nor a number")
    return words, tags


def find_scheme(rows: Iterable[Sequence[str]], parse: TagParser) -> str | None:
    """Return the tag scheme of rows of tags; None if they have no entities."""
    bigrams: Bigrams = Counter()
    for tags in rows:
        bigrams.update(zip([EDGE, *tags], [*tags, EDGE], strict=True))
    ranking = rank_schemes(bigrams, parse)
    return ranking[0][0] if ranking else None


def make_record(words: list[str], tags: Sequence[str], parse: TagParser, scheme: str | None) -> Record:
    """Make the record of a row. Raises ValueError for tags that are malformed, or violate the scheme."""
    record, start = Record("", words=words), None
    for i, (before, tag) in enumerate(zip([EDGE, *tags], [*tags, EDGE], strict=True)):
        parsed = parse[tag]
        if parsed.fault:
            raise ValueError(f"token {i + 1}: {parsed.fault}")
        if scheme and (violation := find_violation(parse[before], parsed, scheme)):
            raise ValueError(f"token {i + 1}: {violation[0]}")
        is_first = begins(parse[before], parsed)
        if start is not None and (is_first or not parsed.label):
            record.add(start, i, parse[before].label)
            start = None
        if is_first:
            start = i
        if parsed.prefix == UNANNOTATED:
            raise ValueError(f"token {i + 1} has the tag {tag!r}: a row has no missing annotation")
    return record


def render(words: Sequence[str], entities: Iterable[tuple[int, int, str]]) -> Any:
    """Return the row of words with entities, whose offsets count words; the tags are names of IOB2."""
    tags = ["O"] * len(words)
    for start, end, label in entities:
        tags[start:end] = [f"B-{label}"] + [f"I-{label}"] * (end - start - 1)
    return {"tokens": list(words), "ner_tags": tags}
