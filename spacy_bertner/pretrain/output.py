"""The folder of a run, `OUTPUT.part`, from which a run is resumed; and the folder that it leaves, `OUTPUT`."""

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..files import atomic_write, sync

RUN_FILE = "run.json"
FIGURES_FILE = "pretraining.json"


def part_of(output_dir: Path) -> Path:
    """Return the folder for the checkpoints of a run."""
    path = output_dir.resolve()
    return path.with_name(f"{path.name}.part")


def check_part(part: Path, *, resume: bool, force: bool) -> bool:
    """Return whether there is an unfinished run; raises FileExistsError if it, or anything else, is in the way."""
    if (part / RUN_FILE).exists():
        if not (resume or force):
            raise FileExistsError(f"{part}: is that of an unfinished run: --resume continues it, --force starts again")
        return True
    if part.exists() and (
        not part.is_dir() or any(not path.name.startswith(f".{RUN_FILE}") for path in part.iterdir())
    ):
        raise FileExistsError(f"{part}: is not the folder of a run, but needed for its checkpoints; move it")
    return False


def start_or_resume(part: Path, state: dict[str, Any], n_steps: int, *, resume: bool, is_main: bool) -> Path | None:
    """Return the last checkpoint of the run to resume; None to start from the beginning, with a new folder.

    state: what must be the same for a run to be resumed. n_steps: how many steps it takes in all.
    is_main: whether this process writes the files.
    Raises ValueError for the folder of another run, or a damaged one.
    """
    run_file = part / RUN_FILE
    if resume and run_file.exists():
        try:
            was = dict(json.loads(run_file.read_text(encoding="utf8")))
        except ValueError:
            raise ValueError(f"{run_file}: is damaged; to start again, delete the folder") from None
        changes = [f"{key} is {state[key]!r} and was {was.get(key)!r}" for key in state if was.get(key) != state[key]]
        if changes:
            raise ValueError(
                f"{part}: --resume: this is another run: {', '.join(changes)}. To start again, delete the folder"
            )
        checkpoints = {int(folder.name.rpartition("-")[2]): folder for folder in part.glob("checkpoint-*")}
        for step, folder in list(checkpoints.items()):
            if step >= n_steps or not _is_whole(folder):  # after the last step, transformers would take another one
                del checkpoints[step]
                if is_main:
                    shutil.rmtree(folder)
        if checkpoints:
            return checkpoints[max(checkpoints)]
    if is_main:
        shutil.rmtree(part, ignore_errors=True)
        with atomic_write(run_file) as file:
            file.write(json.dumps(state, indent=1).encode())
    return None


def _is_whole(checkpoint: Path) -> bool:
    """Return whether the files of a checkpoint can be read; transformers writes trainer_state.json last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf8"))
        with safe_open(checkpoint / "model.safetensors", "pt"):
            pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(map(zipfile.is_zipfile, checkpoint.glob("*.pt*")))  # as torch writes


@contextlib.contextmanager
def write_errors_explained(part: Path) -> Iterator[None]:
    """Raise OSError that says what to do for files of a run that cannot be written."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as err:
        reason = (str(err).strip().splitlines() or [type(err).__name__])[0]
        # torch.save has an error of its own
        if isinstance(err, RuntimeError) and "PytorchStreamWriter" not in reason and "inline_container" not in reason:
            raise
        raise OSError(
            f"{part}: could not be written: {reason}. Nothing that was saved before is lost: make room on the disk, and "
            "--resume continues from the last whole checkpoint"
        ) from err


def write_checkpoint(model: Any, tokenizer: Any, step: int, figures: dict[str, Any], part: Path, path: Path) -> None:
    """Write the model as it was after a step, and figures, in the folder of the run; move them to their place; remove it.

    `load_best_model_at_end` of transformers 4 does not do, as several processes can wait for each other forever.
    A new or empty folder is replaced at once, an older checkpoint file by file.
    """
    folder = part / "whole"
    weights = load_file(part / f"checkpoint-{step}" / "model.safetensors")
    model.load_state_dict(weights, strict=False)  # those that are tied to others are not in the file
    model.config._name_or_path = ""  # may be a folder of this machine
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    (folder / FIGURES_FILE).write_text(json.dumps(figures, indent=1), encoding="utf8")
    if (part / "runs").is_dir():  # TensorBoard's
        shutil.copytree(part / "runs", folder / "runs", dirs_exist_ok=True)
    sync(*(file for file in folder.rglob("*") if file.is_file()))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and any(path.iterdir()):
        shutil.copytree(folder, path, dirs_exist_ok=True, copy_function=os.replace)
    else:
        if path.is_dir():
            path.rmdir()
        folder.rename(path)
    shutil.rmtree(part)
