"""The learning curve from Python: `plot_learning_curve`; the code is in `training.loggers`."""

from .training.loggers import plot_learning_curve

__all__ = ["plot_learning_curve"]
