"""Dropout in an encoder's attention in a form that is fast on a CPU, where torch's fused attention has no dropout."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ValueDropout(TorchFunctionMode):
    """Within this context, dropout in `scaled_dot_product_attention` drops whole values instead of single weights.

    A value that is dropped is dropped for all pieces that attend to it, in one head of one window. Each product of a weight
    and a value is dropped with the same probability as otherwise, but those of one value together; the expectation is
    the same, and so is F1 (bench/results/attention_dropout.txt).
    """

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        function = _attention if func is F.scaled_dot_product_attention else func
        return function(*args, **(kwargs or {}))


_is_on: ContextVar[bool] = ContextVar("value_dropout", default=False)


@contextlib.contextmanager
def value_dropout(device: torch.device) -> Iterator[None]:
    """Have `ValueDropout` in this context on a CPU; a GPU has fused attention with dropout."""
    if device.type != "cpu":
        yield
        return
    token = _is_on.set(True)
    try:
        with ValueDropout():
            yield
    finally:
        _is_on.reset(token)


def checkpoint_contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return what `torch.utils.checkpoint` takes from `context_fn`: contexts of the forward pass and of its repetition.

    Torch leaves out `ValueDropout` within the backward pass, where a layer is computed again.
    """
    return contextlib.nullcontext(), ValueDropout() if _is_on.get() else contextlib.nullcontext()


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **settings: Any
) -> Tensor:
    """Attention over (n_windows, n_heads, n_pieces, width of a head)."""
    if dropout_p:
        value = value * F.dropout(torch.ones_like(value[..., :1]), dropout_p)
    return F.scaled_dot_product_attention(query, key, value, attn_mask, **settings)
