"""The architecture with its own encoder: a Thinc model from Docs to one row of tag scores per token.

A row of -inf marks a token that is not tagged: it has no word pieces, or only whitespace and control characters.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import Model, Shim
from thinc.types import Floats2d

from .interface import NAME, Interface, TagScores

if TYPE_CHECKING:
    from .encoding import Batch, EncodedDocs, PieceEncoder
    from .torch_shim import EncoderShim

# Pieces in a batch, padding included. Small batches stay in the caches of a CPU; a GPU needs large ones.
DEFAULT_BATCH_PIECES = {"cpu": 1024, "cuda": 16384, "onnx": 1024}
# The constant cost of a pass through the encoder, in pieces (bench/results)
BATCH_OVERHEAD = {"cpu": 40, "cuda": 1024, "onnx": 20}
RUNTIMES = ("torch", "onnx")


class FolderModel(Model):
    """A Thinc model that saves the files of its one shim and nothing else.

    On disk they are a folder in Hugging Face's layout; Thinc's own msgpack file would need memory for two more copies of the
    weights. Settings are not saved with the weights: they are in the pipeline's config, where they can be overridden.
    """

    def to_disk(self, path: Path | str) -> None:
        """Save into the folder `path`."""
        self.shims[0].to_disk(path)

    def from_disk(self, path: Path | str) -> "FolderModel":
        """Load from the folder `path`."""
        self.shims[0].from_disk(path)
        return self.loaded()

    def to_bytes(self) -> bytes:
        """Return the files as bytes."""
        return self.shims[0].to_bytes()

    def from_bytes(self, bytes_data: bytes) -> "FolderModel":
        """Load what `to_bytes` returned."""
        self.shims[0].from_bytes(bytes_data)
        return self.loaded()

    def loaded(self) -> "FolderModel":
        """Set the number of tags, and check the settings against the encoder; return the model itself."""
        if _shim(self).is_loaded:
            if self.attrs["crf"]:
                _shim(self).add_transitions()
            self.set_dim("nO", _shim(self).n_tags, force=True)
            _pieces(self)  # checks the window against the encoder's positions
        return self

    def copy(self) -> "FolderModel":
        """Return a copy, including the weights."""
        return copy.deepcopy(self)


def BertTokenClassifier(
    name: str,
    window: int = 256,
    stride: int = 240,
    max_batch_pieces: int | None = None,
    mixed_precision: bool | str = False,
    orthography: bool | None = None,
    document_context: bool = True,
    crf: bool = False,
    head_learn_rate: float = 1.0,
    layer_decay: float = 1.0,
    freeze_embeddings: bool = False,
    freeze_layers: int = 0,
    gradient_checkpointing: bool = False,
    transformer_config: dict[str, Any] | None = None,
    runtime: str = "torch",
    revision: str | None = None,
    lora: dict[str, Any] | None = None,
) -> Model[list[Doc], list[Floats2d]]:
    """A transformers encoder with a linear head over the first piece of each word (Devlin et al. 2019, section 5.3).

    name: hub name or folder of the checkpoint, as for `from_pretrained`; read by `initialize`, not needed afterwards.
    window: maximum number of pieces that the encoder sees at once, special pieces included.
    stride: number of pieces from the start of one full window to the start of the next; the rest of a window is overlap. A
        longer document has windows of about equal length. They do not overlap in training, nor between sentences.
    max_batch_pieces: maximum number of pieces in one pass through the encoder, padding included; None for the device's
        default.
    mixed_precision: "bf16" or "fp16" for matrix products in that type under autocast; "auto" for the one that the device
        has; False for float32. A device that does not have the type uses float32, with a warning in training unless "auto".
    orthography: whether to add an embedding of the shape of each word (capitals, digits); None for yes if the tokenizer
        lower-cases.
    document_context: whether the encoder sees the sentences around a sentence; if not, it sees each sentence alone, provided
        that the Doc has sentence boundaries.
    crf: whether to learn scores of transitions between tags too, a conditional random field (Lafferty et al. 2001).
    head_learn_rate: factor on the learning rate of the new parameters: head, transitions and orthography embedding.
    layer_decay: factor on the learning rate from each layer of the encoder to the one below, above 0 and at most 1.
    freeze_embeddings: whether the encoder's embeddings do not change in training.
    freeze_layers: number of layers of the encoder, from the lowest, that do not change in training.
    gradient_checkpointing: whether the backward pass computes each layer again, which takes less memory; no effect at a
        dropout of 0.0, where the encoder stays in evaluation mode.
    transformer_config: values to change in the checkpoint's configuration, dropout rates for instance.
    runtime: "torch", or "onnx" in a trained pipeline that `export.onnx.to_onnx` converted. ONNX Runtime only predicts, on
        the CPU, in the precision that the model was converted to.
    revision: branch, tag or commit of the checkpoint on the hub; None for its main branch.
    lora: low-rank adapters that are trained while the encoder stays as it is (Hu et al. 2022): their rank `r`, `alpha` (they
        count alpha / r), `dropout` before them, and the `target_modules` that get one, as peft takes them; None for no
        adapters.

    Returns a model from Docs to tag scores, (n_tokens, n_tags) per Doc.
    Raises ValueError for settings that cannot work, ImportError for `lora` without the extra of this name.
    """
    if window < 3:
        raise ValueError(f"window: {window} is too small; allowed are 3 and more pieces")
    if not 0 < stride < window:
        raise ValueError(f"stride: {stride} is not between 1 and window - 1 ({window - 1}) pieces")
    if max_batch_pieces is not None and max_batch_pieces < window:
        raise ValueError(
            f"max_batch_pieces: {max_batch_pieces} is less than one window; allowed are {window} (window) and more"
        )
    if mixed_precision not in (False, "bf16", "fp16", "auto"):
        raise ValueError(
            f'mixed_precision: {mixed_precision!r} is unknown; allowed are false, "bf16", "fp16" and "auto"'
        )
    if not head_learn_rate > 0:
        raise ValueError(f"head_learn_rate: {head_learn_rate} is not a factor above 0")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay: {layer_decay} is not a factor above 0 and at most 1")
    if freeze_layers < 0:
        raise ValueError(f"freeze_layers: {freeze_layers} is not a number of layers, 0 or more")
    if lora is not None and freeze_layers:
        raise ValueError(f"freeze_layers: {freeze_layers} does not go with lora, which freezes all layers; set it to 0")
    if runtime not in RUNTIMES:
        raise ValueError(f'runtime: {runtime!r} is unknown; allowed are "torch" and "onnx"')
    shim: Shim
    if runtime == "onnx":  # without torch, which need not be there
        from .onnx_shim import OnnxShim

        shim = OnnxShim()
    else:
        from .fine_tuning import FineTuning
        from .lora import check_settings
        from .torch_shim import EncoderShim

        fine_tuning = FineTuning(
            head_learn_rate,
            layer_decay,
            freeze_embeddings,
            freeze_layers,
            gradient_checkpointing,
            check_settings(lora),
        )
        shim = EncoderShim(transformer_config or {}, mixed_precision, fine_tuning)
    return FolderModel(
        "bert_token_classifier",
        forward,
        init=init,
        dims={"nO": None},
        attrs={
            "name": name,
            "revision": revision,
            "window": window,
            "stride": stride,
            "max_batch_pieces": max_batch_pieces,
            "orthography": orthography,
            "document_context": document_context,
            "crf": crf,
            "dropout_rate": 0.0,
            NAME: INTERFACE,
            "resize_output": resize,  # spaCy looks for it
        },
        shims=[shim],
    )


def forward(
    model: Model[list[Doc], list[Floats2d]], docs: Sequence[Doc], is_train: bool
) -> tuple[list[Floats2d], Callable]:
    """Score the tags of every token; in training, keep the activations of at most as many pieces as a batch may have."""
    shim, ops = _shim(model), model.ops
    lengths = [len(doc) for doc in docs]
    budget, overhead = _budget(model)
    encoder = _pieces(model)
    encoded = encoder.encoded(docs, overlap=not is_train)
    queue = encoder.encode(encoded, budget, overhead)
    if not is_train:
        return _split(ops.asarray2f(shim.predict(queue, sum(lengths))), lengths), lambda dY: []
    has_row = np.concatenate([pieces.has_row for pieces in encoded.pieces]) if len(docs) else np.zeros(0, dtype=bool)
    batches = list(queue)
    is_kept = len(batches) == 1 or sum(batch.input_ids.size for batch in batches) <= budget
    Y, backprop_scores = shim.begin_update(batches, sum(lengths), model.attrs["dropout_rate"], is_kept=is_kept)

    def backprop(dY: list[Floats2d]) -> list[Doc]:
        if dY:
            backprop_scores(ops.xp.concatenate(dY))
        return []

    return TagScores(_split(ops.asarray2f(Y), lengths), has_row), backprop


def predict_scores(model: Model, docs: Sequence[Doc]) -> NDArray[np.float32]:
    """Score the tags of every token of all Docs together, (n_tokens, n_tags), in main memory."""
    return _shim(model).predict_numpy(encode(model, docs), sum(len(doc) for doc in docs))


def encode(model: Model, docs: Sequence[Doc]) -> Iterator["Batch"]:
    """Turn Docs into the batches that the encoder is given (see `PieceEncoder.encode`)."""
    return _pieces(model).encode(docs, *_budget(model))


def init(model: Model[list[Doc], list[Floats2d]], X: Any = None, Y: Any = None) -> None:
    """Load the checkpoint, unless it is loaded, and set the number of rows of the head to that of the tags (nO)."""
    shim = _shim(model)
    if not shim.is_loaded:
        load_checkpoint(model)
    if not model.has_dim("nO"):
        raise ValueError("The number of tags is unknown: set the model's dimension nO before it is initialized")
    shim.resize(model.get_dim("nO"))


def load_checkpoint(model: Model) -> list[str] | None:
    """Load the checkpoint `name`; return the names of the rows of its head in order, None without a head.

    Raises ValueError if there is no such checkpoint, or if the settings do not fit it.
    """
    shim = _shim(model)
    shim.load_checkpoint(model.attrs["name"], model.attrs["orthography"], model.attrs["revision"])
    if model.attrs["crf"]:
        shim.add_transitions()
    _pieces(model)  # checks the window against the encoder's positions
    return shim.checkpoint_tags


def resize(model: Model, n_tags: int) -> None:
    """Set the number of rows of the head, keeping the rows that it has."""
    if _shim(model).is_loaded:
        _shim(model).resize(n_tags)
    model.set_dim("nO", n_tags, force=True)


def group(model: Model, docs: Sequence[Doc]) -> list[tuple[list[int], "EncodedDocs"]]:
    """Group Docs so that an update on one group needs one pass through the encoder (see `PieceEncoder.group`)."""
    return _pieces(model).group(docs, *_budget(model))


def add_labelled(model: Model, n: int) -> None:
    """Note that `n` more labelled tokens have been added to the gradient; the step divides it by their number."""
    _shim(model).add_labelled(n)


def transitions(model: Model) -> NDArray[np.float32] | None:
    """Return the scores of transitions (see `decoding.Lattice.of`); None without the setting `crf`.

    Raises ValueError if the model was trained with transitions but `crf` is False.
    """
    found = _shim(model).transitions if _shim(model).is_loaded else None
    if found is not None and not model.attrs["crf"]:
        raise ValueError("crf: false is set, but the model was trained with transitions: set crf = true")
    return found


def add_transition_gradient(model: Model, d_transitions: NDArray) -> None:
    """Add to the gradient of the transitions."""
    _shim(model).add_transition_gradient(d_transitions)


def has_rows(model: Model, doc: Doc) -> NDArray[np.bool_]:
    """Return which tokens of a Doc get scores, (n_tokens,)."""
    return _pieces(model).pieces([doc])[0].has_row


def is_on_gpu(model: Model) -> bool:
    """Return whether a GPU computes; a forked process cannot use it."""
    return _shim(model).is_loaded and _shim(model).kind == "cuda"


def cut_words(model: Model, doc: Doc) -> list[int]:
    """Return the positions of the words that are longer than a window, of which the encoder sees only the first pieces."""
    return _pieces(model).cut_words(doc)


INTERFACE = Interface(
    owns_encoder=True,
    predict_scores=predict_scores,
    has_rows=has_rows,
    group=group,
    is_on_gpu=is_on_gpu,
    load_checkpoint=load_checkpoint,
    resize=resize,
    add_labelled=add_labelled,
    transitions=transitions,
    add_transition_gradient=add_transition_gradient,
    cut_words=cut_words,
)


def _shim(model: Model) -> "EncoderShim":
    return cast("EncoderShim", model.shims[0])


def _pieces(model: Model) -> "PieceEncoder":
    """The piece encoder, made on first use and again when another tokenizer is loaded."""
    from .encoding import PieceEncoder

    shim, attrs = _shim(model), model.attrs
    if shim.pieces is None:
        limit = shim.max_positions
        if limit is not None and attrs["window"] > limit:
            raise ValueError(
                f"window: {attrs['window']} is more than the {limit} positions that the encoder {attrs['name']!r} has"
            )
        shim.pieces = PieceEncoder(
            shim.backend_tokenizer,
            pad_id=shim.pad_id,
            window=attrs["window"],
            stride=attrs["stride"],
            document_context=attrs["document_context"],
            orthography_version=shim.orthography_version,
        )
    return shim.pieces


def _budget(model: Model) -> tuple[int, int]:
    """Return the maximum number of pieces in a batch, and the constant cost of a batch in pieces."""
    budget, kind = model.attrs["max_batch_pieces"], _shim(model).kind
    if budget is None:
        budget = max(DEFAULT_BATCH_PIECES[kind], model.attrs["window"])
    most = _shim(model).most_pieces
    if most is not None:
        budget = max(min(budget, most), model.attrs["window"])
    return budget, BATCH_OVERHEAD[kind]


def _split(Y: Floats2d, lengths: Sequence[int]) -> list[Floats2d]:
    ends = np.cumsum(lengths)
    return [Y[end - length : end] for end, length in zip(ends, lengths, strict=True)]
