"""Annotated Docs → the bytes of an output record, and such records → a whole file."""

import base64
import csv
import html
import io
import json
import math
import numbers
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from spacy import displacy
from spacy.displacy.templates import TPL_PAGE
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from ..formats.conll.docs import tagged_words
from ..formats.conll.layout import DOC_MARK, starts_mark
from ..formats.docbin import merge_docbins
from ..formats.faults import ConversionError, printable
from ..formats.json_files import read_values
from ..formats.source import Source
from ..formats.write import RENDER, check_flat
from ..span_groups import scored_spans
from .records import Record

# Decimal places of a score; further ones depend on the other documents in the batch
SCORE_DIGITS = 4
# Keys of an output record; fields of the input with these names are carried over as `input_…`
RESERVED = ("text", "entities", "error", "at")


# A span, and its score if it has one
Entity = tuple[Span, float | None]


def find_entities(doc: Doc, spans_keys: Sequence[str] = ()) -> list[Entity]:
    """Return the entities of a Doc, in `doc.ents` and in the groups `spans_keys` of `doc.spans`, in order, each once."""
    found: dict[tuple[int, int, int], Entity] = {}
    for key in (None, *spans_keys):
        for span, score in scored_spans(doc, key):
            found.setdefault((span.start, span.end, span.label), (span, _rounded(score)))
    return [found[place] for place in sorted(found)]


def _rounded(score: Any) -> float | None:
    """Return a score as it is written; None if it is no number, as with an extension of other code."""
    is_number = isinstance(score, numbers.Real) and math.isfinite(score)
    return round(float(score), SCORE_DIGITS) if is_number else None


def _as_dict(span: Span, score: float | None) -> dict[str, Any]:
    """Return an entity as it is written: start and end in characters, label, text and score."""
    offsets = {"start": span.start_char, "end": span.end_char}
    return {**offsets, "label": span.label_, "text": span.text, "score": score}


class Writer:
    """An output format. A file is the header, the records one after another, and the footer, unless `write` differs.

    grows: whether records can be appended to the file, one line each, so that it is its own journal.
    streams: whether records can be written to a pipe one by one.
    """

    name = ""
    suffixes: tuple[str, ...] = ()
    grows = False
    streams = True
    header = b""
    footer = b""

    def render(self, record: Record, number: int, doc: Doc, entities: Sequence[Entity]) -> bytes:
        """Return the bytes of an annotated record.

        number: that of the record in the whole input, from 0. entities: what `find_entities` returned for the Doc.
        Raises ValueError if the format cannot hold them.
        """
        raise NotImplementedError

    def render_error(self, record: Record, number: int, reason: str) -> bytes:
        """Return the bytes of a record that could not be processed."""
        raise NotImplementedError

    def write(self, rendered: Iterable[bytes], file: IO[bytes]) -> None:
        """Write a whole file of rendered records."""
        file.write(self.header)
        file.writelines(rendered)
        file.write(self.footer)

    def matches(self, file: IO[bytes], records: Iterable[Record]) -> bool:
        """Tell whether a whole file is one that `write` made of these records, as far as the format shows it."""
        raise NotImplementedError


class Jsonl(Writer):
    """One JSON object per record: text, entities, and the other fields of the input."""

    name, grows = "jsonl", True
    suffixes: tuple[str, ...] = (".jsonl", ".ndjson")

    def render(self, record: Record, number: int, doc: Doc, entities: Sequence[Entity]) -> bytes:  # noqa: D102
        return _json_line({"text": doc.text, "entities": [_as_dict(*ent) for ent in entities], **_carried_over(record)})

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        text = {"text": record.content} if isinstance(record.content, str) else {}
        return _json_line({"error": reason, "at": record.place, **text, **_carried_over(record)})


def _carried_over(record: Record, reserved: Sequence[str] = RESERVED) -> dict[str, Any]:
    fields = dict(record.fields)
    for name in reserved:
        if name in fields:
            new_name = f"input_{name}"
            while new_name in fields:
                new_name = f"input_{new_name}"
            fields[new_name] = fields.pop(name)
    return fields


def _json_line(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_as_json).encode() + b"\n"
    except ValueError:  # NaN, which JSON does not have, or lone surrogates, which UTF-8 does not have
        return _json_text(value).encode() + b"\n"


def _json_text(value: Any) -> str:
    """JSON in ASCII, with null for NaN and infinity."""
    return json.dumps(_finite(value), default=_as_json)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_json(value: Any) -> str:
    """What Parquet columns can hold besides numbers and strings: bytes as base64, dates and times in ISO 8601."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class Prodigy(Jsonl):
    """Prodigy's tasks, one JSON object per record: the entities as spans to correct, and the other fields of the input.

    A record that could not be processed is a task without spans.
    """

    name, suffixes = "prodigy", ()
    reserved: tuple[str, ...] = (*RESERVED, "spans", "tokens", "answer", "_input_hash", "_task_hash")

    def render(self, record: Record, number: int, doc: Doc, entities: Sequence[Entity]) -> bytes:  # noqa: D102
        return self._task(doc.text, entities, number, _carried_over(record, self.reserved))

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        text = record.content if isinstance(record.content, str) else ""
        fields = {"error": reason, "at": record.place, **_carried_over(record, self.reserved)}
        return self._task(text, (), number, fields)

    def _task(self, text: str, entities: Sequence[Entity], number: int, fields: dict[str, Any]) -> bytes:
        return _json_line({**self._value(text, entities), **fields})

    def _value(self, text: str, entities: Sequence[Entity]) -> dict[str, Any]:
        offsets = [(span.start_char, span.end_char, span.label_) for span, _ in entities]
        return RENDER[self.name](text, offsets, [score for _, score in entities])


class Doccano(Prodigy):
    """doccano's documents, likewise."""

    name = "doccano"
    reserved = (*RESERVED, "label", "labels", "relations", "Comments")


class LabelStudio(Prodigy):
    """Label Studio's tasks, likewise, in an array: the entities are predictions, and the other fields are in `data`."""

    name, grows = "label-studio", False
    reserved = RESERVED
    header, footer = b"[\n", b"]\n"

    def _task(self, text: str, entities: Sequence[Entity], number: int, fields: dict[str, Any]) -> bytes:
        value = self._value(text, entities)
        value["data"].update(fields)
        return (b"," if number else b"") + _json_line(value)

    def matches(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        faults, source = ConversionError(), Source.from_stream(file, "")
        pairs = zip(read_values(source, "utf-8", faults), records, strict=True)
        try:
            is_same = all(
                value["data"]["text"] == record.content or not isinstance(record.content, str)
                for (_, value), record in pairs
            )
        except (KeyError, TypeError, ValueError):  # ValueError: not as many as records
            return False
        return is_same and not faults.total


class Conll(Writer):
    """Tab-separated words and tags (IOB2), an empty line after each sentence, and one `-DOCSTART-` line per record.

    Whitespace tokens are left out, as the format cannot hold them. An error is a comment in a record without words.
    """

    name, suffixes = "conll", (".conll", ".iob2", ".bio")

    def render(self, record: Record, number: int, doc: Doc, entities: Sequence[Entity]) -> bytes:  # noqa: D102
        check_flat([span for span, _ in entities], self.name)
        lines: list[str] = []
        for token, tag, is_start in tagged_words(doc, [span for span, _ in entities]):
            if is_start and lines:
                lines.append("")
            # A word must not look like the start of a record
            word = token.text.lstrip("-") if starts_mark(token.text) else token.text
            lines.append(f"{_one_cell(word)}\t{_one_cell(tag)}")
        return self._record(lines)

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        return self._record([f"# error = {_one_cell(printable(reason))}"])

    def _record(self, lines: list[str]) -> bytes:
        return "".join(f"{line}\n" for line in [DOC_MARK, "", *lines, ""]).encode("utf-8", "backslashreplace")

    def matches(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        start = f"{DOC_MARK}\n".encode()
        return file.readline() == start and 1 + sum(line == start for line in file) == sum(1 for _ in records)


def _one_cell(text: str) -> str:
    return re.sub(r"[\t\r\n]", " ", text)


class Csv(Writer):
    """One row per entity below a header; none for a record without entities, one with the reason for an error."""

    name, suffixes = "csv", (".csv",)
    columns = ("record", "at", "start", "end", "label", "text", "score", "error")
    header = ",".join(columns).encode() + b"\n"

    def render(self, record: Record, number: int, doc: Doc, entities: Sequence[Entity]) -> bytes:  # noqa: D102
        return self._rows([{"record": number + 1, "at": record.place, **_as_dict(*ent)} for ent in entities])

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        return self._rows([{"record": number + 1, "at": record.place, "error": reason}])

    def _rows(self, rows: list[dict[str, Any]]) -> bytes:
        out = io.StringIO()
        csv.DictWriter(out, self.columns, lineterminator="\n").writerows(rows)
        return out.getvalue().encode("utf-8", "backslashreplace")

    def matches(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        if file.readline() != self.header:
            return False
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        rows = csv.reader(io.TextIOWrapper(file, "utf-8", errors="replace", newline=""))
        try:
            row = next(rows, None)
            for number, record in enumerate(records, 1):
                place = record.place.encode("utf-8", "backslashreplace").decode()
                while row is not None and row[:2] == [str(number), place]:
                    row = next(rows, None)
        except csv.Error:
            return False
        return row is None


class Spacy(Writer):
    """A DocBin with user data: the other fields of the input as JSON in `doc.user_data["fields"]`.

    An error is a Doc without tokens; `["error"]`, `["at"]` and `["text"]` say what went wrong and where.
    """

    name, suffixes, streams = "spacy", (".spacy",), False

    def render(self, record: Record, number: int, doc: Doc, entities: Sequence[Entity]) -> bytes:  # noqa: D102
        if record.fields:
            # As JSON: msgpack cannot hold all of them
            doc.user_data["fields"] = _json_text(record.fields)
        return DocBin(docs=[doc], store_user_data=True).to_bytes()

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        doc = Doc(Vocab())
        user_data = {"error": reason, "at": record.place}
        if record.fields:
            user_data["fields"] = _json_text(record.fields)
        if isinstance(record.content, str):
            user_data["text"] = record.content
        doc.user_data = {key: text.encode("utf-8", "backslashreplace").decode() for key, text in user_data.items()}
        return DocBin(docs=[doc], store_user_data=True).to_bytes()

    def write(self, rendered: Iterable[bytes], file: IO[bytes]) -> None:  # noqa: D102
        merge_docbins(rendered, file)

    def matches(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        try:
            n_docs = len(DocBin(store_user_data=True).from_bytes(file.read()))
        except Exception:  # zlib, msgpack and NumPy have one each
            return False
        return n_docs == sum(1 for _ in records)


class Html(Writer):
    """A displaCy page."""

    name, suffixes = "html", (".html", ".htm")

    def __init__(self) -> None:
        page = TPL_PAGE.format(content="\0", lang="und", dir="ltr").strip()
        page = page.replace("<head>", '<head>\n        <meta charset="utf-8">')
        self.header, self.footer = (part.encode() + b"\n" for part in page.split("\0"))

    def render(self, record: Record, number: int, doc: Doc, entities: Sequence[Entity]) -> bytes:  # noqa: D102
        ents = [{"start": e.start_char, "end": e.end_char, "label": html.escape(e.label_)} for e, _ in entities]
        check_flat([span for span, _ in entities], self.name)
        title = html.escape(printable(record.place))
        figure = {"text": doc.text, "ents": ents, "title": title, "settings": displacy.get_doc_settings(doc)}
        drawn = displacy.render(figure, style="ent", manual=True, page=False, jupyter=False)
        return drawn.encode("utf-8", "backslashreplace") + b"\n"

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        title, text = html.escape(printable(record.place)), html.escape(printable(reason))
        return f'<h2 style="margin: 0">{title}</h2>\n<p class="error">error: {text}</p>\n'.encode()

    def matches(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        if file.read(len(self.header)) != self.header:
            return False
        places = (html.escape(printable(record.place)) for record in records)
        titles = (title.decode() for line in file for title in re.findall(rb'<h2 style="margin: 0">(.*?)</h2>', line))
        return all(title == place for title, place in zip_longest(titles, places))


# For annotation tools
TASKS = (Prodigy, Doccano, LabelStudio)
WRITERS: dict[str, type[Writer]] = {kind.name: kind for kind in (Jsonl, Conll, Spacy, Csv, Html, *TASKS)}


def find_writer(output: str | Path, name: str | None = None) -> Writer:
    """Return the writer of a format, by default that of the output's ending, or JSONL for standard output (`-`).

    Raises ValueError for an unknown name or ending, and for a format that cannot be written to a pipe.
    """
    suffix = Path(output).suffix.lower()
    by_suffix = {suffix: kind.name for kind in WRITERS.values() for suffix in kind.suffixes}
    if name is None:
        name = "jsonl" if str(output) == "-" else by_suffix.get(suffix)
    if name is None:
        known = ", ".join(sorted(by_suffix))
        raise ValueError(f"{output}: unknown ending {suffix!r}; known are {known}. Or set --format")
    if name not in WRITERS:
        raise ValueError(f"--format: {name!r} is unknown; allowed are {', '.join(WRITERS)}")
    writer = WRITERS[name]()
    if str(output) == "-" and not writer.streams:
        raise ValueError(f"--format {name}: cannot be written to standard output record by record; name a file")
    return writer
