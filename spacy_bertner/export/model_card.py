"""The model card of an exported `bert_ner`: front matter for the hub, labels, scores and data as far as they are known."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment
from spacy.language import Language

METRICS = {"precision": "p", "recall": "r", "f1": "f"}
TEMPLATE = Environment(trim_blocks=True, keep_trailing_newline=True).from_string("""\
---
{{ front_matter }}
---

# {{ title }}

{% if description %}
{{ description }}

{% endif %}
Named entities, trained with spaCy and spacy-bertner.

## Labels

{% for label in labels %}
- {{ label }}
{% endfor %}

Tags: {{ scheme }}; each word has the tag of its first piece.

## Scores

{% if rows %}
On {{ "`%s`" % corpora.dev if corpora.dev else "the development data" }}, in training:

| | precision | recall | F1 |
|---|---|---|---|
{% for label, scores in rows.items() %}
| {{ label }} |{% for score in scores %} {{ "%.1f" % (100 * score) }} |{% endfor +%}
{% endfor %}
{% else %}
None are known.
{% endif %}

## Data

{% for source in sources %}
- {{ source }}
{% endfor %}
{% for part, file in corpora.items() %}
- {{ part }}: `{{ file }}`
{% endfor %}
{% if not sources and not corpora %}
Not known.
{% endif %}
{% if start %}

Training started from `{{ start }}`.
{% endif %}
""")


def model_card(nlp: Language, name: str) -> str:
    """Return a model card in Markdown.

    nlp: a trained pipeline. name: the name of its `bert_ner` component.
    """
    meta, component = nlp.meta, nlp.get_pipe(name)
    performance = meta.get("performance", {})
    scores = {metric: performance.get(f"ents_{key}") for metric, key in METRICS.items()}
    corpora = _corpora(nlp)
    title = f"{meta['lang']}_{meta['name']}"
    results = [
        EvalResult(
            task_type="token-classification",
            dataset_type="spacy",
            dataset_name=corpora.get("dev", "development data"),
            metric_type=metric,
            metric_value=round(score, 4),
        )
        for metric, score in scores.items()
        if score is not None
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
    rows = {"all": list(scores.values())}
    for label, by_type in (performance.get("ents_per_type") or {}).items():
        rows[label] = [by_type.get(key) for key in METRICS.values()]
    start = nlp.get_pipe_config(name)["model"].get("name") or ""  # a name on the hub, or a folder
    return TEMPLATE.render(
        front_matter=data.to_yaml(),
        title=title,
        description=meta.get("description"),
        labels=component.labels,  # type: ignore[attr-defined]
        scheme=component.cfg["scheme"],  # type: ignore[attr-defined]
        rows={label: [score or 0.0 for score in row] for label, row in rows.items()} if results else {},
        sources=[_source(source) for source in meta.get("sources") or []],
        corpora=corpora,
        start=_file_name(start) if Path(start).is_absolute() else start,
    )


def _corpora(nlp: Language) -> dict[str, str]:
    """Return the names of the files with training and development data, without their folders."""
    corpora = nlp.config.interpolate().get("corpora", {})
    paths = {part: str(corpora[part].get("path") or "") for part in ("train", "dev") if part in corpora}
    return {part: _file_name(path) for part, path in paths.items() if path}


def _file_name(path: str) -> str:
    """Return the last part of a path, which may come from another operating system."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _source(source: Any) -> str:
    """Return one of the pipeline's `sources` as text: a string or, as in spaCy's own, a dict with name, url and so on."""
    if not isinstance(source, dict):
        return str(source)
    parts = [source.get(key) for key in ("name", "url", "license", "author")]
    return ", ".join(str(part) for part in parts if part)
