"""The Thinc shim of the torch module: loading, saving, forward and backward passes, optimizer steps."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from thinc.api import Optimizer, Shim
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from ..files import CheckpointError, pack_files, unpacked_files
from .checkpoint import (
    check_vocabulary,
    is_lower_casing,
    is_only_local,
    load_encoder,
    load_tokenizer,
    max_positions,
    quiet_transformers,
)
from .devices import current_device, current_gpu
from .encoding import Batch, PieceEncoder
from .fine_tuning import FineTuning, load_training_state, prepare, rate_factors, training_state, with_averages
from .lora import save_encoder, share_weights
from .onnx_shim import MODEL_FILE as ONNX_FILE
from .optimizer import TorchOptimizer
from .orthography import ORTHOGRAPHY_VERSION
from .passes import Passes
from .torch_module import TokenClassifier

HEAD_FILE = "head.safetensors"

# OpenMP hangs in a forked process if the parent has used its threads; `nlp.pipe(n_process=…)` forks
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class EncoderShim(Shim):
    """Wraps a `TokenClassifier` for a Thinc model.

    transformer_config: values to change in the configuration of the checkpoint, or of the saved model.
    mixed_precision: as in `BertTokenClassifier`.
    fine_tuning: how the parts of the model are trained.
    """

    def __init__(
        self,
        transformer_config: dict[str, Any],
        mixed_precision: bool | str,
        fine_tuning: FineTuning,
    ) -> None:
        super().__init__(None)
        self.transformer_config = transformer_config
        self.mixed_precision = mixed_precision
        self.fine_tuning = fine_tuning
        self.tokenizer: Any = None
        self.pieces: PieceEncoder | None = None  # made by the model when it is needed
        # The definition of the orthographic classes that the model is trained with
        self.orthography_version = ORTHOGRAPHY_VERSION
        # Tags of the checkpoint's own head, if it has one
        self.checkpoint_tags: list[str] | None = None
        self._n_labelled = 0
        self._has_gradient = False  # since the last step
        self._passes: Passes | None = None

    @property
    def module(self) -> TokenClassifier:
        """The torch module; raises ValueError before it is loaded."""
        return self.passes.module

    @property
    def passes(self) -> Passes:
        """The passes through the module; raises ValueError before it is loaded."""
        if self._passes is None:
            raise ValueError("The model holds no encoder yet: call nlp.initialize() or load a saved pipeline")
        return self._passes

    @property
    def most_pieces(self) -> int | None:
        """Most pieces in a batch, once the memory was not sufficient for more."""
        return self.passes.most_pieces

    @property
    def is_loaded(self) -> bool:
        """Whether a module is loaded."""
        return self._model is not None

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.passes.device

    @property
    def kind(self) -> str:
        """The kind of device, a key of `bert_token_classifier.DEFAULT_BATCH_PIECES`."""
        return self.device.type

    @property
    def n_tags(self) -> int:
        """The number of columns of the scores."""
        return self.module.head.out_features

    @property
    def max_positions(self) -> int | None:
        """The number of pieces that the encoder has positions for; None if there is no limit."""
        return max_positions(self.module.encoder)

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer of the library `tokenizers`."""
        return self.tokenizer.backend_tokenizer

    @property
    def pad_id(self) -> int:
        """The piece to pad with."""
        pad_id = self.tokenizer.pad_token_id
        return 0 if pad_id is None else pad_id

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: neither the optimizer nor the cache of pieces."""
        return {**self.__dict__, "_optimizer": None, "pieces": None}

    def resize(self, n_tags: int) -> None:
        """Set the number of rows of the head; the optimizer keeps its state of the other rows."""
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
        """A copy of the scores of transitions, (n_tags + 1, n_tags + 1); None if the model has none."""
        found = self.module.transitions
        return None if found is None else np.array(found.detach().cpu())

    def add_transitions(self) -> None:
        """Add scores of transitions, all zero, unless there are any."""
        self.module.add_transitions()

    def add_transition_gradient(self, d_transitions: NDArray) -> None:
        """Add to the gradient of the transitions."""
        parameter = cast(nn.Parameter, self.module.transitions)
        gradient = self._optimizer_or_new().scale(torch.from_numpy(d_transitions.astype(np.float32)).to(self.device))
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    # Forward and backward

    def predict(self, batches: Iterable[Batch], n_tokens: int) -> Floats2d:  # type: ignore[override]
        """Score the tags of all tokens, (n_tokens, n_tags), float32; rows that are in no batch are -inf."""
        return cast(Floats2d, torch2xp(self.passes.predict(batches, n_tokens)))

    def predict_numpy(self, batches: Iterable[Batch], n_tokens: int) -> NDArray[np.float32]:
        """As `predict`, as an array in main memory. On a GPU this waits for it once, and needs nothing of CuPy."""
        return self.passes.predict(batches, n_tokens).cpu().numpy()

    def begin_update(  # type: ignore[override]
        self, batches: Sequence[Batch], n_tokens: int, dropout: float, *, is_kept: bool
    ) -> tuple[Floats2d, Callable[[Floats2d], None]]:
        """As `predict`, in training; see `Passes.begin_update`."""
        Y, backprop_scores = self.passes.begin_update(batches, n_tokens, dropout, is_kept=is_kept)

        def backprop(dY: Floats2d) -> None:
            self._has_gradient = True
            backprop_scores(self._optimizer_or_new(len(dY)).scale(xp2torch(dY, device=self.device)))

        return cast(Floats2d, torch2xp(Y)), backprop

    # The optimizer step

    def add_labelled(self, n: int) -> None:
        """Note that `n` more labelled tokens have been added to the gradient; the step divides by their number."""
        self._n_labelled += n

    def _optimizer_or_new(self, n_rows: int = 1) -> TorchOptimizer:
        """Return the optimizer; a new one is made for gradients that are summed over `n_rows` rows of scores."""
        if self._optimizer is None:
            # GradScaler's own initial scale is meant for the gradient of a mean
            scale = 2.0 ** (16 - max(n_rows, 1).bit_length()) if self.passes.autocast_type is torch.float16 else None
            self._optimizer = TorchOptimizer(
                self.module, rate_factors=rate_factors(self.module, self.fine_tuning), scale=scale
            )
        return self._optimizer

    def finish_update(self, optimizer: Optimizer | Callable) -> None:
        """Take one optimizer step with the gradient added up so far, divided by the number of labelled tokens.

        If that number is unknown (`add_labelled` was not called), as in a loop of Thinc's own, the gradient is not divided.

        optimizer: the optimizer, or the function that `Language.rehearse` passes in its place. That function collects
            gradients for a step of Thinc's, parameter by parameter; here the step is taken at once, see
            `TorchOptimizer.settings`.
        """
        n, self._n_labelled = self._n_labelled, 0
        has_gradient, self._has_gradient = self._has_gradient, False
        if has_gradient:
            own = self._optimizer_or_new()
            own.step(own.settings(optimizer), key=self.id, divisor=n or 1)

    @contextlib.contextmanager
    def use_params(self, params: dict) -> Iterator[None]:
        """Use, in the context, the averages that the optimizer keeps as the module's parameters."""
        with with_averages(self.module, self.id, params) if self.is_loaded else contextlib.nullcontext():
            yield

    def training_state(self, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what the next step depends on: tensors by name, and values for JSON.

        optimizer: the Thinc optimizer of the steps; its averages are part of the state.
        """
        tensors, numbers = training_state(self.module, self._optimizer_or_new(), optimizer, self.id)
        return tensors, {**numbers, "most_pieces": self.most_pieces}

    def load_training_state(self, optimizer: Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Restore what `training_state` returned; raises CheckpointError if the weights are those of another module."""
        load_training_state(self.module, self._optimizer_or_new(), optimizer, self.id, tensors, numbers)
        self.passes.most_pieces = numbers["most_pieces"]

    # Loading and saving

    def load_checkpoint(self, name: str, orthography: bool | None, revision: str | None = None) -> None:
        """Load encoder, tokenizer and, if there is one, the token-classification head of a checkpoint.

        name, revision: hub name or folder, and branch, tag or commit of the hub, as for `from_pretrained`.
        orthography: None for yes if the tokenizer lower-cases.
        Raises CheckpointError, which names the setting `name`.
        """
        is_local = is_only_local(name, revision)
        tokenizer = load_tokenizer(name, is_local=is_local, revision=revision)
        encoder, head, tags = load_encoder(
            name, is_local=is_local, overrides=self.transformer_config, revision=revision
        )
        if orthography is None:
            orthography = is_lower_casing(tokenizer)
        check_vocabulary(name, tokenizer, encoder)
        module = TokenClassifier(encoder, 1, orthography)
        if head is not None:
            module.head = head
        self._set(module, tokenizer)
        self.orthography_version = ORTHOGRAPHY_VERSION
        self.checkpoint_tags = tags

    def _set(self, module: TokenClassifier, tokenizer: Any, saved: Path | None = None) -> None:
        prepare(module, self.fine_tuning, saved)
        self._model = module.eval()
        is_checkpointed = self.fine_tuning.gradient_checkpointing
        self._passes = Passes(self._model, self.mixed_precision, is_checkpointed=is_checkpointed)
        self._place(current_device())
        self.tokenizer = tokenizer
        self.pieces = None
        self._optimizer = None
        self._n_labelled = 0
        self._has_gradient = False

    def to_disk(self, path: str | Path) -> None:
        """Save into a folder: encoder and tokenizer in transformers' layout, and `head.safetensors`."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        if not self.is_loaded:  # a pipeline may be saved before it is initialized; the folder stays empty
            return
        module = self.module
        with quiet_transformers():
            save_encoder(module.encoder, path, self.fine_tuning.lora)
            self.tokenizer.save_pretrained(path)
        head = {k: v.contiguous() for k, v in module.state_dict().items() if not k.startswith("encoder.")}
        save_file(head, path / HEAD_FILE, metadata={"orthography": str(self.orthography_version)})

    def from_disk(self, path: str | Path) -> "EncoderShim":
        """Load a folder that `to_disk` wrote; raises CheckpointError if it is incomplete or damaged."""
        path = Path(path)
        if path.is_dir() and not any(path.iterdir()):
            return self
        if (path / ONNX_FILE).exists():
            raise CheckpointError(f'{path}: holds an ONNX model, which needs runtime = "onnx"')
        try:
            with safe_open(path / HEAD_FILE, "pt") as file:
                head = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                version = int((file.metadata() or {}).get("orthography", 1))
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
        self._set(module, tokenizer, saved=path)
        if self.fine_tuning.lora is not None:
            share_weights(module.encoder, path)
        self.orthography_version = version
        return self

    def to_bytes(self) -> bytes:
        """Return the files that `to_disk` writes, as one msgpack map from name to content."""
        return pack_files(self.to_disk)

    def from_bytes(self, data: bytes) -> "EncoderShim":
        """Load what `to_bytes` returned."""
        with unpacked_files(data) as folder:
            return self.from_disk(folder)

    def to_device(self, device_type: str, device_id: int) -> None:
        """Move the weights, as `Model.to_cpu` and `Model.to_gpu` ask, and the optimizer's state."""
        if self._model is None:
            return
        # Thinc makes the GPU the current one, but passes 0 for any
        device = current_gpu() if device_type == "gpu" else torch.device("cpu")
        with contextlib.nullcontext() if self._optimizer is None else self._optimizer.moving():
            self._place(device)

    def _place(self, device: torch.device) -> None:
        embeddings = self.module.encoder.get_input_embeddings()
        if isinstance(embeddings, nn.Embedding):
            embeddings.sparse = (
                device.type == "cpu"
            )  # see `Passes._prepare_embeddings`; a GPU would have to be waited for
        self.module.to(device)
