"""A search as a whole: from a config and a search space to the best config, a table of the trials and a page."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState
from spacy.language import Language
from spacy.schemas import ConfigSchemaTraining
from spacy.util import load_config, load_model_from_config, registry, resolve_dot_names, walk_dict
from thinc.api import Config, ConfigValidationError

from ..files import atomic_write, check_output_folder
from ..training.init import format_seconds
from .output import PAGE, TABLE, Run, best_trial, duration, score_of, table_of, write_page, write_rows
from .space import Space, apply_settings, describe, ends, find_setting, own_settings, read_space, suggest
from .study import GRACE_PERIOD, REASON, database_errors, finished_trials, open_storage, open_study, run_trials
from .trial import train

# Not before four trials have finished, nor by the evaluation of the first step
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "median": lambda: MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    "hyperband": HyperbandPruner,
    "none": NopPruner,
}


@dataclass(frozen=True)
class Settings:
    """How to search.

    n_trials: how many, those of all processes that share the study together. timeout: seconds after which no trial starts,
        None for no limit; training with other seeds still follows.
    n_seeds: how often to train with the best settings, and with the config itself, afterwards.
    metric: a score of the pipeline, in place of the config's own. pruner: a key of `PRUNERS`. seed: of the search;
        that of training is in the config.
    gpu_ids: there is one trial at a time on each; -1 is the CPU. code: a Python file with registered functions.
    storage: the URL of a database, None for a SQLite file in the output folder. study_name: None for that of the folder.
    grace_period: seconds without a sign of life after which a trial is tried again.
    """

    n_trials: int = 30
    metric: str | None = None
    pruner: str = "median"
    seed: int = 0
    n_seeds: int = 0
    gpu_ids: Sequence[int] = (-1,)
    timeout: float | None = None
    storage: str | None = None
    study_name: str | None = None
    code: Path | None = None
    grace_period: int = GRACE_PERIOD

    def __post_init__(self) -> None:
        if self.n_trials < 1 or self.n_seeds < 0 or self.grace_period < 1:
            raise ValueError("--n-trials and --grace-period have to be at least 1, --seeds at least 0")
        if self.pruner not in PRUNERS:
            raise ValueError(f"--pruner: {self.pruner!r} is none of {', '.join(PRUNERS)}")
        n_gpus = _count_gpus() if max(self.gpu_ids) >= 0 else 0
        for gpu in self.gpu_ids:
            if gpu >= n_gpus:
                raise ValueError(f"--gpus: there is no GPU {gpu}; torch sees {n_gpus}, and the first one is 0")


@dataclass(frozen=True)
class Search:
    """What is searched: the complete config, the search space, and the number of words of each training document."""

    config: Config
    space: Space
    lengths: Sequence[int]

    def own(self) -> dict[str, Any]:
        """Return the config's own settings, as far as they are in their ranges."""
        return own_settings(self.config, self.space, self.lengths)

    def __str__(self) -> str:
        """Return a line for each range, with the config's own value."""
        own = self.own()
        lines = [
            f"{len(self.lengths):,} training documents, {sum(self.lengths):,} words. Ranges, and the config's own values:"
        ]
        for name, distribution in self.space.items():
            lines.append(f"    {name}: {describe(distribution)}; {own.get(name, 'a value outside of it')}")
        return "\n".join(lines)

    def apply(self, settings: dict[str, Any]) -> Config:
        """Return the config with other settings."""
        return apply_settings(self.config, settings, self.lengths)


def make_search(config_path: Path, space_path: Path, overrides: dict[str, Any], metric: str | None = None) -> Search:
    """Read a config and a search space, and check that they fit together; raises ValueError, OSError."""
    config = load_config(config_path, overrides=overrides, interpolate=False)
    config, nlp = _check_config(config, str(config_path))
    for path in overrides:  # spaCy ignores a setting that does not exist
        try:
            find_setting(path, config)
        except ValueError as err:
            raise ValueError(f"--{path}: {err}") from None
    weights = config["training"]["score_weights"]
    if metric is not None:
        if metric not in weights:
            raise ValueError(f"--metric: {metric!r} is none of the scores of this pipeline: {', '.join(weights)}")
        others = {name: None if weight is None else 0.0 for name, weight in weights.items()}  # None: not a number
        config["training"]["score_weights"] = {**others, metric: 1.0}
    space = read_space(space_path, config)
    (corpus,) = resolve_dot_names(config.interpolate(), [config["training"]["train_corpus"]])
    search = Search(config, space, [len(example) for example in corpus(nlp)])
    if not search.lengths:
        raise ValueError(f"{config_path}: [training] train_corpus: has no documents")
    for i in (0, -1):
        settings = {path: ends(distribution)[i] for path, distribution in space.items()}
        _check_config(search.apply(settings), f"{space_path}: the {'last' if i else 'first'} value of each range")
    return search


def _check_config(config: Config, name: str) -> tuple[Config, Language]:
    """Return a config with the defaults of what it leaves out, and its pipeline; raises ValueError.

    The pipeline is not initialized: values that do not suit the encoder or the data are not found.
    """
    try:
        nlp = load_model_from_config(config, auto_fill=True)
        registry.resolve(nlp.config.interpolate()["training"], schema=ConfigSchemaTraining)
    except ConfigValidationError as err:
        lines = [f"{' -> '.join(map(str, error.get('loc', [])))}: {error.get('msg')}" for error in err.errors or []]
        raise ValueError(f"{name}: {'; '.join(lines) or err}") from err
    except ValueError as err:
        raise ValueError(f"{name}: {err}") from err
    return nlp.config, nlp


@database_errors()
def tune(
    search: Search,
    output_dir: Path,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    on_message: Callable[[str], None] = lambda message: None,
) -> Study:
    """Search for the settings with the best score; write `best.cfg`, `trials.csv`, plots and `tune.html`.

    search: the result of `make_search`. output_dir: also has the config, log and learning curve of each trial.
    resume: continue a study that was stopped or killed, or take part in one that is running. force: delete an earlier one.
    on_message: called with a line for each trial that has finished.

    Raises ValueError for a study of another search, or a database that cannot be used; FileExistsError; RuntimeError if
    several trials in a row fail, or the database can no longer be used.
    """
    settings = settings or Settings()
    check_output_folder(output_dir, force=True)  # whether it is a file
    if not (resume or force) and output_dir.exists() and any(output_dir.iterdir()):
        raise FileExistsError(f"{output_dir}: exists already; --resume continues its study, --force starts a new one")
    output_dir.mkdir(parents=True, exist_ok=True)
    name = settings.study_name or output_dir.resolve().name
    own_file = sqlalchemy.URL.create("sqlite", database=str(output_dir / "study.db"))
    storage = open_storage(settings.storage or own_file.render_as_string(), settings.grace_period)
    identity = {f"the range of {path}": describe(distribution) for path, distribution in search.space.items()}
    # Paths may be others on another machine
    identity |= {".".join(path): value for path, value in walk_dict(search.config) if path[0] != "paths"}
    own = search.own()
    for path in search.space.keys() - own.keys():
        on_message(f"{path}: the config's own value is not in its range, and not in the first trial")
    pruner = PRUNERS[settings.pruner]()
    study = open_study(storage, name, identity, [own], resume=resume, force=force, pruner=pruner)
    for result in ("best.cfg", PAGE, "seeds.csv") if force else ():  # of the study that was deleted
        (output_dir / result).unlink(missing_ok=True)
    deadline = float("inf") if settings.timeout is None else time.monotonic() + settings.timeout

    def start(trial: Trial) -> tuple[Config, str]:
        # A seed for each trial: neither two processes nor a study that is resumed draw the same again
        trial.study.sampler = TPESampler(seed=settings.seed + 1_000_003 * trial.number)
        return search.apply(suggest(trial, search.space)), f"trials/{trial.number:04}"

    def report(number: int) -> None:
        _write_results(study, search, output_dir)
        on_message(_describe(study, number, settings))

    _run(study, settings.n_trials, start, report, settings, output_dir, on_message, deadline)
    _write_results(study, search, output_dir)
    runs = _compare_seeds(study, search, settings, output_dir, on_message) if settings.n_seeds else []
    write_page(study, runs, output_dir)
    return study


def _run(
    study: Study,
    n_trials: int,
    start: Callable[[Trial], tuple[Config, str]],
    report: Callable[[int], None],
    settings: Settings,
    output_dir: Path,
    on_message: Callable[[str], None],
    deadline: float = float("inf"),
) -> None:
    """Run trials on all GPUs. start: from a trial to its config and its folder. report: called after each trial."""
    stop = threading.Event()

    def on_wait(n_running: int) -> None:
        on_message(f"Waiting for {n_running} running trial(s); those whose process has died will be tried again")

    def work(gpu: int) -> None:
        arguments = ["--gpu-id", str(gpu), *(["--code", str(settings.code)] if settings.code else [])]
        # A study of its own for each thread, because of the sampler
        own = optuna.load_study(study_name=study.study_name, storage=study._storage, pruner=study.pruner)

        def objective(trial: Trial, on_poll: Callable[[list[float]], None]) -> float:
            config, folder = start(trial)
            return train(config, output_dir / folder, arguments, on_poll)

        limits = {"grace_period": settings.grace_period, "deadline": deadline}
        run_trials(own, n_trials, objective, report, stop, on_wait=on_wait, **limits)  # type: ignore[arg-type]

    with ThreadPoolExecutor(len(settings.gpu_ids)) as pool:
        try:
            for future in as_completed([pool.submit(work, gpu) for gpu in settings.gpu_ids]):
                future.result()
        finally:  # also after Ctrl-C
            stop.set()


def _compare_seeds(
    study: Study, search: Search, settings: Settings, output_dir: Path, on_message: Callable[[str], None]
) -> list[Run]:
    """Train with the best settings and with the config itself, each with seeds that the search has not seen."""
    trial, seed = best_trial(study), search.config.interpolate()["training"]["seed"] or 0
    if trial is None or trial.params == search.own():
        on_message("No other seeds: " + ("the config itself is the best" if trial else "no trial is complete"))
        return []
    configs = {"the config itself": search.config, f"trial {trial.number}": search.apply(trial.params)}
    planned = [(name, seed + i) for i in range(1, settings.n_seeds + 1) for name in configs]
    # A study of its own, so that processes share these runs too; a run is a trial
    name = f"{study.study_name}, trial {trial.number}, {settings.n_seeds} seeds"
    seeds = open_study(study._storage, name, {}, [{"run": i} for i in range(len(planned))])  # type: ignore[arg-type]

    def start(trial: Trial) -> tuple[Config, str]:
        name, seed = planned[trial.suggest_int("run", 0, len(planned) - 1)]
        config = configs[name].copy()
        config["training"]["seed"] = config["system"]["seed"] = seed
        return config, f"seeds/{name} {seed}".replace(" ", "-")

    def report(number: int) -> None:
        run = seeds.trials[number]
        name, seed = planned[run.params["run"]]
        on_message(f"{name}, seed {seed}: {run.user_attrs.get(REASON, run.value)}")

    _run(seeds, len(planned), start, report, settings, output_dir, on_message)
    runs = [(*planned[run.params["run"]], run.value) for run in finished_trials(seeds) if run.value is not None]
    write_rows(output_dir / "seeds.csv", [("config", "seed", "score"), *sorted(runs)])
    return runs


def _write_results(study: Study, search: Search, output_dir: Path) -> None:
    """Write the table of trials and the best config so far."""
    write_rows(output_dir / TABLE, table_of(study, list(search.space)))
    best = best_trial(study)
    if best is not None:
        head = f"# Trial {best.number} of {study.study_name!r}, by `spacy bertner tune`: score {best.value:.4f}\n\n"
        with atomic_write(output_dir / "best.cfg") as file:
            file.write((head + search.apply(best.params).to_str()).encode())


def _describe(study: Study, number: int, settings: Settings) -> str:
    """Return a line on a trial that has finished, with an estimate of the time that is left."""
    trial, trials, best = study.trials[number], finished_trials(study), best_trial(study)
    if trial.state == TrialState.FAIL:
        result = f"failed: {trial.user_attrs[REASON]}"
    else:
        result = f"{score_of(trial):.4f}" + f", pruned at evaluation {trial.last_step}" * (
            trial.state == TrialState.PRUNED
        )
    left = settings.n_trials - len(trials)
    seconds = sum(map(duration, trials)) / len(trials) * left / len(settings.gpu_ids)
    best_so_far = f"; best {best.value:.4f}, trial {best.number}" if best else ""
    return f"Trial {number}: {result}{best_so_far}; {len(trials)} of {settings.n_trials}" + (
        f", about {format_seconds(seconds)} left" if left > 0 else ""
    )


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()
