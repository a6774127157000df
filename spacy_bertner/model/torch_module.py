"""The torch module: an encoder of transformers with a tagging head.

The head is that of `BertForTokenClassification` (Devlin et al. 2019, section 5.3): dropout and one linear layer over the
last hidden state of the first piece of each word.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from .attention import checkpoint_contexts
from .optimizer import resized
from .orthography import N_ORTHOGRAPHY

# The rows to compute in the last layer, for `_pick_rows_hook`; each thread that predicts has its own
_wanted_rows: ContextVar[Tensor | None] = ContextVar("wanted_rows", default=None)


def _pick_rows(hidden: Tensor, first: Tensor) -> Tensor:
    """Select from (n_windows, n_pieces, width) the rows (n_rows, width) at the flat places `first`."""
    return hidden.flatten(0, 1).index_select(0, first)


def _pick_rows_hook(module: nn.Module, _args: Any, output: Any) -> Any:
    first = module.rows_in_training if module.training else _wanted_rows.get()
    if first is None:
        return output
    if isinstance(output, Tensor):
        return _pick_rows(output, first)[None]
    return _pick_rows(output[0], first)[None], *output[1:]


def _layers(encoder: Any) -> tuple[str, Sequence[nn.Module]]:
    """Return the name and the layers of an encoder, lowest first; none if it has no list of them (ALBERT shares one)."""
    n_layers = encoder.config.num_hidden_layers
    for name, module in encoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return name, list(module)
    return "", []


def _let_last_layer_pick_rows(encoder: nn.Module) -> nn.Module | None:
    """Have the last layer compute, after its attention, only the rows that are needed, since the rest is row by row.

    That part has two thirds of a layer's multiplications, and a third of the pieces are not the first piece of an owned
    word. Returns the module after which the rows are picked; None if the encoder does not have layers like those of
    BERT and its relatives, or of DistilBERT.
    """
    _, layers = _layers(encoder)
    if len(layers) < 2:  # DeBERTa has a convolution over the first layer's output
        return None
    parts = dict(layers[-1].named_children())
    if {"attention", "intermediate", "output"} == parts.keys() - {"crossattention"}:
        part = parts["attention"]
    elif {"attention", "sa_layer_norm", "ffn", "output_layer_norm"} == parts.keys() - {"dropout"}:
        part = parts["sa_layer_norm"]
    else:
        return None
    part.rows_in_training = None
    part.register_forward_hook(_pick_rows_hook)
    return part


class TokenClassifier(nn.Module):
    """Encoder, dropout and a linear layer over the first pieces.

    encoder: a transformers encoder (`AutoModel`).
    n_tags: number of rows of the head.
    orthography: whether to add an embedding of the word's orthographic class, initially zero, to the input embeddings.
    """

    def __init__(self, encoder: nn.Module, n_tags: int, orthography: bool) -> None:
        super().__init__()
        self.encoder = encoder
        config: Any = encoder.config
        # As transformers initializes the head
        self.head_std = getattr(config, "initializer_range", 0.02)
        self.head = self._new_head(config.hidden_size, n_tags)
        # Scores of transitions (see `decoding.Lattice.of`), with a conditional random field only
        self.transitions: nn.Parameter | None = None
        picks_rows = _let_last_layer_pick_rows(encoder)
        self._picks_rows = () if picks_rows is None else (picks_rows,)  # in a tuple, so as not to be registered twice
        self.orthography = None
        if orthography:
            width = encoder.get_input_embeddings().embedding_dim
            self.orthography = nn.Embedding(N_ORTHOGRAPHY, width, padding_idx=0)
            nn.init.zeros_(self.orthography.weight)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, orthography: Tensor, first: Tensor, dropout: float = 0.0
    ) -> Tensor:
        """Score the tags of the words whose first pieces are at `first` (see `encoding.Batch`).

        attention_mask: in a form that the encoder takes, (n_windows, n_pieces) or what `Passes._attention_mask` makes of it.
        Returns the scores, (n_rows, n_tags), float32.
        """
        if self.orthography is None:
            inputs = {"input_ids": input_ids}
        else:
            embeds = self.encoder.get_input_embeddings()(input_ids)
            inputs = {"inputs_embeds": embeds + self.orthography(orthography)}  # (n_windows, n_pieces, width)
        with self.picking_rows(first):
            hidden = self.encoder(attention_mask=attention_mask, **inputs)[0]
        rows = hidden[0] if self._picks_rows else _pick_rows(hidden, first)  # (n_rows, width)
        rows = nn.functional.dropout(rows, dropout, self.training)
        return self.head(rows).float()  # (n_rows, n_tags)

    @contextlib.contextmanager
    def picking_rows(self, first: Tensor) -> Iterator[None]:
        """Have the last layer, if it can, compute only the rows at `first`.

        Each thread that predicts has its own rows. In training they are stored in the layer, since with gradient
        checkpointing torch computes it again in a thread of its choice.
        """
        token = _wanted_rows.set(first)
        for part in self._picks_rows if self.training else ():
            part.rows_in_training = first
        try:
            yield
        finally:
            _wanted_rows.reset(token)
            for part in self._picks_rows if self.training else ():
                part.rows_in_training = None

    def depths(self) -> dict[str, int]:
        """Return the depth of each parameter: 0 for the embeddings, i + 1 for the encoder's layer i, one more for the head.

        Other parameters of the encoder have the depth of the embeddings if they come before the layers, else of the last.
        Raises ValueError if the encoder has no list of layers (ALBERT shares one).
        """
        n_layers: int = self.encoder.config.num_hidden_layers
        name, found = _layers(self.encoder)
        if not found:
            raise ValueError(
                f"layer_decay, freeze_embeddings, freeze_layers: {type(self.encoder).__name__} has no list of "
                f"{n_layers} layers, which these settings need"
            )
        layers = f"encoder.{name}."
        depths: dict[str, int] = {}
        rest = 0
        for name, _ in self.named_parameters():
            if not name.startswith("encoder."):
                depths[name] = n_layers + 1
            elif name.startswith(layers):
                depths[name] = int(name.removeprefix(layers).split(".")[0]) + 1
                rest = n_layers
            else:
                depths[name] = rest
        return depths

    def freeze(self, *, embeddings: bool, n_layers: int) -> None:
        """Exclude the embeddings, or the lowest `n_layers` layers of the encoder, from training.

        Raises ValueError if the encoder has fewer layers.
        """
        n_all: int = self.encoder.config.num_hidden_layers
        if n_layers > n_all:
            raise ValueError(f"freeze_layers: {n_layers} is more than the {n_all} layers that the encoder has")
        if embeddings or n_layers:
            depths = self.depths()
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(depths[name] > n_layers if depths[name] else not embeddings)

    def _new_head(self, width: int, n_tags: int) -> nn.Linear:
        head = nn.Linear(width, n_tags)
        nn.init.normal_(head.weight, std=self.head_std)
        nn.init.zeros_(head.bias)
        return head

    def resize(self, n_tags: int) -> None:
        """Add rows to the head, or remove its last ones; the others do not change, nor do their gradients."""
        old = self.head
        self.head = self._new_head(old.in_features, n_tags).to(old.weight.device)
        self.head.weight = _resized_parameter(old.weight, self.head.weight.shape, fill=self.head.weight.detach())
        self.head.bias = _resized_parameter(old.bias, self.head.bias.shape)
        if self.transitions is not None:
            self.transitions = _resized_parameter(self.transitions, (n_tags + 1, n_tags + 1))

    def add_transitions(self) -> None:
        """Add scores of transitions, all zero, unless there are any."""
        if self.transitions is None:
            n_tags = self.head.out_features
            self.transitions = nn.Parameter(torch.zeros(n_tags + 1, n_tags + 1, device=self.head.weight.device))


def _resized_parameter(old: nn.Parameter, shape: Sequence[int], fill: Tensor | None = None) -> nn.Parameter:
    new = nn.Parameter(resized(old.detach(), shape, fill), requires_grad=old.requires_grad)
    if old.grad is not None:
        new.grad = resized(old.grad, shape)
    return new


# Architectures that take a mask as it is, and the number of its dimensions: `get_extended_attention_mask` in transformers 4,
# `create_bidirectional_mask` in 5. With all others a forward pass waits for the GPU once.
_TAKE_MASKS = {"bert", "camembert", "electra", "mpnet", "roberta", "xlm-roberta"}
_MASK_RANKS = (
    dict.fromkeys(_TAKE_MASKS, 3)
    if version("transformers").startswith("4.")
    else dict.fromkeys([*_TAKE_MASKS, "albert", "distilbert"], 4)
)


def mask_rank(encoder: Any) -> int:
    """Return the number of dimensions of a mask that the encoder takes without looking at its values; 2 if it looks."""
    return _MASK_RANKS.get(encoder.config.model_type, 2)


def enable_gradient_checkpointing(encoder: Any) -> None:
    """Have the encoder's layers computed again in the backward pass (Chen et al. 2016).

    Raises ValueError if the architecture does not support it.
    """
    if not encoder.supports_gradient_checkpointing:
        raise ValueError(f"gradient_checkpointing: {type(encoder).__name__} does not support it")
    settings = {"use_reentrant": False, "context_fn": checkpoint_contexts}
    if hasattr(encoder, "activation_checkpointing_enable"):  # transformers from 5.24 on, where the other name warns
        encoder.activation_checkpointing_enable(settings)
    else:
        encoder.gradient_checkpointing_enable(settings)
