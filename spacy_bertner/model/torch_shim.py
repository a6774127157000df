"""The Thinc shim of the torch module: it loads and saves it, runs it forward and backward, and has it take its steps."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from thinc.api import Optimizer, Shim
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from ..files import CheckpointError, pack_files, unpacked_files
from .checkpoint import (
    check_vocabulary,
    is_lower_casing,
    load_encoder,
    load_tokenizer,
    max_positions,
    quiet_transformers,
)
from .devices import current_device, current_gpu, is_out_of_memory, supports
from .encoding import Batch, PieceEncoder
from .fine_tuning import FineTuning, load_training_state, prepare, rate_factors, training_state, with_averages
from .onnx_shim import MODEL_FILE as ONNX_FILE
from .optimizer import TorchOptimizer
from .torch_module import TokenClassifier, mask_rank

HEAD_FILE = "head.safetensors"

# OpenMP hangs in a forked process whose parent has used its threads; `nlp.pipe(n_process=…)` forks
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class EncoderShim(Shim):
    """Makes a `TokenClassifier` a part of a Thinc model: it runs it, trains it, saves and loads it.

    The module stays in evaluation mode; only a forward pass in training leaves it, and comes back. Predicting therefore
    changes no state, and threads that predict may share one pipeline (while one of them trains, they may not).

    transformer_config: settings to change in the configuration of the checkpoint, or of the saved model.
    mixed_precision: the type for matrix products under autocast; None for float32 throughout. On a device that lacks
        it, float32 is used.
    fine_tuning: how the parts of the model are trained.
    """

    def __init__(
        self,
        transformer_config: dict[str, Any],
        mixed_precision: torch.dtype | None,
        fine_tuning: FineTuning,
    ) -> None:
        super().__init__(None)
        self.transformer_config = transformer_config
        self.mixed_precision = mixed_precision
        self.fine_tuning = fine_tuning
        self.tokenizer: Any = None
        self.pieces: PieceEncoder | None = None  # for the tokenizer, made by the model when it is needed
        # Tags of the checkpoint's own head, where it has one
        self.checkpoint_tags: list[str] | None = None
        self._n_labelled = 0
        self._has_gradient = False  # since the last step
        # Most pieces in a batch, once the memory has not sufficed
        self.most_pieces: int | None = None

    @property
    def module(self) -> TokenClassifier:
        """The torch module; raises ValueError before it is loaded."""
        if self._model is None:
            raise ValueError("The model holds no encoder yet: call nlp.initialize() or load a saved pipeline")
        return self._model

    @property
    def is_loaded(self) -> bool:
        """Whether there is a module."""
        return self._model is not None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.module.head.weight.device

    @property
    def kind(self) -> str:
        """What computes, a key of `bert_token_classifier.DEFAULT_BATCH_PIECES`."""
        return self.device.type

    @property
    def n_tags(self) -> int:
        """Columns of the scores."""
        return self.module.head.out_features

    @property
    def max_positions(self) -> int | None:
        """Most pieces that the encoder has positions for; None where there is no such limit."""
        return max_positions(self.module.encoder)

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer, as the library `tokenizers` has it."""
        return self.tokenizer.backend_tokenizer

    @property
    def pad_id(self) -> int:
        """The piece to pad with."""
        pad_id = self.tokenizer.pad_token_id
        return 0 if pad_id is None else pad_id

    def __getstate__(self) -> dict[str, Any]:
        """What copying and pickling take along: neither the optimiser's state nor the cache of pieces."""
        return {**self.__dict__, "_optimizer": None, "pieces": None}

    def resize(self, n_tags: int) -> None:
        """Give the head `n_tags` rows; the optimiser goes on with what it knows of the others."""
        if n_tags != self.module.head.out_features:
            before = dict(self.module.named_parameters())
            self.module.resize(n_tags)
            if self._optimizer is not None:
                after = dict(self.module.named_parameters())
                self._optimizer.replace(
                    [(before[name], after[name]) for name in before if before[name] is not after[name]]
                )

    @property
    def transitions(self) -> NDArray[np.float32] | None:
        """A copy of the scores of transitions, (n_tags + 1, n_tags + 1); None where the model is to have none."""
        found = self.module.transitions
        return None if found is None else np.array(found.detach().cpu())

    def add_transitions(self) -> None:
        """Let the model have scores of transitions, all zero at first."""
        self.module.add_transitions()

    def add_transition_gradient(self, d_transitions: NDArray) -> None:
        """Add to the gradient of the transitions."""
        parameter = cast(nn.Parameter, self.module.transitions)
        gradient = self._optimizer_or_new().scale(self._to_tensor(d_transitions.astype(np.float32)))
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    # Forward and backward

    def predict(self, batches: Iterable[Batch], n_tokens: int) -> Floats2d:  # type: ignore[override]
        """Score the tags of all tokens, (n_tokens, n_tags), float32; the rows that no batch has are -inf."""
        return cast(Floats2d, torch2xp(self._predict(batches, n_tokens)))

    def predict_numpy(self, batches: Iterable[Batch], n_tokens: int) -> NDArray[np.float32]:
        """As `predict`, as an array in main memory. On a GPU this waits for it once, and needs nothing of CuPy."""
        return self._predict(batches, n_tokens).cpu().numpy()

    def _predict(self, batches: Iterable[Batch], n_tokens: int) -> Tensor:
        with self._on_device(), torch.inference_mode(), self._autocast():
            Y = self._no_scores(n_tokens)
            for batch in batches:
                for part, scores in self._in_parts(batch, lambda part: self.module(*self._inputs(part))):
                    Y[self._to_tensor(part.rows)] = scores
        return Y

    def begin_update(  # type: ignore[override]
        self, batches: Sequence[Batch], n_tokens: int, dropout: float, *, is_kept: bool
    ) -> tuple[Floats2d, Callable[[Floats2d], None]]:
        """As `predict`, in training.

        dropout: rate before the head. The encoder's own rates are those of its configuration; at 0.0 all
            dropout is off, the encoder's too.
        is_kept: whether the activations are kept for the backward pass; if not, it computes each batch again, with the same
            dropout.
        Returns the scores and a function that takes their gradient, (n_tokens, n_tags), and adds to the parameters'.
        """
        callbacks: list[tuple[Batch, Callable[[Tensor], None]]] = []

        def kept(batch: Batch) -> tuple[Tensor, Callable[[Tensor], None]]:
            return self._begin_kept(batch, dropout)

        def recomputed(batch: Batch) -> tuple[Tensor, Callable[[Tensor], None]]:
            return self._begin_recomputed(batch, dropout)

        with self._on_device():
            Y = self._no_scores(n_tokens)
            for batch in batches:
                for part, (scores, callback) in self._in_parts(batch, kept if is_kept else recomputed, recomputed):
                    Y[self._to_tensor(part.rows)] = scores
                    callbacks.append((part, callback))

        def backprop(dY: Floats2d) -> None:
            with self._on_device():
                d_scores = xp2torch(dY, device=self.device)
                for part, callback in callbacks:
                    callback(d_scores[self._to_tensor(part.rows)])

        return cast(Floats2d, torch2xp(Y)), backprop

    def _no_scores(self, n_tokens: int) -> Tensor:
        return torch.full((n_tokens, self.module.head.out_features), -torch.inf, device=self.device)

    def _in_parts(
        self, batch: Batch, score: Callable[[Batch], Any], score_half: Callable[[Batch], Any] | None = None
    ) -> Iterator[tuple[Batch, Any]]:
        """Give the batch and what `score` returns for it; where memory runs out, halves of it instead.

        score_half: what to call for the halves, if not `score`.
        Raises torch's error where memory does not suffice for one window.
        """
        try:
            scored = score(batch)
        except RuntimeError as err:
            if not is_out_of_memory(err) or len(batch.input_ids) == 1:
                raise
        else:
            yield batch, scored
            return
        # Here, and not in the except clause: the error holds on to the tensors of the pass that failed
        self._shrink(batch)
        for half, _ in batch.halves():
            yield from self._in_parts(half, score_half or score)

    def _shrink(self, batch: Batch) -> None:
        """Note that the memory did not suffice for a batch: those to come are half as large at most."""
        n_pieces = batch.input_ids.size
        if self.most_pieces is None:
            warnings.warn(
                f"The memory of {self.device} does not suffice for {n_pieces} pieces at once; going on with smaller "
                f"batches. max_batch_pieces = {n_pieces // 2} in the model's settings starts with these",
                stacklevel=2,
            )
        self.most_pieces = n_pieces // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _begin_kept(self, batch: Batch, dropout: float) -> tuple[Tensor, Callable[[Tensor], None]]:
        """Score one batch and keep what the backward pass needs.

        Returns the scores, (n_rows, n_tags), and a function that takes their gradient and adds to the parameters'.
        """
        with torch.enable_grad():
            scores = self._forward_in_training(batch, dropout)
        graph = [scores]

        def backprop(d_scores: Tensor) -> None:
            self._add_gradient(batch, d_scores, dropout, graph)

        return scores.detach(), backprop

    def _begin_recomputed(self, batch: Batch, dropout: float) -> tuple[Tensor, Callable[[Tensor], None]]:
        """As `_begin_kept`, but nothing is kept: the backward pass computes the batch again, with the same dropout."""
        cpu_state = torch.get_rng_state()
        cuda_state = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        with torch.no_grad():
            scores = self._forward_in_training(batch, dropout)

        def backprop(d_scores: Tensor) -> None:
            devices = [self.device] if cuda_state is not None else []
            with torch.random.fork_rng(devices=devices):
                torch.set_rng_state(cpu_state)
                if cuda_state is not None:
                    torch.cuda.set_rng_state(cuda_state, self.device)
                self._add_gradient(batch, d_scores, dropout, [])

        return scores, backprop

    def _add_gradient(
        self,
        batch: Batch,
        d_scores: Tensor,
        dropout: float,
        graph: list[Tensor],
        parameters: Sequence[nn.Parameter] | None = None,
    ) -> None:
        """Go back through a batch; where the GPU's memory runs out, compute and go back through its halves instead.

        graph: holds the scores as the forward pass gave them, or nothing, for a pass that is still to do. It is emptied.
        parameters: those whose gradient is added to; None for all. A pass that fails half-way has added some already.
        """
        self._prepare_embeddings()
        self._has_gradient = True
        scaled = self._optimizer_or_new(len(d_scores)).scale(d_scores)
        all_parameters = [p for p in self.module.parameters() if p.requires_grad] if parameters is None else parameters
        before = [_gradient_version(p) for p in all_parameters]
        try:
            if not graph:
                with torch.enable_grad():
                    graph.append(self._forward_in_training(batch, dropout))
            with self._as_in_forward(batch, dropout):
                graph.pop().backward(scaled, inputs=parameters)
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

    def _prepare_embeddings(self) -> None:
        """Make the gradient that those of the word pieces' embeddings, which are sparse, are added to row by row.

        A dense one of the vocabulary's size, almost all of it zeros, in each backward pass is a sixth of a training step on
        a CPU.
        """
        embeddings = self.module.encoder.get_input_embeddings()
        if getattr(embeddings, "sparse", False) and embeddings.weight.requires_grad and embeddings.weight.grad is None:
            embeddings.weight.grad = torch.zeros_like(embeddings.weight)

    def _forward_in_training(self, batch: Batch, dropout: float) -> Tensor:
        if self._autocast_type is not self.mixed_precision:
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
            yield
        finally:
            self.module.eval()

    @contextlib.contextmanager
    def _as_in_forward(self, batch: Batch, dropout: float) -> Iterator[None]:
        """Have the module as it was in the forward pass, where gradient checkpointing computes layers again going back."""
        if not self.fine_tuning.gradient_checkpointing:
            yield
            return
        with self._in_training(dropout), self.module.picking_rows(self._to_tensor(batch.first)):
            yield

    def _on_device(self) -> contextlib.AbstractContextManager:
        """Make the GPU with the weights the current one: in a new thread that is the first, wherever the weights are."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self._autocast_type is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast_type)

    @property
    def _autocast_type(self) -> torch.dtype | None:
        """The type of `mixed_precision` where the device has it."""
        has_it = self.mixed_precision is not None and supports(self.device, self.mixed_precision)
        return self.mixed_precision if has_it else None

    def _inputs(self, batch: Batch) -> Iterator[Tensor | None]:
        yield self._to_tensor(batch.input_ids)
        yield self._attention_mask(batch)
        yield self._to_tensor(batch.orthography)
        yield self._to_tensor(batch.first)

    def _attention_mask(self, batch: Batch) -> Tensor | None:
        """Give the mask; on a GPU in a form that transformers takes as it is, since it would wait for the GPU to look at it.

        What it looks for is whether there is any padding: that is known here.
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

    # The optimiser step

    def add_labelled(self, n: int) -> None:
        """Note that the gradient now holds `n` more labelled tokens; the step divides by their number."""
        self._n_labelled += n

    def _optimizer_or_new(self, n_rows: int = 1) -> TorchOptimizer:
        """Return the optimiser; made for gradients of scores that are summed over so many rows."""
        if self._optimizer is None:
            # What GradScaler starts with is meant for the gradient of a mean
            scale = 2.0 ** (16 - max(n_rows, 1).bit_length()) if self._autocast_type is torch.float16 else None
            self._optimizer = TorchOptimizer(
                self.module, rate_factors=rate_factors(self.module, self.fine_tuning), scale=scale
            )
        return self._optimizer

    def finish_update(self, optimizer: Optimizer | Callable) -> None:
        """Take one optimiser step with the gradient gathered so far, divided by the number of labelled tokens.

        Where nobody told of any (`add_labelled`), as in a loop of Thinc's own, the gradient is taken as it is.

        optimizer: the optimiser, or the function that `Language.rehearse` gives in its place. That one gathers
            gradients for a step of Thinc's, parameter by parameter; the step here is taken at once, see
            `TorchOptimizer.settings`.
        """
        n, self._n_labelled = self._n_labelled, 0
        has_gradient, self._has_gradient = self._has_gradient, False
        if has_gradient:
            own = self._optimizer_or_new()
            own.step(own.settings(optimizer), key=self.id, divisor=n or 1)

    @contextlib.contextmanager
    def use_params(self, params: dict) -> Iterator[None]:
        """Put the averages that the optimiser keeps into the module for the time of the context."""
        with with_averages(self.module, self.id, params) if self.is_loaded else contextlib.nullcontext():
            yield

    def training_state(self, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return, between two steps, what the next one depends on: tensors by name, and what JSON can hold.

        optimizer: the Thinc optimiser of the steps; the averages in it are part of the state.
        """
        tensors, numbers = training_state(self.module, self._optimizer_or_new(), optimizer, self.id)
        return tensors, {**numbers, "most_pieces": self.most_pieces}

    def load_training_state(self, optimizer: Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go on from what `training_state` returned; raises CheckpointError where the weights are another module's."""
        load_training_state(self.module, self._optimizer_or_new(), optimizer, self.id, tensors, numbers)
        self.most_pieces = numbers["most_pieces"]

    # Loading and saving

    def load_checkpoint(self, name: str, orthography: bool | None, revision: str | None = None) -> None:
        """Load encoder, tokenizer and, where there is one, the token-classification head of a checkpoint.

        name, revision: hub name or folder, and branch, tag or commit of the hub, as for `from_pretrained`.
        orthography: None for on where the tokenizer lower-cases.
        Raises CheckpointError, which names the setting `name`.
        """
        tokenizer = load_tokenizer(name, revision=revision)
        encoder, head, tags = load_encoder(name, overrides=self.transformer_config, revision=revision)
        if orthography is None:
            orthography = is_lower_casing(tokenizer)
        check_vocabulary(name, tokenizer, encoder)
        module = TokenClassifier(encoder, 1, orthography)
        if head is not None:
            module.head = head
        self._set(module, tokenizer)
        self.checkpoint_tags = tags

    def _set(self, module: TokenClassifier, tokenizer: Any) -> None:
        prepare(module, self.fine_tuning)
        self._model = module.eval()
        self._place(current_device())
        self.tokenizer = tokenizer
        self.pieces = None
        self._optimizer = None
        self._n_labelled = 0
        self._has_gradient = False

    def to_disk(self, path: str | Path) -> None:
        """Save into a folder: the encoder and its tokenizer as transformers has them, and `head.safetensors`."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        if not self.is_loaded:  # a pipeline may be saved before it is initialized; the folder stays empty
            return
        module = self.module
        with quiet_transformers():
            module.encoder.save_pretrained(path, safe_serialization=True)
            self.tokenizer.save_pretrained(path)
        head = {k: v.contiguous() for k, v in module.state_dict().items() if not k.startswith("encoder.")}
        save_file(head, path / HEAD_FILE)

    def from_disk(self, path: str | Path) -> "EncoderShim":
        """Load a folder that `to_disk` wrote; raises CheckpointError where it is not whole."""
        path = Path(path)
        if path.is_dir() and not any(path.iterdir()):
            return self
        if (path / ONNX_FILE).exists():
            raise CheckpointError(f'{path}: holds an ONNX model, which needs runtime = "onnx"')
        try:
            head = load_file(path / HEAD_FILE)
        except (OSError, SafetensorError) as err:
            raise CheckpointError(f"{path / HEAD_FILE}: cannot be read ({err})") from err
        tokenizer = load_tokenizer(str(path), is_saved=True)
        encoder, _, _ = load_encoder(str(path), is_saved=True, overrides=self.transformer_config)
        if "head.weight" not in head:
            raise CheckpointError(f"{path / HEAD_FILE}: holds no head.weight, only {sorted(head)}")
        module = TokenClassifier(encoder, len(head["head.weight"]), "orthography.weight" in head)
        if "transitions" in head:
            module.add_transitions()
        try:
            missing, unexpected = module.load_state_dict(head, strict=False)
        except RuntimeError as err:
            raise CheckpointError(f"{path / HEAD_FILE}: does not fit the encoder beside it ({err})") from err
        missing = [key for key in missing if not key.startswith("encoder.")]
        if missing or unexpected:
            raise CheckpointError(f"{path / HEAD_FILE}: weights missing {missing}, unexpected {unexpected}")
        self._set(module, tokenizer)
        return self

    def to_bytes(self) -> bytes:
        """Return the files that `to_disk` writes, as one msgpack map from name to content."""
        return pack_files(self.to_disk)

    def from_bytes(self, data: bytes) -> "EncoderShim":
        """Load what `to_bytes` returned."""
        with unpacked_files(data) as folder:
            return self.from_disk(folder)

    def to_device(self, device_type: str, device_id: int) -> None:
        """Move the weights, as `Model.to_cpu` and `Model.to_gpu` ask, and what the optimiser knows of them."""
        if self._model is None:
            return
        # Thinc makes the GPU the current one, and says 0 for any
        device = current_gpu() if device_type == "gpu" else torch.device("cpu")
        with contextlib.nullcontext() if self._optimizer is None else self._optimizer.moving():
            self._place(device)

    def _place(self, device: torch.device) -> None:
        embeddings = self.module.encoder.get_input_embeddings()
        if isinstance(embeddings, nn.Embedding):
            embeddings.sparse = device.type == "cpu"  # see `_prepare_embeddings`; a GPU would have to be waited for
        self.module.to(device)


def _gradient_version(parameter: nn.Parameter) -> int | None:
    """A number that changes when something is added to the parameter's gradient."""
    return None if parameter.grad is None else parameter.grad._version
