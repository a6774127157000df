"""The former place of `formats.source`."""

from ..source import find_files
from .layout import SUFFIXES

__all__ = ["SUFFIXES", "find_files"]
