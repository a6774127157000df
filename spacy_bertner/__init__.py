"""Train and run a BERT named-entity tagger inside spaCy.

The parts register themselves through entry points (see `pyproject.toml`); nothing needs to be
imported by hand, and this module imports nothing, so that `spacy.blank()` stays quick.
"""

__version__ = "0.1.0"
