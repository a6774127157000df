"""The learning curve from Python: `plot_learning_curve`; the code is in `training.learning_curve`."""

from .training.learning_curve import plot_learning_curve

__all__ = ["plot_learning_curve"]
