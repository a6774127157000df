"""The files of a report, and the folder that they go to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .documents import DataError
from .html import make_page
from .markdown import make_markdown


def check_folder(folder: Path, force: bool) -> None:
    """Raise DataError where a report must not be written to a folder: it is a file, or holds something (unless `force`)."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder for the report")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; --force writes the report over an earlier one")


def write_report(report: dict[str, Any], folder: str | Path, *, force: bool = False) -> list[Path]:
    """Write `report.html`, `report.json`, `report.md` and, where matplotlib is installed, plots (.png).

    report: what `build_report` returned. folder: made where it is not there; other files in it stay.
    force: write over what is there.

    Returns the files. Raises DataError where the folder is in use.
    """
    folder = Path(folder)
    check_folder(folder, force)
    try:
        from .plots import make_plots

        pictures = make_plots(report)
    except ImportError:
        pictures = {}
    # All is made before the first is written
    files = {
        "report.html": make_page(report).encode(),
        "report.json": json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False).encode(),
        "report.md": make_markdown(report, list(pictures)).encode(),
        **pictures,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]
