"""The files of a model: the error for those that cannot be used, and a folder of them as bytes."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import srsly


class CheckpointError(ValueError):
    """A checkpoint, or the model folder of a saved pipeline, that cannot be used."""


def pack_files(to_disk: Callable[[str], None]) -> bytes:
    """Return the files that `to_disk` writes into the folder it gets, as one msgpack map from name to content."""
    with tempfile.TemporaryDirectory() as folder:
        to_disk(folder)
        return srsly.msgpack_dumps({p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())})


@contextlib.contextmanager
def unpacked_files(data: bytes) -> Iterator[str]:
    """Give a folder, for the time of the context, with the files that `pack_files` took; raises CheckpointError."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in srsly.msgpack_loads(data).items():
            if Path(name).name != name:
                raise CheckpointError(f"model bytes: a file name that leaves its folder: {name!r}")
            (Path(folder) / name).write_bytes(content)
        yield folder
