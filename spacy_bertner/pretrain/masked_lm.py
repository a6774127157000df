"""Loading a checkpoint as a masked language model, through transformers."""

import warnings
from typing import Any

from safetensors import SafetensorError

from ..files import CheckpointError
from ..model.checkpoint import (
    OTHER_TASKS,
    check_vocabulary,
    encoder_option,
    is_only_local,
    load_tokenizer,
    max_positions,
    missing_message,
    quiet_transformers,
)


def load_masked_lm(name: str, window: int) -> tuple[Any, Any]:
    """Load the masked language model and the tokenizer of a checkpoint; without a head, with a warning and a new head.

    window: the number of pieces that it must have positions for.
    Raises CheckpointError for a checkpoint that cannot be pre-trained by masking.
    """
    with encoder_option():
        return _load(name, window)


def _load(name: str, window: int) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForMaskedLM

    is_local = is_only_local(name)
    arguments: dict[str, Any] = {"trust_remote_code": False, "local_files_only": is_local}
    tokenizer = load_tokenizer(name, is_local=is_local)
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(name, **arguments)
            _check_kind(name, config)
            model, info = AutoModelForMaskedLM.from_pretrained(
                name, config=config, output_loading_info=True, **arguments
            )
        except CheckpointError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError, ImportError, SafetensorError) as err:
            raise CheckpointError(missing_message(name, "checkpoint", err, is_local)) from err
    missing = sorted(info["missing_keys"])
    if broken := [key for key in missing if key.startswith(f"{model.base_model_prefix}.")] or info["mismatched_keys"]:
        raise CheckpointError(
            f"the weights of {name!r} are incomplete: missing or of another shape {sorted(broken)[:5]}"
        )
    if tokenizer.mask_token is None:
        raise CheckpointError(f"the tokenizer of {name!r} has no mask token: it is not one of a masked language model")
    check_vocabulary(name, tokenizer, model)
    limit = max_positions(model.base_model)
    if limit is not None and window > limit:
        raise CheckpointError(f"{name!r} has {limit} positions: --window {window} is more than that")
    if missing:
        warnings.warn(
            f"--encoder: {name!r} has no head for masked language modelling: it gets a new one with random weights. Until "
            "that head has been trained, its errors change the encoder too, so that a short run can make the encoder worse: "
            "train for many steps, compare the scores with and without, or start from a checkpoint that has the head",
            stacklevel=4,
        )
    return model.float(), tokenizer


def _check_kind(name: str, config: Any) -> None:
    """Raise CheckpointError if a checkpoint has no masked language model, or is made for another task."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    heads = config.architectures or []
    other = [head for head in heads if head.endswith((*OTHER_TASKS, "ForTokenClassification"))]
    if other:
        raise CheckpointError(
            f"the head of {name!r} ({other[0]}) is for another task, and would be lost; start from the encoder that it was "
            "made from, or save its encoder alone, with its tokenizer: "
            "transformers.AutoModel.from_pretrained(…).save_pretrained(…)"
        )
    if config.model_type == "electra" and "ElectraForMaskedLM" not in heads:
        raise CheckpointError(
            f"{name!r} is an ELECTRA discriminator, which detects replaced words instead of predicting masked ones: choose "
            "an encoder of another architecture"
        )
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise CheckpointError(f"{name!r} ({config.model_type}): transformers has no masked language model of this kind")
