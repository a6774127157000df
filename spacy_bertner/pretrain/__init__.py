"""Continued pre-training on text without annotation: `python -m spacy bertner pretrain`, and the same from Python.

Model, masking and training loop are transformers'. `blocks` (text to blocks of word pieces), `masking` (of these blocks),
`masked_lm` (loading a checkpoint), `trainer` (setting up the training), `output` (the files of a run), and `run` (all of it
together).
"""

from .run import Result, pretrain
from .settings import Settings

__all__ = ["Result", "Settings", "pretrain"]
