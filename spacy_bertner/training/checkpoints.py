"""The checkpoints of a training run on disk: written whole or not at all, read only if whole and of the same run.

A checkpoint is a folder: `state.json`, a safetensors file for each component and one for torch's random states, the best
model so far, and the checksums of all these. It is written under another name, synced to the disk, and renamed.
"""

import json
import os
import random
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from spacy.language import Language
from spacy.util import dict_to_dot

from .. import __version__
from ..files import CheckpointError, checksums, sync, verified

if TYPE_CHECKING:
    from torch import Tensor

# Serial number, last completed step
NAME = "{:04d}-step-{}"
NAME_PATTERN = re.compile(r"(\d{4,})-step-\d+")
UNFINISHED = ".unfinished"
STATE_FILE, CHECKSUM_FILE, BEST_FOLDER = "state.json", "sha256.json", "best"
RANDOM = "random"
# Settings in which a resumed run may differ
FREE_SETTINGS = ("training.before_update.", "training.logger.")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read.

    folder: where it is. state: the content of `state.json`. tensors: those of each component, by its name, and torch's
    random states, under `RANDOM`.
    """

    folder: Path
    state: dict[str, Any]
    tensors: dict[str, dict[str, "Tensor"]]

    @property
    def step(self) -> int:
        """The last step that was completed."""
        return self.state["step"]

    @property
    def best(self) -> Path:
        """The folder of the best model so far, missing if the run saved no models."""
        return self.folder / BEST_FOLDER

    def losses(self, step: int) -> dict[str, float]:
        """Return the losses at the first evaluation from `step` on; after the last one, those of the checkpoint."""
        later = (record["losses"] for record in self.state["evaluations"] if record["step"] >= step)
        return next(later, self.state["losses"])

    def restore_random_state(self) -> None:
        """Set the random states of Python, NumPy and torch to those of the checkpoint."""
        import torch

        version, internal, gauss = self.state["random"]["python"]
        random.setstate((version, tuple(internal), gauss))
        np.random.set_state(self.state["random"]["numpy"])  # noqa: NPY002
        states = self.tensors[RANDOM]
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])


def list_checkpoints(path: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest first."""
    folders = [folder for folder in path.iterdir() if NAME_PATTERN.fullmatch(folder.name)] if path.is_dir() else []
    return sorted(folders, key=_serial_number, reverse=True)


def _serial_number(folder: Path) -> int:
    return int(folder.name.split("-")[0])


def settings_of(nlp: Language) -> dict[str, Any]:
    """Return the settings that a resumed run must have in common with the one before, by dotted name, as JSON holds them."""
    settings = dict_to_dot(nlp.config.interpolate())
    return json.loads(json.dumps({k: v for k, v in settings.items() if not k.startswith(FREE_SETTINGS)}))


# Writing


def write_checkpoint(
    path: Path, state: dict[str, Any], tensors: dict[str, dict[str, "Tensor"]], best: Path | None
) -> Path:
    """Write a checkpoint, with the random states as they are, and return its folder.

    path: the folder of all checkpoints. state: what goes into `state.json`; its `step` is part of the folder's name.
    tensors: those of each component, by its name. best: the folder of the best model, if there is one. If that is part of
    another checkpoint, its files are linked instead of copied.

    Raises OSError or SafetensorError if a file cannot be written, TypeError if JSON cannot hold the state. Nothing is left
    then.
    """
    from safetensors.torch import save_file

    random_state, random_tensors = _random_state()
    unfinished = path / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        for name, values in {**tensors, RANDOM: random_tensors}.items():
            save_file({key: value.contiguous() for key, value in values.items()}, unfinished / f"{name}.safetensors")
        state = {"version": __version__, **state, "random": random_state}
        (unfinished / STATE_FILE).write_text(json.dumps(state), encoding="utf8")
        if best is not None:
            copy = _link_or_copy if best.name == BEST_FOLDER else shutil.copy2
            shutil.copytree(best, unfinished / BEST_FOLDER, copy_function=copy)
        (unfinished / CHECKSUM_FILE).write_text(json.dumps(checksums(unfinished)), encoding="utf8")
        sync(*unfinished.rglob("*"), unfinished)
        serial_number = max(map(_serial_number, list_checkpoints(path)), default=0) + 1
        folder = unfinished.rename(path / NAME.format(serial_number, state["step"]))
        sync(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def _random_state() -> tuple[dict[str, Any], dict[str, "Tensor"]]:
    """Return the random states of Python and NumPy, as JSON can hold them, and those of torch."""
    import torch

    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors["cuda"] = torch.cuda.get_rng_state()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    return {"python": random.getstate(), "numpy": numpy_state}, tensors


def _link_or_copy(source: str, target: str) -> None:
    """Link a file under another name; copy it if the file system does not support that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


# Reading


def find_checkpoint(path: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """Read the newest checkpoint that is whole and belongs to this run; None if there are no checkpoints.

    path: the folder of all checkpoints. settings: what `settings_of` returns for this run.
    Warns of newer ones that cannot be used. Raises CheckpointError, with the reason for each, if none can.
    """
    problems: list[str] = []
    for folder in list_checkpoints(path):
        try:
            checkpoint = read_checkpoint(folder, settings)
        except CheckpointError as err:
            problems.append(str(err))
            continue
        if problems:
            warnings.warn(f"{'; '.join(problems)}. An older checkpoint is used: {folder}", stacklevel=2)
        return checkpoint
    if problems:
        raise CheckpointError(f"{'; '.join(problems)}. resume = false starts from the beginning")
    return None


def read_checkpoint(folder: Path, settings: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint of a run with these settings.

    Raises CheckpointError if it is not whole, or was saved by another version of this package or under another config.
    """
    from safetensors.torch import load_file

    state, expected = _read_json(folder / STATE_FILE), _read_json(folder / CHECKSUM_FILE)
    if state.get("version") != __version__:
        raise CheckpointError(
            f"{folder}: was saved by spacy-bertner {state.get('version')} and cannot be resumed; this is {__version__}"
        )
    with verified(folder, expected):
        try:
            tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
        except (OSError, SafetensorError) as err:
            raise CheckpointError(f"{folder}: cannot be read ({err})") from err
    if differences := _differences(state["settings"], settings):
        raise CheckpointError(f"{folder}: was saved under another config: {differences}")
    return Checkpoint(folder, state, tensors)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{path}: cannot be read ({err})") from err


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the settings that differ, with both values."""
    none = "nothing"
    names = [name for name in sorted({*before, *now}) if not _is_same(before.get(name, none), now.get(name, none))]
    return ", ".join(f"{name} is {now.get(name, none)!r} and was {before.get(name, none)!r}" for name in names)


def _is_same(before: Any, now: Any) -> bool:
    """Return whether two values of a setting are equal, or paths of the same file."""
    if before == now:
        return True
    try:
        return isinstance(before, str) and isinstance(now, str) and Path(before).samefile(now)
    except (OSError, ValueError):  # no such file; ValueError: a null character
        return False
