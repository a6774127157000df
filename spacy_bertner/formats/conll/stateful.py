"""Tags that depend on the line before, rewritten as B-, I- and O: the brackets of OntoNotes, the ids of WebAnno."""

from __future__ import annotations

import re
from collections.abc import Callable

_BRACKETS = re.compile(r"(?:\(([^()*|\s]+))?(\*?)(\)?)")
_WEBANNO = re.compile(r"([^\[\]|*_][^\[\]|]*?)(?:\[(\d+)\])?")


class Brackets:
    """`(PERSON*`, `*`, `*)`, `(ORG)` and `(ORG*)`, as in CoNLL-2012. What opens twice or never closes is no tag."""

    def __init__(self) -> None:
        self._label = ""  # of the open bracket

    def __call__(self, text: str) -> str:  # noqa: D102
        match = _BRACKETS.fullmatch(text)
        if match is None or not text or (match[1] and self._label) or (match[3] and not (match[1] or self._label)):
            return text
        label = match[1] or self._label
        tag = f"B-{match[1]}" if match[1] else f"I-{label}" if label else "O"
        self._label = "" if match[3] else label
        return tag


class WebAnno:
    """`_`, `PER` for an entity of one token, and `PER[3]` for each token of entity 3, as in WebAnno TSV 3."""

    def __init__(self) -> None:
        self._before = ""

    def __call__(self, text: str) -> str:  # noqa: D102
        match = _WEBANNO.fullmatch(text)
        is_same = match is not None and match[2] is not None and text == self._before
        self._before = text
        if match is None:
            return "O" if text == "_" else text
        return f"{'I' if is_same else 'B'}-{match[1]}"


DECODERS: dict[str, Callable[[], Callable[[str], str]]] = {"brackets": Brackets, "webanno": WebAnno}


def is_bracket(text: str) -> bool:
    """Say whether a text may be a tag in brackets."""
    return bool(text) and _BRACKETS.fullmatch(text) is not None
