"""What was read, kept, mended and dropped, file by file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One thing done to the input: where, why, what, and the line itself."""

    line: int
    reason: str
    action: str
    text: str


@dataclass(frozen=True)
class Misaligned:
    """An entity whose bounds are no bounds of the pipeline's own tokens: training on this text
    with `spacy.Corpus.v1` would lose it."""

    document: int
    start: int
    end: int
    label: str
    text: str


@dataclass
class FileRecord:
    """All there is to say about one input.

    documents_by says what bounds the documents; spaces is "unknown", "given" or "rules";
    sentences is None where the file does not say where sentences start. `layer` counts the
    entities of the second layer. `entries` holds each repair and each drop.
    """

    input: str
    output: str
    layout: str
    columns: dict[str, str | None]
    scheme: str | None
    documents_by: str
    spaces: str
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


@dataclass
class Ledger:
    """The records of one run. `left_out` are the files of folders that were passed over."""

    files: list[FileRecord] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens of all files."""
        return sum(record.tokens for record in self.files)

    @property
    def entities(self) -> Counter[str]:
        """Entities of all files by label."""
        return sum((record.entities for record in self.files), Counter[str]())

    def to_dict(self) -> dict[str, Any]:
        """The whole ledger, ready for JSON.

        RETURNS (dict[str, Any]): Files, and totals over them; labels in order of the alphabet.
        """
        files = []
        for record in self.files:
            data = asdict(record)
            data["entities"] = dict(sorted(record.entities.items()))
            data["layer"] = dict(sorted(record.layer.items()))
            files.append(data)
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
