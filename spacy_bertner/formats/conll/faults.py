"""The former place of `formats.faults`."""

from ..faults import ConversionError, Fault, FaultList, printable

__all__ = ["ConversionError", "Fault", "FaultList", "printable"]
