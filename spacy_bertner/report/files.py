"""The files of a report and their folder."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..files import atomic_write, check_output_folder
from .plots import CHARTS, make_plots
from .render import make_markdown, make_page


def write_report(report: dict[str, Any], folder: str | Path, *, force: bool = False) -> list[Path]:
    """Write `report.html`, `report.json`, `report.md` and, if matplotlib is installed, plots (.png): all of them or none.

    report: the result of `build_report`. folder: created if it does not exist; other files in it are kept.
    force: overwrite an earlier report.

    Returns the files. Raises FileExistsError as `check_output_folder` does.
    """
    folder = Path(folder)
    check_output_folder(folder, force=force)
    try:
        plots = make_plots(report)
    except ImportError:
        plots = {"png": {}, "svg": {}}
    pictures = {f"{name}.png": data for name, data in plots["png"].items()}
    files = {
        "report.html": make_page(report, {CHARTS[name]: svg for name, svg in plots["svg"].items()}).encode(),
        "report.json": json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False).encode(),
        "report.md": make_markdown(report, list(pictures)).encode(),
        **pictures,
    }
    with ExitStack() as stack:
        for name, data in files.items():
            stack.enter_context(atomic_write(folder / name)).write(data)
    return [folder / name for name in files]
