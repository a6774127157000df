"""What was read, written, repaired and dropped, file by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from wasabi import table

from .faults import printable

_MAX_LISTED = 5
_BY_SENTENCE = "no document marks: one document per sentence; --n-sents N groups them"


@dataclass(frozen=True)
class Entry:
    """A line that was repaired or dropped: its number, why, what was done, and the line itself."""

    line: int
    reason: str
    action: str
    text: str


@dataclass(frozen=True)
class Misaligned:
    """An entity that does not align with the pipeline's own tokens: `spacy.Corpus.v1` would lose it.

    document: counted from 1. start, end: characters.
    """

    document: int
    start: int
    end: int
    label: str
    text: str


@dataclass
class FileRecord:
    """The record of one input.

    output: where its documents are.
    documents_by: what separates the documents: "marks", "sentence", "every … sentences", "file" or "records".
    spaces: "given", "rules" or "unknown".
    sentences: None where the file does not say where sentences start.
    layer: entities of the further layers, by label.
    warnings: what to look at, and what to do about it.
    skipped: what is in files of annotation tools and not read, such as rejected tasks and relations.
    """

    input: str
    layout: str
    columns: dict[str, str | None]
    scheme: str | None
    documents_by: str
    spaces: str
    output: str = ""
    documents: int = 0
    sentences: int | None = 0
    tokens: int = 0
    missing: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    layer: Counter[str] = field(default_factory=Counter)
    comments: int = 0
    multi_word_tokens: int = 0
    empty_nodes: int = 0
    misaligned: list[Misaligned] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass
class Ledger:
    """The records of one run, and the files of searched folders that were skipped. As a string, a short table."""

    files: list[FileRecord] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens of all files."""
        return sum(record.tokens for record in self.files)

    @property
    def entities(self) -> Counter[str]:
        """Entities of all files, by label."""
        return sum((record.entities for record in self.files), Counter[str]())

    def to_dict(self) -> dict[str, Any]:
        """Return the files and their totals, ready for JSON, with labels in alphabetical order."""
        files = []
        for record in self.files:
            # `asdict` would count the items of a Counter
            counts = {name: dict(sorted(getattr(record, name).items())) for name in ("entities", "layer", "skipped")}
            files.append(asdict(record) | counts)
        return {
            "files": files,
            "left_out": self.left_out,
            "totals": {
                "documents": sum(record.documents for record in self.files),
                "tokens": self.tokens,
                "entities": dict(sorted(self.entities.items())),
                "misaligned": sum(len(record.misaligned) for record in self.files),
                "entries": sum(len(record.entries) for record in self.files),
            },
        }

    def __str__(self) -> str:
        header = ("input", "layout", "scheme", "docs", "sents", "tokens", "entities", "repaired")
        rows = []
        for r in self.files:
            n_sentences = "?" if r.sentences is None else r.sentences
            counts = (r.documents, n_sentences, r.tokens, r.entities.total(), len(r.entries))
            rows.append((r.input, r.layout, r.scheme or "-", *map(str, counts)))
        labels = ", ".join(f"{label} {n}" for label, n in sorted(self.entities.items()))
        lines = [table(rows, header=header, divider=True, aligns=("l",) * 3 + ("r",) * 5, max_col=60)]
        lines.append(f"Entities: {labels or 'none'}")
        for r in self.files:
            if r.documents_by == "sentence" and r.documents > 1:
                lines.append(printable(f"{r.input}: {_BY_SENTENCE}"))
            lines += [printable(f"{r.input}: warning: {warning}") for warning in r.warnings]
            if r.skipped:
                listed = ", ".join(f"{what} {n}" for what, n in r.skipped.items())
                lines.append(printable(f"{r.input}: left out: {listed}"))
            entries = [f"line {entry.line}: {entry.reason}; {entry.action}" for entry in r.entries]
            lines += _first(f"{r.input}: repaired or dropped", entries)
            lost = [f"document {ent.document}: {ent.text} ({ent.label})" for ent in r.misaligned]
            lines += _first(f"{r.input}: entities that do not align with the pipeline's own tokens", lost)
        return "\n".join(lines)


def _first(title: str, items: list[str]) -> Iterator[str]:
    """Yield a title with the number of items, and the first of them."""
    if items:
        yield f"{title}: {len(items)}"
        yield from (f"  {printable(item)}" for item in items[:_MAX_LISTED])
    if len(items) > _MAX_LISTED:
        yield f"  … and {len(items) - _MAX_LISTED} more, all of them in the ledger (--ledger)"
