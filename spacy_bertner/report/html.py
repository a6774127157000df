"""`report.html`: one page with all in it, which loads nothing and runs no script but its own.

All text goes through Jinja's autoescaping, and a content security policy names the one script by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

PAGE = "page.html.jinja"
KIND_NAMES = {
    "strict": "Same words, same label",
    "exact": "Same words, any label",
    "partial": "Overlap, any label (half if not the same words)",
    "type": "Overlap, same label",
}
LOST_NAMES = {
    "skipped": "Documents that could not be scored",
    "misaligned": "Gold entities that do not align with the pipeline's tokens",
    "cut": "Words longer than a window, of which the model sees the start alone",
    "ignored": "Predictions where there is no gold annotation, neither right nor wrong",
    "conversion": "Mended or dropped when the data was converted",
}
# Rows shown of words annotated in several ways, and of entities on which two pipelines differ; the JSON has all
MAX_ROWS = 100


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal, a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}"  # noqa: RUF001


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    text = f"{100 * value:+.1f}".replace("-", "−")  # noqa: RUF001
    return "0.0" if text[1:] == "0.0" else text


def thousands(value: int) -> str:
    """A number with commas between thousands."""
    return f"{value:,}"


def make_page(report: dict[str, Any]) -> str:
    """Make the page of a report.

    report: what `build_report` returned.
    """
    environment = Environment(
        loader=PackageLoader("spacy_bertner.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update({"percent": percent, "points": points, "thousands": thousands})
    script = _source(environment, "page.js")
    return environment.get_template(PAGE).render(
        **report,
        style=_source(environment, "page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        kind_names=KIND_NAMES,
        lost_names=LOST_NAMES,
        max_rows=MAX_ROWS,
        best=best_threshold(report),
    )


def best_threshold(report: dict[str, Any]) -> dict[str, Any] | None:
    """The threshold with the highest F1, the lowest of several; None without scores."""
    if report["confidence"] is None:
        return None
    return max(report["confidence"]["thresholds"], key=lambda row: row["f1"])


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()
