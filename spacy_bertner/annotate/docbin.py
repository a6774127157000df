"""One DocBin out of many of one Doc each, in memory that does not grow with their number beyond the strings' table.

spaCy's `DocBin` keeps all of it until it is written. This writes the same bytes (the msgpack map of `DocBin.to_bytes`,
compressed by zlib) from parts gathered in temporary files.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from typing import IO, Any

import srsly
from spacy.tokens import DocBin

# Parts of the map that are one run of bytes over all Docs
BLOBS = ("tokens", "spaces", "lengths")
# Those that are a list with an item a Doc
LISTS = ("cats", "flags", "span_groups", "user_data")
MAX_BLOB = 2**32 - 1  # msgpack's limit


def merge_docbins(bins: Iterable[bytes], file: IO[bytes]) -> int:
    """Write a DocBin with the Docs of many, all with the same attributes and with user data.

    bins: what `DocBin.to_bytes` gave, of one Doc each. file: where to write.
    Returns the number of Docs. Raises ValueError where they are more than a DocBin can hold.
    """
    strings: set[str] = set()
    n_docs = 0
    head: dict[str, Any] | None = None
    spools = {name: tempfile.TemporaryFile() for name in (*BLOBS, *LISTS)}  # noqa: SIM115
    try:
        for data in bins:
            part = srsly.msgpack_loads(zlib.decompress(data))
            head = head or {"version": part["version"], "attrs": part["attrs"]}
            strings.update(part["strings"])
            n_docs += 1
            for name in BLOBS:
                spools[name].write(part[name])
            for name in LISTS:
                spools[name].write(b"".join(map(srsly.msgpack_dumps, part[name])))
        if head is None:
            empty = DocBin(store_user_data=True)
            head = {"version": empty.version, "attrs": empty.attrs}
        _write(head, strings, n_docs, spools, file)
    finally:
        for spool in spools.values():
            spool.close()
    return n_docs


def _write(
    head: dict[str, Any], strings: set[str], n_docs: int, spools: Mapping[str, IO[bytes]], file: IO[bytes]
) -> None:
    press = zlib.compressobj()

    def write(data: bytes) -> None:
        file.write(press.compress(data))

    def copy(spool: IO[bytes]) -> None:
        spool.seek(0)
        while block := spool.read(1 << 20):
            write(block)

    packer = srsly.msgpack.Packer()
    write(packer.pack_map_header(len(head) + len(spools) + 1))
    for key, value in head.items():
        write(srsly.msgpack_dumps(key) + srsly.msgpack_dumps(value))
    for name in BLOBS:
        size = spools[name].tell()
        if size > MAX_BLOB:
            raise ValueError(
                "the documents are more than one DocBin can hold (4 GiB of tokens): annotate them in parts"
            )
        write(srsly.msgpack_dumps(name) + _bytes_header(size))
        copy(spools[name])
    write(srsly.msgpack_dumps("strings") + srsly.msgpack_dumps(sorted(strings)))
    for name in LISTS:
        write(srsly.msgpack_dumps(name) + packer.pack_array_header(n_docs))
        copy(spools[name])
    file.write(press.flush())


def _bytes_header(size: int) -> bytes:
    """What msgpack puts before so many bytes; its packer has a method for arrays and maps, none for this."""
    if size < 2**8:
        return struct.pack(">BB", 0xC4, size)
    return struct.pack(">BH", 0xC5, size) if size < 2**16 else struct.pack(">BI", 0xC6, size)
