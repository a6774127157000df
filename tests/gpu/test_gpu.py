"""What is particular to a GPU, on the stand-in: who waits for it, models that move, threads, and what can be wrong there.

The figures are held against those of the same thing on the CPU.
"""

import contextlib
import copy
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faketorch
import numpy as np
import pytest
import spacy
import thinc.api
import torch
from spacy.tokens import Doc
from thinc.api import Adam, CupyOps, NumpyOps, fix_random_seed, set_current_ops
from thinc.backends.mps_ops import MPSOps

from spacy_bertner.model.interface import interface_of
from spacy_bertner.processes import require_gpu
from tests.conftest import ROOT, SENTENCES, make_examples, scores_of, to_numpy

TEXTS = [text for text, _ in SENTENCES]


def make(folder, config=None, **model):
    """A pipeline that is initialized where Thinc's operations are."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={**(config or {}), "model": {"name": str(folder), **model}})
    fix_random_seed(0)
    nlp.initialize(lambda: make_examples(nlp))
    return nlp


def train(nlp, optimizer=None, steps=3, drop=0.0, **settings):
    """Take steps; return the losses."""
    optimizer = optimizer or Adam(1e-3, L2=0.01, use_averages=True, **settings)
    return [nlp.update(make_examples(nlp), sgd=optimizer, drop=drop)["bert_ner"] for _ in range(steps)]


def shim_of(nlp):
    return nlp.get_pipe("bert_ner").model.shims[0]


def weights(nlp):
    return {name: to_numpy(p).copy() for name, p in shim_of(nlp).module.named_parameters()}


def assert_same(found, expected, atol=2e-4):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith("key.bias"):  # its gradient is zero but for rounding, of which Adam makes a step
            continue
        np.testing.assert_allclose(found[name], value, atol=atol, err_msg=name)


def entities(doc):
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


# The same figures as on the CPU


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({}, {}),
        ({}, {"crf": True}),
        ({}, {"window": 24, "stride": 16, "max_batch_pieces": 24}),
        ({}, {"gradient_checkpointing": True}),
        ({}, {"freeze_layers": 1, "freeze_embeddings": True}),
        ({}, {"layer_decay": 0.8, "head_learn_rate": 5.0}),
        ({}, {"orthography": True, "document_context": False}),
        ({"rehearse": 1.0}, {}),
        ({"scheme": "BILUO"}, {}),
    ],
)
def test_losses_and_weights_are_those_of_the_cpu(config, model, checkpoint):
    folder = checkpoint("bert")
    losses, found, scores = [], [], []
    for require in (spacy.require_cpu, spacy.require_gpu):
        require()
        nlp = make(folder, config, **model)
        if "rehearse" in config:
            train(nlp)
            nlp.resume_training()
            nlp.get_pipe("bert_ner").add_label("DATE")
        losses.append(train(nlp))
        found.append(weights(nlp))
        scores.append(np.concatenate(scores_of(nlp.get_pipe("bert_ner"), [nlp.make_doc(text) for text in TEXTS])))
        assert shim_of(nlp).device.type == ("cpu" if require is spacy.require_cpu else "cuda")
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert_same(found[1], found[0])
    np.testing.assert_allclose(scores[1], scores[0], atol=2e-3)


@pytest.mark.parametrize("mixed_precision", ["bf16", "fp16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_mixed_precision(mixed_precision, checkpointing, checkpoint):
    settings = {"mixed_precision": mixed_precision, "gradient_checkpointing": checkpointing}
    nlp = make(checkpoint("bert"), **settings)
    plain = make(checkpoint("bert"))
    losses, expected = train(nlp, steps=10, drop=0.1), train(plain, steps=10, drop=0.1)
    assert losses[0] == pytest.approx(expected[0], rel=0.1) and losses[-1] < 0.8 * losses[0]
    assert shim_of(nlp)._optimizer.n_skipped == 0  # a scale that fits gradients which are sums


def test_the_scale_of_float16_survives_a_resumption(checkpoint):
    nlp = make(checkpoint("bert"), mixed_precision="fp16")
    optimizer = Adam(1e-3, use_averages=True)
    train(nlp, optimizer)
    shim = shim_of(nlp)
    shim._optimizer._scaler.update(new_scale=512.0)
    with torch.no_grad():
        shim.module.head.weight[0, 0] = torch.inf
    train(nlp, optimizer, steps=1)  # skipped: the scale is halved
    with torch.no_grad():
        shim.module.head.weight[0, 0] = 0.0
    tensors, numbers = shim.training_state(optimizer)
    assert numbers["optimizer"]["scaler"]["scale"] == 256.0 and numbers["optimizer"]["skipped"] == [1.0, 1.0]
    other = make(checkpoint("bert"), mixed_precision="fp16")
    fresh = Adam(1e-3, use_averages=True)
    shim_of(other).load_training_state(fresh, {k: v.cpu().clone() for k, v in tensors.items()}, numbers)
    assert_same(weights(other), weights(nlp), atol=0)
    assert train(other, fresh) == train(nlp, optimizer)
    assert shim_of(other)._optimizer._scaler.get_scale() == 256.0
    assert_same(weights(other), weights(nlp), atol=0)


# Waiting for the GPU


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "electra"])
def test_one_wait_in_a_step_and_in_a_call(kind, checkpoint):
    nlp = make(checkpoint(kind))
    component, docs = nlp.get_pipe("bert_ner"), [nlp.make_doc(text) for text in TEXTS]
    optimizer = Adam(1e-3, use_averages=True)
    train(nlp, optimizer, steps=2, drop=0.1)
    faketorch.WAITS.clear()
    train(nlp, optimizer, steps=10, drop=0.1)
    assert sum(faketorch.WAITS.values()) == 10, faketorch.WAITS
    faketorch.WAITS.clear()
    component.predict(docs)
    assert sum(faketorch.WAITS.values()) == 1, faketorch.WAITS


def test_one_wait_for_several_groups_of_documents(checkpoint):
    nlp = make(checkpoint("bert"), window=24, stride=16, max_batch_pieces=48)
    model = nlp.get_pipe("bert_ner").model
    assert len(interface_of(model).group(model, [eg.predicted for eg in make_examples(nlp)])) > 3
    optimizer = Adam(1e-3)
    train(nlp, optimizer, steps=1)
    faketorch.WAITS.clear()
    train(nlp, optimizer, steps=1)
    assert sum(faketorch.WAITS.values()) == 1, faketorch.WAITS


# Models that move


def test_added_before_the_gpu_is_required(checkpoint, tmp_path):
    spacy.require_cpu()
    nlp = make(checkpoint("bert"))
    nlp.to_disk(tmp_path)
    expected = train(nlp)
    blank = [spacy.blank("en") for _ in range(3)]
    for other in blank:
        other.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    saved = spacy.load(tmp_path).to_bytes()
    spacy.require_gpu()
    fix_random_seed(0)
    blank[0].initialize(lambda: make_examples(blank[0]))
    blank[1].from_bytes(saved)
    blank[2].from_disk(tmp_path)
    for other in blank:
        assert isinstance(other.get_pipe("bert_ner").model.ops, CupyOps)
        assert shim_of(other).device.type == "cuda"
        np.testing.assert_allclose(train(other), expected, rtol=1e-4)
    # And back
    spacy.require_cpu()
    back = blank[1].from_bytes(saved)
    assert isinstance(back.get_pipe("bert_ner").model.ops, NumpyOps) and shim_of(back).device.type == "cpu"
    np.testing.assert_allclose(train(back), expected, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"crf": True}, {"mixed_precision": "fp16"}])
def test_moved_in_the_middle_of_training(settings, checkpoint):
    """Steps on the GPU, then the CPU, then the GPU are those of a run that stays; averages and moments go along."""
    stays, moves = make(checkpoint("bert"), **settings), make(checkpoint("bert"), **settings)
    optimizers = [Adam(1e-3, use_averages=True) for _ in range(2)]
    model = moves.get_pipe("bert_ner").model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # float16 is for the GPU
        for move in (lambda: None, model.to_cpu, lambda: model.to_gpu(0)):
            move()
            found, expected = train(moves, optimizers[0]), train(stays, optimizers[1])
            np.testing.assert_allclose(found, expected, rtol=1e-2 if "mixed_precision" in settings else 1e-4)
    atol = 5e-3 if "mixed_precision" in settings else 2e-4
    assert_same(weights(moves), weights(stays), atol)
    averages = [{key[1]: to_numpy(value) for key, value in o.averages.items()} for o in optimizers]
    assert_same(averages[0], averages[1], atol)
    with moves.use_params(optimizers[0].averages):
        assert_same(weights(moves), averages[0], atol=0)
    model.to_cpu()
    with moves.use_params(optimizers[0].averages):
        assert_same(weights(moves), averages[0], atol=0)
        moves(TEXTS[0])


def test_the_student_moves_and_the_teacher_does_not(checkpoint):
    nlp = make(checkpoint("bert"), {"rehearse": 1.0})
    train(nlp)
    nlp.resume_training()
    nlp.get_pipe("bert_ner").add_label("DATE")
    nlp.get_pipe("bert_ner").model.to_cpu()
    assert shim_of(nlp).device.type == "cpu"
    assert np.isfinite(train(nlp)).all()


def test_saved_here_and_loaded_there(checkpoint, tmp_path):
    nlp = make(checkpoint("bert"))
    train(nlp, steps=20)
    expected = [entities(doc) for doc in nlp.pipe(TEXTS)]
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert shim_of(again).device.type == "cuda" and [entities(doc) for doc in again.pipe(TEXTS)] == expected
    spacy.require_cpu()
    on_cpu = spacy.load(tmp_path)
    assert shim_of(on_cpu).device.type == "cpu" and [entities(doc) for doc in on_cpu.pipe(TEXTS)] == expected
    # In a process without CuPy
    code = f"""
import spacy
nlp = spacy.load({str(tmp_path)!r})
print([(ent.start, ent.end, ent.label_) for ent in nlp({TEXTS[0]!r}).ents])"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=plain_environment()
    )
    assert done.stdout.strip() == str(expected[0]), done.stderr


def plain_environment():
    return {key: value for key, value in os.environ.items() if key != "STANDIN_GUARD"}


# Threads and processes


@pytest.mark.parametrize("allocator", [None, "pytorch"])
def test_prediction_in_threads(allocator, checkpoint):
    """A new thread has none of Thinc's operations, and memory that torch allots for CuPy would be the CPU's there."""
    nlp = make(checkpoint("bert"))
    train(nlp, steps=20)
    expected = [entities(doc) for doc in nlp.pipe(TEXTS)]
    if allocator:
        thinc.api.set_gpu_allocator(allocator)
    with ThreadPoolExecutor(4) as pool:
        assert [entities(doc) for doc in pool.map(nlp, TEXTS)] == expected


def test_the_gpu_with_the_weights_is_the_current_one(checkpoint, monkeypatch):
    """A thread starts with the first GPU, whichever the weights are on."""
    nlp = make(checkpoint("bert"))
    entered = []

    def device(given):
        entered.append((threading.current_thread().name, given))
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "device", device)
    thread = threading.Thread(target=lambda: list(nlp.pipe(TEXTS)), name="other")
    thread.start()
    thread.join()
    assert entered == [("other", torch.device("cuda:0"))]


def test_processes_with_onnx_runtime(checkpoint):
    """It computes on the CPU, so that forked processes may, wherever spaCy's operations are."""
    pytest.importorskip("onnx")
    from spacy_bertner.export.onnx import to_onnx

    spacy.require_cpu()
    nlp = make(checkpoint("bert"))
    train(nlp, steps=20)
    to_onnx(nlp)
    data = nlp.to_bytes()
    spacy.require_gpu()
    nlp = spacy.blank("en").from_config(nlp.config).from_bytes(data)
    expected = [entities(nlp(text)) for text in TEXTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spaCy's, of GPUs and processes
        assert [entities(doc) for doc in nlp.pipe(TEXTS, n_process=2, batch_size=5)] == expected


def test_copies(checkpoint):
    nlp = make(checkpoint("bert"))
    train(nlp)
    doc = nlp.make_doc(TEXTS[0])
    twin = copy.deepcopy(nlp.get_pipe("bert_ner").model)
    assert twin.shims[0].device.type == "cuda"
    np.testing.assert_array_equal(to_numpy(twin.predict([doc])[0]), scores_of(nlp.get_pipe("bert_ner"), [doc])[0])


# What can be wrong


def test_get_loss_takes_arrays_of_either_kind(checkpoint):
    nlp = make(checkpoint("bert"))
    component, examples = nlp.get_pipe("bert_ner"), make_examples(nlp)
    scores = component.model.predict([eg.predicted for eg in examples])
    loss, d_scores = component.get_loss(examples, scores)
    loss_again, d_again = component.get_loss(examples, [to_numpy(rows) for rows in scores])
    assert loss.ndim == 0 and float(loss) == pytest.approx(float(loss_again))  # not waited for in `update`
    np.testing.assert_allclose(to_numpy(d_scores[0]), d_again[0], atol=1e-6)


def test_a_card_without_bf16(checkpoint, monkeypatch):
    monkeypatch.setitem(faketorch.CARD, "has_bf16", False)
    nlp, plain = make(checkpoint("bert"), mixed_precision="bf16"), make(checkpoint("bert"))
    with pytest.warns(UserWarning, match=r"mixed_precision: cuda:0 has no arithmetic in bf16; float32 is used"):
        losses = train(nlp)
    np.testing.assert_allclose(losses, train(plain), rtol=1e-5)
    # "auto" takes fp16 then, with a scaled loss, and says nothing
    automatic, half = make(checkpoint("bert"), mixed_precision="auto"), make(checkpoint("bert"), mixed_precision="fp16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(train(automatic), train(half), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"), [("has_cupy", "CuPy is not installed"), ("has_gpu", "No GPU devices detected")]
)
def test_a_cupy_that_does_not_work(name, message, monkeypatch):
    """Missing, or for another CUDA: Thinc finds out when it is imported."""
    monkeypatch.setattr(thinc.util, name, False)
    with pytest.raises(ValueError, match=f"--gpu-id 0: .*{message}.*--gpu-id -1 computes on the CPU"):
        require_gpu(0)


def test_a_torch_without_cuda(checkpoint, monkeypatch):
    """CuPy sees a card, torch was installed for the CPU."""
    monkeypatch.setitem(faketorch.CARD, "is_available", False)
    message = r"spaCy uses a GPU, which torch cannot: torch .* is a build for the CPU only\. Install"
    with pytest.raises(ValueError, match=message):
        make(checkpoint("bert"))
    # Added before the GPU is required; such a torch has no current device
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1 / 0)
    spacy.require_cpu()
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    set_current_ops(CupyOps())
    with pytest.raises(ValueError, match=message):
        nlp.initialize(lambda: make_examples(nlp))


def test_apples_gpu(checkpoint):
    spacy.require_cpu()
    expected = train(make(checkpoint("bert")))
    set_current_ops(MPSOps())
    try:
        with pytest.warns(
            UserWarning, match=r"bert_ner computes on the CPU: it has not been tested on Apple's GPU \(mps\)"
        ):
            nlp = make(checkpoint("bert"))
        assert shim_of(nlp).device.type == "cpu"
        assert train(nlp) == expected
    finally:
        spacy.require_cpu()


def run(*arguments, with_gpu=True):
    """Run a spaCy command, on the stand-in or without any GPU."""
    start = [str(Path(__file__).parent / "standin" / "load.py")] if with_gpu else []
    return subprocess.run(
        [sys.executable, *start, "-m", "spacy", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=plain_environment(),
        timeout=600,
    )


# Commands


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "train.spacy"
    nlp = spacy.blank("en")
    references = [eg.reference for eg in make_examples(nlp)]
    spacy.tokens.DocBin(docs=references).to_disk(path)
    return path


@pytest.mark.parametrize("mixed_precision", ["false", "bf16", "fp16"])
def test_spacy_train(mixed_precision, corpus, checkpoint, tmp_path):
    done = run(
        "train", "configs/bert.cfg", "--gpu-id", 0, "--output", tmp_path, "--paths.train", corpus, "--paths.dev", corpus,
        "--components.bert_ner.model.name", checkpoint("bert"), "--components.bert_ner.model.mixed_precision",
        mixed_precision, "--training.max_steps", 100, "--training.eval_frequency", 50,
        "--training.optimizer.learn_rate.initial_rate", 5e-3, "--training.optimizer.learn_rate.warmup_steps", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Using GPU: 0" in done.stdout
    for command in ("evaluate", "benchmark accuracy"):
        done = run(*command.split(), tmp_path / "model-last", corpus, "--gpu-id", 0)
        assert done.returncode == 0, done.stderr[-2000:]
        score = float(next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("NER F")))
        assert score > 90
    on_cpu = spacy.load(tmp_path / "model-last")
    examples = make_examples(on_cpu)
    assert 100 * on_cpu.evaluate(examples)["ents_f"] == pytest.approx(
        score, abs=5 if mixed_precision != "false" else 0.01
    )


def test_a_gpu_that_is_not_there(corpus, checkpoint, tmp_path):
    arguments = ["train", "configs/bert.cfg", "--output", tmp_path, "--paths.train", corpus, "--paths.dev", corpus]
    done = run(*arguments, "--gpu-id", 7)
    assert done.returncode != 0 and "invalid device ordinal" in done.stderr
    done = run(*arguments, "--gpu-id", 0, with_gpu=False)
    assert done.returncode != 0 and "Cannot use GPU, CuPy is not installed" in done.stderr
    nlp = make(checkpoint("bert"))
    nlp.to_disk(tmp_path / "pipeline")
    (tmp_path / "texts.txt").write_text(TEXTS[0])
    for command in (["annotate", "texts.txt", "out.jsonl"], ["report", corpus, "out"], ["calibrate", corpus, "out"]):
        name, *files = command
        files = [tmp_path / file for file in files]
        done = run("bertner", name, tmp_path / "pipeline", *files, "--gpu-id", 7)
        assert done.returncode == 1 and "--gpu-id 7: " in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert "invalid device ordinal. The first GPU is 0; --gpu-id -1 computes on the CPU" in done.stderr


def test_docs_without_tokens(checkpoint):
    nlp = make(checkpoint("bert"))
    assert [len(doc.ents) for doc in nlp.pipe([Doc(nlp.vocab), Doc(nlp.vocab)])] == [0, 0]
    assert nlp.get_pipe("bert_ner").model.begin_update([])[0] == []
