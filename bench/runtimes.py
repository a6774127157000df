"""What computes fastest on a CPU: libraries beside each other, in float32 and with weights of 8 bits, on the same batches.

    python bench/runtimes.py PIPELINE [--rounds 5] [--sentences 300] [--budgets 512 1024]

PIPELINE is a trained one. All of them get the batches that the component makes of wikigold's sentences, ready-made. Each
round runs every library once, in turn; speed is the median over the rounds, as a ratio to torch in float32 at its better
budget. "Same tags" is the share of tokens for which the best tag is that of torch in float32. What is not installed is
left out; none of these is needed by the package but onnxruntime: pip install openvino nncf torchao.

What each does to the weights, and to the activations while predicting:

  torch-compile      torch.compile with dynamic shapes, the last layer over all rows: float32
  torch-int8         torch.ao.quantization.quantize_dynamic: all linear layers
  torchao-int8       torchao's Int8DynamicActivationInt8WeightConfig: all linear layers
  onnx, onnx-int8    what `spacy bertner onnx` makes: int8 without one product of the first layer; large columns are found in
                     two of the batches, not on random words
  openvino           the ONNX model in float32
  openvino-int8      nncf.quantize, calibrated on half of the batches
  openvino-weights   nncf.compress_weights: weights of 8 bits, activations in float32
"""

import argparse
import copy
import importlib.util
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import common
import numpy as np
import spacy
import torch

from spacy_bertner.export.onnx import export, round_to_int8
from spacy_bertner.model.bert_token_classifier import BATCH_OVERHEAD
from spacy_bertner.model.encoding import PieceEncoder
from spacy_bertner.model.onnx_shim import new_session

Run = Callable[[Any], np.ndarray]
FIELDS = ("input_ids", "attention_mask", "orthography", "first")


def tensors(batch: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(getattr(batch, name)) for name in FIELDS]


def of_torch(module: torch.nn.Module) -> Run:
    def run(batch: Any) -> np.ndarray:
        with torch.inference_mode():
            return module(*tensors(batch)).numpy()

    return run


def torch_compile(module: torch.nn.Module, _: list) -> Run:
    module = copy.deepcopy(module)
    module._picks_rows = False  # compiling does not see the context variable by which the last layer knows its rows
    return of_torch(torch.compile(module, dynamic=True))


def torch_int8(module: torch.nn.Module, _: list) -> Run:
    return of_torch(torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {torch.nn.Linear}))


def torchao_int8(module: torch.nn.Module, _: list) -> Run:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    module = copy.deepcopy(module)
    quantize_(module, Int8DynamicActivationInt8WeightConfig())
    return of_torch(module)


def onnx(module: torch.nn.Module, batches: list, *, int8: bool = False) -> Run:
    session = new_session(round_to_int8(export(module), batches[:2]) if int8 else export(module))
    names = [item.name for item in session.get_inputs()]
    return lambda batch: session.run(None, {name: getattr(batch, name) for name in names})[0]


def openvino(module: torch.nn.Module, batches: list, *, kind: str = "float32") -> Run:
    import openvino as ov

    core = ov.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"})
    model = core.read_model(export(module))
    names = [item.any_name for item in model.inputs]

    def feed(batch: Any) -> dict[str, np.ndarray]:
        return {name: getattr(batch, name) for name in names}

    if kind != "float32":
        import nncf

        if kind == "int8":
            data = nncf.Dataset([feed(batch) for batch in batches[::2]])
            model = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches))
        else:
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    request = core.compile_model(model, "CPU").create_infer_request()
    return lambda batch: request.infer(feed(batch), share_inputs=True)[0].copy()


# What makes each, and the module that it needs
LIBRARIES: dict[str, tuple[Callable[[torch.nn.Module, list], Run], str]] = {
    "torch": (lambda module, _: of_torch(module), "torch"),
    "torch-compile": (torch_compile, "torch"),
    "torch-int8": (torch_int8, "torch"),
    "torchao-int8": (torchao_int8, "torchao"),
    "onnx": (onnx, "onnxruntime"),
    "onnx-int8": (lambda module, batches: onnx(module, batches, int8=True), "onnxruntime"),
    "openvino": (openvino, "openvino"),
    "openvino-int8": (lambda module, batches: openvino(module, batches, kind="int8"), "nncf"),
    "openvino-weights": (lambda module, batches: openvino(module, batches, kind="weights"), "nncf"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--budgets", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    args = parser.parse_args()
    common.start_again_with(common.KEEP_MEMORY)
    warnings.filterwarnings("ignore")
    nlp = spacy.load(args.pipeline)
    shim = nlp.get_pipe("bert_ner").model.shims[0]  # type: ignore[attr-defined]
    docs = common.Data("sentences", common.read_sentences(common.default_files())[: args.sentences]).fresh_docs(
        nlp.vocab
    )
    pieces = PieceEncoder(shim.backend_tokenizer, pad_id=shim.pad_id, window=256, stride=240)
    batches = {budget: list(pieces.encode(docs, budget, BATCH_OVERHEAD["cpu"])) for budget in args.budgets}
    n_words = sum(map(len, docs))
    first = batches[args.budgets[0]]
    expected = [of_torch(shim.module)(batch).argmax(axis=1) for batch in first]
    runs, same = {}, {}
    for name in args.libraries:
        make, needed = LIBRARIES[name]
        if importlib.util.find_spec(needed) is None:
            print(f"{name}: left out, {needed} is not installed", flush=True)
            continue
        start = time.perf_counter()
        try:
            runs[name] = make(shim.module, first)
            found = [runs[name](batch).argmax(axis=1) for batch in first]
        except Exception as err:  # other people's libraries: one that fails is a finding
            runs.pop(name, None)
            print(f"{name}: fails: {type(err).__name__}: {str(err).splitlines()[0][:200]}", flush=True)
            continue
        same[name] = 100 * float(np.mean(np.concatenate(found) == np.concatenate(expected)))
        print(f"{name}: ready after {time.perf_counter() - start:.0f} s", flush=True)
    seconds: dict[tuple[str, int], list[float]] = {(name, budget): [] for name in runs for budget in batches}
    for _ in range(args.rounds + 1):  # the first warms up
        for name, budget in seconds:
            start = time.perf_counter()
            for batch in batches[budget]:
                runs[name](batch)
            seconds[name, budget].append(time.perf_counter() - start)
    medians = {key: statistics.median(values[1:]) for key, values in seconds.items()}
    base = min(medians["torch", budget] for budget in batches)
    print(f"\n{common.machine_line(common.describe_machine())}")
    print(f"{args.rounds} rounds, {len(docs)} sentences, {n_words} words")
    budgets = "".join(f"{budget:>8}" for budget in batches)
    print(f"{'pieces a batch, at most:':24}{budgets}   words/s   same tags")
    for name in runs:
        ratios = "".join(f"{base / medians[name, budget]:8.2f}" for budget in batches)
        speed = n_words / min(medians[name, budget] for budget in batches)
        print(f"{name:24}{ratios}{speed:10,.0f}{same[name]:11.2f} %")


if __name__ == "__main__":
    main()
