"""How the parts of the module are trained: learning rates, frozen parameters, averages, the state between two steps."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from thinc.api import Optimizer
from torch import Tensor

from ..files import CheckpointError
from .lora import add_adapters, load_adapters
from .optimizer import TorchOptimizer
from .torch_module import TokenClassifier, enable_gradient_checkpointing


@dataclass(frozen=True)
class FineTuning:
    """How the parts of the model are trained.

    head_learn_rate: factor on the learning rate of new parameters: head, transitions, orthography embedding.
    layer_decay: factor on the learning rate from each layer of the encoder to the one below it, and from the lowest to
        the embeddings (Howard and Ruder 2018; Clark et al. 2020).
    freeze_embeddings: whether the embeddings do not change.
    freeze_layers: number of layers of the encoder, from the lowest, that do not change.
    gradient_checkpointing: whether to keep only the inputs of each layer, and compute the rest again in the backward pass.
    lora: adapters that are trained in place of the encoder (see `lora.check_settings`); None for none.
    """

    head_learn_rate: float
    layer_decay: float
    freeze_embeddings: bool
    freeze_layers: int
    gradient_checkpointing: bool
    lora: dict[str, Any] | None = None


def prepare(module: TokenClassifier, fine_tuning: FineTuning, saved: Path | None = None) -> None:
    """Freeze parameters, add adapters and enable gradient checkpointing.

    saved: the folder of the saved model that the module was loaded from, which may hold adapters; None for a checkpoint.
    Raises ValueError, now rather than at the first step, for settings that the encoder does not support, or that do not fit
    the saved adapters.
    """
    module.freeze(embeddings=fine_tuning.freeze_embeddings, n_layers=fine_tuning.freeze_layers)
    if fine_tuning.lora is not None:
        add_adapters(module.encoder, fine_tuning.lora)
    if saved is not None:
        load_adapters(module.encoder, saved, fine_tuning.lora)
    if fine_tuning.layer_decay < 1.0:
        module.depths()
    if fine_tuning.gradient_checkpointing:
        enable_gradient_checkpointing(module.encoder)


def rate_factors(module: TokenClassifier, fine_tuning: FineTuning) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter, by its name."""
    new, decay = fine_tuning.head_learn_rate, fine_tuning.layer_decay
    names = [name for name, _ in module.named_parameters()]
    depths = module.depths() if decay < 1.0 else dict.fromkeys(names, 0)
    last = max(depths[name] for name in names if name.startswith("encoder."))
    return {name: decay ** (last - depths[name]) if name.startswith("encoder.") else new for name in names}


@contextlib.contextmanager
def with_averages(module: TokenClassifier, key: int, params: dict) -> Iterator[None]:
    """Use, in the context, the averages that an optimizer keeps under (key, parameter name) as the module's parameters."""
    named = dict(module.named_parameters())
    averages = {name: params[key, name] for name in named if (key, name) in params}
    # An average of another shape is from before the head was resized
    given = {name: value for name, value in averages.items() if value.shape == named[name].shape}
    backup = {name: named[name].data for name in given}
    for name, value in given.items():
        named[name].data = value.to(named[name].device)
    try:
        yield
    finally:
        for name, value in backup.items():
            named[name].data = value


def training_state(
    module: TokenClassifier, own: TorchOptimizer, optimizer: Optimizer, key: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what the next step depends on: tensors by name, and values for JSON.

    own: the optimizer of the module. optimizer: Thinc's, whose averages under (key, name) are part of the state.
    """
    parameters = dict(module.named_parameters())
    moments, numbers = own.state()
    averages = optimizer.averages or {}
    tensors = {f"weights/{name}": value for name, value in _weights(module).items()}
    tensors |= {f"optimizer/{name}": value for name, value in moments.items()}
    tensors |= {f"averages/{name}": averages[key, name] for name in parameters if (key, name) in averages}
    # A step leaves out parameters without a gradient, but not those with a gradient of zero
    with_gradient = [name for name, parameter in parameters.items() if parameter.grad is not None]
    return tensors, {"optimizer": numbers, "with_gradient": with_gradient}


def load_training_state(
    module: TokenClassifier,
    own: TorchOptimizer,
    optimizer: Optimizer,
    key: int,
    tensors: dict[str, Tensor],
    numbers: dict[str, Any],
) -> None:
    """Restore what `training_state` returned; raises CheckpointError if the weights are those of another module."""
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}, "averages": {}}
    for path, tensor in tensors.items():
        part, name = path.split("/", 1)
        parts[part][name] = tensor
    weights = _weights(module)
    shapes = {name: value.shape for name, value in weights.items()}
    if shapes != {name: value.shape for name, value in parts["weights"].items()}:
        raise CheckpointError("the weights are not those of this model: other names or shapes")
    for name, value in weights.items():
        value.copy_(parts["weights"][name])
    for name, parameter in module.named_parameters():
        parameter.grad = torch.zeros_like(parameter) if name in numbers["with_gradient"] else None
    own.load_state(optimizer, parts["optimizer"], numbers["optimizer"])
    if optimizer.averages is not None:
        for name, value in parts["averages"].items():
            optimizer.averages[key, name] = value.to(weights[name].device, copy=True)


def _weights(module: TokenClassifier) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in chain(module.named_parameters(), module.named_buffers())}
