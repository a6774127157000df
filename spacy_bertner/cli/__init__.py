"""The command line, `python -m spacy bertner …`: thin typer commands over the library's functions.

spaCy imports this package for every command of its own, so each command imports what it needs only when it runs.
"""

from . import data, pipelines, training
from .app import bertner

__all__ = ["bertner", "data", "pipelines", "training"]
