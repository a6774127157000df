"""GPUs and processes: choosing a GPU, and noticing a fork, which cannot use what is on a GPU."""

import os

import spacy
from thinc.compat import has_cupy


def require_gpu(gpu_id: int) -> None:
    """Compute on a GPU from now on; raises ValueError with the reason if that is not possible."""
    try:
        spacy.require_gpu(gpu_id)
    except (ValueError, RuntimeError) as err:  # RuntimeError: CuPy's and torch's own
        reason = f"--gpu-id {gpu_id}: {err}"
        if not has_cupy:
            reason += '. spaCy needs it beside torch: pip install "spacy[cuda12x]" for CUDA 12 (docs/gpu.md)'
        raise ValueError(f"{reason}. The first GPU is 0; --gpu-id -1 computes on the CPU") from err


class Process:
    """The process that this object was made, copied or unpickled in. A fork is another process."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["Process"], tuple[()]]:
        return Process, ()

    def is_this(self) -> bool:
        """Return whether it is the current process."""
        return self._pid == os.getpid()
