"""What a machine could do: the rate of its matrix products, and the products that an input needs."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import spacy
import torch
from common import Data, timed
from torch import nn

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WINDOW = 256


@dataclass(frozen=True)
class Products:
    """The matrix products of an encoder.

    weights: those of its linear layers, which every piece is multiplied with.
    width, n_layers: the hidden width, and how often there is attention.
    """

    weights: list[torch.Tensor]
    width: int
    n_layers: int

    @classmethod
    def of(cls, encoder: Any) -> "Products":
        linear = (m for name, m in encoder.named_modules() if isinstance(m, nn.Linear) and "pooler" not in name)
        weights = [module.weight.detach() for module in linear]
        return cls(weights, encoder.config.hidden_size, encoder.config.num_hidden_layers)

    def multiply_adds(self, n_windows: int, length: int) -> int:
        """Those of a batch of windows that are `length` pieces long, padding included."""
        per_piece = sum(weight.numel() for weight in self.weights)
        attention = 2 * length * self.width * self.n_layers
        return n_windows * length * (per_piece + attention)

    def measure_rate(self, rows: int, dtype: torch.dtype, seconds: float = 0.5) -> float:
        """Multiply `rows` rows with each of the weights in turn; return multiply-adds per second."""
        weights = [weight.to(dtype) for weight in self.weights]
        inputs = {n: torch.randn(rows, n, device=weights[0].device, dtype=dtype) for n in {w.shape[1] for w in weights}}

        def one_pass() -> None:
            for weight in weights:
                nn.functional.linear(inputs[weight.shape[1]], weight)

        with torch.inference_mode():
            n_passes = max(2, math.ceil(seconds / timed(one_pass)[0]))
            taken = timed(lambda: [one_pass() for _ in range(n_passes)])[0]
        return n_passes * rows * sum(weight.numel() for weight in weights) / taken


@contextlib.contextmanager
def counted(encoder: nn.Module | None, products: Products) -> Iterator[dict[str, int]]:
    """Count what goes through the encoder meanwhile: pieces without and with padding, and their multiply-adds."""
    counts = {"pieces": 0, "padded": 0, "multiply_adds": 0}

    def note(_: nn.Module, args: tuple, kwargs: dict) -> None:
        given = kwargs.get("input_ids", args[0] if args else None)
        n_windows, length = (kwargs["inputs_embeds"] if given is None else given).shape[:2]
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        counts["pieces"] += n_windows * length if mask is None else int(mask.sum())
        counts["padded"] += n_windows * length
        counts["multiply_adds"] += products.multiply_adds(n_windows, length)

    hook = encoder.register_forward_pre_hook(note, with_kwargs=True) if encoder is not None else None
    try:
        yield counts
    finally:
        if hook is not None:
            hook.remove()


class Limits:
    """The rates at which the machine multiplies matrices, and the products that inputs need.

    nlp: a pipeline with `bert_ner`, for its encoder and its word pieces.
    rows: rows of the matrices that rates are measured with.
    precisions: the types that they are measured in, keys of `DTYPES`.
    """

    def __init__(self, nlp: spacy.Language, rows: int, precisions: Iterable[str]) -> None:
        list(nlp.pipe(["A first text makes the encoder of pieces."]))
        self.nlp = nlp
        self.products = Products.of(nlp.get_pipe("bert_ner").model.shims[0].module.encoder)  # type: ignore[attr-defined]
        self.precisions = sorted(set(precisions))
        self.rows = rows
        self._windows: dict[str, list[int]] = {}

    @property
    def _pieces(self) -> Any:
        return self.nlp.get_pipe("bert_ner").model.shims[0].pieces  # type: ignore[attr-defined]

    def windows(self, data: Data) -> list[int]:
        """The lengths, special pieces included, of the fewest windows that hold each word piece once."""
        if data.name not in self._windows:
            capacity = self._pieces.capacity
            lengths = []
            for doc in data.fresh_docs(self.nlp.vocab):
                n = len(self._pieces.pieces([doc])[0].ids)
                n_windows = math.ceil(n / capacity)
                lengths += [n // n_windows + (i < n % n_windows) + WINDOW - capacity for i in range(n_windows)]
            self._windows[data.name] = lengths
        return self._windows[data.name]

    def n_pieces(self, data: Data) -> int:
        """Word pieces and special pieces of one pass."""
        return sum(self.windows(data))

    def n_word_pieces(self, data: Data) -> int:
        """Word pieces of one pass."""
        return self.n_pieces(data) - len(self.windows(data)) * (WINDOW - self._pieces.capacity)

    def multiply_adds(self, data: Data) -> int:
        """Those of one pass, in training forward and backward."""
        factor = 3 if data.name.startswith("training") else 1
        return factor * sum(self.products.multiply_adds(1, length) for length in self.windows(data))

    def measure_rates(self) -> dict[str, float]:
        """Multiply-adds per second now, by precision."""
        return {name: self.products.measure_rate(self.rows, DTYPES[name]) for name in self.precisions}
