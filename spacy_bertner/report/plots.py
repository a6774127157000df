"""The plots of a report: F1 by label, confusion of labels, reliability, figures by threshold."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCENT, LIGHT = "#1f5fbf", "#d2dff2"
# The plots that `report.html` shows, with their titles
CHARTS = {"reliability": "Reliability", "thresholds": "By threshold"}


def make_plots(report: Mapping[str, Any]) -> dict[str, dict[str, bytes]]:
    """Draw the plots of a report.

    report: the result of `build_report`.

    Returns the PNG file of each plot, and the SVG file of those in CHARTS, by format and then name; the latter are missing
    where there are no scores. Raises ImportError without matplotlib.
    """
    # Not pyplot, which would keep the figures and choose a backend for the whole process
    from matplotlib import rc_context, rcParams
    from matplotlib.figure import Figure

    labels = report["confusion"]["labels"]
    fonts, missing = _fallback_fonts("".join(labels))
    names = {label: label.translate({c: f"U+{c:X} " for c in missing}) for label in labels}
    entities = {names[label]: row for label, row in report["entities"]["labels"].items()}
    entities["all (micro)"] = report["entities"]["micro"]
    confusion = {**report["confusion"], "labels": [*names.values()]}
    n = len(labels) + 1
    plots: dict[str, tuple[Callable[[Axes, Any], None], Any, tuple[float, float]]] = {
        "labels": (_labels, entities, (6, 1.2 + 0.35 * n)),
        "confusion": (_confusion, confusion, (2.2 + 0.75 * n, 1.4 + 0.55 * n)),
    }
    if report["confidence"] is not None:
        plots["reliability"] = _reliability, report["confidence"], (5, 4.5)
        plots["thresholds"] = _thresholds, report["confidence"], (5, 4.5)
    files: dict[str, dict[str, bytes]] = {"png": {}, "svg": {}}
    settings = {
        "text.parse_math": False,  # a label is text: `$` does not begin a formula in it
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": [*rcParams["font.family"], *fonts],
        "svg.hashsalt": "report",  # the same file every time
    }
    with rc_context(settings):
        for name, (draw, data, size) in plots.items():
            figure = Figure(figsize=size, dpi=144, layout="constrained")
            draw(figure.subplots(), data)
            files["png"][name] = _save(figure, "png", {"Software": None})
            if name in CHARTS:
                files["svg"][name] = _save(figure, "svg", {"Date": None, "Creator": None})
    return files


def _save(figure: Any, file_format: str, metadata: Mapping[str, None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, metadata=metadata, transparent=file_format == "svg")
    return buffer.getvalue()


def _fallback_fonts(text: str) -> tuple[list[str], set[int]]:
    """Return installed fonts for characters that the default font lacks, as in Chinese, and those that all fonts lack."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    fonts, missing = [], set(map(ord, text)) - set(get_font(findfont(FontProperties())).get_charmap())
    for font in fontManager.ttflist if missing else ():
        # Last Resort, which matplotlib brings, has the same box for all characters of a script
        if "Last Resort" not in font.name and (covered := missing & set(get_font(font.fname).get_charmap())):
            missing -= covered
            fonts.append(font.name)
    return fonts, missing


def _labels(axes: Axes, rows: Mapping[str, Any]) -> None:
    values = [100 * row["f1"] for row in rows.values()]
    bars = axes.barh(range(len(rows)), values, color=[LIGHT] * (len(rows) - 1) + [ACCENT])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_yticks(range(len(rows)), [*rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 110)
    axes.set_xlabel("F1, strict, %")


def _confusion(axes: Axes, confusion: Mapping[str, Any]) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    n = len(confusion["labels"])
    cells = np.zeros((n + 1, n + 1), dtype=int)
    cells[:n, :n], cells[:n, n], cells[n, :n] = confusion["matrix"], confusion["missed"], confusion["spurious"]
    axes.imshow(cells, cmap=LinearSegmentedColormap.from_list("accent", ["white", "#7ba3dd"]), aspect="auto")
    for (i, j), count in np.ndenumerate(cells):
        if (i, j) != (n, n):
            axes.text(j, i, str(count), ha="center", va="center", weight="bold" if i == j else "normal")
    is_long = max(map(len, confusion["labels"]), default=0) > 8
    axes.set_xticks(range(n + 1), [*confusion["labels"], "missed"])
    axes.tick_params("x", rotation=30 * is_long)
    axes.set_yticks(range(n + 1), [*confusion["labels"], "spurious"])
    axes.set(xlabel="predicted", ylabel="gold")


def _reliability(axes: Axes, confidence: Mapping[str, Any]) -> None:
    bins = confidence["bins"]
    axes.bar(
        [b["low"] for b in bins],
        [100 * b["accuracy"] for b in bins],
        width=[b["high"] - b["low"] - 0.007 for b in bins],
        align="edge",
        color=LIGHT,
    )
    sizes = [20 + 400 * b["count"] / confidence["scored"] for b in bins]
    axes.scatter([b["confidence"] for b in bins], [100 * b["accuracy"] for b in bins], s=sizes, color=ACCENT, zorder=3)
    axes.plot([0, 1], [0, 100], color="gray", linestyle=":")
    axes.set(xlim=(0, 1.02), ylim=(0, 103), xlabel="score", ylabel="right, %")
    axes.set_title(f"Expected calibration error {100 * confidence['ece']:.1f} %", fontsize="medium")


def _thresholds(axes: Axes, confidence: Mapping[str, Any]) -> None:
    rows = confidence["thresholds"]
    x = [row["threshold"] for row in rows]
    for name, color, line in (("precision", ACCENT, "-"), ("recall", ACCENT, "--"), ("f1", "black", "-")):
        y = [float("nan") if row[name] is None else 100 * row[name] for row in rows]
        axes.plot(x, y, color=color, linestyle=line, label="F1" if name == "f1" else name)
    axes.set(xlim=(0, 1), ylim=(0, 103), xlabel="threshold", ylabel="%")
    axes.legend(frameon=False)
