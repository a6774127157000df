"""Low-rank adapters (LoRA; Hu et al. 2022), by peft: the encoder stays as it is, and small matrices beside it are trained.

In a saved pipeline the encoder is the one it started from, in transformers' layout, and the adapters are a file beside it.
"""

import copy
import json
import re
import weakref
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import CheckpointError, checksums

ADAPTERS_FILE = "adapters.safetensors"
DEFAULTS = {"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": None}


def check_settings(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the setting `lora` with the defaults of what is not given; None for no adapters.

    Raises ValueError for values that cannot work, ImportError without the extra `lora`.
    """
    if given is None:
        return None
    if unknown := sorted(set(given) - set(DEFAULTS)):
        raise ValueError(f"lora: {unknown} are unknown; allowed are {sorted(DEFAULTS)}")
    settings = {**DEFAULTS, **given}
    r, alpha, dropout, targets = settings.values()
    if isinstance(r, bool) or not isinstance(r, int) or r < 1:
        raise ValueError(f"lora: r: {r!r} is not a rank, 1 or more")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < float("inf"):
        raise ValueError(f"lora: alpha: {alpha!r} is not a number above 0")
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"lora: dropout: {dropout!r} is not a rate, at least 0 and below 1")
    is_list = isinstance(targets, (list, tuple)) and targets and all(isinstance(name, str) for name in targets)
    if not (targets is None or is_list or (isinstance(targets, str) and targets)):
        raise ValueError(
            f"lora: target_modules: {targets!r} is neither null, a list of names of modules, a regular expression for "
            'whole names, nor "all-linear"'
        )
    _import_peft()
    return settings


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as err:
        raise ImportError(f'lora: needs the package peft: pip install "spacy-bertner[lora]" ({err})') from err
    return peft


def add_adapters(encoder: Any, settings: dict[str, Any]) -> None:
    """Add adapters, which change nothing until they are trained, to an encoder, and freeze its own parameters.

    settings: as from `check_settings`. Raises ValueError for target modules that the encoder lacks, or that are not linear.
    """
    peft, targets = _import_peft(), settings["target_modules"]
    linear = sorted({name.split(".")[-1] for name, module in encoder.named_modules() if isinstance(module, nn.Linear)})
    allowed = f'a {type(encoder).__name__} has the linear modules {linear}; "all-linear" takes all'
    if not isinstance(targets, (str, type(None))):
        names = [name for name, _ in encoder.named_modules()]
        # peft takes what it finds, and says nothing of the others
        missing = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
        if missing:
            raise ValueError(f"lora: target_modules: the encoder has no {missing}; {allowed}")
        targets = list(targets)
    config = peft.LoraConfig(
        r=settings["r"], lora_alpha=settings["alpha"], lora_dropout=settings["dropout"], target_modules=targets
    )
    try:
        peft.inject_adapter_in_model(config, encoder)
    except (ValueError, re.error) as err:
        raise ValueError(f"lora: target_modules: {json.dumps(targets)} cannot be used ({err}); {allowed}") from err


def own_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """Return the encoder's own tensors, without the adapters, by the names that they have without adapters."""
    state = encoder.state_dict(keep_vars=True)
    return {name.replace(".base_layer.", "."): value for name, value in state.items() if not _is_adapter(name)}


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def save_encoder(encoder: Any, path: Path, settings: dict[str, Any] | None) -> None:
    """Save an encoder in transformers' layout and, if `settings` are given, its adapters in a file beside it."""
    (path / ADAPTERS_FILE).unlink(missing_ok=True)  # of a model that was saved here before
    if settings is None:
        encoder.save_pretrained(path, safe_serialization=True)
        return
    encoder.save_pretrained(path, safe_serialization=True, state_dict=own_weights(encoder))
    adapters = {name: value.contiguous() for name, value in encoder.state_dict().items() if _is_adapter(name)}
    save_file(adapters, path / ADAPTERS_FILE, metadata={"lora": json.dumps(settings)})


def load_adapters(encoder: nn.Module, path: Path, settings: dict[str, Any] | None) -> None:
    """Load the adapters that `save_encoder` wrote; a model that was saved without keeps new ones, to be trained.

    Raises CheckpointError if the file cannot be read, or if the adapters do not fit the setting `lora`.
    """
    file_path = path / ADAPTERS_FILE
    if not file_path.exists():
        return
    try:
        with safe_open(file_path, "pt") as file:
            saved = json.loads(file.metadata()["lora"])
            adapters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as err:
        raise CheckpointError(f"{file_path}: cannot be read ({err})") from err
    own = {name: value for name, value in encoder.state_dict().items() if _is_adapter(name)}
    shapes = {name: value.shape for name, value in own.items()}
    if (
        settings is None
        or settings["alpha"] != saved["alpha"]
        or shapes != {name: value.shape for name, value in adapters.items()}
    ):
        raise CheckpointError(
            f"lora: is {json.dumps(settings)} in the config, but the adapters in {file_path} were trained with "
            f"{json.dumps(saved)}; only dropout may differ"
        )
    for name, value in own.items():  # detached, as `state_dict` returns them
        value.copy_(adapters[name])


# Encoders with adapters that were loaded from a saved pipeline, and the checksums of the files of their own weights
_loaded: "weakref.WeakKeyDictionary[nn.Module, dict[str, str]]" = weakref.WeakKeyDictionary()


def share_weights(encoder: nn.Module, path: Path) -> None:
    """Let an encoder with adapters that was loaded from the folder `path` have the tensors of one that has the same weights.

    They never change, since only the adapters are trained. Both encoders must be on the same device.
    """
    key = {name: sha256 for name, sha256 in checksums(path).items() if name.startswith("model")}
    own = own_weights(encoder)
    for other in [other for other, other_key in list(_loaded.items()) if other_key == key]:
        for name, value in own_weights(other).items():
            if name in own and own[name].device == value.device:
                own[name].data = value.data
    _loaded[encoder] = key


def merged(module: nn.Module) -> Any:
    """Return a copy of a module in which the adapters are added to the weights; without adapters, the module itself."""
    if not any(_is_adapter(name) for name, _ in module.named_parameters()):
        return module
    layer_class = _import_peft().tuners.tuners_utils.BaseTunerLayer
    module = copy.deepcopy(module)
    for name, layer in list(module.named_modules()):
        if isinstance(layer, layer_class):
            layer.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, layer.get_base_layer())
    return module
