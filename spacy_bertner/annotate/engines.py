"""Who runs the chunks: this process, or several. Results come in the order of the chunks.

Every engine is a context that has loaded its pipelines when it is entered, and a method `map` from chunks to pairs of
chunk and results, which takes in only a few chunks more than it has given out.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any, Protocol

from spacy.language import Language

from .formats import Format
from .records import Chunk
from .worker import Pipeline, Rendered, annotate_chunk, prepared

Results = Iterator[tuple[Chunk, list[Rendered]]]


class Engine(Protocol):
    """What runs the chunks."""

    def __enter__(self) -> Engine: ...
    def __exit__(self, *error: object) -> None: ...
    def map(self, chunks: Iterable[Chunk]) -> Results:
        """Give each chunk with its results, in order."""


class Serial:
    """One pipeline in this process."""

    def __init__(self, pipeline: Pipeline | Language, form: Format) -> None:
        self.pipeline = pipeline
        self.form = form
        self.stack = ExitStack()

    def __enter__(self) -> Serial:
        self.nlp = self.pipeline.load() if isinstance(self.pipeline, Pipeline) else self.pipeline
        self.stack.enter_context(prepared(self.nlp))
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def map(self, chunks: Iterable[Chunk]) -> Results:  # noqa: D102
        for chunk in chunks:
            yield chunk, annotate_chunk(self.nlp, chunk, self.form)


class Processes:
    """A number of processes, each with a pipeline of its own."""

    def __init__(self, pipeline: Pipeline, form: Format, n: int) -> None:
        self.pipeline = pipeline
        self.form = form
        self.n = n

    def __enter__(self) -> Processes:
        # Not forked: threads of torch and CUDA do not outlive a fork
        self.pool = ProcessPoolExecutor(self.n, multiprocessing.get_context("spawn"), _end_with_parent)
        try:
            for loaded in [self.pool.submit(_work, self.pipeline, self.form, self.n, None) for _ in range(self.n)]:
                loaded.result()
        except BaseException:
            self.pool.shutdown(cancel_futures=True)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def map(self, chunks: Iterable[Chunk]) -> Results:  # noqa: D102
        def submit(chunk: Chunk) -> Callable[[], list[Rendered]]:
            return self.pool.submit(_work, self.pipeline, self.form, self.n, chunk).result

        try:
            yield from in_order(chunks, submit, 2 * self.n)
        except BrokenProcessPool:
            raise RuntimeError(
                "a process has died (out of memory?). What is written is whole: go on with --resume, "
                "with fewer processes or a smaller --batch-size"
            ) from None


def in_order(chunks: Iterable[Chunk], submit: Callable[[Chunk], Callable[[], list[Rendered]]], ahead: int) -> Results:
    """Submit chunks, at most `ahead` of them at a time; give their results in order. `submit` returns how to wait."""
    waiting: deque[tuple[Chunk, Callable[[], list[Rendered]]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, submit(chunk)))
        if len(waiting) >= ahead:
            chunk, result = waiting.popleft()
            yield chunk, result()
    while waiting:
        chunk, result = waiting.popleft()
        yield chunk, result()


def _end_with_parent() -> None:
    """Let this process end when its parent is killed, which would not tell it, and without a word at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


_loaded: dict[Pipeline, Language] = {}  # of this process


def _work(pipeline: Pipeline, form: Format, n: int, chunk: Chunk | None) -> list[Rendered]:
    """In one of `n` processes: load the pipeline once, annotate a chunk."""
    if pipeline not in _loaded:
        nlp: Any = pipeline.load()
        if "torch" in sys.modules and "OMP_NUM_THREADS" not in os.environ:
            import torch

            torch.set_num_threads(max(1, (os.cpu_count() or 1) // n))
        prepared(nlp).__enter__()  # for as long as the process lives
        _loaded[pipeline] = nlp
    return [] if chunk is None else annotate_chunk(_loaded[pipeline], chunk, form)
