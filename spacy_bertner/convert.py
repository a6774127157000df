"""Reading CoNLL files from Python: `read_conll`, `convert` and their options; the code is in `formats.convert`."""

from .formats.convert import ReadOptions, convert, read_conll

__all__ = ["ReadOptions", "convert", "read_conll"]
