"""The trials of a study: how many there are, whatever happens to the processes that share it."""

import multiprocessing
import os
import random
import sqlite3
import threading
import time
import uuid

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from spacy_bertner.tune.run import PRUNERS
from spacy_bertner.tune.study import REASON, database_errors, finished_trials, open_storage, open_study, run_trials
from spacy_bertner.tune.trial import TrialFailed

GRACE_PERIOD = 2


@pytest.fixture
def url(tmp_path):
    """A new SQLite file; or a new database in the server of TUNE_TEST_SERVER, such as postgresql://user@host/postgres."""
    if not (server := os.environ.get("TUNE_TEST_SERVER")):
        return f"sqlite:///{tmp_path / 'study.db'}"
    name = f"tune_{uuid.uuid4().hex}"
    with sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    return sqlalchemy.make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def study(url):
    return open_study(open_storage(url, GRACE_PERIOD), "test", {}, [{"x": 0.5}])


def run(study, n_trials, objective, on_finish=lambda number: None, **options):
    run_trials(study, n_trials, objective, on_finish, threading.Event(), grace_period=GRACE_PERIOD, **options)


def test_trials_complete_fail_and_are_pruned(study):
    def objective(trial, on_poll):
        x = trial.suggest_float("x", 0, 1)
        if trial.number in (1, 3, 5):
            raise TrialFailed(f"reason {trial.number}")
        on_poll([x])
        on_poll([x, x / 2])
        if trial.number == 2:
            raise optuna.TrialPruned
        return x

    finished = []
    run(study, 6, objective, finished.append)
    trials = finished_trials(study)
    assert finished == [trial.number for trial in trials] == [*range(6)]
    assert trials[0].params == {"x": 0.5}  # the one that was in the queue
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "PRUNED", "FAIL", "COMPLETE", "FAIL"]
    assert [t.user_attrs.get(REASON) for t in trials] == [None, "reason 1", None, "reason 3", None, "reason 5"]
    assert trials[4].intermediate_values == {0: trials[4].value, 1: trials[4].value / 2}
    run(study, 6, objective, finished.append)  # there is nothing left to do
    run(study, 7, objective, finished.append)
    assert finished == [*range(7)]


def test_pruning_is_the_pruners(url):
    pruner = optuna.pruners.ThresholdPruner(lower=0.5, n_warmup_steps=1)
    study = open_study(open_storage(url, GRACE_PERIOD), "test", {}, [], pruner=pruner)

    def objective(trial, on_poll):
        on_poll([0.1])
        on_poll([0.1, 0.4, 0.9])
        raise AssertionError("it is not pruned")

    run(study, 1, objective)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED and trial.intermediate_values == {0: 0.1, 1: 0.4}


@pytest.mark.parametrize("name", PRUNERS)
def test_the_best_trial_is_not_pruned(name, url):
    study = open_study(open_storage(url, GRACE_PERIOD), "test", {}, [], pruner=PRUNERS[name]())

    def objective(trial, on_poll):
        final = (7 * trial.number % 20) / 20  # the best is number 17
        for i in range(1, 10):
            on_poll([final * k / 9 for k in range(1, i + 1)])
        return final

    run(study, 20, objective)
    states = [trial.state for trial in study.trials]
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED} - ({TrialState.PRUNED} if name == "none" else set())
    assert states[17] == TrialState.COMPLETE and study.best_trial.number == 17


def test_five_failures_in_a_row(study):
    def objective(trial, on_poll):
        if trial.number != 3:
            raise TrialFailed(f"reason {trial.number}")
        return 0.0

    for last in (8, 13):  # a study that is resumed tries five more
        with pytest.raises(RuntimeError, match=f"^5 trials in a row have failed, the last one: reason {last}$"):
            run(study, 100, objective)
        assert len(finished_trials(study)) == last + 1


def test_an_error_of_the_program_gives_the_trial_back(study):
    def failing(trial, on_poll):
        trial.suggest_float("x", 0, 1)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(study, 1, failing)
    assert finished_trials(study) == []
    run(study, 1, lambda trial, on_poll: trial.suggest_float("x", 0, 1))
    (trial,) = finished_trials(study)
    assert trial.value == 0.5


def test_a_process_that_was_asleep(study):
    """Another process gives its trial up, and tries it again."""
    values = []

    def objective(trial, on_poll):
        values.append(trial.suggest_float("x", 0, 1))
        if len(values) == 1:
            time.sleep(GRACE_PERIOD + 1.5)
            optuna.storages.fail_stale_trials(study)
            on_poll([0.5])
        return 1.0

    finished = []
    run(study, 1, objective, finished.append)
    assert finished == [1] and values == [0.5, 0.5]
    assert [trial.number for trial in finished_trials(study)] == [1]


def test_a_process_that_died_at_once_gives_its_trial_back(study):
    """Before its first heartbeat; the settings in the queue are not lost."""
    study.ask()
    time.sleep(GRACE_PERIOD + 0.5)
    run(study, 1, lambda trial, on_poll: trial.suggest_float("x", 0, 1))
    (trial,) = finished_trials(study)
    assert trial.value == 0.5 and trial.number == 1


def test_a_study_whose_queue_is_not_full_yet(url):
    """Its first process is still filling it, or died over that."""
    storage, queue = open_storage(url, GRACE_PERIOD), [{"x": i} for i in range(3)]
    first = optuna.create_study(storage=storage, study_name="test", direction="maximize")
    first.enqueue_trial(queue[0])
    study = open_study(storage, "test", {}, queue)
    run(study, 3, lambda trial, on_poll: trial.suggest_int("x", 0, 9))
    assert sorted(trial.value for trial in finished_trials(study)) == [0, 1, 2]


def test_force_deletes_the_study_and_that_of_its_seeds(url):
    storage = open_storage(url, GRACE_PERIOD)
    for name in ("a", "a, German", "a, trial 3, 2 seeds"):
        open_study(storage, name, {}, [])
    open_study(storage, "a", {}, [], force=True)
    assert sorted(optuna.get_all_study_names(storage)) == ["a", "a, German"]


def test_a_database_that_cannot_be_written(tmp_path):
    open_study(open_storage(f"sqlite:///{tmp_path / 'study.db'}"), "other", {}, [])
    storage = open_storage(f"sqlite:///file:{tmp_path / 'study.db'}?mode=ro&uri=true")
    with pytest.raises(RuntimeError, match=r"^--storage: .*readonly database.*; --resume"), database_errors():
        open_study(storage, "test", {}, [])


def test_no_trial_starts_after_the_deadline(study):
    run(study, 5, lambda trial, on_poll: 0.0, deadline=time.monotonic())
    assert finished_trials(study) == []


def work(url, n_trials, log):
    """A process of a study: trials of a quarter of a second, each with two settings."""

    def objective(trial, on_poll):
        x = trial.suggest_float("x", 0, 1)
        trial.suggest_float("y", 0, 1)
        with log.with_name("begun").open("a") as file:
            file.write(f"{trial.number}\n")
        for i in range(5):
            time.sleep(0.05)
            on_poll([x] * i)
        return x

    def report(number):
        with log.open("a") as file:
            file.write(f"{number}\n")

    run(open_study(open_storage(url, GRACE_PERIOD), "test", {}, [{"x": 0.5}]), n_trials, objective, report)


@pytest.fixture
def start(url, tmp_path):
    """Give a function that starts such a process."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs fork, as a new process takes longer to start than the trials")

    def start_process(n_trials):
        process = multiprocessing.get_context("fork").Process(target=work, args=(url, n_trials, tmp_path / "log"))
        process.start()
        return process

    return start_process


def outcome(url, tmp_path):
    study = optuna.load_study(study_name="test", storage=url)
    return study.trials, finished_trials(study), [*map(int, (tmp_path / "log").read_text().split())]


def test_ten_kills(url, start, tmp_path):
    n_trials, rng = 24, random.Random(0)
    begun = tmp_path / "begun"
    begun.touch()
    for _ in range(10):
        size, process = begun.stat().st_size, start(n_trials)
        while begun.stat().st_size == size:
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.4))  # into the first trial, the second, or between them
        process.kill()
        process.join()
    process = start(n_trials)
    process.join(300)
    assert process.exitcode == 0
    everything, trials, numbers = outcome(url, tmp_path)
    assert len(trials) == n_trials and all(trial.state == TrialState.COMPLETE for trial in trials)
    # One that was complete just before a kill is not in the log
    assert len(set(numbers)) == len(numbers) and {trial.number for trial in trials} >= set(numbers)
    # Those that died were tried again with the same settings
    settings = [tuple(trial.params.values()) for trial in trials]
    assert len(set(settings)) == n_trials
    died = [trial for trial in everything if trial.state == TrialState.FAIL and len(trial.params) == 2]
    assert died and {tuple(trial.params.values()) for trial in died} <= set(settings)


def test_two_processes_share_a_study(url, start, tmp_path):
    processes = [start(15) for _ in range(2)]
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    _, trials, numbers = outcome(url, tmp_path)
    assert sorted(numbers) == [trial.number for trial in trials]
    assert len(trials) == 15 and all(trial.state == TrialState.COMPLETE for trial in trials)
    assert sum(trial.params["x"] == 0.5 for trial in trials) == 1  # the one in the queue
    workers = {trial.user_attrs["worker"] for trial in trials}
    assert len(workers) == 2


def test_a_study_that_exists(url):
    storage = open_storage(url, GRACE_PERIOD)
    identity = {"training.dropout": 0.1, "the range of training.epochs": "[3]"}
    open_study(storage, "test", identity, [], resume=False)
    open_study(storage, "test", identity, [])
    with pytest.raises(FileExistsError, match=r"a study 'test' already: --resume continues it or takes part in it"):
        open_study(storage, "test", identity, [], resume=False)
    other = {"training.dropout": 0.2, "the range of training.epochs": "[3]"}
    with pytest.raises(
        ValueError, match=r"'test' is another one.*\(training.dropout: 0.1, now 0.2\): give another --output"
    ):
        open_study(storage, "test", other, [])
    assert (
        open_study(storage, "test", other, [{"x": 1}], resume=False, force=True).trials[0].state == TrialState.WAITING
    )


@pytest.mark.parametrize(
    "url, message",
    [
        ("sqlite:////no/such/folder/study.db", r"sqlite:////no/such/folder/study.db: cannot be used: .*unable to open"),
        ("study.db", r"study.db: cannot be used: is not the URL of a database, such as postgresql://"),
        ("postgresql://me:secret@localhost:1/x", r"postgresql://me:\*\*\*@localhost:1/x: cannot be used: "),
    ],
)
def test_a_database_that_cannot_be_used(url, message):
    with pytest.raises(ValueError, match=f"^--storage: {message}") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "study.db").write_text("not a database " * 100, encoding="utf8")
    with pytest.raises(ValueError, match=r"study.db: cannot be used: .*not a database"):
        open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE t (x)")
    open_storage(f"sqlite:///{tmp_path / 'other.db'}")  # a table of someone else's does no harm
