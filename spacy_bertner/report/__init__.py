"""Reports on what a pipeline finds: `build_report` makes one, `write_report` its files.

For any spaCy pipeline with `doc.ents`, or a group of `doc.spans`.
"""

from .build import Settings, build_report
from .documents import DataError
from .files import check_folder, write_report

__all__ = ["DataError", "Settings", "build_report", "check_folder", "write_report"]
