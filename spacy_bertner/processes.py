"""GPUs and processes: choosing a GPU, and telling which process made an object, as a fork cannot use what is on a GPU."""

import os

import spacy


def require_gpu(gpu_id: int) -> None:
    """Compute on a GPU from now on.

    gpu_id: its number, from 0. Raises ValueError with the reason if that is not possible.
    """
    try:
        spacy.require_gpu(gpu_id)
    except (ValueError, RuntimeError) as err:  # RuntimeError: CuPy's and torch's own
        raise ValueError(f"--gpu-id {gpu_id}: {err}. The first GPU is 0; --gpu-id -1 computes on the CPU") from err


class Process:
    """The process in which this object was made, copied or unpickled; a fork is another process."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["Process"], tuple[()]]:
        return Process, ()

    def is_this(self) -> bool:
        """Return whether this is the current process."""
        return self._pid == os.getpid()
