"""Docs to the files of annotation tools, for `convert --to`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, Span

from . import brat, doccano, hf, label_studio, prodigy, spacy_json
from .conll.docs import tagged_words
from .conll.layout import DOC_MARK, starts_mark
from .faults import ConversionError, Fault
from .tools import FORMATS

# From a text, its entities by character offset and, of a pipeline, their scores to a value of JSON
RENDER: dict[str, Callable[..., Any]] = {
    "prodigy": prodigy.render,
    "doccano": doccano.render,
    "label-studio": label_studio.render,
    "spacy-json": spacy_json.render,
}


def render_docs(
    docs: Iterable[Doc], name: str, output: Path, source: str, spans_key: str | None, counts: Counter[str]
) -> Iterator[tuple[Path, bytes]]:
    """Yield the files of documents in a format, each with its content.

    name: a key of `FORMATS`. output: the file; for brat, files beside it are named after it and numbered.
    source: where the documents are from, for messages. spans_key: the group of `doc.spans` to write; None for `doc.ents`.
    counts: the entities that are written are counted here, by label.
    Raises ConversionError for documents that the format cannot hold.
    """
    faults = ConversionError()
    parts: list[str] = []
    for number, doc in enumerate(docs, 1):
        spans = sorted(doc.ents if spans_key is None else doc.spans.get(spans_key, ()))
        try:
            _check(doc, spans, name, spans_key)
            if name == "brat":
                text, annotation = _as_brat(doc, spans)
                for suffix, content in ((".txt", text), (".ann", annotation)):
                    yield output.with_name(f"{output.stem}-{number:05}{suffix}"), content.encode()
            else:
                parts.append(_as_text(doc, spans, name))
        except ValueError as err:
            faults.add(Fault(source, None, f"document {number}: {err}"))
        counts.update(span.label_ for span in spans)
    if faults.total:
        raise faults
    if name != "brat":
        is_array = FORMATS[name].is_array
        text = "[\n" + ",\n".join(parts) + "\n]\n" if is_array else "".join(f"{part}\n" for part in parts)
        yield output, text.encode()


def _check(doc: Doc, spans: list[Span], name: str, spans_key: str | None) -> None:
    if spans_key is None and (n := sum(token.ent_iob == 0 for token in doc)):
        raise ValueError(f"{n} of {len(doc)} tokens are not annotated{_cannot(name)}")
    if spans_key is not None and spans_key not in doc.spans:
        raise ValueError(f"there is no doc.spans[{spans_key!r}]")
    if not FORMATS[name].holds_overlaps:
        check_flat(spans, name)


def check_flat(spans: Sequence[Span], name: str) -> None:
    """Raise ValueError if spans, which are sorted, overlap. name: of the format that cannot hold that."""
    for before, span in pairwise(spans):
        if before.end > span.start:
            raise ValueError(f"{before.label_} {before.text!r} and {span.label_} {span.text!r} overlap{_cannot(name)}")


def _cannot(name: str) -> str:
    return f", which the format {name} cannot hold"


def _as_brat(doc: Doc, spans: list[Span]) -> tuple[str, str]:
    return doc.text, brat.render(doc.text, ((span.start_char, span.end_char, span.label_) for span in spans))


def _as_text(doc: Doc, spans: list[Span], name: str) -> str:
    if name == "conll":
        return _as_conll(doc, spans)
    if name == "hf":
        value = hf.render([token.text for token in doc], ((span.start, span.end, span.label_) for span in spans))
    else:
        value = RENDER[name](doc.text, [(span.start_char, span.end_char, span.label_) for span in spans])
    return json.dumps(value, ensure_ascii=False)


def _as_conll(doc: Doc, spans: list[Span]) -> str:
    """Words and tags of IOB2, tab-separated, below a -DOCSTART- line; white space has no line of its own."""
    lines = [DOC_MARK, ""]
    for token, tag, is_start in tagged_words(doc, spans):
        if any(char in token.text for char in "\t\r\n") or starts_mark(token.text):
            raise ValueError(f"the word {token.text!r} would be read as something else{_cannot('conll')}")
        if is_start and token.i:
            lines.append("")
        lines.append(f"{token.text}\t{tag}")
    for span in spans:
        if all(token.is_space for token in span):
            raise ValueError(f"{span.label_} {span.text!r} is only white space{_cannot('conll')}")
    return "\n".join([*lines, ""])
