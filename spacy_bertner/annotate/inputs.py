"""Which files to annotate: names, folders and globs to input files, each with its format."""

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from ..formats.conll.layout import SUFFIXES as CONLL_SUFFIXES
from ..formats.faults import ConversionError, Fault
from ..formats.source import find_files

# By the ending of a file
FORMATS = {
    **dict.fromkeys(CONLL_SUFFIXES, "conll"),
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".spacy": "spacy",
}


@dataclass
class Input:
    """A file of the input, or standard input.

    path: the file; None for standard input. format: a key of `readers.READERS`, or "auto" for standard input.
    scan: how to read a CoNLL file, known once it has been scanned.
    """

    path: Path | None
    format: str
    scan: Any = None

    @property
    def name(self) -> str:
        """Its name in messages."""
        return "<stdin>" if self.path is None else str(self.path)

    @cached_property
    def is_file(self) -> bool:
        """Whether it can be read more than once, unlike standard input and pipes."""
        return self.path is not None and self.path.is_file()

    @cached_property
    def size(self) -> int:
        """Bytes in it; 0 if not known."""
        return self.path.stat().st_size if self.path is not None and self.is_file else 0

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Open it; standard input stays open."""
        return nullcontext(sys.stdin.buffer) if self.path is None else self.path.open("rb")


def find_inputs(
    names: Iterable[str | Path], input_format: str | None = None, outputs: Iterable[Path] = ()
) -> tuple[list[Input], list[str]]:
    """Find the files that names, folders, glob patterns and `-` stand for.

    names, outputs: as for `find_files`. input_format: the format of all files; None to go by each file's ending.

    Returns the inputs in the order given, each once, and the files in folders that were left out for an unknown ending.
    Raises ConversionError listing all names that lead nowhere, and files that are empty, of an unknown ending, or an output
    too.
    """
    faults = ConversionError()
    paths, left_out = find_files(names, lambda path: path.suffix.lower() in FORMATS, faults, outputs)
    inputs = []
    for path in paths:
        guessed = "auto" if path is None else FORMATS.get(path.suffix.lower(), "")
        item = Input(path, input_format or guessed)
        if path is not None and not item.format:
            known = "txt, jsonl, csv, tsv, parquet, spacy, conll and the like"
            faults.add(
                Fault(item.name, None, f"unknown ending {path.suffix!r}; known are {known}. Or set --input-format")
            )
        elif item.is_file and item.size == 0 and item.format != "text":  # an empty text is a record without entities
            faults.add(Fault(item.name, None, "the file is empty"))
        inputs.append(item)
    if not inputs and not faults.total:
        faults.add(Fault("annotate", None, "no input given"))
    if faults.total:
        raise faults
    return inputs, left_out
