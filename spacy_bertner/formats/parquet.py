"""Datasets of Hugging Face as Parquet: rows of `tokens` and `ner_tags`, the names of the tags in the schema's metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from .hf import TAG_KEYS
from .json_files import Place
from .source import Source

_N_ROWS = 1000  # in memory at once


def recognise(source: Source) -> bool:
    """Say whether a Parquet file has columns of tokens and tags."""
    with _opened(source) as file:
        return bool(_columns(file))


def read_rows(source: Source) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the rows of a file, with their numbers. Raises ConversionError if it has none, or is no Parquet file."""
    with _opened(source) as file:
        if not (columns := _columns(file)):
            names = ", ".join(map(repr, file.schema_arrow.names))
            raise source.error(f"has no columns tokens and ner_tags; there are {names}", None)
        number = 0
        for batch in file.iter_batches(_N_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield (None, number), row


def tag_names(source: Source) -> list[str]:
    """Return the names of tags that are numbers, from the feature `ClassLabel` of the column; none if there is no such."""
    with _opened(source) as file:
        (_, key), metadata = _columns(file) or ("", ""), file.schema_arrow.metadata or {}
    feature = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {}).get(key)
    while isinstance(feature, (list, dict)) and "names" not in feature:  # within a list, in the way of several releases
        feature = feature[0] if isinstance(feature, list) and feature else dict(feature).get("feature")
    return list(feature["names"]) if isinstance(feature, dict) else []


def _columns(file: Any) -> list[str]:
    names = file.schema_arrow.names
    key = next((key for key in TAG_KEYS if key in names), None)
    return ["tokens", key] if key and "tokens" in names else []


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as err:
        raise ImportError(
            f'{source.name}: Parquet needs pyarrow: pip install "spacy-bertner[parquet]" ({err})'
        ) from None
    with source.open() as file:
        try:
            opened = ParquetFile(file)
        except ArrowInvalid as err:
            raise source.error(f"is not a Parquet file: {err}", None) from None
        yield opened


@contextmanager
def row_writer(file: IO[bytes], labels: Iterable[str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that writes a row to a Parquet file, which `datasets.load_dataset("parquet", …)` reads.

    labels: of the entities in the rows, which are those of `hf.render`; their tags become numbers.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as err:
        raise ImportError(f'Parquet needs pyarrow: pip install "spacy-bertner[parquet]" ({err})') from None
    names = ["O", *(f"{prefix}-{label}" for label in sorted(labels) for prefix in "BI")]
    number_of = {name: number for number, name in enumerate(names)}
    words = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}
    tags = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
    features = {"info": {"features": {"tokens": words, "ner_tags": tags}}}
    schema = pyarrow.schema(
        {"tokens": pyarrow.list_(pyarrow.string()), "ner_tags": pyarrow.list_(pyarrow.int64())},
        metadata={"huggingface": json.dumps(features)},
    )
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        writer.write_table(pyarrow.Table.from_pylist(rows, schema))
        rows.clear()

    def write_row(row: dict[str, Any]) -> None:
        rows.append({"tokens": row["tokens"], "ner_tags": [number_of[tag] for tag in row["ner_tags"]]})
        if len(rows) == _N_ROWS:
            flush()

    with ParquetWriter(file, schema) as writer:
        yield write_row
        flush()
