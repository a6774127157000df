"""GPUs and processes: choosing a GPU, and which process something was made in, since a fork cannot use what is on a GPU."""

import os

import spacy


def require_gpu(gpu_id: int) -> None:
    """Compute on a GPU from now on; raises ValueError with the reason where that cannot be."""
    try:
        spacy.require_gpu(gpu_id)
    except (ValueError, RuntimeError) as err:  # RuntimeError: CuPy's and torch's own
        raise ValueError(f"--gpu-id {gpu_id}: {err}. The first GPU is 0; --gpu-id -1 computes on the CPU") from err


class Process:
    """The process that it was made in; copied or unpickled, the one where that happened. A fork is another."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["Process"], tuple[()]]:
        return Process, ()

    def is_this(self) -> bool:
        """Whether it is the one that runs."""
        return self._pid == os.getpid()
