"""Trained pipelines for ONNX Runtime: converted from torch to ONNX, in float32 or with 8-bit weights."""

import contextlib
import copy
import logging
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from spacy import registry
from spacy.language import Language
from spacy.tokens import Doc

from ..model.bert_token_classifier import encode
from ..model.checkpoint import quiet_transformers
from ..model.encoding import Batch
from ..model.lora import merged
from ..model.onnx_shim import MODEL_FILE, new_session
from ..model.orthography import N_ORTHOGRAPHY
from ..model.torch_module import TokenClassifier
from .components import find_components, shim_of

OPSET = 23  # the first with attention as one operation
SMOOTHING, SMALLEST = 0.8, np.float32(1e-5)
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
        content = export(shim.module)
        if int8:
            words = sorted(shim.backend_tokenizer.get_vocab())
            docs = [
                Doc(nlp.vocab, words=sample) for sample in np.random.default_rng(0).choice(words, (100, 60)).tolist()
            ]
            content = round_to_int8(content, encode(component.model, docs))
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


def export(module: TokenClassifier) -> bytes:
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
        return path.read_bytes()


def round_to_int8(content: bytes, batches: Iterable[Batch]) -> bytes:
    """Return an ONNX model with the weights of its matrix products rounded to 8 bits, except a few.

    Kept are the head, and the second product of the feed-forward part in the lowest layers, where rounding costs the most
    (bench/results/int8.txt). One bit of the weights is left free, as processors without VNNI add up products in 16 bits,
    which would overflow.

    batches: inputs that show which columns are large, see `smooth`.
    """
    import onnx
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load_from_string(content)
    # To be inferred again: onnxruntime before 1.32 transposes the weights of the head, and fails on their former shape
    del model.graph.value_info[:]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    smooth(model, products, weights, batches)
    narrowing = [node.name for node in products if weights[node.input[1]].shape[0] > weights[node.input[1]].shape[1]]
    kept = narrowing[: math.ceil(len(narrowing) / 6)]
    # The head, a matrix product with a bias; quantization splits it into product and addition, and names the former so
    kept += [f"{node.name}_MatMul" for node in model.graph.node if node.op_type == "Gemm"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=kept,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return path.read_bytes()


def smooth(model: Any, products: Sequence[Any], weights: Mapping[str, NDArray], batches: Iterable[Batch]) -> None:
    """Divide columns with large values of the inputs of matrix products, and multiply the weights by the same numbers.

    Activations are rounded with one scale per matrix, so that a few large columns would cost all others their accuracy;
    weights have a scale per output. The numbers are those of SmoothQuant (Xiao et al. 2023), but never below 1.

    model: an ONNX model, which is changed.
    products: its matrix products with weights, and `weights` these by name, (n_inputs, n_outputs).
    batches: inputs in which the largest value of each column is looked for.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    uses = Counter(node.input[1] for node in products)
    users: dict[str, list[Any]] = {}
    for node in products:
        if uses[node.input[1]] == 1:  # ALBERT's layers share their weights, but not the values that come in
            users.setdefault(node.input[0], []).append(node)
    probed = copy.deepcopy(model)
    probed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in users)
    session = new_session(probed.SerializeToString())
    inputs = [item.name for item in session.get_inputs()]
    largest: dict[str, NDArray] = {}
    for batch in batches:
        values = session.run(list(users), {name: getattr(batch, name) for name in inputs})
        for name, value in zip(users, values, strict=True):  # (…, n_inputs)
            columns = np.abs(value).reshape(-1, value.shape[-1]).max(0)
            largest[name] = np.maximum(largest.get(name, SMALLEST), columns)
    nodes, tensors = list(graph.node), {tensor.name: tensor for tensor in graph.initializer}
    for name, ins in largest.items():
        outs = np.max([np.abs(weights[node.input[1]]).max(1) for node in users[name]], axis=0)  # (n_inputs,)
        factors = ins**SMOOTHING / np.maximum(outs, SMALLEST) ** (1 - SMOOTHING)
        factors = np.maximum(factors / np.median(factors), 1.0).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(1 / factors, f"{name}_factors"))
        divide = helper.make_node("Mul", [name, f"{name}_factors"], [f"{name}_smooth"], name=f"{name}_divide")
        nodes.insert(min(nodes.index(node) for node in users[name]), divide)
        for node in users[name]:
            weight = node.input[1]
            tensors[weight].CopyFrom(numpy_helper.from_array(weights[weight] * factors[:, None], weight))
            node.input[0] = f"{name}_smooth"
    del graph.node[:]
    graph.node.extend(nodes)


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
