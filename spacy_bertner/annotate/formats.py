"""Annotated Docs → bytes of an output record, and such records → a whole file."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
import re
import sys
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from ..formats.conll.faults import printable
from ..formats.conll.layout import starts_mark
from .docbin import merge_docbins
from .records import Record

# Of a score in [0, 1]. The digits beyond vary with what is computed beside a document
SCORE_DIGITS = 4
# Keys of an output record; fields of the input with these names are carried over as `input_…`
RESERVED = ("text", "entities", "error", "at")


def entities(doc: Doc) -> list[dict[str, Any]]:
    """The entities of a Doc: start and end in characters, label, text, and score where there is one (else None)."""
    has_score = Span.has_extension("score")
    found = []
    for ent in doc.ents:
        score = ent._.score if has_score else None
        found.append(
            {
                "start": ent.start_char,
                "end": ent.end_char,
                "label": ent.label_,
                "text": ent.text,
                "score": None if score is None else round(float(score), SCORE_DIGITS),
            }
        )
    return found


class Format:
    """A form of output. Its records stand one after another between header and footer, except where `write` differs.

    is_journal: whether the file grows by whole lines, a record a line, so that it can be gone on with as it is.
    streams: whether it can go to a pipe record by record.
    """

    name = ""
    suffixes: tuple[str, ...] = ()
    is_journal = False
    streams = True
    header = b""
    footer = b""

    def render(self, record: Record, number: int, doc: Doc) -> bytes:
        """The bytes of a record that was annotated; number: that of the record in the whole input, from 0."""
        raise NotImplementedError

    def render_error(self, record: Record, number: int, reason: str) -> bytes:
        """The bytes of a record that could not be processed."""
        raise NotImplementedError

    def write(self, rendered: Iterable[bytes], file: IO[bytes]) -> None:
        """Write a whole file of rendered records."""
        file.write(self.header)
        for data in rendered:
            file.write(data)
        file.write(self.footer)

    def is_of(self, file: IO[bytes], records: Iterable[Record]) -> bool:
        """Whether a whole file, one that `write` has written, is of these records, as far as it tells."""
        raise NotImplementedError


class Jsonl(Format):
    """A JSON object a record: text, entities, and the fields of the input."""

    name, suffixes, is_journal = "jsonl", (".jsonl", ".ndjson"), True

    def render(self, record: Record, number: int, doc: Doc) -> bytes:  # noqa: D102
        return _json_line({"text": doc.text, "entities": entities(doc), **_carried_over(record)})

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        text = {"text": record.content} if isinstance(record.content, str) else {}
        return _json_line({"error": reason, "at": record.place, **text, **_carried_over(record)})


def _carried_over(record: Record) -> dict[str, Any]:
    fields = dict(record.fields)
    for name in RESERVED:
        if name in fields:
            other = f"input_{name}"
            while other in fields:
                other = f"input_{other}"
            fields[other] = fields.pop(name)
    return fields


def _json_line(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_as_json).encode() + b"\n"
    except ValueError:  # NaN, which JSON does not have, or lone surrogates, which it escapes and UTF-8 cannot hold
        return _json_text(value).encode() + b"\n"


def _json_text(value: Any) -> str:
    """JSON in ASCII; null in the place of NaN and infinity."""
    return json.dumps(_finite(value), default=_as_json)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_json(value: Any) -> str:
    """What columns of Parquet can hold beside numbers and texts: bytes as base64, times as ISO 8601 has them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class Conll(Format):
    """Word and tag (IOB2), parted by a TAB, with an empty line after each sentence and a `-DOCSTART-` line a record.

    Tokens of white space alone are left out: the format cannot hold them. An error is a comment of a record without words.
    """

    name, suffixes = "conll", (".conll", ".iob2", ".bio")
    start = "-DOCSTART- -X- O O"  # the one form that spaCy's converter knows

    def render(self, record: Record, number: int, doc: Doc) -> bytes:  # noqa: D102
        lines: list[str] = []
        begins = False  # the entity at hand has no word in the output yet
        for token in doc:
            begins |= token.ent_iob_ == "B"
            if token.is_space or not token.text:
                continue
            if token.is_sent_start and token.i and lines:
                lines.append("")
            tag = f"{'B' if begins else 'I'}-{token.ent_type_}" if token.ent_type_ else "O"
            begins = False
            # A word must not look as if a record began
            word = token.text.lstrip("-") if starts_mark(token.text) else token.text
            lines.append(f"{_one_cell(word)}\t{_one_cell(tag)}")
        return self._record(lines)

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        return self._record([f"# error = {_one_cell(printable(reason))}"])

    def _record(self, lines: list[str]) -> bytes:
        return "".join(f"{line}\n" for line in [self.start, "", *lines, ""]).encode("utf-8", "backslashreplace")

    def is_of(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        start = f"{self.start}\n".encode()
        return file.readline() == start and 1 + sum(line == start for line in file) == sum(1 for _ in records)


def _one_cell(text: str) -> str:
    return re.sub(r"[\t\r\n]", " ", text)


class Csv(Format):
    """A row an entity, under a header; a record without entities has no row, one with an error has one with the reason."""

    name, suffixes = "csv", (".csv",)
    columns = ("record", "at", "start", "end", "label", "text", "score", "error")
    header = ",".join(columns).encode() + b"\n"

    def render(self, record: Record, number: int, doc: Doc) -> bytes:  # noqa: D102
        return self._rows([{"record": number + 1, "at": record.place, **ent} for ent in entities(doc)])

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        return self._rows([{"record": number + 1, "at": record.place, "error": reason}])

    def _rows(self, rows: list[dict[str, Any]]) -> bytes:
        out = io.StringIO()
        csv.DictWriter(out, self.columns, lineterminator="\n").writerows(rows)
        return out.getvalue().encode("utf-8", "backslashreplace")

    def is_of(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        if file.readline() != self.header:
            return False
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        rows = csv.reader(io.TextIOWrapper(file, "utf-8", errors="replace", newline=""))
        try:
            wanted = next(rows, None)
            for number, record in enumerate(records, 1):
                place = record.place.encode("utf-8", "backslashreplace").decode()
                while wanted is not None and wanted[:2] == [str(number), place]:
                    wanted = next(rows, None)
        except csv.Error:
            return False
        return wanted is None


class Spacy(Format):
    """A DocBin, with user data: `doc.user_data["fields"]` has the fields of the input as JSON, and of a Doc without
    tokens `["error"]`, `["at"]` and `["text"]` say what went wrong and where.
    """

    name, suffixes, streams = "spacy", (".spacy",), False

    def render(self, record: Record, number: int, doc: Doc) -> bytes:  # noqa: D102
        if record.fields:
            # As JSON, so that nothing in the fields can get in the way
            doc.user_data["fields"] = _json_text(record.fields)
        return DocBin(docs=[doc], store_user_data=True).to_bytes()

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        doc = Doc(Vocab())
        value = {"error": reason, "at": record.place}
        if record.fields:
            value["fields"] = _json_text(record.fields)
        if isinstance(record.content, str):
            value["text"] = record.content
        doc.user_data = {key: text.encode("utf-8", "backslashreplace").decode() for key, text in value.items()}
        return DocBin(docs=[doc], store_user_data=True).to_bytes()

    def write(self, rendered: Iterable[bytes], file: IO[bytes]) -> None:  # noqa: D102
        merge_docbins(rendered, file)

    def is_of(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        try:
            n_docs = len(DocBin(store_user_data=True).from_bytes(file.read()))
        except Exception:  # zlib, msgpack and NumPy have one each
            return False
        return n_docs == sum(1 for _ in records)


class Html(Format):
    """A displaCy page."""

    name, suffixes = "html", (".html", ".htm")

    def __init__(self) -> None:
        from spacy.displacy.templates import TPL_PAGE

        page = TPL_PAGE.format(content="\0", lang="und", dir="ltr").strip()
        page = page.replace("<head>", '<head>\n        <meta charset="utf-8">')
        self.header, self.footer = (part.encode() + b"\n" for part in page.split("\0"))

    def render(self, record: Record, number: int, doc: Doc) -> bytes:  # noqa: D102
        from spacy import displacy

        ents = [{"start": ent["start"], "end": ent["end"], "label": html.escape(ent["label"])} for ent in entities(doc)]
        title = html.escape(printable(record.place))
        figure = {"text": doc.text, "ents": ents, "title": title, "settings": displacy.get_doc_settings(doc)}
        drawn = displacy.render(figure, style="ent", manual=True, page=False, jupyter=False)
        return drawn.encode("utf-8", "backslashreplace") + b"\n"

    def render_error(self, record: Record, number: int, reason: str) -> bytes:  # noqa: D102
        title, text = html.escape(printable(record.place)), html.escape(printable(reason))
        return f'<h2 style="margin: 0">{title}</h2>\n<p class="error">error: {text}</p>\n'.encode()

    def is_of(self, file: IO[bytes], records: Iterable[Record]) -> bool:  # noqa: D102
        if file.read(len(self.header)) != self.header:
            return False
        places = (html.escape(printable(record.place)) for record in records)
        titles = (title.decode() for line in file for title in re.findall(rb'<h2 style="margin: 0">(.*?)</h2>', line))
        return all(title == place for title, place in zip_longest(titles, places))


FORMATS: dict[str, type[Format]] = {kind.name: kind for kind in (Jsonl, Conll, Spacy, Csv, Html)}


def find_format(output: str | Path, name: str | None = None) -> Format:
    """The format of that name; without one, that of the output's ending, JSONL for standard output (`-`).

    Raises ValueError for names and endings that are unknown, and for what cannot go to a pipe.
    """
    if name is not None:
        if name not in FORMATS:
            raise ValueError(f"--format: {name!r} is unknown; allowed are {', '.join(FORMATS)}")
        found = FORMATS[name]
    elif str(output) == "-":
        found = Jsonl
    else:
        suffix = Path(output).suffix.lower()
        by_suffix = {ending: kind for kind in FORMATS.values() for ending in kind.suffixes}
        if suffix not in by_suffix:
            raise ValueError(
                f"{output}: unknown ending {suffix!r}; known are {', '.join(sorted(by_suffix))}. Or set --format"
            )
        found = by_suffix[suffix]
    if str(output) == "-" and not found.streams:
        raise ValueError(f"--format {found.name}: cannot be written to standard output record by record; name a file")
    return found()
