"""Which column is what, where nothing names them: tags, further layers, POS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .sample import RULE, Sample
from .schemes import EDGE, begins

# Labels of chunks, which stand beside named entities in CoNLL-2000 and 2003
_CHUNKS = frozenset(
    (
        *("NP", "VP", "PP", "ADJP", "ADVP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP"),  # of the Penn Treebank
        *("NC", "VC", "PC", "NX", "VX", "PX", "AX", "ADJX", "ADVX"),  # of German treebanks
    )
)


def choose_tags(sample: Sample, tagged: Sequence[int], at: dict[str, Any]) -> None:
    """Choose the column of tags, and those of further layers, among the columns that hold tags. Raises ConversionError.

    tagged: the columns that hold tags. at: the columns known so far; `tag` and `layers` are added.
    """
    if "tag" in at:
        return
    free = [i for i in tagged if i not in at.get("layers", ())]
    columns = [i for i in free if not _is_chunks(sample, i)] or free[-1:] or [sample.n_columns - 1]
    first, rest = columns[0], columns[1:]
    if all(sample.column(i) == sample.column(first) for i in rest):
        at["tag"] = columns[-1]
    elif all(_is_nested(sample, first, i) for i in rest) and "layers" not in at:
        at |= {"tag": first, "layers": tuple(rest)}
    else:
        shown = " and ".join(f"{i + 1} ({', '.join(sorted(_labels(sample, i))[:3]) or 'O'})" for i in columns)
        how = f"choose one with --tag-col {first + 1}, and further layers with --layer-col"
        raise sample.source.error(f"columns {shown} hold tags that differ: {how}", None)


def find_word(sample: Sample, columns: list[int]) -> dict[str, Any]:
    """Find the column of words: the first that holds no ids of sentences or documents, nor numbers after others.

    columns: those without tags. Returns the `word` and the `groups` of the layout.
    """
    ids: list[int] = []
    while columns[: len(ids) + 1] == [*ids, len(ids)] and sample.is_group([*ids, len(ids)], columns[len(ids) + 1 :]):
        ids.append(len(ids))
    words = [i for i in columns[len(ids) :] if i == 0 or not is_numbers(sample, i)]
    word = words[0] if words else 0
    if not ids:
        ids = [i for i in columns if i > word and is_numbers(sample, i) and sample.is_group([i], [word])][:1]
    return {"word": word, "groups": sample.groups(ids)}


def is_numbers(sample: Sample, at: int) -> bool:
    """Say whether a column holds nothing but numbers."""
    return all(map(str.isdecimal, sample.column(at)))


def find_pos(sample: Sample, tagged: Sequence[int], at: dict[str, Any]) -> int | None:
    """Find the column with POS between word and tag: the one with the fewest values, and no lemmas.

    It is second in CoNLL-2000, 2002 and 2003, third in the German part of CoNLL-2003, after the lemma. Tags of chunks or of
    a further layer are no POS.
    """
    first = at["word"]
    usual = {3: 1, 4: 1, 5: 2}.get(sample.n_columns - first)
    if usual is None:
        return None
    words = list(map(str.lower, sample.column(first)))
    ranks = []
    for i in range(first + 1, sample.n_columns):
        values = sample.column(i)
        n_words = sum(value.lower() == word for value, word in zip(values, words, strict=True))
        is_free = i not in tagged and i != at["tag"] and not is_numbers(sample, i)
        if is_free and 2 * n_words < len(words) and set(values) != {"_"}:
            ranks.append((len(set(values)), i != first + usual, i))
    return min(ranks)[2] if ranks else None


def _labels(sample: Sample, at: int) -> set[str]:
    return {tag.label for tag in map(sample.parse.__getitem__, sample.column(at)) if tag.label}


def _is_chunks(sample: Sample, at: int) -> bool:
    """Say whether the tags of a column are those of chunks."""
    labels = {label.upper() for label in _labels(sample, at)}
    return bool(labels) and len(labels & _CHUNKS) >= RULE * len(labels)


def _is_nested(sample: Sample, first: int, other: int) -> bool:
    """Say whether the entities of two columns are layers: they lie inside each other, and hardly any two are the same."""
    one, two = (set(_spans(sample, i)) for i in (first, other))
    inside = {i for start, end, _ in one for i in range(start, end)}
    n_odd = sum(span in one or inside.isdisjoint(range(*span[:2])) for span in two)
    is_renamed = bool(one) and {span[:2] for span in one} == {span[:2] for span in two}
    return n_odd <= (1 - RULE) * len(two) and not is_renamed


def _spans(sample: Sample, at: int) -> Iterable[tuple[int, int, str]]:
    """Yield the entities of a column: first row, last row + 1, label."""
    start, before = 0, sample.parse[EDGE]
    for i, tag in enumerate(map(sample.parse.__getitem__, [*sample.column(at), EDGE])):
        if before.label and (not tag.label or begins(before, tag)):
            yield start, i, before.label
        if begins(before, tag):
            start = i
        before = tag
