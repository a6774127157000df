"""Puts the stand-in for a GPU in place; call `load` before torch, thinc and spaCy are imported."""

import ctypes
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent


def load() -> None:
    """Build what torch's autograd needs, and let CuPy and torch's CUDA be those of this folder."""
    assert "torch" not in sys.modules, "torch asks only once whether there is CUDA"
    os.environ["STANDIN_GUARD"] = str(build_guard())
    sys.path.insert(0, str(HERE))
    import fakegpu  # noqa: F401


def build_guard() -> Path:
    """Compile guard.cpp, once for each version of torch and Python."""
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
