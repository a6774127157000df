"""The workers of a Ray cluster run the chunks; this process reads, and writes what comes back in the chunks' order.

Ray Data would cut the input into blocks of its own, and give back rows in an order and in batches that depend on the
number of workers. Chunks through actors are the very batches of a run on one machine, so the output is the same to the
byte and `--resume` goes on with a run of either kind. An actor that dies is started again by Ray, loads its pipeline and
is given its chunks once more; a result counts when it is fetched, once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from .engines import Results, _work, in_order
from .formats import Format
from .records import Chunk
from .worker import Pipeline, Rendered

RETRIES = 3  # of a chunk whose worker dies


class _Worker:
    """An actor, with a pipeline of its own."""

    def __init__(self, pipeline: Pipeline, form: Format) -> None:
        self.pipeline = pipeline
        self.form = form

    def run(self, chunk: Chunk | None) -> list[Rendered]:
        """Annotate a chunk; None only loads the pipeline."""
        return _work(self.pipeline, self.form, 1, chunk)


class Ray:
    """Workers of the cluster that Ray finds (RAY_ADDRESS, or one on this machine), else of a new one on this machine.

    pipeline: must be found under its name on every machine of the cluster. n: workers, each of one CPU and so many GPUs.
    """

    def __init__(self, pipeline: Pipeline, form: Format, n: int, gpus_per_worker: float) -> None:
        self.pipeline = replace(pipeline, gpu_id=0) if gpus_per_worker else pipeline
        self.form = form
        self.n = n
        self.gpus_per_worker = gpus_per_worker

    def __enter__(self) -> Ray:
        try:
            import ray
        except ImportError as err:
            raise ImportError(f'--engine ray needs Ray: pip install "spacy-bertner[ray]" ({err})') from None
        self.ray = ray
        self.was_there = ray.is_initialized()
        if not self.was_there:
            ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        try:
            self._check_resources()
            actor = ray.remote(num_cpus=1, num_gpus=self.gpus_per_worker, max_restarts=-1, max_task_retries=RETRIES)(
                _Worker
            )
            self.workers = [actor.remote(self.pipeline, self.form) for _ in range(self.n)]
            self.waiting: list[list] = [[] for _ in self.workers]  # references to results, a list a worker
            for loaded in [worker.run.remote(None) for worker in self.workers]:
                self._get(loaded)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for worker in getattr(self, "workers", []):
            self.ray.kill(worker)
        if not self.was_there:
            self.ray.shutdown()

    def _check_resources(self) -> None:
        """Ray would wait without end for what the cluster does not have."""
        there = self.ray.cluster_resources()
        for name, each, option in (("CPU", 1, "--num-workers"), ("GPU", self.gpus_per_worker, "--gpus-per-worker")):
            if self.n * each > there.get(name, 0):
                raise ValueError(
                    f"{option}: {self.n} workers of {each:g} {name} are more than the {there.get(name, 0):g} of the cluster"
                )

    def _get(self, reference: object) -> list[Rendered]:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayActorError as err:
            raise RuntimeError(
                f"a worker has died {RETRIES + 1} times over the same records (out of memory?). What is written is "
                f"whole: go on with --resume ({err})"
            ) from None
        except self.ray.exceptions.RayTaskError as err:
            raise err.cause from None

    def _submit(self, chunk: Chunk) -> Callable[[], list[Rendered]]:
        """Give a chunk to the worker with the least to do."""
        for i, references in enumerate(self.waiting):
            if references:
                _, self.waiting[i] = self.ray.wait(references, num_returns=len(references), timeout=0)
        i = min(range(self.n), key=lambda i: len(self.waiting[i]))
        reference = self.workers[i].run.remote(chunk)
        self.waiting[i].append(reference)
        return lambda: self._get(reference)

    def map(self, chunks: Iterable[Chunk]) -> Results:  # noqa: D102
        return in_order(chunks, self._submit, 2 * self.n)
