"""The learning curve of a training run: a table (CSV) with a row per evaluation, and a picture of it."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE = "learning_curve.csv"
PICTURE = "learning_curve.png"
# Columns of the table before those of losses and scores
STEP_COLUMNS = ("step", "epoch", "words", "seconds", "learn_rate", "score")
LOSS = "loss_"
NAMES = {"ents_f": "entity F1", "ents_p": "entity precision", "ents_r": "entity recall"}


def open_table(folder: Path, columns: Sequence[str]) -> IO[str]:
    """Open the table in a folder, in place of an earlier one and its picture, and write the names of the columns."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).unlink(missing_ok=True)
    # Kept open to the end, so that programs that look at it meanwhile cannot block it
    table = (folder / TABLE).open("w", encoding="utf8", newline="")
    write_row(table, columns)
    return table


def write_row(table: IO[str], row: Iterable[Any]) -> None:
    """Append a row to the table, which a kill cannot undo."""
    csv.writer(table, lineterminator="\n").writerow(row)
    table.flush()


def plot_learning_curve(table: str | Path, rates: Sequence[float] | None = None) -> "Figure":
    """Draw the table of `spacy_bertner.LearningCurve.v1`; that of a killed run can be drawn too.

    table: the CSV file. rates: the learning rate of each step from 0 on; None: those in the table, joined by lines.
    Returns the figure, with a method `savefig`.

    Raises ImportError if matplotlib is not installed.
    """
    # The object interface: pyplot would keep the figure and choose a backend for the whole process
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with Path(table).open(encoding="utf8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        columns = list(reader.fieldnames or STEP_COLUMNS)
    values = {name: [float(row[name] or "nan") for row in rows] for name in columns}
    steps = values["step"]
    losses = {name.removeprefix(LOSS): values[name] for name in columns if name.startswith(LOSS)}
    scores = {
        name: [100 * value for value in values[name]]
        for name in columns
        if name not in (*STEP_COLUMNS, "speed") and not name.startswith(LOSS)
        if not rows or any(row[name] for row in rows)  # some data has no gold annotation for one
    }
    # With weights of 1, 0 and 0 the main score is one of the others
    main = next((name for name in scores if values[name] == values["score"]), "score")
    scores = {main: [100 * value for value in values[main]], **scores}

    figure = Figure(figsize=(8, 9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, score_axes, rate_axes = figure.subplots(3, sharex=True)
    _plot_losses(loss_axes, steps, losses)
    _plot_scores(score_axes, steps, scores, main)
    _plot_rates(rate_axes, *((steps, values["learn_rate"]) if rates is None else (range(len(rates)), rates)))
    if rows:
        # Of equal scores spaCy keeps the last as model-best
        score, step = max(zip(values["score"], steps, strict=True))
        for axes in figure.axes:
            axes.axvline(step, color="black", linestyle=":", linewidth=1)
        score_axes.plot([step], [100 * score], marker="*", markersize=14, color="black", linestyle="none", zorder=4)
        figure.suptitle(f"Best: step {step:.0f}, {NAMES.get(main, main)} {100 * score:.1f} %")
    else:
        figure.suptitle("No evaluations")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    return figure


def _plot_losses(axes: "Axes", steps: Sequence[float], losses: dict[str, list[float]]) -> None:
    # The first evaluation is at the end of step 0
    n_steps = [step - last for step, last in zip(steps, [-1, *steps], strict=False)]
    for name, sums in losses.items():
        means = [loss / n for loss, n in zip(sums, n_steps, strict=True)]
        axes.plot(steps, means, marker=".", label=name)
    axes.set_ylabel("loss (mean per step\nsince the last evaluation)")
    if len(losses) > 1:
        axes.set_yscale("log")  # a loss that is summed over words would flatten one that is averaged


def _plot_scores(axes: "Axes", steps: Sequence[float], scores: dict[str, list[float]], main: str) -> None:
    for name, percent in scores.items():
        width, order = (2.5, 3) if name == main else (1.2, 2)
        axes.plot(steps, percent, marker=".", linewidth=width, zorder=order, label=NAMES.get(name, name))
    axes.set_ylabel("score on the development data (%)")


def _plot_rates(axes: "Axes", steps: Sequence[float], rates: Sequence[float]) -> None:
    # Markers, as a line of one point cannot be seen
    axes.plot(steps, rates, marker="." if len(rates) < 50 else "", color="tab:gray")
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_xlabel("training step")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
