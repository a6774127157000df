"""Dropout in an encoder's attention in a form that is fast on a CPU, where torch's fused attention has no dropout."""

from collections.abc import Callable, Sequence
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


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **settings: Any
) -> Tensor:
    """Attention over (n_windows, n_heads, n_pieces, width of a head)."""
    if dropout_p:
        value = value * F.dropout(torch.ones_like(value[..., :1]), dropout_p)
    return F.scaled_dot_product_attention(query, key, value, attn_mask, **settings)
