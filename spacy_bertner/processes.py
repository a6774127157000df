"""GPUs and processes: choosing a GPU; noticing a fork, which cannot use what is on a GPU; ending with the parent process."""

import os
import threading

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


def run_spacy() -> None:
    """Run spaCy's command line by `sys.argv`, in a process that ends with the one that started it, also with a kill.

    That one holds the other end of this one's standard input.
    """
    from spacy.cli._util import setup_cli

    def end_with_parent() -> None:
        os.read(0, 1)  # not `sys.stdin`, which Python would wait for at its end
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    setup_cli()
