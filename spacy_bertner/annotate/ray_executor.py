"""A `concurrent.futures` executor over actors of a Ray cluster.

Ray Data is not used: it cuts the input into blocks of its own, and gives back rows in batches, and without further settings
in an order, that depend on the cluster. Chunks through actors are exactly the batches of a run on one machine, so the
output is the same to the byte and `--resume` continues a run of either kind. Ray restarts an actor that dies and gives it
its calls again; a result is fetched once.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

RETRIES = 3  # of a call whose worker dies


class _Worker:
    """An actor."""

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call a function."""
        return function(*args)


class RayExecutor(Executor):
    """Workers of the cluster that Ray finds (RAY_ADDRESS, or one on this machine), else of a new one on this machine.

    n: number of workers, each with one CPU. gpus_per_worker: GPUs that each has, possibly a fraction.

    Raises ImportError if Ray is not installed, ValueError if the cluster has less than that.
    """

    def __init__(self, n: int, gpus_per_worker: float) -> None:
        try:
            import ray
        except ImportError as err:
            raise ImportError(f'--engine ray needs Ray: pip install "spacy-bertner[ray]" ({err})') from None
        self.ray: Any = ray
        self.is_own = not ray.is_initialized()
        if self.is_own:
            ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        self.futures: dict[Any, list[Future]] = {}  # of each worker
        try:
            self._check_resources(n, gpus_per_worker)
            actor = ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_restarts=-1, max_task_retries=RETRIES)(_Worker)
            self.futures = {actor.remote(): [] for _ in range(n)}
        except BaseException:
            self.shutdown()
            raise

    def _check_resources(self, n: int, gpus_per_worker: float) -> None:
        """Raise ValueError for more than the cluster has: Ray would wait for it forever."""
        available = self.ray.cluster_resources()
        for name, each, option in (("CPU", 1, "--num-workers"), ("GPU", gpus_per_worker, "--gpus-per-worker")):
            if n * each > available.get(name, 0):
                raise ValueError(
                    f"{option}: {n} workers of {each:g} {name} are more than the {available.get(name, 0):g} of the cluster"
                )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function in the worker with the fewest calls to do; arguments only by position."""
        for worker, futures in self.futures.items():
            self.futures[worker] = [future for future in futures if not future.done()]
        worker = min(self.futures, key=lambda worker: len(self.futures[worker]))
        future = worker.run.remote(fn, args).future()
        self.futures[worker].append(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Kill the workers, with all that they have still to do."""
        for worker in self.futures:
            self.ray.kill(worker)
        if self.is_own:
            self.ray.shutdown()
