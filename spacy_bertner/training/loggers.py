"""Loggers for `[training.logger]` of a config: a learning curve in the output folder, and TensorBoard.

Neither prints anything during training: chain them to spaCy's console logger with `spacy.ChainLogger.v1`. matplotlib, torch
and tensorboard are imported only when they are needed.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from spacy import registry
from spacy.language import Language
from spacy.util import walk_dict
from tqdm import tqdm  # type: ignore[import-untyped]

from .learning_curve import LOSS, PICTURE, STEP_COLUMNS, TABLE, open_table, plot_learning_curve, write_row
from .resume import elapsed

# What spaCy passes to a logger after each step: after an evaluation what `train_while_improving` in spacy/training/loop.py
# yields, else None
Info = dict[str, Any] | None
# What logs a step, and what is called at the end, even after an error
Log = tuple[Callable[[Info], None], Callable[[], None]]
Setup = Callable[[Language, IO[str], IO[str]], Log]


def make_learning_curve(path: str | Path | None = None) -> Setup:
    """Make the logger `spacy_bertner.LearningCurve.v1`: a table and a picture of loss, scores and learning rate.

    path: the folder for `learning_curve.csv` and `learning_curve.png`; those of an earlier run are replaced.
        None: the folder of `spacy train --output`, beside `model-best` and `model-last`.

    Each evaluation appends a row to the table, so that it survives a kill. Its columns: step (counted from 0, as in spaCy),
    epoch, words (seen since the start), seconds (since the start), learn_rate (of that step), score (the weighted one by
    which spaCy picks the best model), loss_<component> (as on spaCy's console: the sum over the steps since the last
    evaluation), and the entries of [training.score_weights] that are not null, from 0 to 1.

    The picture is drawn when training ends, is interrupted or fails. It needs matplotlib; without it, a line on stderr says
    so.
    """
    given = _folder("path", path)

    def setup(nlp: Language, stdout: IO[str] = sys.stdout, stderr: IO[str] = sys.stderr) -> Log:
        # As in spaCy's console logger: what is trained, and scores whose weight is not null
        trained = [name for name, component in nlp.pipeline if getattr(component, "is_trainable", False)]
        scores = [name for name, weight in nlp.config["training"]["score_weights"].items() if weight is not None]
        columns = [*STEP_COLUMNS, *(LOSS + name for name in trained), *scores]
        next_rate = learn_rates(nlp)
        rates: list[float] = []
        folder = given
        table = None if folder is None else open_table(folder, columns)

        def log_step(info: Info) -> None:
            nonlocal folder, table
            rates.append(next(next_rate))
            if info is None:
                return
            if table is None:
                folder = _output_folder(info)
                if folder is None:
                    return
                table = open_table(folder, columns)
            seconds = elapsed(nlp)  # spaCy counts from where training was resumed
            row = {**info, "learn_rate": rates[-1], "seconds": info["seconds"] if seconds is None else int(seconds)}
            row |= {LOSS + name: float(info["losses"].get(name, "nan")) for name in trained}
            row |= {name: info["other_scores"].get(name) for name in scores}
            write_row(table, (row.get(name) for name in columns))

        def finalize() -> None:
            if table is None or folder is None:
                _print(stderr, "No learning curve: there was no evaluation, or neither --output nor a path is set")
                return
            # spaCy saves the last model only after this: no error here may prevent that
            try:
                table.close()
                plot_learning_curve(folder / TABLE, rates).savefig(folder / PICTURE)
            except ImportError as err:
                missing = f'no picture, as matplotlib is not installed ({err}): pip install "spacy-bertner[plot]"'
                _print(stderr, f"Learning curve: {folder / TABLE}; {missing}")
            except Exception as err:
                _print(stderr, f"The learning curve in {folder} could not be finished: {err!r}")
            else:
                _print(stdout, f"Learning curve: {folder / TABLE}, {folder / PICTURE}")

        return log_step, finalize

    return setup


def make_tensorboard_logger(log_dir: str | Path | None = None) -> Setup:
    """Make the logger `spacy_bertner.TensorBoardLogger.v1`: an event file for TensorBoard.

    log_dir: the folder of this run; TensorBoard no longer shows an earlier run in it.
        None: `tensorboard` in the folder of `spacy train --output`.

    Scalars: learn_rate at every step; at each evaluation loss/<component> (mean per step since the last evaluation), score
    (the weighted one), score/… (the entries of [training.score_weights], also those by type), epoch, and words_per_second
    (words since the last evaluation by the clock, so evaluating and saving count).

    Raises ImportError before training if tensorboard is not installed.
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
                output = _output_folder(info)
                folder = given or (output and output / "tensorboard")
                if folder is not None:
                    # Hide what an earlier run has left there
                    writer = SummaryWriter(str(folder), purge_step=0)
            if writer is None:
                return
            scalars: dict[str, Any] = {"learn_rate": rate}
            if info is not None:
                seconds = elapsed(nlp)
                now = step, info["words"], perf_counter() if seconds is None else seconds
                scalars |= _scalars(info, now, last, score_names)
                last = now
            for tag, value in scalars.items():
                writer.add_scalar(tag, value, step)
            if info is not None:
                writer.flush()

        def finalize() -> None:
            if writer is None:
                _print(stderr, "Nothing for TensorBoard: no evaluation, or neither --output nor log_dir is set")
                return
            try:
                writer.close()
            except Exception as err:  # spaCy saves the last model only after this: no error here may prevent that
                _print(stderr, f"The events in {writer.log_dir} could not be finished: {err!r}")

        return log_step, finalize

    return setup


def _scalars(
    info: dict[str, Any], now: tuple[int, int, float], last: tuple[int, int, float] | None, score_names: tuple[str, ...]
) -> dict[str, float]:
    """Return what TensorBoard shows of an evaluation, by tag; `now` and `last` are step, words and seconds."""
    n_steps, n_words, seconds = (a - b for a, b in zip(now, last or (-1, 0, 0.0), strict=True))
    scalars = {"epoch": info["epoch"], "score": info["score"]}
    scalars |= {f"loss/{name}": float(loss) / n_steps for name, loss in info["losses"].items()}
    scores = {name: info["other_scores"].get(name) for name in score_names}
    scalars |= {"/".join(("score", *path)): x for path, x in walk_dict(scores) if isinstance(x, (int, float))}
    return scalars if last is None else {**scalars, "words_per_second": n_words / seconds}


def learn_rates(nlp: Language) -> Iterator[float]:
    """Yield the learning rate of each training step, from the first on.

    spaCy does not show its optimiser to loggers (`nlp._optimizer` is another one, left from the initialization). It makes it
    from [training.optimizer] and lets the schedules take a step after each training step; here a second one does the same.
    This works for all of Thinc's schedules, as they look at nothing but their own steps.
    """
    config = nlp.config.interpolate()["training"]
    optimizer = registry.resolve({"optimizer": config["optimizer"]})["optimizer"]
    while True:
        yield optimizer.learn_rate
        optimizer.step_schedules()


def _folder(setting: str, path: str | Path | None) -> Path | None:
    """Return the path of a folder, which may not exist yet; raises ValueError if it is a file or looks like one of ours."""
    if path is None:
        return None
    folder = Path(path)
    if folder.suffix in (".csv", ".png") or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{setting}: {str(path)!r} is a file; give a folder")
    return folder


def _output_folder(info: dict[str, Any]) -> Path | None:
    """Return the folder of `spacy train --output`; None if there is none."""
    return Path(info["output_path"]).parent if info.get("output_path") else None


def _print(stream: IO[str], text: str) -> None:
    """Print a line around the progress bar of spaCy's console logger."""
    tqdm.write(text, file=stream)
