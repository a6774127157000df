"""The study: trials in a database, which several processes and machines can share.

A trial counts when it is complete, pruned or failed with a reason. One whose process died fails without a reason, is not
counted, and is tried again (Optuna's heartbeat). Optuna has no limit on the trials of all processes together: here a process
that has been given one too many, by its number, gives it back.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, NopPruner
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from .trial import TrialFailed

# Seconds without a heartbeat after which a trial is tried again
GRACE_PERIOD = 120
# So many trials in a row that fail stop the study
MAX_FAILED = 5
# Why a trial failed; the only attribute that a trial whose process died does not have
REASON, WORKER = "reason", "worker"
NO_PRUNING = NopPruner()

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", ExperimentalWarning)
warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")  # the heartbeats are recorded here


def open_storage(url: str, grace_period: int = GRACE_PERIOD) -> RDBStorage:
    """Connect to a database; raises ValueError if that is not possible."""
    try:
        return _connect(url, grace_period)
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, ValueError) as err:
        reason = _reason(err)
        try:
            url = sqlalchemy.make_url(url).render_as_string(hide_password=True)
        except sqlalchemy.exc.ArgumentError:
            reason = "is not the URL of a database, such as postgresql://user:password@host/name"
        raise ValueError(f"--storage: {url}: cannot be used: {reason}") from err


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Make a RuntimeError of errors of a database that could be used before."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as err:
        raise RuntimeError(f"--storage: {_reason(err)}; --resume continues the search") from err


def _reason(err: BaseException) -> str:
    return str(err.__cause__ or err).strip().splitlines()[0]


def _connect(url: str, grace_period: int, tries: int = 3) -> RDBStorage:
    try:
        return RDBStorage(
            url,
            # Other processes may hold a SQLite file locked for a while
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
            heartbeat_interval=_interval(grace_period),
            grace_period=grace_period,
            heartbeat_stale_trial_callback=_try_again,
        )
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
        if tries == 1:
            raise
    time.sleep(1.0)  # another process may be making the tables
    return _connect(url, grace_period, tries - 1)


def open_study(
    storage: RDBStorage,
    name: str,
    identity: dict[str, Any],
    queue: Sequence[dict[str, Any]],
    *,
    resume: bool = True,
    force: bool = False,
    pruner: BasePruner = NO_PRUNING,
) -> Study:
    """Create a study, or load the one of this name.

    identity: what all of its trials have in common, by name; JSON. queue: settings of the first trials, each as
        far as they are given. resume: load a study that exists. force: delete one that exists.

    Raises ValueError for a study of another identity, and FileExistsError for one that exists, without `resume` and `force`.
    """
    for other in optuna.get_all_study_names(storage) if force else []:
        if other == name or re.fullmatch(rf"{re.escape(name)}, trial \d+, \d+ seeds", other):  # of its other seeds
            optuna.delete_study(study_name=other, storage=storage)
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", pruner=pruner)
        for settings in queue:  # by the one process that has created it
            study.enqueue_trial(settings)
    except DuplicatedStudyError:
        if not resume:
            raise FileExistsError(
                f"there is a study {name!r} already: --resume continues it or takes part in it, --force deletes it"
            ) from None
        study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        _wait_for_queue(study, queue)
    identity = json.loads(json.dumps(identity, default=str))
    known = study.user_attrs.get("identity")
    if known is None:  # new, or its first process died here
        study.set_user_attr("identity", identity)
    elif known != identity:
        differences = sorted(key for key in known.keys() | identity.keys() if known.get(key) != identity.get(key))
        shown = "; ".join(
            f"{key}: {known.get(key, 'none')}, now {identity.get(key, 'none')}" for key in differences[:3]
        )
        raise ValueError(
            f"the study {name!r} is another one, and its trials cannot be compared with these ({shown}"
            f"{', …' * (len(differences) > 3)}): give another --output or --study-name, or --force to delete it"
        )
    return study


def _wait_for_queue(study: Study, queue: Sequence[dict[str, Any]], seconds: float = 10.0) -> None:
    """Wait until the process that has created a study has filled its queue; if it died over that, fill it."""
    end = time.monotonic() + seconds
    while "identity" not in study.user_attrs:  # set after that
        if time.monotonic() > end:
            for settings in queue:
                study.enqueue_trial(settings, skip_if_exists=True)
            return
        time.sleep(0.1)


def is_dead(trial: FrozenTrial) -> bool:
    """Return whether the process of a trial died; the trial does not count."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def finished_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that count, in the order of their numbers."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and not is_dead(trial)]


def run_trials(
    study: Study,
    n_trials: int,
    objective: Callable[[Trial, Callable[[list[float]], None]], float],
    on_finish: Callable[[int], None],
    stop: threading.Event,
    *,
    on_wait: Callable[[int], None] = lambda n_running: None,
    grace_period: int = GRACE_PERIOD,
    deadline: float = float("inf"),
) -> None:
    """Run trials until as many have finished as asked for, those of other processes included.

    objective: trains; it is given the trial and what it has to call often, with the scores so far.
    on_finish: called with the number of each trial that this call has finished. stop: ends it, as soon as possible; trials
        that are not finished are tried again by another process. grace_period: that of the storage. deadline: no trial
        starts later, by `time.monotonic`. on_wait: called with the number of running trials that are waited for.

    Raises RuntimeError when several trials in a row have failed.
    """
    start, waits = datetime.now(), False
    while not stop.is_set():
        _give_up_dead_trials(study, grace_period)
        trials = [trial for trial in study.get_trials(deepcopy=False) if not is_dead(trial)]
        n_finished = sum(trial.state.is_finished() for trial in trials)
        n_running = sum(trial.state == TrialState.RUNNING for trial in trials)
        if n_finished >= n_trials or time.monotonic() >= deadline:
            return
        if n_finished + n_running >= n_trials:  # another process may still die
            if not waits:
                on_wait(n_running)
            waits = not stop.wait(1.0)
            continue
        waits, trial = False, study.ask()
        _beat(study, trial)
        trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
        earlier = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number and not is_dead(t)]
        if len(earlier) >= n_trials:  # another process was faster
            study.tell(trial, state=TrialState.FAIL)
            continue
        if _run_trial(study, trial, objective, stop, _interval(grace_period)):
            on_finish(trial.number)
            _check_failures(study, start)


def _interval(grace_period: int) -> int:
    """Return the seconds from one heartbeat to the next."""
    return max(grace_period // 4, 1)


def _run_trial(
    study: Study, trial: Trial, objective: Callable[..., float], stop: threading.Event, interval: int
) -> bool:
    """Run a trial and return whether it is finished; if not, it will be tried again."""
    n_reported, last_beat = 0, time.monotonic()

    def on_poll(scores: list[float]) -> None:
        nonlocal n_reported, last_beat
        for score in scores[n_reported:]:
            trial.report(score, n_reported)
            n_reported += 1
            if trial.should_prune():
                raise optuna.TrialPruned
        if stop.is_set():
            raise KeyboardInterrupt
        if time.monotonic() - last_beat >= interval:
            last_beat = time.monotonic()
            _beat(study, trial)

    try:
        try:
            value, state = objective(trial, on_poll), TrialState.COMPLETE
        except optuna.TrialPruned:
            value, state = None, TrialState.PRUNED
        except TrialFailed as err:
            trial.set_user_attr(REASON, str(err))
            value, state = None, TrialState.FAIL
        study.tell(trial, value, state=state, skip_if_finished=True)
    except UpdateFinishedTrialError:  # this process was asleep for so long that another one has given the trial up
        pass
    except BaseException:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        _try_again(study, study.trials[trial.number])
        if not stop.is_set():
            raise
    return not is_dead(study.trials[trial.number])


def _try_again(study: Study, trial: FrozenTrial) -> None:
    """Put a trial into the queue again, with the settings that it had."""
    trial.user_attrs = {}  # they are about the process that died
    RetryHeartbeatStaleTrialCallback()(study, trial)


def _beat(study: Study, trial: Trial) -> None:
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]


def _give_up_dead_trials(study: Study, grace_period: int) -> None:
    """Fail the trials whose process has died, and put them into the queue again."""
    fail_stale_trials(study)
    # Those of a process that died even before the first heartbeat, which Optuna waits for
    limit = datetime.now() - timedelta(seconds=grace_period)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if WORKER not in trial.user_attrs and trial.datetime_start and trial.datetime_start < limit:
            with contextlib.suppress(UpdateFinishedTrialError):  # another process was faster
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                _try_again(study, trial)


def _check_failures(study: Study, start: datetime) -> None:
    trials = [t for t in finished_trials(study) if t.datetime_complete and t.datetime_complete > start]
    last = sorted(trials, key=lambda t: t.datetime_complete or start)[-MAX_FAILED:]
    if len(last) == MAX_FAILED and all(t.state == TrialState.FAIL for t in last):
        raise RuntimeError(f"{MAX_FAILED} trials in a row have failed, the last one: {last[-1].user_attrs[REASON]}")
