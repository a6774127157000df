"""One record of the input, and chunks of records that go through the pipeline together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """What becomes one record of the output.

    source: name of the file. position: its line, row or document there, from 1; 0 for the file as a whole.
    content: the text, or a Doc as `Doc.to_bytes` gives it; None where `error` says why it cannot be had.
    fields: what else belongs to it, to be carried over.
    at: bytes of the whole input up to its end, as far as is known.
    """

    source: str
    position: int
    content: str | bytes | None
    fields: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    at: int = 0

    @property
    def place(self) -> str:
        """File and position, for messages."""
        return f"{self.source}:{self.position}" if self.position else self.source


@dataclass
class Chunk:
    """Consecutive records. first: the number of the first one in the whole input, from 0."""

    first: int
    records: list[Record]

    @property
    def end(self) -> int:
        """The number of the record after it."""
        return self.first + len(self.records)


def chunks(records: Iterable[Record], max_records: int, max_chars: int) -> Iterator[Chunk]:
    """Cut records into chunks, each of at most `max_records`, that ends where it has `max_chars` characters or more.

    The characters are those of texts and of the fields that go with them.

    Scores of a document depend, in their last digits, on what is computed beside it. So the cuts depend on the input
    alone: a run that is gone on with makes the same chunks as an undisturbed one.
    """
    first, chunk, n_chars = 0, [], 0
    for record in records:
        chunk.append(record)
        n_chars += len(record.content or "") + sum(
            len(v) for v in record.fields.values() if isinstance(v, (str, bytes))
        )
        if len(chunk) == max_records or n_chars >= max_chars:
            yield Chunk(first, chunk)
            first, chunk, n_chars = first + len(chunk), [], 0
    if chunk:
        yield Chunk(first, chunk)
