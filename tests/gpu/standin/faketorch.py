"""A stand-in for torch's CUDA device on a machine without one.

Tensors "on the GPU" are wrapper subclasses that say cuda:0 and keep their values in a CPU tensor. What reaches them goes
through __torch_dispatch__, at the level of ATen, under autograd and autocast: there operands on two devices are refused as
CUDA refuses them, and what would make the CPU wait for the GPU is counted, with the line of this package that asked for it.
It cannot show speed, memory, streams, or the numerics of real kernels.
"""

import collections
import contextlib
import copy
import ctypes
import os
import sys
import threading
from typing import Any

# Before torch is loaded, which asks only once whether there is CUDA
_guard = ctypes.CDLL(os.environ["STANDIN_GUARD"], mode=ctypes.RTLD_GLOBAL)
import torch
import torch._dynamo  # before anything is patched
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda:0")
WAITS: collections.Counter[tuple[str, str]] = collections.Counter()
NOTES: collections.Counter[tuple[str, str]] = collections.Counter()
# Settings of the pretended card, for tests
CARD = {"has_bf16": True, "is_available": True}


def wait(kind: str) -> None:
    """Count that the CPU waits for the GPU."""
    WAITS[kind, _caller()] += 1


def note(kind: str) -> None:
    """Count something else that is worth knowing."""
    NOTES[kind, _caller()] += 1


def _caller() -> str:
    """The innermost line of the package."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if f"{os.sep}spacy_bertner{os.sep}" in name:
            return f"{name.rsplit(os.sep, 1)[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "-"


class GpuTensor(torch.Tensor):
    """A tensor that says it is on the GPU; `elem` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, elem, requires_grad=False):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            device=CUDA,
            requires_grad=requires_grad,
        )
        tensor.elem = elem
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def __repr__(self):
        return f"GpuTensor({self.elem!r})"

    # What is no operation of ATen

    def numpy(self, *, force=False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, dtype=None):
        return self.numpy()

    def tolist(self):
        wait("tolist")
        return self.elem.detach().tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.item())

    def __index__(self):
        return int(self.item())

    def untyped_storage(self):
        return self.elem.untyped_storage()

    def data_ptr(self):
        return self.elem.data_ptr()

    def pin_memory(self, *args):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def __deepcopy__(self, memo):
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user support the deepcopy protocol at the moment"
            )
        new = rebuild(self.elem.detach().clone(), self.requires_grad, getattr(self, "_is_param", False))
        if self.grad is not None:
            new.grad = copy.deepcopy(self.grad, memo)
        memo[id(self)] = new
        return new

    def __reduce_ex__(self, protocol):
        return rebuild, (self.elem.detach(), self.requires_grad, getattr(self, "_is_param", False))

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream=None, **kwargs):
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        return Capsule(self)

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):
        torch.Tensor.data.__set__(self, value)
        self.elem = value.elem


def rebuild(elem, requires_grad, is_param):
    tensor = GpuTensor(elem, requires_grad)
    if is_param:
        tensor._is_param = True
    return tensor


class Capsule:
    """A DLPack capsule, to be used once."""

    def __init__(self, owner):
        self.owner, self.is_used = owner, False

    def take(self):
        if self.is_used:
            raise ValueError("A DLPack tensor object cannot be consumed multiple times")
        self.is_used = True
        return self.owner


def tensors_in(*values):
    """All tensors in arguments, however deep."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(*value)
        elif isinstance(value, dict):
            yield from tensors_in(*value.values())


def is_cuda(device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


# Operations that may have tensors of several devices, that wait, and that take indices
MIXED = {"copy_", "_to_copy", "set_"}
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


def dispatch(func, args, kwargs):
    """Do an operation of ATen with the values, after its operands have been looked at."""
    name = func._schema.name.split("::")[1]
    tensors = list(tensors_in(args, kwargs))
    has_gpu = any(isinstance(tensor, GpuTensor) for tensor in tensors)
    device = kwargs.get("device")
    if name == "_to_copy" and device is not None:
        return _to_copy(func, args, kwargs)
    if name == "copy_":
        target, source = args[:2]
        if isinstance(target, GpuTensor) != isinstance(source, GpuTensor):
            wait("copy_ between devices")
        func(_values(target), _values(source), *args[2:], **kwargs)
        return target
    to_gpu = has_gpu if device is None else is_cuda(device)
    if is_cuda(device):
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if has_gpu and name not in MIXED:
        _check(func, name, args, tensors)
    a, k = tree_map(_values, args), tree_map(_values, kwargs)
    # Kernels that CUDA alone has: 16 bits in, 32 out
    if name in ("_softmax", "_log_softmax") and a[2]:
        a = (a[0].float(), a[1], False)
    if name in ("_softmax_backward_data", "_log_softmax_backward_data") and a[3] != a[0].dtype:
        return GpuTensor(func(a[0], a[1], a[2], a[0].dtype).to(a[3]))
    return _wrap(func(*a, **k), args, kwargs, to_gpu)


def _values(x):
    return x.elem if isinstance(x, GpuTensor) else x


def _check(func, name, args, tensors):
    """Refuse what CUDA refuses, and count what waits."""
    for tensor in tensors:
        if isinstance(tensor, GpuTensor) or tensor.device.type == "meta":
            continue
        if tensor.dim() == 0 and not name.startswith(("index_put", "_index_put", "_fused", "cat", "stack")):
            continue
        if name in INDEXING and isinstance(args[0], GpuTensor) and any(tensor is i for i in args[1]):
            wait(f"{name} with indices on the CPU")  # which CUDA copies over
            continue
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({func}: {[(tuple(t.shape), 'cuda' if isinstance(t, GpuTensor) else 'cpu') for t in tensors]})"
        )
    if name in WAITING:
        wait(name)
    if name in INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
        wait(f"{name} with a mask")
    if name == "add_" and any(tensor.is_sparse for tensor in map(_values, tensors)):
        wait("sparse gradient added to a dense one")


def _wrap(out, args, kwargs, to_gpu):
    """Give results as tensors of the GPU; those that are arguments, changed in place, as these arguments."""
    on_gpu = {id(t.elem): t for t in tensors_in(args, kwargs) if isinstance(t, GpuTensor)}
    on_cpu = {id(t) for t in tensors_in(args, kwargs) if not isinstance(t, GpuTensor)}

    def wrap(x):
        if not isinstance(x, torch.Tensor) or id(x) in on_cpu:
            return x
        return on_gpu.get(id(x)) if id(x) in on_gpu else GpuTensor(x) if to_gpu else x

    return tree_map(wrap, out)


def _to_copy(func, args, kwargs):
    source, device = args[0], torch.device(kwargs["device"])
    on_cpu = {**kwargs, "device": torch.device("cpu")}
    if device.type == "cuda":
        is_pinned = getattr(source, "_is_pinned", False) and kwargs.get("non_blocking")
        if not isinstance(source, GpuTensor) and not is_pinned:
            wait("copy to the GPU from memory that is not pinned")
        return GpuTensor(func(_values(source), *args[1:], **on_cpu))
    if isinstance(source, GpuTensor):
        wait("copy to the CPU")
        return func(source.elem, *args[1:], **on_cpu)
    return func(*args, **kwargs)


class CudaMode(TorchDispatchMode):
    """Sees operations that make tensors: those of device cuda become GpuTensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if is_cuda(kwargs.get("device")) or any(isinstance(t, GpuTensor) for t in tensors_in(args, kwargs)):
            return dispatch(func, args, kwargs)
        return func(*args, **kwargs)


_modes = threading.local()


def _ensure_mode() -> None:
    """Modes are of a thread: each has to enter one."""
    if not getattr(_modes, "mode", None):
        _modes.mode = CudaMode()
        _modes.mode.__enter__()


def install() -> None:
    """Have torch believe that there is a card."""
    _guard.install_guard()
    cuda: Any = torch.cuda
    cuda.is_available = lambda: CARD["is_available"]
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.set_device = _set_device
    cuda.is_initialized = lambda: True
    cuda._lazy_init = cuda.init = lambda: None
    cuda.device = lambda device=None: contextlib.nullcontext()
    cuda.is_bf16_supported = lambda including_emulation=True: CARD["has_bf16"]
    cuda.synchronize = lambda device=None: wait("torch.cuda.synchronize")
    cuda.empty_cache = lambda: None
    cuda.get_device_name = lambda device=None: "stand-in"
    cuda.get_device_capability = lambda device=None: (8, 0)
    cuda.reset_peak_memory_stats = lambda device=None: None
    cuda.memory_allocated = cuda.max_memory_allocated = lambda device=None: 0
    cuda.manual_seed_all = cuda.manual_seed = lambda seed: None
    cuda.current_stream = lambda device=None: None
    # The generator of the GPU is that of the CPU here: dropout draws from it
    cuda.get_rng_state = cuda.random.get_rng_state = lambda device="cuda": torch.get_rng_state()
    cuda.set_rng_state = cuda.random.set_rng_state = lambda state, device="cuda": torch.set_rng_state(state)
    cuda.get_rng_state_all = cuda.random.get_rng_state_all = lambda: [torch.get_rng_state()]
    cuda.set_rng_state_all = cuda.random.set_rng_state_all = lambda states: torch.set_rng_state(states[0])
    cuda.amp.common.amp_definitely_not_available = lambda: False

    # Of attention the form in plain operations
    for kind in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{kind}_sdp")(False)

    # Wrappers cannot be made as views in inference mode; what that forbids shows on the CPU too
    torch.inference_mode = _inference_mode
    torch.Tensor.pin_memory = _pin_memory
    torch.utils.dlpack.to_dlpack = torch.to_dlpack = lambda tensor: Capsule(tensor)
    real_from_dlpack = torch.utils.dlpack.from_dlpack

    def from_dlpack(x, **kwargs):
        _ensure_mode()
        if hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] == 2:
            x = x.__dlpack__()
        if not isinstance(x, Capsule):
            return real_from_dlpack(x, **kwargs)
        owner = x.take()
        return owner.detach() if isinstance(owner, GpuTensor) else GpuTensor(torch.from_numpy(owner._a))

    torch.utils.dlpack.from_dlpack = torch.from_dlpack = from_dlpack

    # `Module.to` gives parameters other data where classes are compatible; a GpuTensor is of another class
    real_compatible = torch._has_compatible_shallow_copy_type
    torch._has_compatible_shallow_copy_type = lambda a, b: (
        isinstance(a, GpuTensor) == isinstance(b, GpuTensor) and real_compatible(a, b)
    )
    real_tensor = torch.tensor  # which no mode sees

    def tensor(data, *, device=None, **kwargs):
        return GpuTensor(real_tensor(data, **kwargs)) if is_cuda(device) else real_tensor(data, device=device, **kwargs)

    torch.tensor = tensor
    torch.jit._builtins._register_builtin(tensor, "aten::tensor")  # DeBERTa compiles a function that calls it
    real_save, real_load = torch.save, torch.load

    def save(obj, *args, **kwargs):
        return real_save(tree_map(lambda x: x.elem.detach() if isinstance(x, GpuTensor) else x, obj), *args, **kwargs)

    def load(file, map_location=None, **kwargs):
        found = real_load(file, map_location="cpu", **kwargs)
        to_gpu = is_cuda(map_location)
        return tree_map(lambda x: GpuTensor(x) if to_gpu and isinstance(x, torch.Tensor) else x, found)

    torch.save, torch.load = save, load
    real_run = threading.Thread.run

    def run(self):
        _ensure_mode()
        return real_run(self)

    threading.Thread.run = run  # type: ignore[method-assign]
    _ensure_mode()


def _inference_mode(mode=True):
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.no_grad() if mode else contextlib.nullcontext()


def _set_device(device) -> None:
    if (device if isinstance(device, int) else torch.device(device).index) not in (0, None):
        raise RuntimeError("CUDA error: invalid device ordinal")


def _pin_memory(self, device=None):
    pinned = self.clone()
    pinned._is_pinned = True
    return pinned


def report() -> str:
    """List what waited and what was noted, most often first."""
    lines = []
    for title, counter in (("waits", WAITS), ("notes", NOTES)):
        lines.append(f"== {title}")
        lines += [f"{n:6} {kind:48} {caller}" for (kind, caller), n in counter.most_common()]
    return "\n".join(lines) + "\n"
