"""Training that can be resumed: the callback `spacy_bertner.resumable_training.v1` for `[training.before_update]`.

spaCy's training loop saves models, but neither its optimiser nor its position, and callbacks learn little of it. So a
resumed run does not start in the middle: the loop starts from the beginning, and the run up to the checkpoint is replayed.
Batches are drawn and schedules and loggers take their steps as before, but nothing is computed: updates return the recorded
losses, evaluations the recorded scores. Then weights, optimiser and random states are restored, and training continues.
Only step 0 is computed again: the folder of `--output` is not known before its end.

This relies on the following in `spacy/training/loop.py` (tests/training/test_resume.py fails when it changes):

- `train` seeds the random states with [training] seed, and draws the batches from those of Python and NumPy alone.
- In each step it calls `before_update(nlp, {"step": …, "epoch": …})`, `nlp.update(examples, losses=…, …)` once or more,
  `finish_update(optimizer)` of each trained component, and `optimizer.step_schedules()`. Then, at the steps that are
  evaluated (step 0 is one), `nlp.evaluate(examples)`, and with an output folder `nlp.to_disk(output / "model-last")`, which
  it copies to `model-best` if the score is the best so far. Then the logger. All this happens before the next
  `before_update`, where checkpoints are saved and restored.
- `losses` is summed up from one evaluation to the next, and a new dict after it.
- At the end, or after an error, it calls `nlp.to_disk(output / "model-last")` once more.

`nlp.update`, `nlp.evaluate`, `nlp.to_disk` and the `finish_update` of each `bert_ner` are therefore replaced while training
runs.
"""

import copy
import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from spacy.attrs import ENT_IOB, ENT_TYPE, ORTH
from spacy.language import Language
from spacy.training import Example
from spacy.training.loop import DIR_MODEL_BEST, DIR_MODEL_LAST
from thinc.api import Optimizer
from wasabi import msg

from .checkpoints import BEST_FOLDER, Checkpoint, find_checkpoint, list_checkpoints, settings_of, write_checkpoint

if TYPE_CHECKING:
    from ..model.torch_shim import EncoderShim

FOLDER = "checkpoints"

Callback = Callable[[Language, dict[str, Any]], None]


def make_resumable_training(
    path: str | Path | None = None,
    minutes: float | None = 10.0,
    steps: int | None = None,
    resume: bool = False,
    before_update: Callback | None = None,
    before_to_disk: Callable[[Language], Language] | None = None,
) -> Callback:
    """Make the callback `spacy_bertner.resumable_training.v1` for `[training.before_update]`: checkpoints of a training run.

    path: the folder for the checkpoints; the last two are kept. None: `checkpoints` in that of `spacy train --output`.
    minutes: how often to save, by the clock; None for never.
    steps: how often to save, in training steps; None for never.
    resume: whether to resume from the newest checkpoint that is whole; if there is none, training starts from the beginning.
        If False, the checkpoints of an earlier run are deleted once this one has saved its first.
    before_update, before_to_disk: callbacks that would otherwise be in `[training]`, where this one takes their place.
        `before_update` is also called for the steps that are replayed.

    A run that was killed and resumed, on the CPU with the same number of threads, ends with the weights, the best model and
    the scores of an uninterrupted one. The only trained components can be `bert_ner` with its own encoder.

    Raises ValueError for settings that cannot work; at the start of training for a pipeline that cannot be resumed, and
    after its first step if a checkpoint does not belong to the config or the data, or none is whole.
    """
    if minutes is None and steps is None:
        raise ValueError("[training.before_update] minutes, steps: both are null; set one of them")
    if minutes is not None and not minutes >= 0:
        raise ValueError(f"[training.before_update] minutes: {minutes} is not a number of at least 0")
    if steps is not None and steps < 1:
        raise ValueError(f"[training.before_update] steps: {steps} is not a number of at least 1")
    run: Run | None = None

    def callback(nlp: Language, args: dict[str, Any]) -> None:
        nonlocal run
        if run is None or args["step"] == 0:
            run = Run(nlp, None if path is None else Path(path), minutes, steps, resume, before_to_disk)
        run.begin_step(args["step"])
        if before_update is not None:
            before_update(nlp, args)

    return callback


def elapsed(nlp: Language) -> float | None:
    """Return the seconds of training so far, including those before a kill; None if training is not resumable."""
    run = _run_of(nlp)
    return None if run is None else run.seconds


@dataclass(eq=False)
class Run:
    """One training run: follows spaCy's loop, saves checkpoints, and replays one when it is resumed.

    The parameters are those of `make_resumable_training`.
    """

    nlp: Language
    path: Path | None
    minutes: float | None
    steps: int | None
    resume: bool
    before_to_disk: Callable[[Language], Language] | None

    def __post_init__(self) -> None:
        training = self.nlp.config.interpolate()["training"]
        if training["seed"] is None:
            raise ValueError("[training] seed: is null; training can only be resumed with a seed")
        if training["before_to_disk"] is not None:
            raise ValueError(
                "[training.before_to_disk]: move it to [training.before_update.before_to_disk]; "
                "spacy_bertner.resumable_training.v1 cannot see what it returns"
            )
        self.shims = _shims(self.nlp, training["frozen_components"])
        self.settings = settings_of(self.nlp)
        self.step = -1  # the last one begun
        self.losses: dict[str, float] = {}  # spaCy's, since the last evaluation
        self.evaluations: list[dict[str, Any]] = []
        self.examples = ""  # a digest of the training examples so far, in order
        self.optimizer: Optimizer | None = None
        self._start = perf_counter()  # of a resumed run, as if it had not been interrupted
        self._output: Path | None = None
        self._saves_evaluated = False  # between an evaluation and the saving that follows it
        self._replayed: Checkpoint | None = None
        # The last checkpoint, and the version of `model-best` in it
        self._last: Path | None = None
        self._last_step, self._last_time = -1, self._start
        self._last_best: tuple[int, ...] | None = None
        self._replace_methods()

    def _replace_methods(self) -> None:
        earlier = _run_of(self.nlp)  # one without --output, which does not notice its end
        if earlier is not None:
            earlier._restore_methods()
        nlp: Any = self.nlp
        self._update, self._evaluate, self._to_disk = nlp.update, nlp.evaluate, nlp.to_disk
        nlp.update, nlp.evaluate, nlp.to_disk = self.update, self.evaluate, self.to_disk
        for name in self.shims:
            component: Any = nlp.get_pipe(name)
            component.finish_update = partial(self._finish_update, component.finish_update)

    def _restore_methods(self) -> None:
        nlp: Any = self.nlp
        del nlp.update, nlp.evaluate, nlp.to_disk
        for name in self.shims:
            del nlp.get_pipe(name).finish_update

    @property
    def seconds(self) -> float:
        """Seconds of training so far; during a replay, those up to the last evaluation."""
        if self._replayed is not None:
            return self.evaluations[-1]["seconds"]
        return perf_counter() - self._start

    # Called by spaCy's loop

    def begin_step(self, step: int) -> None:
        """Save or restore a checkpoint if it is time to; called before each step."""
        if step != self.step + 1:
            raise RuntimeError(
                f"spacy_bertner.resumable_training.v1: step {step} after step {self.step}: it does not know the training "
                "loop of this version of spaCy"
            )
        completed, self.step = self.step, step
        if completed == 0:
            self._begin()
        if self._replayed is not None:
            if self._replayed.step == completed:
                self._restore(self._replayed)
        elif completed >= 0 and self._is_due(completed):
            self.save(completed)

    def update(self, examples: Iterable[Example], *args: Any, **kwargs: Any) -> dict[str, float]:
        """Take the place of `nlp.update`."""
        examples = list(examples)
        self.examples = _digest(self.examples, examples)
        self.losses = kwargs.setdefault("losses", {})
        if self._replayed is None:
            return self._update(examples, *args, **kwargs)
        for name in self.shims:
            component: Any = self.nlp.get_pipe(name)
            component.replay_update(examples)
        self.losses.update(self._replayed.losses(self.step))
        return self.losses

    def _finish_update(self, finish_update: Callable[[Optimizer], None], sgd: Optimizer) -> None:
        self.optimizer = sgd
        finish_update(sgd)

    def evaluate(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Take the place of `nlp.evaluate`."""
        self._saves_evaluated = True
        if self._replayed is not None:
            record = self._replayed.state["evaluations"][len(self.evaluations)]
            self.evaluations.append(record)
            return copy.deepcopy(record["scores"])
        examples = list(examples)
        record = {"step": self.step, "losses": _as_floats(self.losses), "examples": _digest("", examples)}
        scores = self._evaluate(examples, **kwargs)
        self.evaluations.append({**record, "scores": scores, "seconds": self.seconds})
        self.losses = {}
        return scores

    def to_disk(self, path: str | Path, **kwargs: Any) -> None:
        """Take the place of `nlp.to_disk`."""
        path = Path(path)
        if path.name != DIR_MODEL_LAST:
            self._to_disk(path, **kwargs)
            return
        self._output = path.parent
        is_last = not self._saves_evaluated
        self._saves_evaluated = False
        if self._replayed is not None:  # `_begin` has put the best model there
            return
        if is_last:
            self._restore_methods()
        nlp = self.nlp if self.before_to_disk is None else self.before_to_disk(self.nlp)
        to_disk = self._to_disk if nlp is self.nlp else nlp.to_disk
        to_disk(path, **kwargs)

    # Resuming

    def _begin(self) -> None:
        """Start to replay the run up to its newest checkpoint, if it is to be resumed; step 0 is completed."""
        if self.path is None:
            if self._output is None:
                raise ValueError(
                    "[training.before_update] path: null means a folder in that of `spacy train --output`, which is not "
                    "given; set one of the two"
                )
            self.path = self._output / FOLDER
        if not self.resume:
            return
        checkpoint = find_checkpoint(self.path, self.settings)
        if checkpoint is None:
            msg.info(f"No checkpoint in {self.path}: training starts from the beginning")
            return
        first, *later = checkpoint.state["evaluations"]
        self._compare_first(first)
        self.evaluations = [first]
        if later and self._output is not None:
            self._copy_best(checkpoint.best, self._output / DIR_MODEL_LAST)
        self._replayed = checkpoint
        msg.info(f"Resuming after step {checkpoint.step} from {checkpoint.folder}")

    def _compare_first(self, record: dict[str, Any]) -> None:
        """Compare step 0, which has been computed again, with its record in the checkpoint."""
        (now,) = self.evaluations
        if now["examples"] != record["examples"]:
            raise ValueError(
                f"[training] dev_corpus: the development data has changed since the checkpoints in {self.path} were saved; "
                "resume = false starts from the beginning"
            )
        if now["losses"] != record["losses"]:
            warnings.warn(
                f"The loss of the first step is not the same as when the checkpoints in {self.path} were saved "
                f"({now['losses']}, then {record['losses']}): other hardware, libraries, threads, or a GPU. Training "
                "continues, but not bit for bit as it would have",
                stacklevel=2,
            )

    def _copy_best(self, best: Path, target: Path) -> None:
        """Copy the best model, which stands for every model that the loop saves and copies during the replay."""
        if not best.exists():
            raise ValueError(f"{best}: is missing, as the run had no --output; resume without it, or start anew")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(best, target)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint, now that the loop has come to its step."""
        state = checkpoint.state
        if self.examples != state["examples"]:
            raise ValueError(
                f"[training] train_corpus: the training data, or their order, have changed since {checkpoint.folder} was "
                "saved; resume = false starts from the beginning"
            )
        assert self.optimizer is not None
        for name, shim in self.shims.items():
            shim.load_training_state(self.optimizer, checkpoint.tensors[name], state["components"][name])
        checkpoint.restore_random_state()
        self._replayed = None
        self._last_time = perf_counter()
        self._start = self._last_time - state["seconds"]
        self._last, self._last_step = checkpoint.folder, checkpoint.step
        if checkpoint.best.exists() and self._output is not None:
            self._last_best = _version(self._output / DIR_MODEL_BEST)

    # Saving

    def _is_due(self, completed: int) -> bool:
        is_due = self.minutes is not None and perf_counter() - self._last_time >= 60 * self.minutes
        return is_due or (self.steps is not None and completed - self._last_step >= self.steps)

    def save(self, completed: int) -> None:
        """Save a checkpoint after a completed step, and delete all but the last two of this run.

        If that fails, as on a full disk, warns and leaves the earlier ones as they are.
        """
        assert self.path is not None
        try:
            best, version = self._best_model()
            folder = write_checkpoint(self.path, *self._state(completed), best)
        except (OSError, SafetensorError, TypeError) as err:  # TypeError: a score that JSON cannot hold
            last = "there is no earlier one" if self._last is None else f"the last good one is {self._last}"
            message = f"The checkpoint after step {completed} could not be saved in {self.path}: {err}."
            warnings.warn(f"{message} Training continues; {last}", stacklevel=2)
        else:
            for path in list_checkpoints(self.path):
                if path not in (folder, self._last):
                    shutil.rmtree(path, ignore_errors=True)
            self._last, self._last_best = folder, version
        self._last_step, self._last_time = completed, perf_counter()

    def _state(self, completed: int) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the state after a step, as JSON can hold it, and the tensors of each component."""
        assert self.optimizer is not None
        states = {name: shim.training_state(self.optimizer) for name, shim in self.shims.items()}
        state = {
            "settings": self.settings,
            "step": completed,
            "seconds": self.seconds,
            "losses": _as_floats(self.losses),
            "evaluations": self.evaluations,
            "examples": self.examples,
            "components": {name: numbers for name, (_, numbers) in states.items()},
        }
        return state, {name: tensors for name, (tensors, _) in states.items()}

    def _best_model(self) -> tuple[Path | None, tuple[int, ...] | None]:
        """Return the folder of the best model, in the last checkpoint if that holds the same one, and its version."""
        if self._output is not None:
            best = self._output / DIR_MODEL_BEST
            if (version := _version(best)) != self._last_best:
                return best, version
        is_saved = self._last is not None and (self._last / BEST_FOLDER).exists()
        return (self._last / BEST_FOLDER if self._last and is_saved else None), self._last_best


def _version(folder: Path) -> tuple[int, ...]:
    """Return what differs between a folder and the one that takes its place."""
    status = folder.stat()
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _as_floats(losses: dict[str, float]) -> dict[str, float]:
    return {name: float(loss) for name, loss in losses.items()}


def _run_of(nlp: Language) -> Run | None:
    """Return the run that has replaced the methods of a pipeline."""
    run = getattr(nlp.evaluate, "__self__", None)
    return run if isinstance(run, Run) else None


def _shims(nlp: Language, frozen: Iterable[str]) -> dict[str, "EncoderShim"]:
    """Return the shim with the weights of each trained component; raises ValueError if one of them cannot be resumed."""
    shims: dict[str, Any] = {}
    others = []
    for name, component in nlp.pipeline:
        model = getattr(component, "model", None)
        if name in frozen or not getattr(component, "is_trainable", False) or model in (True, False, None):
            continue
        # All trained weights must be in this one shim
        can_resume = len(model.shims) == 1 and hasattr(model.shims[0], "training_state")
        if can_resume and not any(node.param_names for node in model.walk()):
            shims[name] = model.shims[0]
        else:
            others.append(name)
    if others or not shims:
        raise ValueError(
            "[training.before_update] spacy_bertner.resumable_training.v1 can only resume the training of bert_ner with the "
            f"architecture spacy_bertner.BertTokenClassifier.v1, and not that of {', '.join(others) or 'nothing'}: "
            "remove the block from the config, or freeze the other components"
        )
    return shims


def _digest(previous: str, examples: Iterable[Example]) -> str:
    """Return a checksum of the words and entities of examples, in order, and of those before."""
    digest = hashlib.sha256(previous.encode())
    for example in examples:
        digest.update(example.predicted.to_array([ORTH]).tobytes())
        digest.update(example.reference.to_array([ORTH, ENT_IOB, ENT_TYPE]).tobytes())
    return digest.hexdigest()
