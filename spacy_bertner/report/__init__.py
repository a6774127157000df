"""Score a pipeline and show where it goes wrong: `build_report` makes a report, `write_report` its files.

For any spaCy pipeline that sets `doc.ents` or a group of `doc.spans`.
"""

from ..files import DataError
from .build import Settings, build_report
from .files import write_report

__all__ = ["DataError", "Settings", "build_report", "write_report"]
