"""Puts the stand-in for a GPU in place, for tests: `load()` before torch, Thinc and spaCy are imported.

As a program it runs a module or script on it: `python tests/gpu/standin/load.py -m spacy train CONFIG --gpu-id 0`. With
STANDIN_REPORT=FILE it writes there at the end what waited for the GPU.
"""

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def load() -> None:
    """Let CuPy and torch's CUDA be those of this folder."""
    assert "torch" not in sys.modules, "torch asks only once whether there is CUDA"
    os.environ["STANDIN_GUARD"] = str(build_guard())
    sys.path.insert(0, str(HERE))
    import faketorch

    faketorch.install()
    replace_kernels()


def build_guard() -> Path:
    """Compile guard.cpp, once for each version of torch and Python; return the library."""
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    torch = Path(spec.origin).parent
    version = (torch / "version.py").read_text().split("__version__ = ")[1].split("'")[1]
    folder = Path(tempfile.gettempdir()) / f"spacy-bertner-standin-{os.getuid()}"
    library = folder / f"guard-{version}-{sys.implementation.cache_tag}.so"
    if not library.exists():
        folder.mkdir(exist_ok=True)
        part = library.with_suffix(f".{os.getpid()}")
        command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++20", str(HERE / "guard.cpp"), "-o", str(part)]
        command += [f"-I{torch}/include", f"-I{torch}/include/torch/csrc/api/include"]
        command += [f"-L{torch}/lib", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch}/lib"]
        subprocess.run(command, check=True)
        part.replace(library)
    return library


def replace_kernels() -> None:
    """Let Thinc's operations for NumPy compute what its own CUDA kernels do."""
    import cupy
    import numpy as np
    from thinc.api import NumpyOps
    from thinc.backends import _custom_kernels

    ops = NumpyOps()

    def to_numpy(x: Any) -> Any:
        assert not isinstance(x, np.ndarray), "a CUDA kernel was given an array of NumPy's"
        return np.ascontiguousarray(x._a) if isinstance(x, cupy.ndarray) else x

    def replacement(name: str) -> Any:
        def kernel(*args: Any, **kwargs: Any) -> Any:
            kwargs = {k: to_numpy(v) for k, v in kwargs.items() if k not in ("threads_per_block", "num_blocks")}
            found = getattr(ops, name)(*map(to_numpy, args), **kwargs)
            return tuple(map(cupy._new, found)) if isinstance(found, tuple) else cupy._new(found)

        return kernel

    kernels = (
        "maxout backprop_maxout seq2col backprop_seq2col hash gather_add reduce_sum reduce_mean backprop_reduce_mean"
    )
    for name in kernels.split():
        setattr(_custom_kernels, name, replacement(name))


def main(arguments: list[str]) -> None:
    """Run a module (`-m NAME …`) or a script on the stand-in."""
    load()
    if file := os.environ.get("STANDIN_REPORT"):
        import faketorch

        atexit.register(lambda: Path(file).write_text(faketorch.report()))
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(1, str(Path.cwd()))
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(1, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
