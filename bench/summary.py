"""The results of `throughput.py`: summary, table and picture."""

import json
import math
import statistics
from pathlib import Path
from textwrap import wrap
from typing import Any

from common import Data

OURS = "bert_ner"
PEER = "transformer+ner"
TITLES = {
    "sentences": "Prediction: sentences",
    "documents": "Prediction: documents of 400 words",
    "long": "Prediction: one long document",
    "training on sentences": "Training: sentences",
    "training on documents": "Training: documents of 400 words",
}


def summarize(data: Data, rows: list[dict[str, Any]], multiply_adds: int) -> list[dict[str, Any]]:
    """Medians over the rounds of one input, one row per system; and the limit in each precision.

    Shares of the limit are those of the rates measured just before each run.
    """
    factor = 3 if data.name.startswith("training") else 1
    peer = {row["round"]: row["words"] / row["seconds"] for row in rows if row["system"] == PEER}
    summary = []
    for name in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == name]
        speeds = [row["words"] / row["seconds"] for row in own]
        speed, precision = statistics.median(speeds), own[0]["precision"]
        rates = [row["rates"][precision] for row in own]
        shares = [s * multiply_adds / data.n_words / rate for s, rate in zip(speeds, rates, strict=True)]
        used = [row["multiply_adds"] * factor / row["seconds"] / rate for row, rate in zip(own, rates, strict=True)]
        ratios = [s / peer[row["round"]] for s, row in zip(speeds, own, strict=True)] if peer else []
        summary.append(
            {
                "input": data.name,
                "system": name,
                "precision": precision,
                "words": own[0]["words"],
                "entities": own[0]["entities"],
                "words_per_second": speed,
                "lowest": min(speeds),
                "highest": max(speeds),
                "ratio": statistics.median(ratios) if ratios else None,
                "pieces": own[0]["pieces"] or None,
                "padded": own[0]["padded"] or None,
                "of_limit": statistics.median(shares),
                "machine": statistics.median(used) if own[0]["padded"] else None,
            }
        )
    for precision, rate in median_rates(rows).items():
        speed = rate * data.n_words / multiply_adds
        summary.append({"input": data.name, "system": "limit", "precision": precision, "words_per_second": speed})
    return summary


def median_rates(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The rates of matrix products, by precision."""
    precisions = rows[0]["rates"] if rows else ()
    return {name: statistics.median(row["rates"][name] for row in rows) for name in precisions}


def table(results: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = [results["title"], ""]
    for name, about in results["inputs"].items():
        lines += [
            f"**{TITLES[name]}** ({about['docs']} Docs, {about['words']} words, {about['pieces']} pieces, "
            f"{about['entities']} entities)",
            "",
            f"| | words/s | lowest, highest | / {PEER} | entities | pieces, padded | of the limit | machine |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for row in (row for row in results["summary"] if row["input"] == name):
            if row["system"] == "limit":
                lines.append(f"| *limit, {row['precision']}* | *{row['words_per_second']:,.0f}* | | | | | | |")
                continue
            cut = "" if row["words"] == about["words"] else f" ({row['words']} words)"
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            entities = "" if row["entities"] is None else f"{row['entities']:,}"
            padded = "" if row["padded"] is None else f"{row['padded']:,}"
            machine = "" if row["machine"] is None else f"{row['machine']:.0%}"
            lines.append(
                f"| {row['system']}{cut} | {row['words_per_second']:,.0f} | {row['lowest']:,.0f}, {row['highest']:,.0f} "
                f"| {ratio} | {entities} | {padded} | {row['of_limit']:.0%} | {machine} |"
            )
        lines.append("")
    rates = ", ".join(f"{2 * rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in results["rates"].items())
    lines.append(f"Matrix products: {rates} (two a multiply-add).")
    lines += [f"{name}: {reason}." for name, reason in (results["cut"] | results["left_out"]).items()]
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw one panel per input, one bar per system, the limits as lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(results["inputs"])
    n_columns = min(3, len(names))
    n_rows = math.ceil(len(names) / n_columns)
    figure = Figure(figsize=(5.2 * n_columns, 0.8 + 3.5 * n_rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
    colours = {"float32": "tab:red", "bf16": "tab:purple", "fp16": "tab:brown"}
    for axes, name in zip(panels, names, strict=False):
        rows = [row for row in results["summary"] if row["input"] == name]
        bars = [row for row in rows if row["system"] != "limit"]
        speeds = [row["words_per_second"] for row in bars]
        for place, row in enumerate(bars):
            ours = row["system"].startswith(OURS)
            colour = "tab:blue" if ours else "lightsteelblue" if row["system"] == "bare-model" else "darkgrey"
            spread = [[speeds[place] - row["lowest"]], [row["highest"] - speeds[place]]]
            axes.barh(
                place, speeds[place], color=colour, xerr=spread, error_kw={"ecolor": "0.25", "capsize": 2, "lw": 1}
            )
            axes.annotate(
                f"{speeds[place]:,.0f} ({row['of_limit']:.0%})",
                (row["highest"], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
            )
        for row in rows:
            if row["system"] == "limit":
                label = f"limit, {row['precision']}: {row['words_per_second']:,.0f}"
                axes.axvline(row["words_per_second"], color=colours[row["precision"]], ls="--", lw=1.5, label=label)
        axes.set_yticks(range(len(bars)), [row["system"] for row in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18 * max([row["highest"] for row in bars] + [row["words_per_second"] for row in rows]))
        axes.set_title(TITLES[name], fontsize=11)
        axes.set_xlabel("words per second (share of the limit)")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.19), fontsize=9, frameon=False)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.suptitle("\n".join(wrap(results["title"], 34 * n_columns)), fontsize=10)
    figure.savefig(path)


def write(results: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "throughput.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf8")
    (folder / "throughput.md").write_text(table(results), encoding="utf8")
    plot(results, folder / "throughput.png")
