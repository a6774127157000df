"""Reading checkpoints: encoder, tokenizer and token-classification head from a hub name or a folder, through transformers.

Code that comes with a checkpoint is never run: `trust_remote_code` is off (by default, transformers asks the user).
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import nn

from ..files import CheckpointError


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' reports and progress bars; what matters in them is raised as an error."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def encoder_option() -> Iterator[None]:
    """Let errors name the option --encoder, where the component's setting is `name`."""
    try:
        yield
    except CheckpointError as err:
        raise CheckpointError(f"--encoder: {str(err).removeprefix('name: ')}") from err


# Seconds to wait for an answer of the hub
HUB_TIMEOUT = 10
# Suffixes of model classes with a head for another task than predicting words
OTHER_TASKS = ("ForSequenceClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction")


def is_only_local(name: str, revision: str | None = None) -> bool:
    """Return whether a checkpoint can only come from a folder or the cache, since the hub cannot be reached.

    Raises CheckpointError for a name that is meant to be a folder, where there is none: it is not looked up on the hub.
    """
    path = Path(name)
    is_path = name.startswith((".", "~")) or path.is_absolute() or "\\" in name or len(path.parts) > 2
    if not path.exists() and (is_path or (len(path.parts) > 1 and Path(path.parts[0]).is_dir())):
        raise CheckpointError(
            f"name: there is no folder {name!r} in {Path.cwd()}. If a step of your project makes it, run that first "
            "(python -m spacy project run encoder in the demo); else give the folder of a checkpoint, or its name on the hub"
        )
    return not (path.exists() or _is_offline() or _can_reach_hub(name, revision))


def _can_reach_hub(name: str, revision: str | None) -> bool:
    """Return whether the hub answers at all; without this, transformers would retry for most of a minute."""
    from huggingface_hub import model_info
    from huggingface_hub.utils import HfHubHTTPError

    try:
        model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except (HfHubHTTPError, ValueError):  # an answer, or a name that is none, which transformers explains
        return True
    except Exception:  # that of the HTTP library in use
        return False
    return True


def _arguments(is_local: bool, revision: str | None = None) -> dict[str, Any]:
    """Return the arguments of every `from_pretrained`; a saved pipeline needs no hub."""
    arguments: dict[str, Any] = {"trust_remote_code": False}
    if is_local:
        arguments["local_files_only"] = True
    if revision is not None:
        arguments["revision"] = revision
    return arguments


def load_tokenizer(name: str, *, is_saved: bool = False, is_local: bool = False, revision: str | None = None) -> Any:
    """Load the fast tokenizer of a checkpoint; raises CheckpointError if there is none.

    is_saved: whether it is the model folder of a saved pipeline. is_local: as from `is_only_local`.
    revision: branch, tag or commit of the hub; None for its main branch.
    """
    from transformers import AutoTokenizer

    arguments = _arguments(is_saved or is_local, revision)
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **arguments)
            if is_byte_level_without_prefix(tokenizer):
                # Words are tokenized one by one; inside a text each would follow a space
                tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True, **arguments)
                if is_byte_level_without_prefix(tokenizer):  # generic classes of transformers 5 ignore it
                    add_prefix_space(tokenizer)
        except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as err:
            raise CheckpointError(missing_message(name, "tokenizer", err, is_local, revision)) from err
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"name: the tokenizer of {name!r} ({type(tokenizer).__name__}) is a slow one, which does not map words to "
            "pieces; convert it with transformers.convert_slow_tokenizer or choose a checkpoint with a tokenizer.json"
        )
    return tokenizer


def load_encoder(
    name: str,
    *,
    is_saved: bool = False,
    is_local: bool = False,
    overrides: dict[str, Any] | None = None,
    revision: str | None = None,
) -> tuple[nn.Module, nn.Linear | None, list[str] | None]:
    """Load the encoder of a checkpoint and, if it has one, its token-classification head.

    is_saved: whether it is the model folder of a saved pipeline; then no head is looked for, and safetensors are required.
    is_local: as from `is_only_local`.
    overrides: values to change in the checkpoint's configuration; `id2label` may be one, the names of the head's rows, None
        for rows that stand for no tag.
    revision: branch, tag or commit of the hub; None for its main branch.
    Returns encoder, head and the names of the head's rows in order; the last two are None without a head.
    Raises CheckpointError, for a head of another task too.
    """
    from transformers import AutoConfig, AutoModelForTokenClassification

    arguments = _arguments(is_saved or is_local, revision)
    overrides = dict(overrides or {})
    names = overrides.pop("id2label", None)
    with quiet_transformers():
        try:
            config, unknown = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **arguments, **overrides)
            unknown = {key: value for key, value in unknown.items() if key not in arguments}
            if unknown:
                raise CheckpointError(
                    f"transformer_config: {sorted(unknown)} are not settings of a {type(config).__name__}, the "
                    f"configuration of {name!r}; allowed are its attributes"
                )
            has_head = not is_saved and has_token_head(config)
            other = [a for a in config.architectures or [] if a.endswith(OTHER_TASKS)]
            if other and not is_saved and not has_head:
                raise CheckpointError(
                    f"name: the head of {name!r} ({other[0]}) is for another task than tagging words; choose a checkpoint "
                    "for token classification, or the encoder that it was made from. To start from its encoder anyway, "
                    "save that alone, with its tokenizer: transformers.AutoModel.from_pretrained(…).save_pretrained(…)"
                )
            unused: list[int] = []
            if has_head and names is not None:
                found = _checked_names(names)
                unused = [i for i, tag in found.items() if tag is None]
                config.id2label = {i: f"unused-{i}" if tag is None else tag for i, tag in found.items()}
                config.label2id = {tag: i for i, tag in config.id2label.items()}
            arguments |= {"config": config, "output_loading_info": True} | (
                {"use_safetensors": True} if is_saved else {}
            )
            if has_head:
                # What does not fit is listed in `info`
                model, info = AutoModelForTokenClassification.from_pretrained(
                    name, ignore_mismatched_sizes=True, **arguments
                )
            else:
                encoder_class = _encoder_class(config)
                try:
                    model, info = encoder_class.from_pretrained(name, add_pooling_layer=False, **arguments)
                except TypeError:  # encoders without a pooling layer do not have the argument
                    model, info = encoder_class.from_pretrained(name, **arguments)
        except CheckpointError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError, ImportError, SafetensorError) as err:
            raise CheckpointError(missing_message(name, "checkpoint", err, is_local, revision)) from err
    missing = sorted(info["missing_keys"])
    # Names, or tuples of name and both shapes
    mismatched = sorted(found if isinstance(found, str) else found[0] for found in info["mismatched_keys"])
    if has_head and mismatched and all(key.startswith("classifier.") for key in mismatched):
        raise CheckpointError(
            f"name: the head of {name!r} does not have the {len(config.id2label)} rows that id2label names; "
            'transformer_config = {"id2label": {"0": "O", "1": "B-PER", …}} must name each of its rows'
        )
    if missing or mismatched:
        raise CheckpointError(
            f"name: the weights of {name!r} are incomplete: missing {missing[:5]}, of another shape {mismatched[:5]}"
        )
    model = model.float()
    if not has_head:
        return model, None, None
    head, base = getattr(model, "classifier", None), model.base_model
    kinds = {id(child) for child in model.children() if not isinstance(child, nn.Dropout)}
    if not isinstance(head, nn.Linear) or kinds != {id(base), id(head)}:
        raise CheckpointError(
            f"name: the head of {name!r} ({type(model).__name__}) is not dropout and one linear layer; "
            "save its encoder alone (model.base_model.save_pretrained) and start from that"
        )
    base.config.architectures = [type(base).__name__]
    used = [i for i in range(head.out_features) if i not in unused]
    if unused:
        head = _select_rows(head, used)
    return base, head, [config.id2label[i] for i in used]


def has_token_head(config: Any) -> bool:
    """Return whether a checkpoint has a token-classification head, by its configuration."""
    return any(name.endswith("ForTokenClassification") for name in config.architectures or [])


def load_without_weights(name: str) -> Any:
    """Make the encoder of a checkpoint by its configuration, without weights; raises CheckpointError."""
    from transformers import AutoConfig

    is_local = is_only_local(name)
    with quiet_transformers(), torch.device("meta"):
        try:
            config = AutoConfig.from_pretrained(name, **_arguments(is_local))
            return _encoder_class(config)._from_config(config)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as err:
            raise CheckpointError(missing_message(name, "checkpoint", err, is_local)) from err


def _select_rows(head: nn.Linear, rows: list[int]) -> nn.Linear:
    selected = nn.Linear(head.in_features, len(rows))
    selected.load_state_dict({name: value[rows] for name, value in head.state_dict().items()})
    return selected


def _checked_names(names: Any) -> dict[int, str | None]:
    """Return the names of a head's rows by index; raise CheckpointError if they are incomplete or not distinct.

    names: a map from index to name, or names in order; the keys in a config file are strings. None for a row that stands for
        no tag.
    """
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        found = {int(i): None if name is None else str(name) for i, name in pairs}
    except (TypeError, ValueError):
        found = {}
    given = [name for name in found.values() if name is not None]
    if not found or sorted(found) != list(range(len(found))) or len(set(given)) < len(given):
        raise CheckpointError(
            f"transformer_config: id2label: {names!r} does not give each row of the head, from 0 on, a name of its own"
        )
    return found


def _encoder_class(config: Any) -> Any:
    """Return the class that AutoModel would use, or AutoModel itself if it has to choose.

    AutoModel imports the configurations of all architectures, which takes longer than loading a typical encoder.
    """
    from transformers import MODEL_MAPPING, AutoModel

    if not hasattr(config, "hidden_size"):
        raise ValueError(f"a model of the kind {config.model_type!r} is not an encoder of text")
    try:
        found = MODEL_MAPPING[type(config)]
    except KeyError:
        return AutoModel  # for its error message
    return AutoModel if isinstance(found, tuple) else found


def missing_message(name: str, what: str, err: Exception, is_local: bool, revision: str | None = None) -> str:
    """Return the message about a tokenizer or checkpoint that could not be loaded."""
    place = "folder" if Path(name).exists() else "hub name or folder"
    if revision is not None and place != "folder":
        place = f"revision {revision!r} of the {place}"
    offline = ""
    if not Path(name).exists() and (is_local or _is_offline()):
        why = "the hub cannot be reached" if is_local else "HF_HUB_OFFLINE is set"
        offline = f" ({why}: only folders and cached files are available)"
    first_line = (str(err).strip().splitlines() or [type(err).__name__])[0][:300]
    return f"name: no usable {what} at the {place} {name!r}{offline}: {first_line}"


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def check_vocabulary(name: str, tokenizer: Any, encoder: Any) -> None:
    """Raise CheckpointError if the tokenizer has pieces that the encoder has no embedding for."""
    n_pieces, n_embeddings = len(tokenizer), encoder.get_input_embeddings().num_embeddings
    if n_pieces > n_embeddings:
        raise CheckpointError(
            f"name: the tokenizer of {name!r} has {n_pieces} pieces, its encoder embeddings for {n_embeddings}: "
            "they do not belong together; put the tokenizer's files that came with these weights beside them"
        )


def is_byte_level_without_prefix(tokenizer: Any) -> bool:
    """Return whether the tokenizer is byte-level and puts no space before a word."""
    if not tokenizer.is_fast:
        return False
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return any(not part.get("add_prefix_space") for part in _byte_level_parts(state))


def add_prefix_space(tokenizer: Any) -> None:
    """Make a byte-level tokenizer put a space before each word, in its tokenizer.json too."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for part in _byte_level_parts(state):
        part["add_prefix_space"] = True
    tokenizer.backend_tokenizer.pre_tokenizer = Tokenizer.from_str(json.dumps(state)).pre_tokenizer


def _byte_level_parts(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the byte-level parts of the pre-tokenizer, which may be a sequence, in a tokenizer.json."""
    node = state.get("pre_tokenizer") or {}
    return [part for part in node.get("pretokenizers", [node]) if part.get("type") == "ByteLevel"]


def is_lower_casing(tokenizer: Any) -> bool:
    """Return whether the tokenizer lower-cases words."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and "ab" in normalizer.normalize_str("Ab")


def max_positions(encoder: Any) -> int | None:
    """Return how many pieces the encoder has positions for; None if positions are relative and have no limit."""
    if getattr(encoder.config, "position_biased_input", True) is False:
        return None  # DeBERTa v2 and v3
    limit = getattr(encoder.config, "max_position_embeddings", None)
    embedding = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding_idx = getattr(embedding, "padding_idx", None)
    if limit is not None and padding_idx is not None:
        limit -= padding_idx + 1  # RoBERTa counts positions from padding_idx + 1
    return limit if limit is not None and limit > 0 else None
