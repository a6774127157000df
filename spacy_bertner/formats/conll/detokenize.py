"""The former place of `formats.detokenize`."""

from ..detokenize import guess_spaces

__all__ = ["guess_spaces"]
