"""Search for the best settings of a training config: the command `tune`. Optuna chooses the trials and keeps them."""

from .run import Settings, make_search, tune

__all__ = ["Settings", "make_search", "tune"]
