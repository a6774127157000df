"""Loggers for `[training.logger]` of a config: a learning curve beside the models, and TensorBoard.

Both say nothing while training runs: chain them to spaCy's console logger with `spacy.ChainLogger.v1`. What they draw and
write with (matplotlib, torch, tensorboard) is imported only when they need it.
"""

import csv
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import IO, TYPE_CHECKING, Any

from spacy import registry
from spacy.language import Language
from tqdm import tqdm  # type: ignore[import-untyped]

from .resume import elapsed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What spaCy tells a logger after each step: None, or after an evaluation what `train_while_improving` of
# spacy/training/loop.py lists
Info = dict[str, Any] | None
# What logs a step, and what is called at the end, however that came
Log = tuple[Callable[[Info], None], Callable[[], None]]
Setup = Callable[[Language, IO[str], IO[str]], Log]

TABLE = "learning_curve.csv"
PICTURE = "learning_curve.png"
# Columns of the table before those of the losses and scores
STEP_COLUMNS = ("step", "epoch", "words", "seconds", "learn_rate", "score")
LOSS = "loss_"
NAMES = {"ents_f": "entity F1", "ents_p": "entity precision", "ents_r": "entity recall"}


def make_learning_curve(path: str | Path | None = None) -> Setup:
    """Make the logger `spacy_bertner.LearningCurve.v1`: a table and a picture of loss, scores and learning rate.

    path: the folder to write `learning_curve.csv` and `learning_curve.png` into, in the place of those of an earlier run.
        None: the folder that `spacy train --output` names, beside `model-best` and `model-last`.

    The table gets a row at each evaluation, so that it outlives a run that is killed. Its columns: step (from 0, as spaCy
    counts), epoch, words (seen since the start), seconds (since the start), learn_rate (of that step), score (the weighted
    one by which spaCy picks the best model), loss_<component> (as spaCy's console shows it: the sum over the steps since the
    last evaluation), and the entries of [training.score_weights] that are not null, from 0 to 1.

    The picture is drawn when training ends, is interrupted or fails. It needs matplotlib; without, a line on stderr says so.
    """
    given = _folder("path", path)

    def setup(nlp: Language, stdout: IO[str] = sys.stdout, stderr: IO[str] = sys.stderr) -> Log:
        # As in spaCy's console logger: what is trained, and scores whose weight is not null
        trained = [name for name, component in nlp.pipeline if getattr(component, "is_trainable", False)]
        scores = [name for name, weight in nlp.config["training"]["score_weights"].items() if weight is not None]
        columns = [*STEP_COLUMNS, *(LOSS + name for name in trained), *scores]
        rates = learn_rates(nlp)
        used = array("d")
        folder = given
        table = _open_table(folder, columns) if folder is not None else None

        def log_step(info: Info) -> None:
            nonlocal folder, table
            used.append(next(rates))
            if info is None:
                return
            if table is None:
                folder = _models_folder(info)
                if folder is None:
                    return
                table = _open_table(folder, columns)
            row = [*(info.get(name) for name in STEP_COLUMNS)]
            row[STEP_COLUMNS.index("learn_rate")] = used[-1]
            if (seconds := elapsed(nlp)) is not None:  # spaCy counts from where it was resumed
                row[STEP_COLUMNS.index("seconds")] = int(seconds)
            row += [float(info["losses"].get(name, "nan")) for name in trained]
            row += [info["other_scores"].get(name) for name in scores]
            _write_row(table, row)

        def finalize() -> None:
            if table is None or folder is None:
                _say(stderr, "No learning curve: there was no evaluation, or neither --output nor a path is set")
                return
            # spaCy saves the last model only after this: whatever goes wrong here must not cost it
            try:
                table.close()
                plot_learning_curve(folder / TABLE, used).savefig(folder / PICTURE)
            except ImportError as err:
                missing = f'no picture, for want of matplotlib ({err}): pip install "spacy-bertner[plot]"'
                _say(stderr, f"Learning curve: {folder / TABLE}; {missing}")
            except Exception as err:
                _say(stderr, f"The learning curve in {folder} could not be finished: {err!r}")
            else:
                _say(stdout, f"Learning curve: {folder / TABLE}, {folder / PICTURE}")

        return log_step, finalize

    return setup


def plot_learning_curve(table: str | Path, rates: Sequence[float] | None = None) -> "Figure":
    """Draw the table of `spacy_bertner.LearningCurve.v1`, that of a killed run too.

    table: the CSV file.
    rates: the learning rate of each step from 0 on; None: those in the table are joined by lines.
    Returns the figure, with a method `savefig`.

    Raises ImportError where matplotlib is missing.
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
    losses = [name for name in columns if name.startswith(LOSS)]
    scores = [name for name in columns if name not in (*STEP_COLUMNS, *losses, "speed")]
    scores = [name for name in scores if not rows or any(row[name] for row in rows)]  # some data has no gold for one
    # With weights of 1, 0 and 0 the main score is one of the others
    main = next((name for name in scores if values[name] == values["score"]), "score")

    figure = Figure(figsize=(8, 9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, score_axes, rate_axes = figure.subplots(3, sharex=True)
    for name in losses:
        means = [loss / n for loss, n in zip(values[name], _steps_between(steps), strict=True)]
        loss_axes.plot(steps, means, marker=".", label=name.removeprefix(LOSS))
    loss_axes.set_ylabel("loss (mean a step\nsince the last evaluation)")
    if len(losses) > 1:
        loss_axes.set_yscale("log")  # a loss that is summed over words would flatten one that is averaged
    for name in [main, *(name for name in scores if name != main)]:
        percent = [100 * value for value in values[name]]
        width, order = (2.5, 3) if name == main else (1.2, 2)
        score_axes.plot(steps, percent, marker=".", linewidth=width, zorder=order, label=NAMES.get(name, name))
    score_axes.set_ylabel("score on the development data (%)")
    if rates is None:
        rate_axes.plot(steps, values["learn_rate"], marker=".", color="tab:gray")
    else:
        # A line of one point cannot be seen
        rate_axes.plot(range(len(rates)), rates, marker="." if len(rates) < 50 else "", color="tab:gray")
    rate_axes.set_ylabel("learning rate")
    rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate_axes.set_xlabel("training step")
    rate_axes.xaxis.get_major_locator().set_params(integer=True)
    if rows:
        # Of equal scores spaCy keeps the last as model-best
        score, step = max(zip(values["score"], steps, strict=True))
        for axes in (loss_axes, score_axes, rate_axes):
            axes.axvline(step, color="black", linestyle=":", linewidth=1)
        score_axes.plot([step], [100 * score], marker="*", markersize=14, color="black", linestyle="none", zorder=4)
        figure.suptitle(f"Best: step {step:.0f}, {NAMES.get(main, main)} {100 * score:.1f} %")
    else:
        figure.suptitle("Nothing was evaluated")
    for axes in (loss_axes, score_axes, rate_axes):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    return figure


def make_tensorboard_logger(log_dir: str | Path | None = None) -> Setup:
    """Make the logger `spacy_bertner.TensorBoardLogger.v1`: an event file for TensorBoard.

    log_dir: the folder of this run; of an earlier run in it TensorBoard shows nothing any more.
        None: `tensorboard` in the folder that `spacy train --output` names.

    Scalars: learn_rate at every step; at each evaluation loss/<component> (mean a step since the last evaluation), score
    (the weighted one), score/… (the entries of [training.score_weights], those by type too), epoch, and words_per_second
    (those of training since the last evaluation by the clock, so evaluating and saving count).

    Raises ImportError where tensorboard is missing, before training.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as err:
        raise ImportError(
            "spacy_bertner.TensorBoardLogger.v1 in [training.logger] needs tensorboard, which cannot be imported "
            f'({err}): pip install "spacy-bertner[tensorboard]"'
        ) from err
    given = _folder("log_dir", log_dir)

    def setup(nlp: Language, stdout: IO[str] = sys.stdout, stderr: IO[str] = sys.stderr) -> Log:
        score_names = tuple(nlp.config["training"]["score_weights"])
        rates = enumerate(learn_rates(nlp))
        writer = None
        last: tuple[int, int, float] | None = None  # step, words and time of the last evaluation

        def log_step(info: Info) -> None:
            nonlocal writer, last
            step, rate = next(rates)
            if writer is None and info is not None:  # spaCy evaluates at step 0
                models = _models_folder(info)
                folder = given or (models and models / "tensorboard")
                if folder is not None:
                    # What is there from an earlier run would be drawn as part of this one
                    writer = SummaryWriter(str(folder), purge_step=0)
            if writer is None:
                return
            writer.add_scalar("learn_rate", rate, step)
            if info is None:
                return
            n_steps = step + 1 if last is None else step - last[0]
            writer.add_scalar("epoch", info["epoch"], step)
            writer.add_scalar("score", info["score"], step)
            for name, loss in info["losses"].items():
                writer.add_scalar(f"loss/{name}", float(loss) / n_steps, step)
            for name in score_names:
                for tag, value in _numbers(f"score/{name}", info["other_scores"].get(name)):
                    writer.add_scalar(tag, value, step)
            seconds = elapsed(nlp)
            now = perf_counter() if seconds is None else seconds
            if last is not None:
                writer.add_scalar("words_per_second", (info["words"] - last[1]) / (now - last[2]), step)
            last = step, info["words"], now
            writer.flush()

        def finalize() -> None:
            if writer is None:
                _say(stderr, "Nothing for TensorBoard: no evaluation, or neither --output nor log_dir is set")
                return
            try:
                writer.close()
            except Exception as err:  # spaCy saves the last model only after this: a fault here must not cost it
                _say(stderr, f"The events in {writer.log_dir} could not be finished: {err!r}")

        return log_step, finalize

    return setup


def learn_rates(nlp: Language) -> Iterator[float]:
    """Yield the learning rate of each training step, from the first on.

    spaCy shows its optimiser to no logger (`nlp._optimizer` is another one, left from the initialization). But it makes it
    from [training.optimizer] and lets the schedules go on by one after each step: the same is done here with a second
    one. A schedule that looks at more than its own steps could not be followed so; Thinc has none.
    """
    config = nlp.config.interpolate()["training"]
    optimizer = registry.resolve({"optimizer": config["optimizer"]})["optimizer"]
    while True:
        yield optimizer.learn_rate
        optimizer.step_schedules()


def _numbers(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield a score under its tag, or the scores in a dict, of dicts perhaps, under tags below it."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(f"{tag}/{name}", part)
    elif isinstance(value, (int, float)):
        yield tag, value


def _steps_between(steps: Sequence[float]) -> list[float]:
    """Count the steps from each evaluation to the one before; the first one is at the end of step 0."""
    return [step - last for step, last in zip(steps, [-1, *steps], strict=False)]


def _folder(setting: str, path: str | Path | None) -> Path | None:
    """Return the path of a folder, there or not; raise ValueError where it is a file or looks like one of ours."""
    if path is None:
        return None
    folder = Path(path)
    if folder.suffix in (".csv", ".png") or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{setting}: {str(path)!r} is a file; give a folder")
    return folder


def _models_folder(info: dict[str, Any]) -> Path | None:
    """Return the folder of `spacy train --output`; None where there is none."""
    return Path(info["output_path"]).parent if info.get("output_path") else None


def _open_table(folder: Path, columns: Sequence[str]) -> IO[str]:
    """Begin the table; a picture of an earlier run would not belong to it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).unlink(missing_ok=True)
    # Kept open to the end: whoever looks at the file meanwhile cannot be in the way
    table = (folder / TABLE).open("w", encoding="utf8", newline="")
    _write_row(table, columns)
    return table


def _write_row(table: IO[str], row: Sequence[Any]) -> None:
    csv.writer(table, lineterminator="\n").writerow(row)
    table.flush()  # so that a run that is killed leaves it


def _say(stream: IO[str], text: str) -> None:
    """Write a line, around the progress bar of spaCy's console logger."""
    tqdm.write(text, file=stream)
