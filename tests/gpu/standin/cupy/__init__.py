"""A strict stand-in for CuPy: arrays keep their values in NumPy, and refuse what CuPy refuses (semantics of CuPy 13 to 15)."""
import os, operator, pathlib, sys, types, functools
import numpy
import numpy as np
import fakecuda
from fakecuda import sync, note, GpuTensor, Capsule

__version__ = "13.6.0"
NAMES = set((pathlib.Path(__file__).parent / "names.txt").read_text().split())
SCALARS = (int, float, complex, bool, np.generic)
_ALLOCATOR = [None]

def _alloc(nbytes):
    if _ALLOCATOR[0] is not None: _ALLOCATOR[0](nbytes)

def _wrap(x):
    """Give NumPy's result as an array on the GPU."""
    if isinstance(x, np.ndarray):
        r = object.__new__(ndarray); r._a = x; _alloc(x.nbytes); return r
    if isinstance(x, np.generic): return _wrap(np.asarray(x))
    if isinstance(x, tuple): return type(x)(*map(_wrap, x)) if hasattr(x, "_fields") else tuple(map(_wrap, x))
    if isinstance(x, list): return [_wrap(y) for y in x]
    return x

def _view(x):
    r = object.__new__(ndarray); r._a = x; return r

def _arg(x, what="function"):
    """Take an argument of a kernel: arrays on the GPU and numbers."""
    if isinstance(x, ndarray): return x._a
    if isinstance(x, GpuTensor): return _from_torch(x)._a
    if isinstance(x, np.ndarray): raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, (list, tuple)) and any(isinstance(y, np.ndarray) for y in x):
        raise TypeError("Only cupy arrays can be concatenated")
    if isinstance(x, (list, tuple)): return type(x)(_arg(y) for y in x)
    if type(x).__module__.startswith("torch") and hasattr(x, "dim"): raise TypeError(f"Unsupported type {type(x)}")
    return x

def _from_torch(t):
    if t.requires_grad: raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")
    if "bfloat16" in str(t.dtype): raise TypeError("bfloat16")
    return _view(t.elem.detach().numpy())

class _Flags:
    def __init__(self, a): self._f = a.flags
    def __getitem__(self, k): return self._f[k]
    c_contiguous = property(lambda s: s._f.c_contiguous)
    f_contiguous = property(lambda s: s._f.f_contiguous)
    owndata = property(lambda s: s._f.owndata)

REAL_UFUNCS = {"abs": "absolute"}

class ndarray:
    __array_priority__ = 100
    __hash__ = None
    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        self._a = np.empty(shape, dtype=dtype, order=order); _alloc(self._a.nbytes)

    # what NumPy asks for
    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly.")
    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if "out" in kwargs:
            out = kwargs["out"]
            if len(out) != 1: raise ValueError("The 'out' parameter must have exactly one array value")
            kwargs["out"] = out[0]
        name = ufunc.__name__
        if name not in NAMES: return NotImplemented
        for x in (*inputs, *([kwargs["out"]] if "out" in kwargs else [])):
            if not isinstance(x, (*SCALARS, ndarray, np.ndarray, GpuTensor)): return NotImplemented
        f = globals_get(name)
        if method != "__call__": f = getattr(f, method)
        return f(*inputs, **kwargs)
    def __array_function__(self, func, types, args, kwargs):
        module = (func.__module__ or "").split(".")[1:]
        try:
            f = functools.reduce(getattr, module, sys.modules[__name__])
            f = getattr(f, func.__name__)
        except AttributeError:
            return NotImplemented
        if f is func: return NotImplemented
        for t in types:
            if not issubclass(t, (ndarray, np.ndarray)): return NotImplemented
        return f(*args, **kwargs)

    # the array
    shape = property(lambda s: s._a.shape, lambda s, v: setattr(s._a, "shape", v))
    dtype = property(lambda s: s._a.dtype)
    ndim = property(lambda s: s._a.ndim)
    size = property(lambda s: s._a.size)
    nbytes = property(lambda s: s._a.nbytes)
    itemsize = property(lambda s: s._a.itemsize)
    strides = property(lambda s: s._a.strides)
    flags = property(lambda s: _Flags(s._a))
    T = property(lambda s: _view(s._a.T))
    base = property(lambda s: None)
    device = property(lambda s: cuda.Device(0))
    data = property(lambda s: types.SimpleNamespace(ptr=s._a.ctypes.data, device_id=0))
    @property
    def __cuda_array_interface__(self):
        i = dict(self._a.__array_interface__); i["version"] = 3; return i
    def __len__(self):
        if not self._a.ndim: raise TypeError("len() of unsized object")
        return len(self._a)
    def __iter__(self):
        if not self._a.ndim: raise TypeError("iteration over a 0-d array")
        note("iteration over a cupy array")
        return (self[i] for i in range(len(self._a)))
    def get(self, stream=None, order="C", out=None, blocking=True):
        sync("cupy .get()")
        if out is not None: out[...] = self._a; return out
        return np.array(self._a, order=order)
    def set(self, a, stream=None):
        if not isinstance(a, np.ndarray): raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if a.dtype != self.dtype: raise TypeError(f"{a.dtype} array cannot be set to {self.dtype} array")
        self._a[...] = a
    def item(self): sync("cupy .item()"); return self._a.item()
    def tolist(self): sync("cupy .tolist()"); return self._a.tolist()
    def tobytes(self, order="C"): sync("cupy .tobytes()"); return self._a.tobytes(order)
    def __float__(self): sync("cupy float()"); return float(self._one())
    def __int__(self): sync("cupy int()"); return int(self._one())
    def _one(self):
        if self._a.size != 1: raise TypeError("only length-1 arrays can be converted to Python scalars")
        return self._a.reshape(())[()]
    def __index__(self): sync("cupy index()"); return operator.index(np.array(self._a))
    def __bool__(self):
        sync("cupy bool()")
        if self._a.size == 0: return False
        if self._a.size > 1: raise ValueError("The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()")
        return bool(self._a.reshape(())[()])
    def __repr__(self): return "cupy" + repr(self._a)
    def __str__(self): return str(self._a)
    def __format__(self, f): sync("cupy format"); return format(self._a, f)
    def __copy__(self): return self.copy()
    def __deepcopy__(self, memo): return self.copy()
    def __reduce__(self): sync("cupy pickle"); return array, (np.array(self._a),)
    def toDlpack(self): return Capsule(self)
    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None): return Capsule(self)
    def __dlpack_device__(self): return (2, 0)

    @staticmethod
    def _index(slices):
        """Convert an index; say whether there is an array in it."""
        has, masks = False, False
        items = slices if isinstance(slices, tuple) else (slices,)
        out = []
        for s in items:
            if s is None or s is Ellipsis or isinstance(s, slice): out.append(s); continue
            if isinstance(s, ndarray): s = s._a
            elif isinstance(s, (list, tuple)):
                if any(isinstance(x, ndarray) for x in s): s = np.array([int(x) for x in s])
                s = np.asarray(s)
                if s.size == 0: s = s.astype(np.int32)
            elif np.isscalar(s) and not isinstance(s, (bool, np.bool_)): out.append(s); continue
            elif isinstance(s, GpuTensor): s = _from_torch(s)._a
            else: note("NumPy index array into cupy"); s = np.asarray(s)
            if s.dtype.kind not in "biu": raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {s.dtype.type})")
            if s.dtype.kind == "b": masks = True
            has = True; out.append(s)
        return tuple(out), has, masks
    def __getitem__(self, slices):
        index, has, masks = self._index(slices)
        if masks: sync("cupy mask []")
        r = self._a[index]
        if has: return _wrap(np.asarray(r))
        if not isinstance(r, np.ndarray):  # of numbers alone: a view of no dimension
            r = self._a[(*index, Ellipsis)]
        return _view(r)
    def __setitem__(self, slices, value):
        if type(slices) is slice and slices == slice(None) and isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill (CUPY_EXPERIMENTAL_SLICE_COPY is not set)")
        index, has, masks = self._index(slices)
        if masks: sync("cupy mask []=")
        if isinstance(value, ndarray): v = value._a
        elif isinstance(value, GpuTensor): v = _from_torch(value)._a
        elif has: v = np.asarray(value, dtype=self.dtype)
        elif isinstance(value, np.ndarray):
            if value.shape: raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            v = value.item()
        elif isinstance(value, SCALARS): v = value
        else: raise TypeError(f"Unsupported type {type(value)}")
        arrays = [i for i in index if isinstance(i, np.ndarray) and i.dtype.kind != "b"]
        if arrays and np.ndim(v):
            flat = np.stack([x.ravel() for x in np.broadcast_arrays(*arrays)], 1)
            if len(np.unique(flat, axis=0)) < len(flat): note("cupy: the same place is set twice: which value stays is undefined")
        self._a[index] = v
    def fill(self, value):
        if isinstance(value, (np.ndarray,)) and value.shape: raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._a.fill(_arg(value))
    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self._a.dtype == np.dtype(dtype): return self
        return _wrap(self._a.astype(dtype, order=order))
    def copy(self, order="C"): return _wrap(self._a.copy(order))
    def view(self, dtype=None): return _view(self._a.view(dtype) if dtype is not None else self._a.view())
    def reshape(self, *shape, order="C"): return _view(self._a.reshape(*shape, order=order))
    def ravel(self, order="C"): return _view(self._a.ravel(order))
    def flatten(self, order="C"): return _wrap(self._a.flatten(order))
    def transpose(self, *axes): return _view(self._a.transpose(*axes))
    def swapaxes(self, a, b): return _view(self._a.swapaxes(a, b))
    def squeeze(self, axis=None): return _view(self._a.squeeze(axis))
    def nonzero(self): sync("cupy nonzero"); return _wrap(self._a.nonzero())
    def dot(self, b, out=None): return globals_get("dot")(self, b, out)

def _method(name):
    def f(self, *args, **kwargs):
        args = [_arg(a) for a in args]; kwargs = {k: _arg(v) for k, v in kwargs.items()}
        r = getattr(self._a, name)(*args, **kwargs)
        return _wrap(np.asarray(r)) if r is not None else None
    return f
for n in ("max min sum mean prod any all argmax argmin argsort cumsum cumprod clip take repeat std var round diagonal trace sort").split():
    setattr(ndarray, n, _method(n))

def _binary(op, reverse=False):
    def f(self, other):
        if not isinstance(other, (ndarray, GpuTensor, *SCALARS)):
            # CuPy hands it to its ufunc, which has no place for it
            if isinstance(other, np.ndarray): raise TypeError(f"Unsupported type {type(other)}")
            if hasattr(other, "__array_ufunc__"): return NotImplemented
            if isinstance(other, (list, tuple)) or other is None: raise TypeError(f"Unsupported type {type(other)}")
            return NotImplemented
        a, b = self._a, _arg(other)
        with np.errstate(all="ignore"):
            return _wrap(np.asarray(op(b, a) if reverse else op(a, b)))
    return f
def _inplace(op):
    def f(self, other):
        if not isinstance(other, (ndarray, GpuTensor, *SCALARS)): raise TypeError(f"Unsupported type {type(other)}")
        with np.errstate(all="ignore"):
            self._a = op(self._a, _arg(other))
        return self
    return f
for n in "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift".split():
    op = getattr(operator, n); m = n.rstrip("_")
    setattr(ndarray, f"__{m}__", _binary(op)); setattr(ndarray, f"__r{m}__", _binary(op, True))
    setattr(ndarray, f"__i{m}__", _inplace(getattr(operator, "i" + m)))
for n in "lt le eq ne gt ge".split(): setattr(ndarray, f"__{n}__", _binary(getattr(operator, n)))
for n in "neg pos abs invert".split():
    op = getattr(operator, n)
    setattr(ndarray, f"__{n}__", (lambda op: lambda self: _wrap(np.asarray(op(self._a))))(op))

# making arrays
def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        if dtype is None or np.dtype(dtype) == obj.dtype:
            return obj.copy() if copy else obj
        return _wrap(obj._a.astype(dtype))
    if isinstance(obj, GpuTensor):
        x = _from_torch(obj)
        return array(x, dtype, copy)
    if type(obj).__module__ == "torch" and hasattr(obj, "detach"):
        a = np.asarray(obj)  # CuPy asks NumPy
    elif isinstance(obj, (list, tuple)):
        kinds = {type(x) for x in obj}
        if kinds and all(issubclass(k, ndarray) for k in kinds): a = np.stack([x._a for x in obj])
        elif any(issubclass(k, ndarray) for k in kinds):
            a = np.array([x.item() if isinstance(x, ndarray) else x for x in obj])
        else: a = np.array(obj)
    else: a = np.asarray(obj)
    a = np.array(a, dtype=dtype, ndmin=ndmin)
    if a.dtype.kind not in "biufc": raise ValueError(f"Unsupported dtype {a.dtype}")
    note("copy from NumPy to cupy")
    return _wrap(a)
def asarray(a, dtype=None, order=None, *, blocking=False): return array(a, dtype, copy=False)
asanyarray = asarray
def ascontiguousarray(a, dtype=None): return _wrap(np.ascontiguousarray(asarray(a, dtype)._a))
def asnumpy(a, stream=None, order="C", out=None, *, blocking=True): return a.get() if isinstance(a, ndarray) else np.asarray(a)
def from_dlpack(x, *, device=None, copy=None):
    if hasattr(x, "__dlpack_device__"): x = x.__dlpack__(stream=1)
    if not isinstance(x, Capsule): raise ValueError("no capsule")
    owner = x.take()
    return owner if isinstance(owner, ndarray) else _from_torch(owner.detach())
fromDlpack = from_dlpack
def _making(name):
    f = getattr(np, name)
    def make(*args, **kwargs):
        args = [_arg(a) for a in args]; kwargs = {k: _arg(v) for k, v in kwargs.items()}
        return _wrap(np.asarray(f(*args, **kwargs)))
    return make
for n in "zeros ones empty full arange linspace eye identity zeros_like ones_like empty_like full_like".split(): globals()[n] = _making(n)

SYNCING = {"nonzero", "flatnonzero", "argwhere", "unique", "array_equal", "allclose", "extract", "isin", "in1d"}
class _Function:
    def __init__(self, name): self.name, self.f = name, getattr(np, name); self.__name__ = name
    def __call__(self, *args, **kwargs):
        if self.name in SYNCING or (self.name == "where" and len(args) == 1): sync(f"cupy.{self.name}")
        if self.name == "split" and len(args) > 1 and isinstance(args[1], ndarray): raise TypeError("indices_or_sections must be on the CPU")
        if self.name == "split": a = [_arg(args[0]), *args[1:]]
        else: a = [_arg(x) for x in args]
        k = {key: _arg(v) for key, v in kwargs.items()}
        out = kwargs.get("out")
        with np.errstate(all="ignore"):
            r = self.f(*a, **k)
        if out is not None: return out
        if r is None: return None
        if self.name in ("get_printoptions", "result_type", "can_cast", "shape", "ndim", "size"): return r
        if isinstance(r, (list, tuple)): return _wrap(r)
        return _wrap(np.asarray(r))
    def __getattr__(self, name):
        m = getattr(self.f, name)
        if name == "at":
            def at(a, i, v=None):
                index = ndarray._index(i)[0]
                m(_arg(a), index if len(index) > 1 else index[0], _arg(v))
            return at
        return lambda *args, **k: _wrap(np.asarray(m(*[_arg(x) for x in args], **{q: _arg(v) for q, v in k.items()})))
_CACHE = {}
def globals_get(name):
    return globals()[name] if name in globals() else __getattr__(name)
def __getattr__(name):
    if os.environ.get("NAMES_OUT"):
        with open(os.environ["NAMES_OUT"],"a") as f: f.write(name+"\n")
    if name in _CACHE: return _CACHE[name]
    if name.startswith("_") or name not in NAMES or not hasattr(np, name):
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    x = getattr(np, name)
    if isinstance(x, type) or not callable(x): r = x  # dtypes and constants
    else: r = _Function(name)
    _CACHE[name] = r
    return r
inf, nan, pi, e, newaxis = np.inf, np.nan, np.pi, np.e, None
def get_array_module(*args):
    return sys.modules[__name__] if any(isinstance(a, ndarray) for a in args) else np
def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    tup = list(tup)
    if not tup: raise ValueError("need at least one array to concatenate")
    for x in tup:
        if not isinstance(x, ndarray): raise TypeError("Only cupy arrays can be concatenated")
    return _wrap(np.concatenate([x._a for x in tup], axis=axis))
def copyto(dst, src, casting="same_kind", where=None):
    if isinstance(src, np.ndarray) and src.shape: raise TypeError(f"Unsupported type {type(src)}")
    np.copyto(dst._a, _arg(src))
def save(file, arr, allow_pickle=None): np.save(file, asnumpy(arr), True if allow_pickle is None else allow_pickle)
def load(file, mmap_mode=None, allow_pickle=None): return array(np.load(file))
def may_share_memory(a, b): return np.may_share_memory(a._a, b._a)

# submodules
def _module(name, **content):
    m = types.ModuleType(f"cupy.{name}"); m.__dict__.update(content)
    sys.modules[f"cupy.{name}"] = m
    return m
class CUDARuntimeError(RuntimeError): pass
class Device:
    def __init__(self, device=None): self.id = int(device or 0)
    def use(self): pass
    def __enter__(self): return self
    def __exit__(self, *a): pass
    def __int__(self): return self.id
    def synchronize(self): sync("cupy Device.synchronize")
    compute_capability = "80"
class Stream:
    ptr = 0
    def __init__(self, *a, **k): pass
    def __enter__(self): return self
    def __exit__(self, *a): pass
    def synchronize(self): sync("cupy Stream.synchronize")
Stream.null = Stream()
class MemoryPool:
    def __init__(self, allocator=None): self.allocator = allocator
    def malloc(self, size): return self.allocator(size) if self.allocator else None
    def free_all_blocks(self, *a): pass
    def used_bytes(self): return 0
class UnownedMemory:
    def __init__(self, ptr, size, owner, device_id=-1):
        # CuPy asks CUDA which device the pointer is of: one to the CPU's memory has none
        if not isinstance(owner, GpuTensor):
            raise CUDARuntimeError("fake: CuPy was given memory of the CPU for an array (device of the pointer is -1)")
class MemoryPointer:
    def __init__(self, mem, offset): self.mem = mem
_POOL = MemoryPool()
def get_default_memory_pool(): return _POOL
def get_default_pinned_memory_pool(): return _POOL
def set_allocator(f=None): _ALLOCATOR[0] = f
device = _module("cuda.device", Device=Device)
runtime = _module("cuda.runtime", getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError, getDevice=lambda: 0, setDevice=lambda i: None, is_hip=False)
stream = _module("cuda.stream", Stream=Stream, get_current_stream=lambda: Stream.null)
memory = _module("cuda.memory", UnownedMemory=UnownedMemory, MemoryPointer=MemoryPointer, MemoryPool=MemoryPool)
nvtx = _module("cuda.nvtx", RangePush=lambda *a: None, RangePop=lambda: None)
cuda = _module("cuda", device=device, Device=Device, runtime=runtime, stream=stream, Stream=Stream, memory=memory, MemoryPool=MemoryPool,
    MemoryPointer=MemoryPointer, UnownedMemory=UnownedMemory, set_allocator=set_allocator, nvtx=nvtx, is_available=lambda: True, get_current_stream=lambda: Stream.null)
cuda.__path__ = []
cublas = _module("cublas", nrm2=lambda x: _wrap(np.asarray(np.linalg.norm(x._a), dtype=x.dtype)))
class _Linalg(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("_"): raise AttributeError(name)
        f = getattr(np.linalg, name)
        return lambda *a, **k: _wrap(np.asarray(f(*[_arg(x) for x in a], **k)))
linalg = _Linalg("cupy.linalg"); sys.modules["cupy.linalg"] = linalg
class _Random(types.ModuleType):
    state = np.random.RandomState(0)
    def seed(self, seed=None): type(self).state = np.random.RandomState(None if seed is None else int(seed) % 2**32)
    def __getattr__(self, name):
        if name.startswith("_"): raise AttributeError(name)
        f = getattr(type(self).state, name)
        return lambda *a, **k: _wrap(np.asarray(f(*[_arg(x) for x in a], **{q: v for q, v in k.items() if q != "dtype"})))
random = _Random("cupy.random"); sys.modules["cupy.random"] = random

class RawModule:
    def __init__(self, **k): pass
    def get_function(self, name): raise NotImplementedError(f"fake: kernel {name}")
class RawKernel:
    def __init__(self, *a, **k): pass
    def __call__(self, *a): raise NotImplementedError("fake: RawKernel")
class ElementwiseKernel:
    def __init__(self, i, o, code, name): self.name = name
    def __call__(self, *args):
        if self.name != "adam": raise NotImplementedError(self.name)
        grad, lr, b1, b2, eps, param, m, v = args
        for x in (grad, param, m, v):
            if not isinstance(x, ndarray): raise TypeError(f"Unsupported type {type(x)}")
        lr = float(_arg(lr)) if not isinstance(lr, SCALARS) else lr
        g = grad._a
        m._a += b1 * (g - m._a); v._a += b2 * (g * g - v._a)
        param._a -= (lr * m._a / (np.sqrt(v._a) + eps)).astype(param.dtype)
class ReductionKernel:
    def __init__(self, *a, **k): pass
    def __call__(self, *a, **k): raise NotImplementedError("fake: ReductionKernel")
def fuse(*a, **k):
    return a[0] if a and callable(a[0]) else (lambda f: f)
