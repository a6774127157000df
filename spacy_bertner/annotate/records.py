"""One record of the input, and chunks of records that go through the pipeline together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """One record of the input, which becomes one record of the output.

    source: name of the file. position: its line, row or document there, from 1; 0 for the file as a whole.
    content: the text, or a Doc as `Doc.to_bytes` gives it; None if `error` says why there is none.
    fields: the other fields of the record, carried over to the output.
    at: bytes of the whole input up to its end, for the progress bar; 0 if not known.
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
    """Cut records into chunks of at most `max_records`; a chunk also ends once it has `max_chars` characters.

    The characters are those of texts and of the fields carried over.

    The last digits of a document's scores depend on what is computed beside it. So the cuts depend on the input alone: a
    resumed run makes the same chunks as an uninterrupted one.
    """
    first, chunk, n_chars = 0, [], 0
    for record in records:
        chunk.append(record)
        n_chars += len(record.content or "") + sum(
            len(value) for value in record.fields.values() if isinstance(value, (str, bytes))
        )
        if len(chunk) == max_records or n_chars >= max_chars:
            yield Chunk(first, chunk)
            first, chunk, n_chars = first + len(chunk), [], 0
    if chunk:
        yield Chunk(first, chunk)
