"""Forward and backward passes through the torch module, batch by batch; where memory runs out, half a batch at a time."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .attention import value_dropout
from .devices import autocast_type, is_out_of_memory
from .encoding import Batch
from .torch_module import TokenClassifier, mask_rank


class Passes:
    """Runs a module on batches.

    The module stays in evaluation mode; only a forward pass in training leaves it, and comes back. So predicting changes no
    state, and threads that predict may share one pipeline (but not with one that trains).

    module: the torch module.
    mixed_precision: as in `BertTokenClassifier`.
    is_checkpointed: whether the backward pass computes the encoder's layers again (gradient checkpointing).

    most_pieces: most pieces in a batch, once the memory was not sufficient for more; None until then.
    """

    def __init__(self, module: TokenClassifier, mixed_precision: bool | str, *, is_checkpointed: bool) -> None:
        self.module = module
        self.mixed_precision = mixed_precision
        self.is_checkpointed = is_checkpointed
        self.most_pieces: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.module.head.weight.device

    @property
    def autocast_type(self) -> torch.dtype | None:
        """The type for matrix products under autocast; None for float32."""
        return autocast_type(self.device, self.mixed_precision)

    def predict(self, batches: Iterable[Batch], n_tokens: int) -> Tensor:
        """Score the tags of all tokens, (n_tokens, n_tags), float32; rows that are in no batch are -inf."""
        with self._on_device(), torch.inference_mode(), self._autocast():
            Y = self._no_scores(n_tokens)
            for batch in batches:
                for part, scores in self._in_parts(batch, lambda part, is_whole: self.module(*self._inputs(part))):
                    Y[self._to_tensor(part.rows)] = scores
        return Y

    def begin_update(
        self, batches: Sequence[Batch], n_tokens: int, dropout: float, *, is_kept: bool
    ) -> tuple[Tensor, Callable[[Tensor], None]]:
        """As `predict`, in training.

        dropout: rate before the head. The encoder's own rates are those of its configuration; at 0.0 all dropout is off, the
            encoder's too.
        is_kept: whether the activations are kept for the backward pass. If not, it computes each batch again, with the same
            dropout.
        Returns the scores and a function that takes their gradient, (n_tokens, n_tags), and adds to the parameters'.
        """
        callbacks: list[tuple[Batch, Callable[[Tensor], None]]] = []

        def score(part: Batch, is_whole: bool) -> tuple[Tensor, Callable[[Tensor], None]]:
            return self._begin(part, dropout, is_kept=is_kept and is_whole)

        with self._on_device():
            Y = self._no_scores(n_tokens)
            for batch in batches:
                for part, (scores, callback) in self._in_parts(batch, score):
                    Y[self._to_tensor(part.rows)] = scores
                    callbacks.append((part, callback))

        def backprop(dY: Tensor) -> None:
            with self._on_device():
                for part, callback in callbacks:
                    callback(dY[self._to_tensor(part.rows)])

        return Y, backprop

    def _begin(self, batch: Batch, dropout: float, *, is_kept: bool) -> tuple[Tensor, Callable[[Tensor], None]]:
        """Score one batch in training; see `begin_update`."""
        replay = contextlib.nullcontext if is_kept else _random_state(self.device)
        with torch.set_grad_enabled(is_kept):
            scores = self._forward_in_training(batch, dropout)
        graph = [scores] if is_kept else []

        def backprop(d_scores: Tensor) -> None:
            with replay():
                self._add_gradient(batch, d_scores, dropout, graph)

        return scores.detach(), backprop

    def _add_gradient(
        self,
        batch: Batch,
        d_scores: Tensor,
        dropout: float,
        graph: list[Tensor],
        parameters: Sequence[nn.Parameter] | None = None,
    ) -> None:
        """Run the backward pass of a batch; where memory runs out, run it on its halves instead.

        graph: holds the scores of the forward pass, or nothing if that is still to be done. It is emptied.
        parameters: those whose gradient is added to; None for all. A pass that fails half-way has added some already.
        """
        self._prepare_embeddings()
        all_parameters = [p for p in self.module.parameters() if p.requires_grad] if parameters is None else parameters
        before = [_gradient_version(p) for p in all_parameters]
        try:
            if not graph:
                with torch.enable_grad():
                    graph.append(self._forward_in_training(batch, dropout))
            with self._as_in_forward(batch, dropout):
                graph.pop().backward(d_scores, inputs=parameters)
        except RuntimeError as err:
            if not is_out_of_memory(err) or len(batch.input_ids) == 1:
                raise
        else:
            return
        self._shrink(batch)
        left = [p for p, version in zip(all_parameters, before, strict=True) if _gradient_version(p) == version]
        if left:
            for half, places in batch.halves():
                self._add_gradient(half, d_scores[self._to_tensor(places)], dropout, [], left)

    def _in_parts(
        self, batch: Batch, score: Callable[[Batch, bool], Any], is_whole: bool = True
    ) -> Iterator[tuple[Batch, Any]]:
        """Yield the batch and what `score` returns for it; where memory runs out, its halves instead.

        score: is given a batch, and whether it is a whole one.
        Raises torch's error if the memory is not sufficient for one window.
        """
        try:
            scored = score(batch, is_whole)
        except RuntimeError as err:
            if not is_out_of_memory(err) or len(batch.input_ids) == 1:
                raise
        else:
            yield batch, scored
            return
        # Here, and not in the except clause: the error holds on to the tensors of the pass that failed
        self._shrink(batch)
        for half, _ in batch.halves():
            yield from self._in_parts(half, score, is_whole=False)

    def _shrink(self, batch: Batch) -> None:
        """Limit later batches to half the size of one that the memory was not sufficient for."""
        n_pieces = batch.input_ids.size
        if self.most_pieces is None:
            warnings.warn(
                f"The memory of {self.device} is not sufficient for {n_pieces} pieces at once; continuing with smaller "
                f"batches. max_batch_pieces = {n_pieces // 2} in the model's settings starts with these",
                stacklevel=2,
            )
        self.most_pieces = n_pieces // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _prepare_embeddings(self) -> None:
        """Allocate the gradient to which those of the word pieces' embeddings, which are sparse, are added row by row.

        A dense one of the vocabulary's size, almost all of it zeros, in each backward pass is a sixth of a training step on
        a CPU.
        """
        embeddings = self.module.encoder.get_input_embeddings()
        if getattr(embeddings, "sparse", False) and embeddings.weight.requires_grad and embeddings.weight.grad is None:
            embeddings.weight.grad = torch.zeros_like(embeddings.weight)

    def _forward_in_training(self, batch: Batch, dropout: float) -> Tensor:
        if self.mixed_precision in ("bf16", "fp16") and self.autocast_type is None:
            warnings.warn(
                f"mixed_precision: {self.device} has no arithmetic in {self.mixed_precision}; float32 is used instead",
                stacklevel=2,
            )
        with self._in_training(dropout), self._autocast():
            return self.module(*self._inputs(batch), dropout)

    @contextlib.contextmanager
    def _in_training(self, dropout: float) -> Iterator[None]:
        """Have the module in training mode in the context, if there is to be dropout."""
        self.module.train(dropout > 0.0)
        try:
            with value_dropout(self.device):
                yield
        finally:
            self.module.eval()

    @contextlib.contextmanager
    def _as_in_forward(self, batch: Batch, dropout: float) -> Iterator[None]:
        """Have the module as in the forward pass, if gradient checkpointing computes layers again in the backward pass."""
        if not self.is_checkpointed:
            yield
            return
        with self._in_training(dropout), self.module.picking_rows(self._to_tensor(batch.first)):
            yield

    def _on_device(self) -> contextlib.AbstractContextManager:
        """Make the GPU with the weights the current one: in a new thread that is the first, wherever the weights are."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager:
        dtype = self.autocast_type
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _no_scores(self, n_tokens: int) -> Tensor:
        return torch.full((n_tokens, self.module.head.out_features), -torch.inf, device=self.device)

    def _inputs(self, batch: Batch) -> Iterator[Tensor | None]:
        yield self._to_tensor(batch.input_ids)
        yield self._attention_mask(batch)
        yield self._to_tensor(batch.orthography)
        yield self._to_tensor(batch.first)

    def _attention_mask(self, batch: Batch) -> Tensor | None:
        """Return the mask; on a GPU in a form that transformers does not look into, since it would have to wait for the GPU.

        It would look for padding, and whether there is any is known here.
        """
        rank = mask_rank(self.module.encoder) if self.device.type == "cuda" else 2
        if rank == 4 and batch.attention_mask.all():
            return None
        mask = self._to_tensor(batch.attention_mask)  # (n_windows, n_pieces)
        if rank == 3:
            return mask[:, None]  # (n_windows, 1, n_pieces)
        if rank == 4:  # added to the attention scores
            return (1.0 - mask[:, None, None].float()) * torch.finfo(torch.float32).min  # (n_windows, 1, 1, n_pieces)
        return mask

    def _to_tensor(self, array: NDArray) -> Tensor:
        tensor = torch.from_numpy(array)
        # From pinned memory the copy does not wait for what the GPU is computing
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor


def _random_state(device: torch.device) -> Callable[[], contextlib.AbstractContextManager]:
    """Save the state of torch's random generators; return a function for a context that replays them from it."""
    cpu_state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def replay() -> Iterator[None]:
        with torch.random.fork_rng(devices=[] if cuda_state is None else [device]):
            torch.set_rng_state(cpu_state)
            if cuda_state is not None:
                torch.cuda.set_rng_state(cuda_state, device)
            yield

    return replay


def _gradient_version(parameter: nn.Parameter) -> int | None:
    """Return a number that changes when something is added to the parameter's gradient."""
    return None if parameter.grad is None else parameter.grad._version
