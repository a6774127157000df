"""Many DocBins of one Doc each merged into one; memory does not grow with their number, except for the table of strings.

spaCy's `DocBin` holds everything in memory until it is written. This writes the same bytes (those of `DocBin.to_bytes`: a
msgpack map, compressed by zlib) from parts collected in temporary files.
"""

import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import IO, Any

import srsly
from spacy.tokens import DocBin

# Keys whose value is one string of bytes over all Docs
BLOBS = ("tokens", "spaces", "lengths")
# Keys whose value is a list with one item per Doc
LISTS = ("cats", "flags", "span_groups", "user_data")
MAX_BLOB = 2**32 - 1  # the limit of msgpack


def merge_docbins(bins: Iterable[bytes], file: IO[bytes]) -> int:
    """Write the Docs of many DocBins as one.

    bins: from `DocBin.to_bytes`, each of one Doc, all with the same attributes and with user data. file: where to write.
    Returns the number of Docs. Raises ValueError if they are more than one DocBin can hold.
    """
    empty = DocBin(store_user_data=True)
    head = {"version": empty.version, "attrs": empty.attrs}
    strings: set[str] = set()
    n_docs = 0
    with ExitStack() as stack:
        parts = {name: stack.enter_context(tempfile.TemporaryFile()) for name in (*BLOBS, *LISTS)}
        for data in bins:
            message = srsly.msgpack_loads(zlib.decompress(data))
            head = {name: message[name] for name in head}
            strings.update(message["strings"])
            n_docs += 1
            for name in BLOBS:
                parts[name].write(message[name])
            for name in LISTS:
                parts[name].writelines(map(srsly.msgpack_dumps, message[name]))
        compressor = zlib.compressobj()
        file.writelines(map(compressor.compress, _message(head, strings, n_docs, parts)))
        file.write(compressor.flush())
    return n_docs


def _message(head: dict[str, Any], strings: set[str], n_docs: int, parts: Mapping[str, IO[bytes]]) -> Iterator[bytes]:
    """The msgpack map in pieces, its keys in the order of `DocBin.to_bytes`."""
    packer = srsly.msgpack.Packer()
    yield packer.pack_map_header(len(head) + len(parts) + 1)
    for item in head.items():
        yield from map(srsly.msgpack_dumps, item)
    for name in BLOBS:
        yield srsly.msgpack_dumps(name) + _bytes_header(parts[name].tell())
        yield from _content(parts[name])
    yield srsly.msgpack_dumps("strings") + srsly.msgpack_dumps(sorted(strings))
    for name in LISTS:
        yield srsly.msgpack_dumps(name) + packer.pack_array_header(n_docs)
        yield from _content(parts[name])


def _bytes_header(size: int) -> bytes:
    """What msgpack puts before so many bytes; its packer has methods for the headers of arrays and maps only."""
    if size > MAX_BLOB:
        raise ValueError("the documents are more than one DocBin can hold (4 GiB of tokens): annotate them in parts")
    if size < 2**8:
        return struct.pack(">BB", 0xC4, size)
    return struct.pack(">BH", 0xC5, size) if size < 2**16 else struct.pack(">BI", 0xC6, size)


def _content(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(1 << 20):
        yield block
