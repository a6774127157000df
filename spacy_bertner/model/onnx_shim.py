"""Prediction with ONNX Runtime instead of torch: faster on a CPU, and without torch and transformers installed.

The files of the model are written by `export.onnx`.
"""

import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import srsly
from numpy.typing import NDArray
from thinc.api import Shim
from thinc.types import Floats2d
from tokenizers import Tokenizer

from ..files import CheckpointError, atomic_write, pack_files, unpacked_files
from .encoding import Batch, PieceEncoder

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "onnx.json"
TRAINING = (
    'runtime: "onnx" is for prediction only. Train with "torch", then convert the trained pipeline with '
    "python -m spacy bertner onnx"
)


class OnnxShim(Shim):
    """Wraps an ONNX model for a Thinc model, as `torch_shim.EncoderShim` wraps a torch module; it cannot be trained.

    The inputs of the ONNX model are the fields of `encoding.Batch`, by name (without `rows`, and without `orthography` if
    there is no such embedding); its output is the scores, (n_rows, n_tags), float32.
    """

    kind = "onnx"
    checkpoint_tags = None
    most_pieces = None

    def __init__(self) -> None:
        super().__init__(None)
        self.pieces: PieceEncoder | None = None  # made by the model when it is needed
        self.backend_tokenizer: Any = None
        self._settings: dict[str, Any] = {}
        # The file is mapped, not read, so that the weights are in memory once, and stay available if the file is replaced
        self._content: Any = b""
        self._session: Any = None
        _shims.add(self)

    @property
    def is_loaded(self) -> bool:
        """Whether a model is loaded."""
        return bool(self._settings)

    @property
    def n_tags(self) -> int:
        """The number of columns of the scores."""
        return self._settings["n_tags"]

    @property
    def max_positions(self) -> int | None:
        """The number of pieces that the encoder has positions for; None if there is no limit."""
        return self._settings["max_positions"]

    @property
    def orthography_version(self) -> int:
        """The definition of the orthographic classes that the model was trained with."""
        return self._settings.get("orthography", 1)

    @property
    def pad_id(self) -> int:
        """The piece to pad with."""
        return self._settings["pad_id"]

    @property
    def transitions(self) -> NDArray[np.float32] | None:
        """The scores of transitions, (n_tags + 1, n_tags + 1); None if the model was trained without."""
        found = self._settings.get("transitions")
        return None if found is None else np.array(found, dtype=np.float32)

    def add_transitions(self) -> None:
        """Nothing is trained."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: not the session, nor the cache of pieces."""
        return {**self.__dict__, "_session": None, "_content": bytes(self._content), "pieces": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _shims.add(self)

    def predict(self, batches: Iterable[Batch], n_tokens: int) -> Floats2d:  # type: ignore[override]
        """Score the tags of all tokens, (n_tokens, n_tags), float32; rows that are in no batch are -inf."""
        if self._session is None:
            self._session = new_session(bytes(self._content))
        session = self._session
        names = [item.name for item in session.get_inputs()]
        Y = np.full((n_tokens, self.n_tags), -np.inf, dtype=np.float32)
        for batch in batches:
            (Y[batch.rows],) = session.run(None, {name: getattr(batch, name) for name in names})
        return cast(Floats2d, Y)

    predict_numpy = predict

    # Training

    def load_checkpoint(self, name: str, orthography: bool | None, revision: str | None = None) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(TRAINING)

    def begin_update(self, *inputs: Any, **settings: Any) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(TRAINING)

    add_transition_gradient = begin_update

    def add_labelled(self, n: int) -> None:
        """Nothing is trained."""

    def finish_update(self, optimizer: Any) -> None:
        """Nothing is trained."""

    def resize(self, n_tags: int) -> None:
        """Raise ValueError for another number of tags."""
        if n_tags != self.n_tags:
            raise ValueError(TRAINING)

    # Loading and saving

    def set_model(self, model: bytes | np.memmap, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
        """Use an ONNX model.

        settings: `n_tags`, `pad_id`, `max_positions` and `orthography` (the version); `transitions`, if the model has any.
        """
        self._content, self.backend_tokenizer, self._settings = model, tokenizer, settings
        self.pieces = self._session = None

    def to_disk(self, path: str | Path) -> None:
        """Save into a folder: `model.onnx`, `tokenizer.json` and `onnx.json`."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        if not self.is_loaded:  # a pipeline may be saved before it is initialized; the folder stays empty
            return
        # It may be the file that is mapped
        with atomic_write(path / MODEL_FILE) as file:
            file.write(self._content)
        self.backend_tokenizer.save(str(path / TOKENIZER_FILE))
        srsly.write_json(path / SETTINGS_FILE, self._settings)

    def from_disk(self, path: str | Path) -> "OnnxShim":
        """Load a folder that `to_disk` wrote; raises CheckpointError if it is incomplete or damaged."""
        path = Path(path)
        if path.is_dir() and not any(path.iterdir()):
            return self
        if not (path / MODEL_FILE).exists():
            raise CheckpointError(
                f'runtime: "onnx" needs {path / MODEL_FILE}, which is not there: convert the trained pipeline with '
                "python -m spacy bertner onnx"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path / TOKENIZER_FILE))
            settings = srsly.read_json(path / SETTINGS_FILE)
        except Exception as err:  # `tokenizers` raises no narrower one
            raise CheckpointError(f"{path}: not a whole ONNX model ({err})") from err
        session = new_session(str(path / MODEL_FILE))
        self.set_model(np.memmap(path / MODEL_FILE, mode="r"), tokenizer, settings)
        self._session = session
        return self

    def to_bytes(self) -> bytes:
        """Return the files that `to_disk` writes, as one msgpack map from name to content."""
        return pack_files(self.to_disk)

    def from_bytes(self, data: bytes) -> "OnnxShim":
        """Load what `to_bytes` returned."""
        with unpacked_files(data) as folder:
            self.from_disk(folder)
            self._content = bytes(self._content)  # the file is deleted with the folder
            return self

    def to_device(self, device_type: str, device_id: int) -> None:
        """Stay on the CPU."""


def new_session(model: str | bytes) -> Any:
    """Open an ONNX model, a path or its content, for prediction on the CPU.

    The number of threads is OMP_NUM_THREADS, by default that of the cores. Raises ImportError if ONNX Runtime is not
    installed, CheckpointError if the model cannot be read.
    """
    try:
        import onnxruntime
    except ImportError as err:
        raise ImportError('runtime: "onnx" needs ONNX Runtime: pip install "spacy-bertner[onnx]"') from err
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = 1 if _is_forked else int(threads) if threads.isdigit() else 0
    # Threads that wait actively take the core from another program, or from torch in this one: 1.5 times as fast if one is
    # busy, and hardly slower if none is (bench/results/runtimes.txt)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # it has a class of its own for each kind of fault
        name = model if isinstance(model, str) else MODEL_FILE
        raise CheckpointError(f"{name}: cannot be read as an ONNX model ({err})") from err


# A forked process would wait for the session's threads, which it does not have; `nlp.pipe(n_process=…)` forks
_shims: "weakref.WeakSet[OnnxShim]" = weakref.WeakSet()
_is_forked = False


def _start_afresh() -> None:
    global _is_forked
    _is_forked = True
    for shim in _shims:
        shim._session = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
