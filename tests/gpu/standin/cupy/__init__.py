"""A strict stand-in for CuPy 13 to 15: arrays keep their values in NumPy, and refuse what CuPy's refuse.

Nothing is converted by itself: an array neither becomes one of NumPy nor takes one for an operand; `.get()` and `asarray`
convert. What waits for the device is counted (see `faketorch`). It has what Thinc, spacy-transformers and this package use;
where more is needed, add it as CuPy has it.
"""

import builtins
import operator
import sys
import types
from typing import Any

import numpy as np
from faketorch import Capsule, GpuTensor, note, wait

__version__ = "13.6.0"
SCALARS = (int, float, complex, bool, np.generic)
inf, nan, newaxis = np.inf, np.nan, None
float32, float64, int32, int64, uint64, bool_ = np.float32, np.float64, np.int32, np.int64, np.uint64, np.bool_
_allocator: Any = None


def _view(values: np.ndarray) -> "ndarray":
    array = object.__new__(ndarray)
    array._a = values
    return array


def _new(values: Any) -> "ndarray":
    """An array with memory of its own, which is asked of the allocator."""
    values = np.asarray(values)
    if _allocator is not None:
        _allocator(values.nbytes)
    return _view(values)


def _operand(x: Any) -> Any:
    """Take an argument of a kernel: arrays on the GPU and numbers, nothing of NumPy's."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, GpuTensor):
        return _from_torch(x)._a
    if isinstance(x, (list, tuple)):
        return type(x)(_operand(y) for y in x)
    if isinstance(x, np.ndarray) or (hasattr(x, "__array__") and not isinstance(x, np.generic)):
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def _from_torch(tensor: GpuTensor) -> "ndarray":
    if tensor.requires_grad:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")
    if "bfloat16" in str(tensor.dtype):
        raise TypeError("bfloat16 is not supported")
    return _view(tensor.elem.detach().numpy())


class ndarray:
    """An array on the GPU."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        self._a = np.empty(shape, dtype=dtype, order=order)

    # What NumPy asks for

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        function = globals_or_none(ufunc.__name__)
        if method != "__call__" or function is None:
            return NotImplemented
        return function(*inputs, **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        function = globals_or_none(func.__name__)
        return NotImplemented if function is None else function(*args, **kwargs)

    # The array

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    strides = property(lambda self: self._a.strides)
    flags = property(lambda self: self._a.flags)
    T = property(lambda self: _view(self._a.T))
    device = property(lambda self: cuda.Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self._a.ctypes.data, device_id=0))

    @property
    def __cuda_array_interface__(self):
        return {**self._a.__array_interface__, "version": 3}

    def __len__(self):
        if not self._a.ndim:
            raise TypeError("len() of unsized object")
        return len(self._a)

    def __iter__(self):
        if not self._a.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self._a)))

    def get(self, stream=None, order="C", out=None, blocking=True):
        wait("cupy .get()")
        return np.array(self._a, order=order)

    def set(self, array, stream=None):
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype:
            raise TypeError("Only a numpy.ndarray of the same type can be set to cupy.ndarray")
        self._a[...] = array

    def item(self):
        wait("cupy .item()")
        return self._a.item()

    def tolist(self):
        wait("cupy .tolist()")
        return self._a.tolist()

    def tobytes(self, order="C"):
        wait("cupy .tobytes()")
        return self._a.tobytes(order)

    def __float__(self):
        wait("cupy float()")
        return float(self._one())

    def __int__(self):
        wait("cupy int()")
        return int(self._one())

    def __index__(self):
        wait("cupy index()")
        return operator.index(self._one())

    def __bool__(self):
        wait("cupy bool()")
        return bool(self._a)

    def _one(self):
        if self._a.size != 1:
            raise TypeError("only length-1 arrays can be converted to Python scalars")
        return self._a.reshape(())[()]

    def __repr__(self):
        return "cupy." + repr(self._a)

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        wait("cupy pickle")
        return array, (np.array(self._a),)

    def toDlpack(self):
        return Capsule(self)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        return Capsule(self)

    def __dlpack_device__(self):
        return (2, 0)

    @staticmethod
    def _index(key):
        """Convert an index; also say whether it has an array."""
        has_array, found = False, []
        for part in key if isinstance(key, tuple) else (key,):
            if part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer)):
                found.append(part)
                continue
            if isinstance(part, (ndarray, GpuTensor)):
                values = _operand(part)
            else:
                note("index copied to the GPU")
                values = np.asarray(part, dtype=None if len(part) else np.int32)
            if values.dtype.kind not in "biu":
                raise IndexError("arrays used as indices must be of integer or boolean type.")
            if values.dtype.kind == "b":
                wait("cupy mask")
            has_array = True
            found.append(values)
        return tuple(found), has_array

    def __getitem__(self, key):
        index, has_array = self._index(key)
        if has_array:
            return _new(self._a[index])
        return _view(self._a[(*index, Ellipsis)] if Ellipsis not in index else self._a[index])

    def __setitem__(self, key, value):
        index, _ = self._index(key)
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if not isinstance(value, (ndarray, GpuTensor, np.ndarray, *SCALARS)):
            raise TypeError(f"Unsupported type {type(value)}")
        self._a[index] = value if isinstance(value, np.ndarray) else _operand(value)

    def fill(self, value):
        self._a.fill(_operand(value))

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        return self if not copy and self.dtype == np.dtype(dtype) else _new(self._a.astype(dtype))

    def copy(self, order="C"):
        return _new(self._a.copy(order))

    def reshape(self, *shape, order="C"):
        return _view(self._a.reshape(*shape, order=order))

    def ravel(self, order="C"):
        return _view(self._a.ravel(order))

    def flatten(self, order="C"):
        return _new(self._a.flatten(order))

    def squeeze(self, axis=None):
        return _view(self._a.squeeze(axis))

    def transpose(self, *axes):
        return _view(self._a.transpose(*axes))

    def nonzero(self):
        wait("cupy nonzero")
        return tuple(map(_new, self._a.nonzero()))


def _method(name):
    def method(self, *args, **kwargs):
        args, kwargs = map(_operand, args), {key: _operand(value) for key, value in kwargs.items()}
        return _new(getattr(self._a, name)(*args, **kwargs))

    return method


def _binary(function, is_reversed=False):
    def method(self, other):
        a, b = self._a, _operand(other)
        with np.errstate(all="ignore"):
            return _new(function(b, a) if is_reversed else function(a, b))

    return method


def _in_place(function):
    def method(self, other):
        with np.errstate(all="ignore"):
            self._a = function(self._a, _operand(other))
        return self

    return method


def _unary(function):
    return lambda self: _new(function(self._a))


for _name in (
    "max",
    "min",
    "sum",
    "mean",
    "any",
    "all",
    "argmax",
    "cumsum",
    "clip",
    "dot",
    "take",
    "var",
    "std",
    "round",
    "repeat",
    "argsort",
):
    setattr(ndarray, _name, _method(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor"):
    _plain = _name.rstrip("_")
    setattr(ndarray, f"__{_plain}__", _binary(getattr(operator, _name)))
    setattr(ndarray, f"__r{_plain}__", _binary(getattr(operator, _name), is_reversed=True))
    setattr(ndarray, f"__i{_plain}__", _in_place(getattr(operator, f"i{_plain}")))
for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(getattr(operator, _name)))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _unary(getattr(operator, _name)))


# Making arrays


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, GpuTensor):
        obj = _from_torch(obj)
    if isinstance(obj, ndarray):
        is_same = dtype is None or np.dtype(dtype) == obj.dtype
        return (obj.copy() if copy else obj) if is_same else _new(obj._a.astype(dtype))
    if isinstance(obj, (list, tuple)) and obj and builtins.all(isinstance(x, ndarray) for x in obj):
        return _new(np.stack([x._a for x in obj]))
    values = np.array(obj, dtype=dtype, ndmin=ndmin)
    if values.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {values.dtype}")
    return _new(values)


def asarray(a, dtype=None, order=None, *, blocking=False):
    return array(a, dtype, copy=False)


def ascontiguousarray(a, dtype=None):
    return _new(np.ascontiguousarray(asarray(a, dtype)._a))


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def from_dlpack(x, *, device=None, copy=None):
    capsule = x if isinstance(x, Capsule) else x.__dlpack__(stream=1)
    owner = capsule.take()
    return owner if isinstance(owner, ndarray) else _from_torch(owner.detach())


fromDlpack = from_dlpack


def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    arrays = list(tup)
    if not arrays:
        raise ValueError("need at least one array to concatenate")
    if not builtins.all(isinstance(x, ndarray) for x in arrays):
        raise TypeError("Only cupy arrays can be concatenated")
    return _new(np.concatenate([x._a for x in arrays], axis=axis))


def split(ary, indices_or_sections, axis=0):
    return list(map(_view, np.split(_operand(ary), indices_or_sections, axis)))


def copyto(dst, src, casting="same_kind", where=None):
    np.copyto(dst._a, _operand(src))


def save(file, arr, allow_pickle=None):
    np.save(file, asnumpy(arr))


def load(file, mmap_mode=None, allow_pickle=None):
    return array(np.load(file))


def get_array_module(*args):
    return sys.modules[__name__] if builtins.any(isinstance(a, ndarray) for a in args) else np


def fill_diagonal(a, val, wrap=False):
    np.fill_diagonal(a._a, _operand(val))


def _function(name):
    def function(*args, out=None, **kwargs):
        args, kwargs = map(_operand, args), {key: _operand(value) for key, value in kwargs.items()}
        if out is not None:
            out._a[...] = getattr(np, name)(*args, **kwargs)
            return out
        with np.errstate(all="ignore"):
            return _new(getattr(np, name)(*args, **kwargs))

    function.__name__ = name
    return function


for _name in (
    "absolute",
    "all",
    "any",
    "arange",
    "dot",
    "empty",
    "empty_like",
    "exp",
    "full",
    "full_like",
    "hstack",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "log",
    "matmul",
    "max",
    "maximum",
    "mean",
    "minimum",
    "ones",
    "ones_like",
    "prod",
    "squeeze",
    "var",
    "sqrt",
    "square",
    "stack",
    "sum",
    "tanh",
    "tile",
    "vstack",
    "where",
    "zeros",
    "zeros_like",
):
    globals()[_name] = _function(_name)


def globals_or_none(name):
    """What CuPy has by this name, as NumPy looks for it."""
    found = globals().get(name)
    return found if callable(found) else None


# Submodules


def _module(name, **content):
    module = types.ModuleType(f"cupy.{name}")
    module.__dict__.update(content)
    sys.modules[f"cupy.{name}"] = module
    return module


class CUDARuntimeError(RuntimeError):
    pass


class Device:
    """One GPU, with the number 0."""

    def __init__(self, device=None):
        self.id = int(device or 0)

    def use(self):
        if self.id:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self):
        self.use()
        return self

    def __exit__(self, *args):
        pass

    def __int__(self):
        return self.id

    def synchronize(self):
        wait("cupy Device.synchronize")


class Stream:
    ptr = 0

    def __init__(self, *args, **kwargs):
        pass

    def synchronize(self):
        wait("cupy Stream.synchronize")


Stream.null = Stream()


class MemoryPool:
    def __init__(self, allocator=None):
        self.allocator = allocator

    def malloc(self, size):
        return self.allocator(size) if self.allocator else None

    def free_all_blocks(self, stream=None):
        pass


_pool = MemoryPool()


def get_default_memory_pool():
    return _pool


get_default_pinned_memory_pool = get_default_memory_pool


class UnownedMemory:
    def __init__(self, ptr, size, owner, device_id=-1):
        # CuPy asks CUDA which device the pointer is of; memory of the CPU is of none
        if not isinstance(owner, GpuTensor):
            raise CUDARuntimeError("CuPy was given memory of the CPU for an array")


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem = mem


def set_allocator(function=None):
    global _allocator
    _allocator = function


memory = _module("cuda.memory", UnownedMemory=UnownedMemory, MemoryPointer=MemoryPointer, MemoryPool=MemoryPool)
device = _module("cuda.device", Device=Device)
stream = _module("cuda.stream", Stream=Stream, get_current_stream=lambda: Stream.null)
runtime = _module("cuda.runtime", getDeviceCount=lambda: 1, getDevice=lambda: 0, CUDARuntimeError=CUDARuntimeError)
cuda = _module(
    "cuda",
    Device=Device,
    MemoryPool=MemoryPool,
    Stream=Stream,
    device=device,
    get_current_stream=lambda: Stream.null,
    is_available=lambda: True,
    memory=memory,
    runtime=runtime,
    set_allocator=set_allocator,
    stream=stream,
)
cublas = _module("cublas", nrm2=lambda x: _new(np.asarray(np.linalg.norm(x._a), dtype=x.dtype)))
linalg = _module("linalg", norm=lambda x: _new(np.asarray(np.linalg.norm(_operand(x)))))
_generator = np.random.RandomState(0)


def _seed(seed=None):
    _generator.seed(None if seed is None else int(seed) % 2**32)


def _draw(name):
    def draw(*args, dtype=None, **kwargs):
        return _new(getattr(_generator, name)(*args, **kwargs))

    return draw


random = _module("random", seed=_seed, uniform=_draw("uniform"), normal=_draw("normal"))


# Kernels: Thinc's are computed by its operations for NumPy (see `load`), but for this one


class ElementwiseKernel:
    def __init__(self, inputs, outputs, code, name):
        assert name == "adam"

    def __call__(self, grad, lr, b1, b2, eps, param, m, v):
        assert all(isinstance(x, ndarray) for x in (grad, param, m, v))
        m._a += b1 * (grad._a - m._a)
        v._a += b2 * (grad._a**2 - v._a)
        param._a -= (_operand(lr) * m._a / (np.sqrt(v._a) + eps)).astype(param.dtype)


class RawModule:
    def __init__(self, **settings):
        pass


class ReductionKernel:
    def __init__(self, *settings):
        pass
