"""Trained pipelines for ONNX Runtime: converted from torch to ONNX, in float32 or with 8-bit weights."""

import contextlib
import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from spacy import registry
from spacy.language import Language

from ..model.checkpoint import quiet_transformers
from ..model.lora import merged
from ..model.onnx_shim import MODEL_FILE
from ..model.orthography import N_ORTHOGRAPHY
from ..model.torch_module import TokenClassifier
from .components import find_components, shim_of

OPSET = 18
MAX_BYTES = 2**31  # of an ONNX file, which is a protocol buffer


def to_onnx(nlp: Language, *, int8: bool = False) -> None:
    """Let every `bert_ner` of a trained pipeline predict with ONNX Runtime from now on.

    The pipeline is changed in place; `nlp.to_disk` saves all of it. It cannot be trained further.

    int8: whether weights are rounded to 8 bits, with a scale per output, and activations when predicting, with a scale per
        matrix: faster, but not exact. Measure the effect on the scores with `spacy evaluate`.
    Raises ValueError if there is no such component, or one without weights or with more than an ONNX file can hold;
    ImportError without the extra `onnx`.
    """
    for name, component in find_components(nlp).items():
        shim = shim_of(name, component)
        content = export(shim.module, int8=int8)
        config = nlp.get_pipe_config(name)["model"]
        config.update(runtime="onnx", lora=None)  # the adapters are merged
        model = registry.resolve({"model": config})["model"]
        settings = {
            "n_tags": shim.n_tags,
            "pad_id": shim.pad_id,
            "max_positions": shim.max_positions,
            "orthography": shim.orthography_version,
        }
        if shim.transitions is not None:
            settings["transitions"] = shim.transitions.tolist()
        model.shims[0].set_model(content, shim.backend_tokenizer, settings)
        component.model = model.loaded()


def export(module: TokenClassifier, *, int8: bool = False) -> bytes:
    """Return a module as an ONNX model (see `OnnxShim` for its inputs and output).

    Raises ValueError for more weights than an ONNX file can hold; ImportError without the extra `onnx`.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as err:
        raise ImportError('Converting to ONNX needs more packages: pip install "spacy-bertner[onnx]"') from err
    size = 4 * sum(parameter.numel() for parameter in module.parameters())
    if size >= MAX_BYTES:
        raise ValueError(
            f'runtime: the weights take {size / 2**30:.1f} GiB in float32, an ONNX file holds 2 GiB at most; use "torch"'
        )
    module = copy.deepcopy(merged(module)).float().cpu().eval()
    # Two windows of different lengths, so that no dimension is taken to be fixed
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    orthography = torch.arange(14).reshape(2, 7) % N_ORTHOGRAPHY * mask
    inputs = {"input_ids": mask.clone(), "attention_mask": mask, "orthography": orthography}
    inputs["first"] = torch.tensor([1, 2, 4, 8, 10])
    shapes = tuple(dict.fromkeys(range(value.dim()), torch.export.Dim.AUTO) for value in inputs.values())
    with tempfile.TemporaryDirectory() as folder, quiet_transformers(), quiet_exporter():
        path = Path(folder) / MODEL_FILE
        try:
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=["scores"],
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                verbose=False,
            )
        except ImportError as err:  # the exporter imports a part of onnxscript that older versions lack
            raise ImportError(
                f"torch {torch.__version__} needs a newer onnxscript than {version('onnxscript')} to convert to ONNX: "
                f"pip install --upgrade onnxscript ({err})"
            ) from err
        program.save(path)
        return (round_to_int8(path) if int8 else path).read_bytes()


def round_to_int8(path: Path) -> Path:
    """Write a copy of the model at `path` with most weights rounded to 8 bits, in the same folder; return its path.

    The weights of the first third of the matrix products and of the head are kept: rounding in the lower layers costs the
    most accuracy (bench/results/int8.txt). One bit of the weights is left free, as processors without VNNI add up products
    in 16 bits, which would overflow.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    # To be inferred again: onnxruntime before 1.32 transposes the weights of the head, and fails on their former shape
    del graph.value_info[:]
    weights = {tensor.name for tensor in graph.initializer}
    products = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    kept = products[: len(products) // 3]
    # The head, a matrix product with a bias; quantization splits it into product and addition, and names the former so
    kept += [f"{node.name}_MatMul" for node in graph.node if node.op_type == "Gemm"]
    rounded = path.with_suffix(".int8.onnx")
    quantize_dynamic(
        model,
        rounded,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=kept,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    return rounded


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the advice of torch's exporter and of ONNX Runtime's quantization, which is for developers of models."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", None)  # None: the root logger
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
