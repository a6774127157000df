"""The former place of `formats.faults`."""

from ..faults import ConversionError, Fault, printable

__all__ = ["ConversionError", "Fault", "FaultList", "printable"]


class FaultList(ConversionError):
    """The former name of a `ConversionError` that faults are added to."""

    def error(self) -> ConversionError:
        """Return itself."""
        return self
