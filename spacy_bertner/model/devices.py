"""The device that torch computes on: that of Thinc's operations; the types it supports; whether it ran out of memory."""

import warnings

import torch
from thinc.api import CupyOps, MPSOps, get_current_ops


def current_device() -> torch.device:
    """Return the device of Thinc's current operations, for the weights: the CPU, or the current GPU.

    Raises ValueError if that is a GPU that torch cannot use.
    """
    if isinstance(get_current_ops(), MPSOps):
        warnings.warn(
            "bert_ner computes on the CPU: it has not been tested on Apple's GPU (mps). To choose the CPU, call "
            "spacy.require_cpu() or use --gpu-id -1",
            stacklevel=2,
        )
    return current_gpu() if isinstance(get_current_ops(), CupyOps) else torch.device("cpu")


def current_gpu() -> torch.device:
    """Return the current GPU; raises ValueError if torch cannot use it."""
    if not torch.cuda.is_available():
        built = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build for the CPU only"
        raise ValueError(
            f"bert_ner: spaCy uses a GPU, which torch cannot: torch {torch.__version__} {built}. Install a build for the "
            "CUDA version that the driver supports (https://pytorch.org/get-started/locally), or use the CPU: --gpu-id -1"
        )
    return torch.device("cuda", torch.cuda.current_device())


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the device computes in a 16-bit type natively, which is faster than in float32."""
    if device.type == "cuda":
        return dtype is torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and dtype is torch.bfloat16 and torch.backends.mkldnn.is_available():
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def autocast_type(device: torch.device, mixed_precision: bool | str) -> torch.dtype | None:
    """Return the type for matrix products under autocast; None for float32, also if the device lacks the type.

    mixed_precision: False, "bf16", "fp16", or "auto" for the first of these two that the device has.
    """
    wanted = {"bf16": (torch.bfloat16,), "fp16": (torch.float16,), "auto": (torch.bfloat16, torch.float16)}
    types = wanted[mixed_precision] if isinstance(mixed_precision, str) else ()
    return next((dtype for dtype in types if supports(device, dtype)), None)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether a library ran out of memory; torch has an error class for its own allocator only."""
    messages = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in messages)
