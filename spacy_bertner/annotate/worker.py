"""A chunk of records through the pipeline: as many records come out as went in, in the same order."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import raise_error

from ..component import components_of
from ..entities import clear_ids
from ..files import checksums
from ..processes import require_gpu
from .records import Chunk, Record
from .writers import Writer, find_entities

T = TypeVar("T")
# Those of components that write entities to `doc.spans`
SPAN_FACTORIES = ("bert_ner", "spancat", "spancat_singlelabel")


@dataclass(frozen=True)
class Rendered:
    """An output record. data: its bytes. error: why it could not be processed, or None. n_words: number of tokens."""

    data: bytes
    error: str | None = None
    n_words: int = 0


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that each worker loads for itself.

    name: folder or package. disable: names of components not to run. threshold: for every `bert_ner`; None leaves it as
    it is. gpu_id: the GPU, -1 for the CPU. code: a Python file to import first.
    """

    name: str
    disable: tuple[str, ...] = ()
    threshold: float | None = None
    gpu_id: int = -1
    code: str | None = None

    def load(self) -> Language:
        """Load it. Raises OSError if there is no such pipeline, ValueError for settings that do not fit it."""
        from spacy.cli._util import import_code

        if self.gpu_id >= 0:
            require_gpu(self.gpu_id)
        import_code(self.code)
        nlp = spacy.load(self.name, disable=self.disable)
        for name in self.disable:
            if name not in nlp.component_names:
                raise ValueError(f"--disable: no component {name!r}; there are {', '.join(nlp.component_names)}")
        if self.threshold is not None:
            set_threshold(nlp, self.threshold)
        return nlp

    def identity(self) -> str:
        """Return a hash of its files, settings and code, the same for every Python and every place on the disk."""
        folder = spacy.util.get_package_path(self.name) if spacy.util.is_package(self.name) else Path(self.name)
        code = Path(self.code).read_bytes() if self.code else b""
        content = [checksums(folder), self.disable, self.threshold, code]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def set_threshold(nlp: Language, threshold: float) -> None:
    """Set the threshold of every `bert_ner` of a pipeline. Raises ValueError if none has this setting."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold: {threshold} is not between 0 and 1")
    settings = [pipe.cfg for pipe in components_of(nlp).values() if "threshold" in pipe.cfg]
    if not settings:
        raise ValueError("--threshold: no component of this pipeline has that setting")
    for cfg in settings:
        cfg["threshold"] = threshold


@contextmanager
def prepared(nlp: Language) -> Iterator[None]:
    """Let the pipeline take texts of any length and hide no error, while the context lasts."""
    max_length, handler = nlp.max_length, nlp.default_error_handler
    handlers: list[tuple[Any, Any]] = [
        (pipe, pipe.get_error_handler()) for _, pipe in nlp.pipeline if hasattr(pipe, "get_error_handler")
    ]
    # The limit protects from components whose memory grows faster than the text; that of `bert_ner` does not
    nlp.max_length = sys.maxsize
    # With a handler that does not raise, `nlp.pipe` silently drops Docs
    nlp.set_error_handler(raise_error)
    try:
        yield
    finally:
        nlp.max_length, nlp.default_error_handler = max_length, handler
        for pipe, own in handlers:
            pipe.set_error_handler(own)


def annotate_chunk(nlp: Language, chunk: Chunk, writer: Writer) -> list[Rendered]:
    """Annotate and render the records of a chunk.

    nlp: a pipeline, `prepared`.
    """
    with memory_zone(nlp):
        return _rendered(nlp, chunk, writer)


@contextmanager
def memory_zone(nlp: Language) -> Iterator[None]:
    """Free the memory that a pipeline takes while the context lasts; no Doc outlives it."""
    zone = nlp.memory_zone()
    zone.__enter__()
    try:
        yield
    finally:  # `with`, in spaCy before 3.8.14, leaves the zone open after an exception, and the pipeline unusable
        zone.__exit__(None, None, None)


def _rendered(nlp: Language, chunk: Chunk, writer: Writer) -> list[Rendered]:
    docs = docs_or_reasons(nlp, [record for record in chunk.records if record.error is None], partial(make_input, nlp))
    keys = written_groups(nlp)
    return [
        _render(writer, record, number, record.error or next(docs), keys)
        for number, record in enumerate(chunk.records, chunk.first)
    ]


def written_groups(nlp: Language) -> list[str]:
    """Return the keys of the groups of `doc.spans` that components of a pipeline write entities to."""
    keys = [getattr(pipe, "cfg", {}).get("spans_key") for pipe in components_of(nlp, *SPAN_FACTORIES).values()]
    return list(dict.fromkeys(key for key in keys if key is not None))


def _render(writer: Writer, record: Record, number: int, doc: Doc | str, spans_keys: Sequence[str]) -> Rendered:
    """Render a record with its Doc, or the reason why there is none."""
    if isinstance(doc, Doc):
        try:
            return Rendered(writer.render(record, number, doc, find_entities(doc, spans_keys)), n_words=len(doc))
        except Exception as err:  # depends on what components left on the Doc
            doc = _reason(err)
    return Rendered(writer.render_error(record, number, doc), error=doc)


def docs_or_reasons(nlp: Language, items: Sequence[T], make_input: Callable[[T], str | Doc]) -> Iterator[Doc | str]:
    """Yield the pipeline's Doc for each item, or the reason why there is none; a failing batch is tried again in halves.

    make_input: returns the text or the Doc of an item.
    """
    if not items:
        return
    try:
        inputs = [(make_input(item), i) for i, item in enumerate(items)]
        docs = list(nlp.pipe(inputs, as_tuples=True, batch_size=len(inputs)))
        # Docs that a component replaced have lost their number, but not their order
        if len(docs) == len(items) and all(number in (None, i) for i, (_, number) in enumerate(docs)):
            yield from (doc for doc, _ in docs)
            return
        reason = f"the pipeline gave {len(docs)} documents for {len(inputs)}"
    except Exception as err:  # a component may raise anything
        reason = _reason(err)
    if len(items) == 1:
        yield reason
    else:
        half = len(items) // 2
        yield from docs_or_reasons(nlp, items[:half], make_input)
        yield from docs_or_reasons(nlp, items[half:], make_input)


def make_input(nlp: Language, record: Record) -> str | Doc:
    """Return what a pipeline takes for a record: its text, or its Doc without the entities."""
    if isinstance(record.content, str):
        return record.content
    assert record.content is not None
    doc = Doc(nlp.vocab).from_bytes(record.content)
    # The entities are to be the pipeline's
    doc.set_ents([], default="missing")
    clear_ids(doc, np.ones(len(doc), dtype=bool))
    return doc


def _reason(err: Exception) -> str:
    return f"{type(err).__name__}: {err}"
