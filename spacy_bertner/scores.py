"""`register_score` makes `ent._.score` known to spaCy; the code is in `confidence`."""

from .confidence import register_score

__all__ = ["register_score"]
