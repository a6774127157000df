"""`report.html` and `report.md`, made from the same Jinja template.

`page/sections.jinja` has the sections, their text and their tables; the macros of `html.jinja` and `md.jinja` show them in
each format. The page loads nothing and runs no script but its own, which a content security policy names by its hash.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_PAGE = files("spacy_bertner.report") / "page"
# Rows shown of tables of text, such as words annotated in several ways; report.json has all
N_ROWS = 100
N_ROWS_MARKDOWN = 20


def percent(value: float | None) -> str:
    """Format a share as a percentage with one decimal, None as a dash."""
    return "–" if value is None else f"{100 * value:.1f}"  # noqa: RUF001


def points(value: float) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    text = f"{100 * value:+.1f}".replace("-", "−")  # noqa: RUF001
    return "0.0" if text[1:] == "0.0" else text


def make_page(report: Mapping[str, Any], charts: Mapping[str, bytes] | None = None) -> str:
    """Make the page of a report.

    report: the result of `build_report`. charts: SVG files by their title; None without matplotlib.
    """
    style, script = (_PAGE.joinpath(name).read_text(encoding="utf8").strip() for name in ("page.css", "page.js"))
    template = _environment().get_template("page.jinja")
    return template.render(
        report,
        macros="html.jinja",
        charts={title: _base64(svg) for title, svg in (charts or {}).items()},
        style=style,
        script=script,
        script_hash=_base64(hashlib.sha256(script.encode()).digest()),
        n_rows=N_ROWS,
    )


def make_markdown(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """Make the Markdown of a report, for a terminal, a merge request or a model card.

    report: the result of `build_report`. pictures: file names of the plots beside it.
    """
    template = _environment(finalize=_markdown).get_template("report.jinja")
    text = template.render(report, macros="md.jinja", charts={}, pictures=pictures, n_rows=N_ROWS_MARKDOWN)
    return re.sub(r"\n{3,}", "\n\n", text)


def _environment(finalize: Callable[[Any], Any] | None = None) -> Environment:
    environment = Environment(
        loader=PackageLoader("spacy_bertner.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        finalize=finalize,
    )
    environment.filters.update({"percent": percent, "points": points, "thousands": "{:,}".format})
    return environment


def _markdown(value: Any) -> Markup:
    """Return a value of an expression as one line of Markdown that shows it unchanged; the output of macros is Markdown."""
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split())
    return Markup(re.sub(r"([\\`*_{}\[\]<>()#+!|~&-])", r"\\\1", line))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
