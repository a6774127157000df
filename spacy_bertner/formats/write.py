"""Docs to the files of annotation tools, for `convert --to`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from spacy.tokens import Doc, Span

from . import argilla, brat, doccano, hf, label_studio, parquet, prodigy, spacy_json
from .conll.docs import tagged_words
from .conll.layout import DOC_MARK, starts_mark
from .faults import ConversionError, Fault
from .source import wide_encoding
from .tools import FORMATS

# From a text, its entities by character offset and, of a pipeline, their scores to a value of JSON
RENDER: dict[str, Callable[..., Any]] = {
    "prodigy": prodigy.render,
    "doccano": doccano.render,
    "label-studio": label_studio.render,
    "argilla": argilla.render,
    "spacy-json": spacy_json.render,
}


def write_docs(
    docs: Iterable[Doc], name: str, target: Any, source: str, spans_key: str | None, labels: Iterable[str]
) -> Counter[str]:
    """Write documents in a format, one after another.

    name: a key of `FORMATS`. target: a file opened for binary writing; for brat a folder.
    source: where the documents are from, for messages. spans_key: the group of `doc.spans` to write; None for `doc.ents`.
    labels: of the entities.
    Returns the number of entities written, by label. Raises ConversionError for documents that the format cannot hold.
    """
    faults, counts = ConversionError(), Counter[str]()
    opened = _brat_folder(target) if name == "brat" else _file(name, target, labels)
    with opened as put:
        for number, doc in enumerate(docs, 1):
            try:
                spans = sorted(_spans(doc, spans_key))
                _check(doc, spans, name, spans_key)
                put(number, doc, spans)
                counts.update(span.label_ for span in spans)
            except ValueError as err:
                faults.add(Fault(source, None, f"document {number}: {err}"))
    if faults.total:
        raise faults
    return counts


def _spans(doc: Doc, spans_key: str | None) -> Iterable[Span]:
    if spans_key is not None and spans_key not in doc.spans:
        raise ValueError(f"there is no doc.spans[{spans_key!r}]")
    return doc.ents if spans_key is None else doc.spans[spans_key]


def _check(doc: Doc, spans: list[Span], name: str, spans_key: str | None) -> None:
    if spans_key is None and (n := sum(token.ent_iob == 0 for token in doc)):
        raise ValueError(f"{n} of {len(doc)} tokens are not annotated{_cannot(name)}")
    if not FORMATS[name].holds_overlaps:
        check_flat(spans, name)


def check_flat(spans: Sequence[Span], name: str) -> None:
    """Raise ValueError if spans, which are sorted, overlap. name: of the format that cannot hold that."""
    for before, span in pairwise(spans):
        if before.end > span.start:
            raise ValueError(f"{before.label_} {before.text!r} and {span.label_} {span.text!r} overlap{_cannot(name)}")


def _cannot(name: str) -> str:
    return f", which the format {name} cannot hold"


Put = Callable[[int, Doc, list[Span]], None]


@contextmanager
def _brat_folder(folder: Path) -> Iterator[Put]:
    def put(number: int, doc: Doc, spans: list[Span]) -> None:
        if doc.text.startswith("\ufeff") or wide_encoding(doc.text.encode()[: 1 << 16]):
            raise ValueError(f"the text starts with a byte order mark, or like UTF-16{_cannot('brat')}")
        annotation = brat.render(doc.text, _offsets(spans))
        for suffix, content in ((".txt", doc.text), (".ann", annotation)):
            (folder / f"{number:05}{suffix}").write_bytes(content.encode())

    yield put


@contextmanager
def _file(name: str, file: IO[bytes], labels: Iterable[str]) -> Iterator[Put]:
    if name == "parquet":
        with parquet.row_writer(file, labels) as write_row:
            yield lambda _, doc, spans: write_row(_as_row(doc, spans))
        return
    is_array, before = FORMATS[name].is_array, b""

    def put(_: int, doc: Doc, spans: list[Span]) -> None:
        nonlocal before
        file.write(before + _as_text(doc, spans, name).encode())
        before = b",\n" if is_array else b"\n"

    file.write(b"[\n" if is_array else b"")
    yield put
    file.write(b"\n]\n" if is_array else b"\n")


def _offsets(spans: list[Span]) -> list[tuple[int, int, str]]:
    return [(span.start_char, span.end_char, span.label_) for span in spans]


def _as_row(doc: Doc, spans: list[Span]) -> dict[str, Any]:
    return hf.render([token.text for token in doc], ((span.start, span.end, span.label_) for span in spans))


def _as_text(doc: Doc, spans: list[Span], name: str) -> str:
    if name == "conll":
        return _as_conll(doc, spans)
    value = _as_row(doc, spans) if name == "hf" else RENDER[name](doc.text, _offsets(spans))
    return json.dumps(value, ensure_ascii=False)


def _as_conll(doc: Doc, spans: list[Span]) -> str:
    """Words and tags of IOB2, tab-separated, below a -DOCSTART- line; white space has no line of its own."""
    lines = [DOC_MARK, ""]
    for token, tag, is_start in tagged_words(doc, spans):
        if any(char in token.text for char in "\t\r\n") or starts_mark(token.text):
            raise ValueError(f"the word {token.text!r} would be read as something else{_cannot('conll')}")
        if any(char in tag for char in "\t\r\n") or tag[2:] != tag[2:].strip():
            raise ValueError(f"the label {tag[2:]!r} would be read as something else{_cannot('conll')}")
        if is_start and token.i:
            lines.append("")
        lines.append(f"{token.text}\t{tag}")
    for span in spans:
        if all(token.is_space for token in span):
            raise ValueError(f"{span.label_} {span.text!r} is only white space{_cannot('conll')}")
    return "\n".join([*lines, ""])
