"""Saving and loading a component: its model, its settings (`cfg`) with the checksums of the model's files, and the vocab."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import srsly
from spacy import util
from spacy.vocab import Vocab
from thinc.api import CupyOps, Model, get_current_ops
from thinc.compat import cupy

from .files import CheckpointError, checksums, verified

# Returns the settings that were read; raises ValueError if they contradict those of the component
Check = Callable[[dict[str, Any]], dict[str, Any]]


def follow_current_ops(model: Model) -> None:
    """Move a model that was made before `spacy.require_gpu` or `require_cpu` to where Thinc computes now."""
    is_on_gpu = isinstance(get_current_ops(), CupyOps)
    if is_on_gpu and not isinstance(model.ops, CupyOps):
        model.to_gpu(cupy.cuda.runtime.getDevice())
    elif not is_on_gpu and isinstance(model.ops, CupyOps):
        model.to_cpu()


def load_bytes(data: bytes, model: Model, vocab: Vocab, check: Check, exclude: Iterable[str]) -> dict[str, Any]:
    """Load model and vocab from what `TrainablePipe.to_bytes` returned; return the settings."""
    follow_current_ops(model)
    cfg: dict[str, Any] = {}
    parts: dict[str, Callable] = {
        "cfg": lambda b: cfg.update(check(srsly.json_loads(b))),
        "vocab": lambda b: vocab.from_bytes(b, exclude=exclude),
        "model": model.from_bytes,
    }
    util.from_bytes(data, parts, exclude)
    return cfg


def save(path: str | Path, cfg: dict[str, Any], model: Model, vocab: Vocab, exclude: Iterable[str]) -> None:
    """Write a folder: `model` (a folder with the encoder as transformers has it), `cfg` and `vocab`."""

    def write_cfg(path: Path) -> None:
        folder = path.parent / "model"
        srsly.write_json(path, {**cfg, "sha256": checksums(folder) if folder.is_dir() else {}})

    # In this order: the checksums are those of the model just written
    parts = {"model": model.to_disk, "cfg": write_cfg, "vocab": lambda p: vocab.to_disk(p, exclude=exclude)}
    util.to_disk(path, parts, exclude)


def load(path: str | Path, model: Model, vocab: Vocab, check: Check, exclude: Iterable[str]) -> dict[str, Any]:
    """Load model and vocab from a folder that `save` wrote; return the settings.

    Raises ValueError, which names the file, if one is missing, damaged, or does not belong to the others.
    """
    follow_current_ops(model)
    cfg: dict[str, Any] = {}

    def load_model(path: Path) -> None:
        with verified(path, cfg.get("sha256", {})):
            model.from_disk(path)

    parts: dict[str, Callable] = {
        "cfg": lambda p: cfg.update(check(read_cfg(p))),
        "vocab": lambda p: vocab.from_disk(p, exclude=exclude),
        "model": load_model,
    }
    util.from_disk(path, parts, exclude)
    return cfg


def read_cfg(path: Path) -> dict[str, Any]:
    """Read the settings; raise CheckpointError if they are not what `save` writes."""
    try:
        cfg = srsly.read_json(path)
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{path}: cannot be read ({err})") from err
    types = {"scheme": str, "tags": list, "sha256": dict}
    if not isinstance(cfg, dict) or not all(isinstance({"sha256": {}, **cfg}.get(k), t) for k, t in types.items()):
        raise CheckpointError(f"{path}: is not the cfg of a bert_ner component")
    return cfg
