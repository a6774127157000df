"""Many documents in one DocBin; memory does not grow with their number, except for the table of strings.

spaCy's `DocBin` holds everything in memory until it is written. This writes the same bytes (those of `DocBin.to_bytes`: a
msgpack map, compressed by zlib) from parts collected in temporary files.
"""

import io
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np
import srsly
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

# Keys whose value is one string of bytes over all Docs
BLOBS = ("tokens", "spaces", "lengths")
# Keys whose value is a list with one item per Doc
LISTS = ("cats", "flags", "span_groups", "user_data")
PART_TOKENS = 250_000
MAX_BLOB = 2**32 - 1  # the limit of msgpack


class DocSpool:
    """Documents on their way to a file, in parts; all parts but the last are in a temporary file."""

    def __init__(self) -> None:
        self._last, self._n_tokens = DocBin(), 0
        self._file: IO[bytes] | None = None
        self._sizes: list[int] = []

    def add(self, doc: Doc) -> None:
        """Add a document, without its user data."""
        self._last.add(doc)
        self._n_tokens += len(doc)
        if self._n_tokens >= PART_TOKENS:
            self.cut()

    def cut(self) -> int:
        """Start a new part, and return its number."""
        if len(self._last):
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
            self._file.seek(0, io.SEEK_END)
            self._sizes.append(self._file.write(_to_bytes(self._last)))
            self._last, self._n_tokens = DocBin(), 0
        return len(self._sizes)

    def bins(self, first: int = 0) -> Iterator[DocBin]:
        """Yield the parts from this number on."""
        yield from (DocBin().from_bytes(data) for data in self._stored(first))
        yield self._last

    def _stored(self, first: int) -> Iterator[bytes]:
        position = sum(self._sizes[:first])
        for size in self._sizes[first:]:
            assert self._file is not None
            self._file.seek(position)
            yield self._file.read(size)
            position += size

    def docs(self, vocab: Vocab) -> Iterator[Doc]:
        """Yield the documents."""
        for docbin in self.bins():
            yield from docbin.get_docs(vocab)

    def write(self, file: IO[bytes]) -> None:
        """Write them as one DocBin."""
        if self._sizes:
            self.cut()
            merge_docbins(self._stored(0), file)
        else:
            file.write(self._last.to_bytes())

    def close(self) -> None:
        """Delete the temporary file."""
        if self._file is not None:
            self._file.close()


def _to_bytes(docbin: DocBin) -> bytes:
    """As `DocBin.to_bytes`, without user data and with less compression, which takes most of its time."""
    message = {name: getattr(docbin, name) for name in ("version", "attrs", "cats", "flags", "span_groups")}
    message |= {name: np.vstack(getattr(docbin, name)).tobytes() for name in ("tokens", "spaces")}
    message["lengths"] = np.asarray([len(tokens) for tokens in docbin.tokens], dtype=np.int32).tobytes()
    return zlib.compress(srsly.msgpack_dumps({**message, "strings": sorted(docbin.strings)}), 1)


def merge_docbins(bins: Iterable[bytes], file: IO[bytes]) -> int:
    """Write the Docs of many DocBins as one.

    bins: from `DocBin.to_bytes`, all with the same attributes, and all with or all without user data. file: where to write.
    Returns the number of Docs. Raises ValueError if they are more than one DocBin can hold.
    """
    empty = DocBin(store_user_data=True)
    head = {"version": empty.version, "attrs": empty.attrs}
    strings: set[str] = set()
    n_docs = 0
    with ExitStack() as stack:
        parts = {name: stack.enter_context(tempfile.TemporaryFile()) for name in (*BLOBS, *LISTS)}
        lists: Sequence[str] = LISTS
        for data in bins:
            message = srsly.msgpack_loads(zlib.decompress(data))
            head = {name: message[name] for name in head}
            strings.update(message["strings"])
            n_docs += len(message["lengths"]) // 4  # int32
            lists = [name for name in LISTS if name in message]
            for name in BLOBS:
                parts[name].write(message[name])
            for name in lists:
                parts[name].writelines(map(srsly.msgpack_dumps, message[name]))
        compressor = zlib.compressobj()
        file.writelines(map(compressor.compress, _message(head, strings, n_docs, parts, lists)))
        file.write(compressor.flush())
    return n_docs


def _message(
    head: dict[str, Any], strings: set[str], n_docs: int, parts: Mapping[str, IO[bytes]], lists: Sequence[str]
) -> Iterator[bytes]:
    """The msgpack map in pieces, its keys in the order of `DocBin.to_bytes`."""
    packer = srsly.msgpack.Packer()
    yield packer.pack_map_header(len(head) + len(BLOBS) + len(lists) + 1)
    for item in head.items():
        yield from map(srsly.msgpack_dumps, item)
    for name in BLOBS:
        yield srsly.msgpack_dumps(name) + _bytes_header(parts[name].tell())
        yield from _content(parts[name])
    yield srsly.msgpack_dumps("strings") + srsly.msgpack_dumps(sorted(strings))
    for name in lists:
        yield srsly.msgpack_dumps(name) + packer.pack_array_header(n_docs)
        yield from _content(parts[name])


def _bytes_header(size: int) -> bytes:
    """What msgpack puts before so many bytes; its packer has methods for the headers of arrays and maps only."""
    if size > MAX_BLOB:
        raise ValueError("the documents are more than one DocBin can hold (4 GiB of tokens); divide the input")
    if size < 2**8:
        return struct.pack(">BB", 0xC4, size)
    return struct.pack(">BH", 0xC5, size) if size < 2**16 else struct.pack(">BI", 0xC6, size)


def _content(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(1 << 20):
        yield block
