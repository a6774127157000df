"""What a search leaves: the table of trials, plots, and a page with them."""

import base64
import contextlib
import csv
import io
import statistics
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import optuna
from jinja2 import Environment, PackageLoader, StrictUndefined
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ..files import atomic_write
from .study import REASON, finished_trials

TABLE, PAGE = "trials.csv", "tune.html"
# What was trained, its seed, its score
Run = tuple[str, int, float]


def best_trial(study: Study) -> FrozenTrial | None:
    """Return the complete trial with the best score, None if there is none."""
    complete = [trial for trial in finished_trials(study) if trial.state == TrialState.COMPLETE]
    return max(complete, key=lambda trial: trial.value or 0.0, default=None)


def duration(trial: FrozenTrial) -> float:
    """Return the seconds that a finished trial took."""
    return trial.duration.total_seconds() if trial.duration else 0.0


def score_of(trial: FrozenTrial) -> float | None:
    """Return the best score of a trial, None if it has none."""
    return max(trial.intermediate_values.values(), default=trial.value)


def write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def table_of(study: Study, settings: Sequence[str]) -> list[list[Any]]:
    """Return a row for each finished trial, after a row with the names of the columns.

    score: the best one of the trial. evaluations: how many there were, the one of the first step included.
    """
    rows: list[list[Any]] = [["trial", "state", "score", "evaluations", "seconds", *settings, "reason"]]
    for trial in finished_trials(study):
        n_evaluations = len(trial.intermediate_values)
        row = [trial.number, trial.state.name.lower(), score_of(trial), n_evaluations, round(duration(trial), 1)]
        rows.append([*row, *(trial.params.get(name) for name in settings), trial.user_attrs.get(REASON, "")])
    return rows


def write_page(study: Study, runs: Sequence[Run], folder: Path) -> None:
    """Write `tune.html`, and the plots on it as PNG.

    runs: training with other seeds.
    """
    settings = sorted({name for trial in finished_trials(study) for name in trial.params})
    head, *rows = table_of(study, settings)
    pictures = write_plots(study, folder)
    compared = {name: [score for other, _, score in runs if other == name] for name, _, _ in runs}
    environment = Environment(
        loader=PackageLoader("spacy_bertner", "tune"), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    page = environment.get_template("page.jinja").render(
        study=study.study_name,
        style=(files("spacy_bertner.report") / "page" / "page.css").read_text("utf8"),
        best=best_trial(study),
        head=head,
        rows=rows,
        pictures={title: base64.b64encode(path.read_bytes()).decode() for title, path in pictures.items()},
        seeds={
            name: (statistics.mean(scores), min(scores), max(scores), len(scores)) for name, scores in compared.items()
        },
    )
    with atomic_write(folder / PAGE) as file:
        file.write(page.encode())


def write_plots(study: Study, folder: Path) -> dict[str, Path]:
    """Draw history, importance and parallel coordinates; return the pictures by their titles."""
    from optuna.importance import PedAnovaImportanceEvaluator  # it does not need scikit-learn
    from optuna.visualization import matplotlib as plots

    shown = _with_short_names(study)
    complete = shown.get_trials(states=(TrialState.COMPLETE,))
    if len(complete) < 2 or not complete[0].params:
        return {}
    evaluator = PedAnovaImportanceEvaluator()
    drawn = {
        "history": ("Scores", lambda: plots.plot_optimization_history(shown, target_name="score")),
        "importance": ("Importance of the settings", lambda: plots.plot_param_importances(shown, evaluator=evaluator)),
        "parallel_coordinates": ("Settings", lambda: plots.plot_parallel_coordinate(shown, target_name="score")),
    }
    pictures = {}
    with _pyplot() as plt:
        for name, (title, draw) in drawn.items():
            draw().set_title("")
            plt.gcf().set_size_inches(9, 4.5)
            plt.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
            plt.close()
            pictures[title] = folder / f"{name}.png"
    return pictures


def _with_short_names(study: Study) -> Study:
    """Return a copy with the same numbers of trials, in which settings are named without their sections if that is clear.

    Settings of one value are left out.
    """
    copy = optuna.create_study(direction="maximize")
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.COMPLETE:
            names = {name: name.rpartition(".")[2] for name, d in trial.distributions.items() if not d.single()}
            if len(set(names.values())) < len(names):
                names = {name: name for name in names}
            params = {short: trial.params[name] for name, short in names.items()}
            distributions = {short: trial.distributions[name] for name, short in names.items()}
            copy.add_trial(optuna.create_trial(value=trial.value, params=params, distributions=distributions))
        else:  # not shown in the plots
            copy.add_trial(optuna.create_trial(state=TrialState.FAIL))
    return copy


@contextlib.contextmanager
def _pyplot() -> Iterator[Any]:
    """Give pyplot, which Optuna draws with, and show nothing on the screen."""
    from matplotlib import pyplot

    with warnings.catch_warnings(), pyplot.ioff(), pyplot.style.context("default"):
        warnings.simplefilter("ignore")  # about labels that overlap
        yield pyplot
