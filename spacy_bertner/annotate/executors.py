"""Where chunks are annotated: in this process, in several processes, or by the workers of a Ray cluster."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from spacy.language import Language

from .records import Chunk
from .worker import Pipeline, Rendered, annotate_chunk, prepared
from .writers import Writer

Results = Iterator[tuple[Chunk, list[Rendered]]]
Annotate = Callable[[Iterable[Chunk]], Results]


@contextmanager
def in_this_process(pipeline: Pipeline | Language, writer: Writer) -> Iterator[Annotate]:
    """Give a function from chunks to each chunk with its output records, in order; the pipeline is loaded here."""
    nlp = pipeline.load() if isinstance(pipeline, Pipeline) else pipeline
    with prepared(nlp):
        yield lambda chunks: ((chunk, annotate_chunk(nlp, chunk, writer)) for chunk in chunks)


@contextmanager
def in_processes(pipeline: Pipeline, writer: Writer, n: int) -> Iterator[Annotate]:
    """As `in_this_process`, in `n` processes, each with a pipeline of its own. Raises RuntimeError if one dies."""
    # Not forked: threads of torch and CUDA do not survive a fork
    executor = ProcessPoolExecutor(n, multiprocessing.get_context("spawn"), _end_with_parent)
    n_threads = max(1, (os.cpu_count() or 1) // n)
    try:
        with _workers(executor, partial(_work, pipeline, writer, n_threads), n) as annotate:
            yield annotate
    except BrokenProcessPool:
        raise RuntimeError(
            "a process has died (out of memory?). Complete records are kept: continue with --resume, "
            "with fewer processes or a smaller --batch-size"
        ) from None


@contextmanager
def in_ray(pipeline: Pipeline, writer: Writer, n: int, gpus_per_worker: float) -> Iterator[Annotate]:
    """As `in_this_process`, in `n` workers of a Ray cluster, each with one CPU and so many GPUs.

    pipeline: must be available under its name on every machine of the cluster.

    Raises RuntimeError if workers die again and again over the same records.
    """
    from .ray_executor import RETRIES, RayExecutor

    executor = RayExecutor(n, gpus_per_worker)
    if gpus_per_worker:
        pipeline = replace(pipeline, gpu_id=0)  # of the GPUs that Ray lets a worker see
    try:
        with _workers(executor, partial(_work, pipeline, writer, None), n) as annotate:
            yield annotate
    except executor.ray.exceptions.RayActorError as err:
        raise RuntimeError(
            f"a worker has died {RETRIES + 1} times over the same records (out of memory?). Complete records are kept: "
            f"continue with --resume ({err})"
        ) from None
    except executor.ray.exceptions.RayTaskError as err:
        raise err.cause from None


@contextmanager
def _workers(executor: Executor, work: Callable[[Chunk | None], list[Rendered]], n: int) -> Iterator[Annotate]:
    """Load the pipeline in the workers of an executor, give the function that uses them, and shut them down."""
    try:
        for loaded in [executor.submit(work, None) for _ in range(n)]:
            loaded.result()
        yield lambda chunks: _in_order(executor, work, chunks, ahead=2 * n)
    finally:
        executor.shutdown(cancel_futures=True)


def _in_order(
    executor: Executor, work: Callable[[Chunk | None], list[Rendered]], chunks: Iterable[Chunk], ahead: int
) -> Results:
    """Submit chunks, at most `ahead` at a time, and yield the results in their order."""
    waiting: deque[tuple[Chunk, Future[list[Rendered]]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, executor.submit(work, chunk)))
        if len(waiting) >= ahead:
            chunk, future = waiting.popleft()
            yield chunk, future.result()
    for chunk, future in waiting:
        yield chunk, future.result()


_loaded: dict[Pipeline, Language] = {}  # in this worker


def _work(pipeline: Pipeline, writer: Writer, n_threads: int | None, chunk: Chunk | None) -> list[Rendered]:
    """In a worker: load the pipeline, the first time, and annotate a chunk. n_threads: of torch, None for its default."""
    if pipeline not in _loaded:
        nlp = pipeline.load()
        if n_threads and "torch" in sys.modules and "OMP_NUM_THREADS" not in os.environ:
            import torch

            torch.set_num_threads(n_threads)
        prepared(nlp).__enter__()  # for as long as the process lives
        _loaded[pipeline] = nlp
    return [] if chunk is None else annotate_chunk(_loaded[pipeline], chunk, writer)


def _end_with_parent() -> None:
    """Let this process end when its parent is killed, which it would not notice, and silently at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
