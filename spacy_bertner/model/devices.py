"""Where torch computes: the device of Thinc's operations, what it can do, and whether it lacked memory."""

import warnings

import torch
from thinc.api import CupyOps, MPSOps, get_current_ops


def current_device() -> torch.device:
    """Where Thinc's current operations are, for the weights: the CPU, or the current GPU.

    Raises ValueError where that is a GPU that torch cannot use.
    """
    if isinstance(get_current_ops(), MPSOps):
        warnings.warn(
            "bert_ner computes on the CPU: on Apple's GPU (mps) it has not been tested. To ask for the CPU, call "
            "spacy.require_cpu() or give --gpu-id -1",
            stacklevel=2,
        )
    return current_gpu() if isinstance(get_current_ops(), CupyOps) else torch.device("cpu")


def current_gpu() -> torch.device:
    """The current GPU; raises ValueError where torch cannot use it."""
    if not torch.cuda.is_available():
        built = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build for the CPU alone"
        raise ValueError(
            f"bert_ner: spaCy uses a GPU, which torch cannot: torch {torch.__version__} {built}. Install a build for the "
            "CUDA that the driver supports (https://pytorch.org/get-started/locally), or do without GPU: --gpu-id -1"
        )
    return torch.device("cuda", torch.cuda.current_device())


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether the device computes in a type of 16 bits itself, and faster than in float32."""
    if device.type == "cuda":
        return dtype is torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and dtype is torch.bfloat16 and torch.backends.mkldnn.is_available():
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether memory was lacking, of whatever library: torch has a class of error for its own allocator alone."""
    lacks = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(lack in str(error) for lack in lacks)
