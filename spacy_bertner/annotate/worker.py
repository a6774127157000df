"""A chunk of records through the pipeline, with nothing lost: as many records come out as went in, in the same order."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import raise_error

from ..processes import require_gpu
from .formats import Format
from .records import Chunk, Record


@dataclass(frozen=True)
class Rendered:
    """An output record. data: its bytes. error: why it could not be processed, if so. n_words: its tokens."""

    data: bytes
    error: str | None = None
    n_words: int = 0


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that each worker loads for itself.

    name: folder or package. disable: names of components not to run. threshold: for `bert_ner`, None to leave it as it
    is. gpu_id: the GPU, -1 for the CPU. code: a Python file to import before.
    """

    name: str
    disable: tuple[str, ...] = ()
    threshold: float | None = None
    gpu_id: int = -1
    code: str | None = None

    def load(self) -> Language:
        """Load it. Raises OSError where there is none, ValueError for settings that do not go with it."""
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
        """Tell this pipeline from others: a hash of its files, of its settings and of the code."""
        from ..files import checksums

        folder = spacy.util.get_package_path(self.name) if spacy.util.is_package(self.name) else Path(self.name)
        folders = [folder, *sorted(p for p in folder.rglob("*") if p.is_dir() and p.name != "__pycache__")]
        files = [(str(p.relative_to(folder)), checksums(p)) for p in folders if p.is_dir()]
        code = Path(self.code).read_bytes() if self.code else b""
        found = [files, self.disable, self.threshold, code]
        return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def set_threshold(nlp: Language, threshold: float) -> None:
    """Set the threshold of every `bert_ner` of a pipeline; raises ValueError where there is none that has one."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold: {threshold} is not between 0 and 1")
    settings = [
        getattr(nlp.get_pipe(name), "cfg", {})
        for name in nlp.pipe_names
        if nlp.get_pipe_meta(name).factory == "bert_ner"
    ]
    settings = [cfg for cfg in settings if "threshold" in cfg]
    if not settings:
        raise ValueError("--threshold: no component of this pipeline has that setting")
    for cfg in settings:
        cfg["threshold"] = threshold


@contextmanager
def prepared(nlp: Language) -> Iterator[None]:
    """For the time of the context, let the pipeline take texts of any length and hide no error."""
    max_length, handler = nlp.max_length, nlp.default_error_handler
    handlers: list[tuple[Any, Any]] = [
        (pipe, pipe.get_error_handler()) for _, pipe in nlp.pipeline if hasattr(pipe, "get_error_handler")
    ]
    # The limit is there for what takes memory beyond the length of the text; `bert_ner` does not
    nlp.max_length = sys.maxsize
    # A handler that does not raise makes `nlp.pipe` leave out Docs without a word
    nlp.set_error_handler(raise_error)
    try:
        yield
    finally:
        nlp.max_length, nlp.default_error_handler = max_length, handler
        for pipe, own in handlers:
            pipe.set_error_handler(own)


def annotate_chunk(nlp: Language, chunk: Chunk, form: Format) -> list[Rendered]:
    """Annotate the records of a chunk, and render them.

    nlp: a pipeline, `prepared`. Its memory for the chunk is given back at the end, so no Doc outlives this.
    """
    rendered: list[Rendered] = []
    interrupted: BaseException | None = None
    with nlp.memory_zone():
        # spaCy before 3.8.14 does not end a memory zone that an exception leaves: after Ctrl-C the pipeline would fail
        try:
            rendered = _rendered(nlp, chunk, form)
        except BaseException as err:
            interrupted = err
    if interrupted is not None:
        raise interrupted
    return rendered


def _rendered(nlp: Language, chunk: Chunk, form: Format) -> list[Rendered]:
    rendered: list[Rendered | None] = [None] * len(chunk.records)
    whole = []
    for i, record in enumerate(chunk.records):
        if record.error is None:
            whole.append(i)
        else:
            rendered[i] = Rendered(form.render_error(record, chunk.first + i, record.error), record.error)
    for i, doc in _docs(nlp, chunk.records, whole):
        record, number = chunk.records[i], chunk.first + i
        if isinstance(doc, Doc):
            try:
                rendered[i] = Rendered(form.render(record, number, doc), None, len(doc))
                continue
            except Exception as err:  # what a component left on the Doc may be of any kind
                doc = _reason(err)
        rendered[i] = Rendered(form.render_error(record, number, doc), doc)
    return [item for item in rendered if item is not None]


def _docs(nlp: Language, records: Sequence[Record], places: Sequence[int]) -> Iterator[tuple[int, Doc | str]]:
    """The Docs of the records at some places, or why there is none; a batch that fails is tried again by halves."""
    if not places:
        return
    try:
        inputs = [(_input(nlp, records[i]), i) for i in places]
        docs = list(nlp.pipe(inputs, as_tuples=True, batch_size=len(inputs)))
        # The place is lost, and the order is not, where a component makes new Docs
        if len(docs) == len(places) and all(i in (None, place) for (_, i), place in zip(docs, places, strict=True)):
            yield from ((place, doc) for (doc, _), place in zip(docs, places, strict=True))
            return
        reason = f"the pipeline gave {len(docs)} documents for {len(inputs)}"
    except Exception as err:
        reason = _reason(err)
    if len(places) == 1:
        yield places[0], reason
        return
    half = len(places) // 2
    yield from _docs(nlp, records, places[:half])
    yield from _docs(nlp, records, places[half:])


def _input(nlp: Language, record: Record) -> str | Doc:
    if isinstance(record.content, str):
        return record.content
    assert record.content is not None
    doc = Doc(nlp.vocab).from_bytes(record.content)
    doc.set_ents([], default="missing")  # the entities are to be the pipeline's
    return doc


def _reason(err: Exception) -> str:
    return f"{type(err).__name__}: {err}"
