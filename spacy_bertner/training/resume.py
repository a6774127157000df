"""Training that survives: the callback `spacy_bertner.resumable_training.v1` for `[training.before_update]`.

spaCy's training loop saves models but neither its optimiser nor where it is, and tells callbacks little. So a run is not
continued from the middle: the loop starts from the beginning, and what it does is played back to it up to the
checkpoint. Batches are drawn as they were, schedules and loggers take their steps, but nothing is computed: updates give
the recorded losses, evaluations the recorded scores. Then weights, optimiser and random states are put in place, and the
run goes on. Step 0 alone is computed once more: only at its end is the folder of `--output` known.

What this relies on in `spacy/training/loop.py` (tests/test_resume.py fails when it changes):

- `train` seeds the random states by [training] seed, and draws the batches from Python's and NumPy's alone.
- Step by step it calls `before_update(nlp, {"step": …, "epoch": …})`, `nlp.update(examples, losses=…, …)` once or more,
  `finish_update(optimizer)` of each trained component, and `optimizer.step_schedules()`. Then, at the steps that it
  evaluates (step 0 is one), `nlp.evaluate(examples)`, and with an output folder `nlp.to_disk(output / "model-last")`, which
  it copies to `model-best` where the score is the best so far. Then the logger. All this is done before the next
  `before_update`, which is where checkpoints are saved and restored.
- `losses` is added to from one evaluation to the next, and a new dict after it.
- At the end, or after an error, it calls `nlp.to_disk(output / "model-last")` once more.

`nlp.update`, `nlp.evaluate`, `nlp.to_disk` and the `finish_update` of each `bert_ner` are therefore shadowed while training
runs.

A checkpoint is a folder: `state.json`, a safetensors file for each component, the random states of torch, the best model so
far, and the checksums of all these. It is written under another name, synced to the disk, and renamed.
"""

import contextlib
import copy
import hashlib
import json
import os
import random
import re
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from spacy.attrs import ENT_IOB, ENT_TYPE, ORTH
from spacy.language import Language
from spacy.training import Example
from spacy.training.loop import DIR_MODEL_BEST, DIR_MODEL_LAST
from spacy.util import dict_to_dot
from thinc.api import Optimizer
from wasabi import msg

from .. import __version__
from ..files import CheckpointError, checksums, sync, verified

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.torch_shim import EncoderShim

FOLDER = "checkpoints"
# serial number, last step done
NAME = "{:04d}-step-{}"
NAME_PATTERN = re.compile(r"(\d{4,})-step-\d+")
UNFINISHED = ".unfinished"
STATE, CHECKSUMS, RANDOM, BEST = "state.json", "sha256.json", "random.safetensors", "best"
N_KEPT = 2
# Settings that may differ between a run and the one that goes on from it
FREE_SETTINGS = ("training.before_update.", "training.logger.")

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
    minutes: save when so many have passed since the last time; None for not by the clock.
    steps: save when so many training steps have been done since the last time; None for not by steps.
    resume: go on from the newest checkpoint that is whole, or from the beginning where there is none. If not, those of an
        earlier run are deleted once this one has saved its first.
    before_update, before_to_disk: callbacks as `[training]` has them, for which there is no other place beside this one.
        `before_update` is called for the steps that are played back too.

    A run that was killed, and resumed on the CPU with as many threads, ends with the weights, the best model and the scores
    of one that was not. Trained components can only be `bert_ner` with its own encoder.

    Raises ValueError for settings that cannot work; at the start of training for a pipeline that cannot be resumed, and,
    after its first step, where a checkpoint does not belong to the config or the data, or none is whole.
    """
    if minutes is None and steps is None:
        raise ValueError("[training.before_update] minutes, steps: both are null; give one of them")
    if minutes is not None and not minutes >= 0:
        raise ValueError(f"[training.before_update] minutes: {minutes} is not a number of minutes, 0 or more")
    if steps is not None and steps < 1:
        raise ValueError(f"[training.before_update] steps: {steps} is not a number of steps, 1 or more")
    run: Run | None = None

    def callback(nlp: Language, args: dict[str, Any]) -> None:
        nonlocal run
        if run is None or args["step"] == 0:
            folder = None if path is None else Path(path)
            run = Run(nlp, folder, minutes=minutes, steps=steps, resume=resume, before_to_disk=before_to_disk)
        run.begin_step(args["step"])
        if before_update is not None:
            before_update(nlp, args)

    return callback


def elapsed(nlp: Language) -> float | None:
    """Return the seconds of training so far, those before a kill included; None where training is not resumable."""
    run = _run_of(nlp)
    return None if run is None else run.seconds


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read: what `Run.save` has written.

    folder: where it is. state: the content of `state.json`. tensors: those of each component, by its name.
    random: the random states of torch.
    """

    folder: Path
    state: dict[str, Any]
    tensors: dict[str, dict[str, "Tensor"]]
    random: dict[str, "Tensor"]

    @property
    def step(self) -> int:
        """The last step that was done."""
        return self.state["step"]

    def losses(self, step: int) -> dict[str, float]:
        """Return the losses as they are at the evaluation that follows a step, or in the end."""
        later = (record["losses"] for record in self.state["evaluations"] if record["step"] >= step)
        return next(later, self.state["losses"])


class Run:
    """One training run: follows spaCy's loop, saves checkpoints, plays one back.

    The settings are those of `make_resumable_training`.
    """

    def __init__(
        self,
        nlp: Language,
        path: Path | None,
        *,
        minutes: float | None,
        steps: int | None,
        resume: bool,
        before_to_disk: Callable[[Language], Language] | None,
    ) -> None:
        config = nlp.config.interpolate()
        if config["training"]["seed"] is None:
            raise ValueError("[training] seed: is null; training can be resumed only with a seed")
        if config["training"]["before_to_disk"] is not None:
            raise ValueError(
                "[training.before_to_disk]: move it to [training.before_update.before_to_disk]; what it returns would be "
                "out of sight for spacy_bertner.resumable_training.v1"
            )
        self.nlp = nlp
        self.path = path
        self.minutes = minutes
        self.steps = steps
        self.resume = resume
        self.before_to_disk = before_to_disk
        self.shims = _shims(nlp, config["training"]["frozen_components"])
        # As JSON has it, for comparison
        settings = {k: v for k, v in dict_to_dot(config).items() if not k.startswith(FREE_SETTINGS)}
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        # What has been done
        self.step = -1  # the last one begun
        self.losses: dict[str, float] = {}  # spaCy's
        self.evaluations: list[dict[str, Any]] = []
        self.examples = ""  # a digest of the training examples so far, in their order
        self.optimizer: Optimizer | None = None
        self._output: Path | None = None
        self._saves_evaluated = False  # between an evaluation and the saving that follows it
        self._played: Checkpoint | None = None
        self._has_copied_best = False
        # The clock
        self._seconds_before = 0.0
        self._start = perf_counter()
        # Saving
        self._last: Path | None = None
        self._last_step, self._last_time = -1, self._start
        self._stored_best: tuple[int, ...] | None = None  # the model-best that the last checkpoint holds
        self._shadow()

    def _shadow(self) -> None:
        nlp: Any = self.nlp
        earlier = _run_of(nlp)  # one without --output: it is not told of its end
        if earlier is not None:
            earlier._unshadow()
        self._update, self._evaluate, self._to_disk = nlp.update, nlp.evaluate, nlp.to_disk
        nlp.update, nlp.evaluate, nlp.to_disk = self.update, self.evaluate, self.to_disk
        for name in self.shims:
            component: Any = nlp.get_pipe(name)
            finish_update = component.finish_update

            def noting(sgd: Optimizer, finish_update: Callable = finish_update) -> None:
                self.optimizer = sgd
                finish_update(sgd)

            component.finish_update = noting

    def _unshadow(self) -> None:
        nlp: Any = self.nlp
        del nlp.update, nlp.evaluate, nlp.to_disk
        for name in self.shims:
            del nlp.get_pipe(name).finish_update

    @property
    def seconds(self) -> float:
        """Seconds of training so far; while a checkpoint is played back, those up to the last evaluation."""
        if self._played is not None:
            return self.evaluations[-1]["seconds"]
        return self._seconds_before + perf_counter() - self._start

    # What spaCy's loop calls

    def begin_step(self, step: int) -> None:
        """Save or restore between two steps; called before each."""
        if step != self.step + 1:
            raise RuntimeError(
                f"spacy_bertner.resumable_training.v1: step {step} after step {self.step}: this version of spaCy has a "
                "training loop that it does not know"
            )
        done, self.step = self.step, step
        if done == 0:
            self._begin()
        if self._played is not None:
            if self._played.step == done:
                self._take_over(self._played)
        elif done >= 0 and self._is_due(done):
            self.save(done)

    def update(self, examples: Iterable[Example], *args: Any, **kwargs: Any) -> dict[str, float]:
        """In the place of `nlp.update`."""
        examples = list(examples)
        self.examples = _digest(self.examples, examples)
        self.losses = kwargs.setdefault("losses", {})
        if self._played is None:
            return self._update(examples, *args, **kwargs)
        for name in self.shims:
            component: Any = self.nlp.get_pipe(name)
            component.replay_update(examples)
        self.losses.update(self._played.losses(self.step))
        return self.losses

    def evaluate(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """In the place of `nlp.evaluate`."""
        self._saves_evaluated = True
        if self._played is not None:
            record = self._played.state["evaluations"][len(self.evaluations)]
            self.evaluations.append(record)
            return copy.deepcopy(record["scores"])
        examples = list(examples)
        digest = _digest("", examples)
        scores = self._evaluate(examples, **kwargs)
        losses = {name: float(loss) for name, loss in self.losses.items()}
        record = {"step": self.step, "losses": losses, "scores": scores, "examples": digest, "seconds": self.seconds}
        self.evaluations.append(record)
        return scores

    def to_disk(self, path: str | Path, **kwargs: Any) -> None:
        """In the place of `nlp.to_disk`."""
        path = Path(path)
        if path.name != DIR_MODEL_LAST:
            self._to_disk(path, **kwargs)
            return
        self._output = path.parent
        is_last = not self._saves_evaluated
        self._saves_evaluated = False
        if self._played is not None:
            self._copy_best(self._played.folder / BEST, path)
            return
        if is_last:
            self._unshadow()
        nlp = self.nlp if self.before_to_disk is None else self.before_to_disk(self.nlp)
        to_disk = self._to_disk if nlp is self.nlp else nlp.to_disk
        to_disk(path, **kwargs)

    # Going on from a checkpoint

    def _begin(self) -> None:
        """Find the checkpoint to go on from, if that is wanted; step 0 has been done."""
        if self.path is None:
            if self._output is None:
                raise ValueError(
                    "[training.before_update] path: null stands for a folder in that of `spacy train --output`, which is "
                    "not given; give one of the two"
                )
            self.path = self._output / FOLDER
        if not self.resume:
            return
        self._played = find_checkpoint(self.path, self.settings, list(self.shims))
        if self._played is None:
            msg.info(f"No checkpoint in {self.path}: training starts from the beginning")
            return
        record = self._played.state["evaluations"][0]
        self._compare_first(record)
        self.evaluations = [record]
        msg.info(f"Going on after step {self._played.step} from {self._played.folder}")

    def _compare_first(self, record: dict[str, Any]) -> None:
        """Compare step 0, which has been done again, with what it was."""
        (now,) = self.evaluations
        if now["examples"] != record["examples"]:
            raise ValueError(
                f"[training] dev_corpus: the development data has changed since the checkpoints in {self.path} were saved; "
                "resume = false starts from the beginning"
            )
        if now["losses"] != record["losses"]:
            warnings.warn(
                f"The first step does not give the loss that it gave when the checkpoints in {self.path} were saved "
                f"({now['losses']}, then {record['losses']}): other hardware, libraries, threads, or a GPU. Training goes "
                "on, but not bit for bit as it would have",
                stacklevel=2,
            )

    def _copy_best(self, best: Path, target: Path) -> None:
        """Give the best model for every model that is saved while a checkpoint is played back; what is last wins."""
        if self._has_copied_best:
            return
        if not best.exists():
            raise ValueError(f"{best}: is missing, since that run had no --output; go on without, or start anew")
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(best, target)
        self._has_copied_best = True

    def _take_over(self, checkpoint: Checkpoint) -> None:
        """Put all in the state of a checkpoint, to the last step of which the loop has been led."""
        state = checkpoint.state
        if self.examples != state["examples"]:
            raise ValueError(
                f"[training] train_corpus: the training data, or their order, are not those with which {checkpoint.folder} "
                "was saved; resume = false starts from the beginning"
            )
        assert self.optimizer is not None
        for name, shim in self.shims.items():
            shim.load_training_state(self.optimizer, checkpoint.tensors[name], state["components"][name])
        _set_random_state(state["random"], checkpoint.random)
        self._played = None
        self._seconds_before, self._start = state["seconds"], perf_counter()
        self._last, self._last_step, self._last_time = checkpoint.folder, checkpoint.step, self._start
        self._stored_best = self._identity_of_best() if (checkpoint.folder / BEST).exists() else None

    # Saving

    def _is_due(self, done: int) -> bool:
        is_due = self.minutes is not None and perf_counter() - self._last_time >= 60 * self.minutes
        return is_due or (self.steps is not None and done - self._last_step >= self.steps)

    def save(self, done: int) -> None:
        """Save a checkpoint after step `done`, and delete all but the last two of this run.

        Where that fails, as on a full disk, warns, and leaves those that are there as they are.
        """
        assert self.path is not None
        self._last_step = done
        best = self._identity_of_best()
        unfinished = self.path / UNFINISHED
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            self._write(unfinished, done, copies_best=best != self._stored_best)
            sync(*unfinished.rglob("*"), unfinished)
            names = [path.name for path in _checkpoints(self.path)]
            serial = int(names[0].split("-")[0]) + 1 if names else 1
            folder = self.path / NAME.format(serial, done)
            unfinished.rename(folder)
            sync(self.path)
        except (OSError, SafetensorError, TypeError) as err:  # TypeError: a score that JSON has no word for
            shutil.rmtree(unfinished, ignore_errors=True)
            good = "there is no earlier one" if self._last is None else f"the last good one is {self._last}"
            warnings.warn(
                f"The checkpoint after step {done} could not be saved in {self.path}: {err}. Training goes on; {good}",
                stacklevel=2,
            )
        else:
            kept = {folder, self._last}
            self._last, self._stored_best = folder, best
            for path in _checkpoints(self.path):
                if path not in kept:
                    shutil.rmtree(path, ignore_errors=True)
        self._last_time = perf_counter()

    def _write(self, folder: Path, done: int, *, copies_best: bool) -> None:
        from safetensors.torch import save_file

        assert self.optimizer is not None
        components = {}
        for name, shim in self.shims.items():
            tensors, components[name] = shim.training_state(self.optimizer)
            save_file({key: x.contiguous() for key, x in tensors.items()}, folder / f"{name}.safetensors")
        random_state, tensors = _random_state()
        save_file(tensors, folder / RANDOM)
        was_evaluated = bool(self.evaluations) and self.evaluations[-1]["step"] == done
        losses = {} if was_evaluated else {name: float(loss) for name, loss in self.losses.items()}
        state = {
            "version": __version__,
            "settings": self.settings,
            "step": done,
            "seconds": self.seconds,
            "losses": losses,
            "evaluations": self.evaluations,
            "examples": self.examples,
            "random": random_state,
            "components": components,
        }
        (folder / STATE).write_text(json.dumps(state), encoding="utf8")
        if copies_best:
            assert self._output is not None
            shutil.copytree(self._output / DIR_MODEL_BEST, folder / BEST)
        elif self._last is not None and (self._last / BEST).exists():
            shutil.copytree(self._last / BEST, folder / BEST, copy_function=_link_or_copy)
        (folder / CHECKSUMS).write_text(json.dumps(checksums(folder)), encoding="utf8")

    def _identity_of_best(self) -> tuple[int, ...] | None:
        """What differs from one `model-best` to the next; None where there is none."""
        if self._output is None:
            return None
        with contextlib.suppress(OSError):
            status = (self._output / DIR_MODEL_BEST).stat()
            return status.st_dev, status.st_ino, status.st_ctime_ns
        return None


def _run_of(nlp: Language) -> Run | None:
    """Return the run that shadows the methods of a pipeline."""
    run = getattr(nlp.evaluate, "__self__", None)
    return run if isinstance(run, Run) else None


def find_checkpoint(path: Path, settings: dict[str, Any], components: list[str]) -> Checkpoint | None:
    """Read the newest checkpoint that is whole and belongs to a run; None where there are none at all.

    path: the folder with the checkpoints. settings: those of the run, by their names with dots. components: those that are
    trained.
    Warns of newer ones that cannot be used. Raises CheckpointError, with the reason for each, where none can.
    """
    faults = []
    for folder in _checkpoints(path):
        try:
            checkpoint = read_checkpoint(folder, settings, components)
        except CheckpointError as err:
            faults.append(str(err))
            continue
        if faults:
            warnings.warn(f"{'; '.join(faults)}. An older checkpoint is used: {folder}", stacklevel=2)
        return checkpoint
    if faults:
        raise CheckpointError(f"{'; '.join(faults)}. resume = false starts from the beginning")
    return None


def read_checkpoint(folder: Path, settings: dict[str, Any], components: list[str]) -> Checkpoint:
    """Read a checkpoint; the arguments are those of `find_checkpoint`.

    Raises CheckpointError where it is not whole, or of another version of this package, or of another config.
    """
    from safetensors.torch import load_file

    state, expected = _read_json(folder / STATE), _read_json(folder / CHECKSUMS)
    if state.get("version") != __version__:
        raise CheckpointError(
            f"{folder}: was saved by spacy-bertner {state.get('version')}; this is {__version__}, which cannot go on from it"
        )
    tensors = {}
    with verified(folder, expected):
        try:
            for name in components:
                tensors[name] = load_file(folder / f"{name}.safetensors")
            random_state = load_file(folder / RANDOM)
        except (OSError, SafetensorError) as err:
            raise CheckpointError(f"{folder}: cannot be read ({err})") from err
    if changes := _changes(state["settings"], settings):
        raise CheckpointError(f"{folder}: was saved under another config: {changes}")
    return Checkpoint(folder, state, tensors, random_state)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{path}: cannot be read ({err})") from err
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is not what was saved there")
    return content


def _changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the settings that differ, with both values."""
    none = "nothing"
    names = [name for name in sorted({*then, *now}) if then.get(name, none) != now.get(name, none)]
    return ", ".join(f"{name} is {now.get(name, none)!r} and was {then.get(name, none)!r}" for name in names)


def _checkpoints(path: Path) -> list[Path]:
    """Return the folders of the checkpoints, the newest first."""
    found = [folder for folder in path.iterdir() if NAME_PATTERN.fullmatch(folder.name)] if path.is_dir() else []
    return sorted(found, key=lambda folder: int(folder.name.split("-")[0]), reverse=True)


def _shims(nlp: Language, frozen: Iterable[str]) -> dict[str, "EncoderShim"]:
    """Return what holds the weights of each component that is trained; raise ValueError where that cannot be resumed."""
    shims: dict[str, Any] = {}
    others = []
    for name, component in nlp.pipeline:
        model = getattr(component, "model", None)
        if name in frozen or not getattr(component, "is_trainable", False) or model in (True, False, None):
            continue
        # All that is trained must be in the one shim
        is_ours = len(model.shims) == 1 and hasattr(model.shims[0], "training_state")
        if is_ours and not any(node.param_names for node in model.walk()):
            shims[name] = model.shims[0]
        else:
            others.append(name)
    if others or not shims:
        raise ValueError(
            "[training.before_update] spacy_bertner.resumable_training.v1 can resume the training of bert_ner with the "
            f"architecture spacy_bertner.BertTokenClassifier.v1 alone, and not that of {', '.join(others) or 'nothing'}: "
            "take the block out of the config, or freeze the other components"
        )
    return shims


def _digest(previous: str, examples: Iterable[Example]) -> str:
    """Return a checksum of the words and entities of examples, in their order, and of those before."""
    digest = hashlib.sha256(previous.encode())
    for example in examples:
        digest.update(example.predicted.to_array([ORTH]).tobytes())
        digest.update(example.reference.to_array([ORTH, ENT_IOB, ENT_TYPE]).tobytes())
    return digest.hexdigest()


def _random_state() -> tuple[dict[str, Any], dict[str, "Tensor"]]:
    """Return the states of Python's and NumPy's random numbers, as JSON can hold them, and torch's."""
    import torch

    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    inner = numpy_state["state"]
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors["cuda"] = torch.cuda.get_rng_state()
    state = {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**inner, "key": inner["key"].tolist()}},
    }
    return state, tensors


def _set_random_state(state: dict[str, Any], tensors: dict[str, "Tensor"]) -> None:
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = state["numpy"]
    inner = numpy_state["state"]
    key = np.array(inner["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**inner, "key": key}})  # noqa: NPY002
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def _link_or_copy(source: str, target: str) -> None:
    """Have the same file under another name, or a copy where the file system has no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
