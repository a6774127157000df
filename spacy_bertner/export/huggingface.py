"""A trained `bert_ner` as a folder that transformers opens: configuration, weights, tokenizer and model card.

It can be loaded with `AutoModelForTokenClassification`, `AutoTokenizer` and `pipeline("token-classification")`. The scores
are those of the component, divided by its `temperature` if it has one; so are those of a new component with the folder as
its `name`.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from spacy.language import Language
from torch import nn

from ..component import BertNER
from ..files import check_output_folder
from ..model.checkpoint import quiet_transformers
from ..model.lora import merged
from ..model.torch_module import TokenClassifier
from ..tags import write_tags
from .components import find_components, shim_of
from .model_card import model_card

CARD_FILE = "README.md"


def export(nlp: Language, path: str | Path, *, component: str | None = None, force: bool = False) -> Path:
    """Write a `bert_ner` of a trained pipeline as a checkpoint with a token-classification head; return the folder.

    nlp: the pipeline. path: the folder, new or empty. component: the name of the component; None if there is only one.
    force: whether the folder may hold files; those of the checkpoint are overwritten.
    Raises ValueError if the component has weights that such a checkpoint cannot hold, or if there is no such component;
    FileExistsError for a folder that is not empty.
    """
    path = Path(path)
    check_output_folder(path, force=force)
    name, ner = _choose(nlp, component)
    shim = shim_of(name, ner)
    module = merged(shim.module)
    _check_exportable(name, module)
    model = _with_head(name, module, write_tags(ner.tag_set.tags, ner.cfg["written"]))
    # A checkpoint cannot hold the temperature, so the scores are already divided by it
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.div_(ner.cfg["temperature"])
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = copy.deepcopy(shim.tokenizer)
    if shim.max_positions is not None:  # without it, transformers fails on longer texts
        tokenizer.model_max_length = min(tokenizer.model_max_length, shim.max_positions)
    with quiet_transformers():
        model.save_pretrained(path, safe_serialization=True)
        tokenizer.save_pretrained(path)
    (path / CARD_FILE).write_text(model_card(nlp, name), encoding="utf8")
    return path


def _choose(nlp: Language, name: str | None) -> tuple[str, BertNER]:
    """Return the component of this name, or the only one; raises ValueError otherwise."""
    components = find_components(nlp)
    if name is None and len(components) > 1:
        raise ValueError(f"the pipeline has several: choose one with --component, of {sorted(components)}")
    name = name or next(iter(components))
    if name not in components:
        raise ValueError(f"component: {name!r} is no bert_ner of this pipeline; it has {sorted(components)}")
    return name, components[name]


def _check_exportable(name: str, module: TokenClassifier) -> None:
    """Raise ValueError if a checkpoint could not hold all that contributes to the scores."""
    if module.orthography is not None and bool(module.orthography.weight.any()):
        raise ValueError(
            f"{name}: orthography: the model was trained with an embedding of word shapes, which models of transformers "
            "do not have; train with orthography = false for one that can be exported"
        )
    expected = ("encoder.", "head.", "orthography.")
    others = sorted(key for key in module.state_dict() if not key.startswith(expected))
    if others:
        raise ValueError(f"{name}: has weights that models of transformers cannot hold: {', '.join(others)}")


def _with_head(name: str, module: TokenClassifier, tags: list[str]) -> Any:
    """Return encoder and head as transformers' model for token classification, on the CPU.

    name: of the component. tags: the names of the head's rows.
    """
    from transformers import AutoModelForTokenClassification

    config = copy.deepcopy(module.encoder.config)
    config.id2label = dict(enumerate(tags))
    config.label2id = {tag: i for i, tag in enumerate(tags)}
    config._name_or_path = ""  # may be a folder of this machine
    try:
        model = AutoModelForTokenClassification.from_config(config)
    except ValueError as err:
        raise ValueError(f"{name}: transformers has no token classification for a {type(config).__name__}") from err
    kinds = {type(child) for child in model.children()} - {nn.Dropout, type(model.base_model)}
    if kinds != {nn.Linear} or model.classifier.out_features != len(tags):
        raise ValueError(
            f"{name}: the head of a {type(model).__name__} is more than a linear layer; this one does not fit"
        )
    weights = {key: value for key, value in module.encoder.state_dict().items() if not key.startswith("pooler.")}
    with torch.no_grad():
        model.base_model.load_state_dict(weights)
        model.classifier.load_state_dict(module.head.state_dict())
    return model
