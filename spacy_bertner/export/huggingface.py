"""A trained `bert_ner` as a folder that transformers opens: configuration, weights, tokenizer and model card.

It holds what `AutoModelForTokenClassification`, `AutoTokenizer` and `pipeline("token-classification")` read. The weights are
those of the component, so that the scores are the same (divided by the `temperature`, where there is one); so they are when
the folder is the `name` of a new one.
"""

import copy
import re
from pathlib import Path
from typing import Any

import torch
from spacy.language import Language
from torch import nn

from ..component import BertNER
from ..model.checkpoint import quiet_transformers
from ..model.torch_module import TokenClassifier
from ..model.torch_shim import EncoderShim
from ..tags import write_tags

CARD_FILE = "README.md"


def export(nlp: Language, path: str | Path, *, component: str | None = None, force: bool = False) -> Path:
    """Write a `bert_ner` of a trained pipeline as a checkpoint with a token-classification head; return the folder.

    nlp: the pipeline. path: the folder, new or empty. component: which component; None where there is but one.
    force: whether the folder may hold files; those of the checkpoint's names are replaced.
    Raises ValueError where the component has weights that such a checkpoint has no place for, or where there is no such
    component; FileExistsError for a folder that is not empty.
    """
    path = Path(path)
    name, ner = _find(nlp, component)
    module, tokenizer = _exportable(name, ner)
    model = _with_head(name, module, write_tags(ner.tag_set.tags, ner.cfg["written"]))
    # A checkpoint has no place for the temperature: its scores are divided by it already
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.div_(ner.cfg["temperature"])
    if path.exists() and (not path.is_dir() or any(path.iterdir())) and not force:
        raise FileExistsError(f"{path} is not an empty folder: choose another, or overwrite its files with --force")
    path.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(path, safe_serialization=True)
        tokenizer.save_pretrained(path)
    (path / CARD_FILE).write_text(model_card(nlp, name), encoding="utf8")
    return path


def _find(nlp: Language, component: str | None) -> tuple[str, BertNER]:
    found = {name: pipe for name, pipe in nlp.components if isinstance(pipe, BertNER)}
    if component is not None and component not in found:
        raise ValueError(f"component: {component!r} is no bert_ner of this pipeline; it has {sorted(found) or 'none'}")
    if not found:
        raise ValueError(f"the pipeline has no component bert_ner, only {nlp.component_names}")
    if component is None and len(found) > 1:
        raise ValueError(f"the pipeline has several: say which with --component, one of {sorted(found)}")
    name = component or next(iter(found))
    return name, found[name]


def _exportable(name: str, ner: BertNER) -> tuple[TokenClassifier, Any]:
    """Return module and tokenizer; raise ValueError where a checkpoint could not hold all that gives the scores."""
    shim = ner.model.shims[0] if ner.model.shims else None
    if shim is None:
        raise ValueError(
            f"{name}: is a head on vectors of another component, which is no model of transformers by itself; train with "
            '@architectures = "spacy_bertner.BertTokenClassifier.v1" to have one that can be exported'
        )
    if not isinstance(shim, EncoderShim):
        raise ValueError(f'{name}: runtime: "onnx" has no weights to export; export the pipeline it was converted from')
    module = shim.module
    if module.orthography is not None and bool(module.orthography.weight.any()):
        raise ValueError(
            f"{name}: orthography: the model was trained with an embedding of what words look like, which models of "
            "transformers do not have; train with orthography = false to have one that can be exported"
        )
    expected = ("encoder.", "head.", "orthography.")
    others = sorted(key for key in module.state_dict() if not key.startswith(expected))
    if others:
        raise ValueError(f"{name}: has weights that models of transformers have no place for: {', '.join(others)}")
    return module, shim.tokenizer


def _with_head(name: str, module: TokenClassifier, names: list[str]) -> Any:
    """Return encoder and head as transformers' model for token classification, on the CPU.

    names: what the rows of the head are called.
    """
    from transformers import AutoModelForTokenClassification

    config = copy.deepcopy(module.encoder.config)
    config.id2label = dict(enumerate(names))
    config.label2id = {tag: i for i, tag in enumerate(names)}
    config._name_or_path = ""  # which may be a folder of this machine
    try:
        model = AutoModelForTokenClassification.from_config(config)
    except ValueError as err:
        raise ValueError(f"{name}: transformers has no token classification for a {type(config).__name__}") from err
    kinds = {type(child) for child in model.children()} - {nn.Dropout, type(model.base_model)}
    if kinds != {nn.Linear} or model.classifier.out_features != len(names):
        raise ValueError(
            f"{name}: the head of a {type(model).__name__} is more than a linear layer: this one would not fit in"
        )
    weights = {key: value for key, value in module.encoder.state_dict().items() if not key.startswith("pooler.")}
    with torch.no_grad():
        model.base_model.load_state_dict(weights)
        model.classifier.load_state_dict(module.head.state_dict())
    return model


def model_card(nlp: Language, name: str) -> str:
    """Return a model card: front matter for the hub, labels, scores and data as far as the pipeline knows them.

    name: the component's name.
    """
    from huggingface_hub import EvalResult, ModelCardData

    meta, (_, ner) = nlp.meta, _find(nlp, name)
    performance = meta.get("performance", {})
    corpora = _corpora(nlp)
    title = f"{meta['lang']}_{meta['name']}"
    metrics = {"precision": "ents_p", "recall": "ents_r", "f1": "ents_f"}
    results = [
        EvalResult(
            task_type="token-classification",
            dataset_type="spacy",
            dataset_name=corpora.get("dev", "development data"),
            metric_type=metric,
            metric_value=round(performance[key], 4),
        )
        for metric, key in metrics.items()
        if performance.get(key) is not None
    ]
    data = ModelCardData(
        language=meta["lang"],
        license=(meta.get("license") or "").lower() or None,
        library_name="transformers",
        pipeline_tag="token-classification",
        tags=["named-entity-recognition", "spacy-bertner"],
        model_name=title,
        eval_results=results or None,
    )
    lines = ["---", data.to_yaml(), "---", "", f"# {title}", ""]
    lines += [meta["description"], ""] if meta.get("description") else []
    lines += ["Named entities, trained with spaCy and spacy-bertner.", "", "## Labels", ""]
    lines += [f"- {label}" for label in ner.labels]
    lines += ["", f"Tags: {ner.cfg['scheme']}; each word has the tag of its first piece.", "", "## Scores", ""]
    if results:
        where = f"`{corpora['dev']}`" if "dev" in corpora else "the development data"
        lines += [f"On {where}, in training:", "", "| | precision | recall | F1 |", "|---|---|---|---|"]
        rows = {"all": performance, **(performance.get("ents_per_type") or {})}
        for label, scores in rows.items():
            keys = metrics.values() if label == "all" else ("p", "r", "f")
            lines.append(f"| {label} | " + " | ".join(f"{100 * (scores.get(key) or 0.0):.1f}" for key in keys) + " |")
    else:
        lines.append("None are known.")
    lines += ["", "## Data", ""]
    lines += [f"- {_source(source)}" for source in meta.get("sources") or []]
    lines += [f"- {part}: `{file}`" for part, file in corpora.items()]
    if not meta.get("sources") and not corpora:
        lines.append("Not known.")
    start = nlp.get_pipe_config(name)["model"].get("name")
    if start:  # a hub name, or a folder
        lines += ["", f"Training started from `{_last_part(start) if Path(start).is_absolute() else start}`."]
    return "\n".join(lines) + "\n"


def _corpora(nlp: Language) -> dict[str, str]:
    """The names of the files that it was trained with and scored on, without their folders."""
    corpora = nlp.config.interpolate().get("corpora", {})
    paths = {part: str(corpora[part].get("path") or "") for part in ("train", "dev") if part in corpora}
    return {part: _last_part(path) for part, path in paths.items() if path}


def _last_part(path: str) -> str:
    """The name of a file or folder; the pipeline may come from another operating system."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _source(source: Any) -> str:
    """A line of the pipeline's `sources`, which are strings or, as in spaCy's own pipelines, have name, url and so on."""
    if not isinstance(source, dict):
        return str(source)
    name, rest = source.get("name", ""), [source.get(key) for key in ("url", "license", "author")]
    return ", ".join(str(part) for part in (name, *rest) if part)
