"""What must work on a GPU: each check is held against the CPU, or against what it should give; used by gpu.py."""

import contextlib
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from common import DEMO, examples, is_real_gpu, read_sentences
from spacy.training import Example
from thinc.api import Adam, fix_random_seed

LABELLED = 20


class Setup:
    """What the checks share: the encoder, the device, twenty sentences with entities."""

    def __init__(self, encoder: str, device: str, folder: Path) -> None:
        self.encoder, self.device, self.folder = encoder, device, folder
        self.sentences = [doc for doc in read_sentences(DEMO) if doc.ents and len(doc) > 4][:LABELLED]
        self.texts = [doc.text for doc in self.sentences]

    def require(self, device: str | None = None) -> None:
        if (device or self.device) == "gpu":
            spacy.require_gpu(0)
        else:
            spacy.require_cpu()

    def pipeline(self, device: str | None = None, config: dict | None = None, **model: Any) -> spacy.Language:
        """An initialized pipeline, the same each time."""
        self.require(device)
        nlp = spacy.blank("en")
        nlp.add_pipe("bert_ner", config={**(config or {}), "model": {"name": self.encoder, **model}})
        fix_random_seed(0)
        nlp.initialize(lambda: self.examples(nlp))
        return nlp

    def fitted(self, **settings: Any) -> spacy.Language:
        """The pipeline of `learns_twenty_sentences`, loaded where Thinc's operations are."""
        return spacy.load(self.folder / "fitted", config={"components": {"bert_ner": settings}})

    def examples(self, nlp: spacy.Language) -> list[Example]:
        return examples(nlp, self.sentences)

    def train(
        self, nlp: spacy.Language, steps: int, *, rate: float = 1e-4, drop: float = 0.0, optimizer: Any = None
    ) -> list[float]:
        optimizer = optimizer or Adam(rate, L2=0.01, use_averages=True)
        return [nlp.update(self.examples(nlp), sgd=optimizer, drop=drop)["bert_ner"] for _ in range(steps)]

    def scores(self, nlp: spacy.Language) -> np.ndarray:
        component: Any = nlp.get_pipe("bert_ner")
        return component._interface.predict_scores(
            component.model, [example.predicted for example in self.examples(nlp)]
        )


def shim_of(nlp: spacy.Language) -> Any:
    return nlp.get_pipe("bert_ner").model.shims[0]  # type: ignore[attr-defined]


def largest_difference(a: Any, b: Any) -> float:
    a, b = np.asarray(a, dtype="float64"), np.asarray(b, dtype="float64")
    finite = np.isfinite(a) & np.isfinite(b)
    assert (np.isfinite(a) == np.isfinite(b)).all(), "other values are not finite"
    return float(np.abs(a - b)[finite].max(initial=0.0))


def spans(doc: Any) -> list[tuple[int, int, str]]:
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


# The checks: each returns its figures, and fails by an exception


def same_as_on_the_cpu(setup: Setup) -> dict[str, float]:
    """Scores and losses of three steps in float32."""
    found, expected = setup.pipeline(), setup.pipeline("cpu")
    figures = {"scores": largest_difference(setup.scores(found), setup.scores(expected))}
    setup.require()
    losses = setup.train(found, 3)
    setup.require("cpu")
    figures["losses"] = largest_difference(losses, setup.train(expected, 3))
    assert figures["scores"] < 2e-3 and figures["losses"] < 2e-3, figures
    return figures


def low_precision(setup: Setup, mixed_precision: str) -> dict[str, float]:
    """How far scores are from float32, and what ten steps do to the loss."""
    plain, low = setup.pipeline(), setup.pipeline(mixed_precision=mixed_precision)
    scores, expected = setup.scores(low), setup.scores(plain)
    finite = np.isfinite(expected)
    same = float((scores.argmax(1) == expected.argmax(1)).mean())
    figures = {
        "scores": largest_difference(scores, expected),
        "range": float(np.ptp(expected[finite])),
        "same_tag": same,
    }
    losses = setup.train(low, 10, drop=0.1)
    figures |= {"first_loss": losses[0], "last_loss": losses[-1], "skipped": shim_of(low)._optimizer.n_skipped}
    assert losses[-1] < losses[0] and figures["skipped"] < 5, figures
    return figures


def learns_twenty_sentences(setup: Setup, **settings: Any) -> dict[str, float]:
    nlp = setup.pipeline(**settings)
    is_tiny = shim_of(nlp).module.encoder.config.hidden_size < 100
    optimizer = Adam(5e-3 if is_tiny else 3e-4, L2=0.01, use_averages=False)
    for step in range(1, 31):
        setup.train(nlp, 10, drop=0.1, optimizer=optimizer)
        f1 = nlp.evaluate(setup.examples(nlp))["ents_f"]
        if f1 == 1.0:
            nlp.to_disk(setup.folder / "fitted")
            return {"steps": 10 * step, "f1": f1}
    raise AssertionError(f"F1 {f1} after {10 * step} steps")


def saved_and_loaded(setup: Setup) -> dict[str, float]:
    """From the device to the CPU and back, by folder and bytes: the same entities."""
    expected = [spans(doc) for doc in setup.fitted().pipe(setup.texts)]
    for device in ("cpu", setup.device):
        setup.require(device)
        other = setup.fitted()
        again = spacy.blank("en").from_config(other.config).from_bytes(other.to_bytes())
        for loaded in (other, again):
            assert shim_of(loaded).device.type == ("cuda" if device == "gpu" else "cpu")
            assert [spans(doc) for doc in loaded.pipe(setup.texts)] == expected
    return {"entities": sum(map(len, expected))}


def every_setting(setup: Setup) -> dict[str, float]:
    """A few steps with each setting of the model, the losses those of the CPU."""
    settings: dict[str, dict[str, Any]] = {
        "window": {"window": 32, "stride": 24, "max_batch_pieces": 64},
        "orthography": {"orthography": True},
        "document_context": {"document_context": False},
        "crf": {"crf": True},
        "head_learn_rate": {"head_learn_rate": 10.0},
        "layer_decay": {"layer_decay": 0.9},
        "freeze": {"freeze_embeddings": True, "freeze_layers": 1},
        "gradient_checkpointing": {"gradient_checkpointing": True},
        "transformer_config": {"transformer_config": {"attention_probs_dropout_prob": 0.0}},
    }
    figures = {}
    for name, model in settings.items():
        losses = []
        for device in (setup.device, "cpu"):
            nlp = setup.pipeline(device, **model)
            losses.append(setup.train(nlp, 2))
            assert np.isfinite(setup.train(nlp, 1, drop=0.1)).all(), name
        figures[name] = largest_difference(*losses)
        assert figures[name] < 5e-3, (name, losses)
    return figures


def rehearsal(setup: Setup) -> dict[str, float]:
    losses = []
    for device in (setup.device, "cpu"):
        nlp = setup.pipeline(device, {"rehearse": 1.0})
        setup.train(nlp, 5)
        nlp.resume_training()
        nlp.get_pipe("bert_ner").add_label("DATE")  # type: ignore[attr-defined]
        fix_random_seed(0)
        losses.append(setup.train(nlp, 1))
    return {"losses": largest_difference(*losses)}


def groups_of_spans(setup: Setup) -> dict[str, float]:
    expected = [spans(doc) for doc in setup.fitted().pipe(setup.texts)]
    nlp = setup.fitted(spans_key="sc")
    docs = list(nlp.pipe(setup.texts))
    assert [[(s.start, s.end, s.label_) for s in doc.spans["sc"]] for doc in docs] == expected
    assert all(0 <= score <= 1 for doc in docs for score in doc.spans["sc"].attrs["scores"])
    return {"spans": sum(map(len, expected))}


def shared_layer(setup: Setup) -> dict[str, float]:
    """The head over a layer that it shares with a tagger."""
    setup.require()
    nlp = spacy.blank("en")
    embed = {"@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": 32, "depth": 1}
    embed |= {"embed_size": 200, "window_size": 1, "maxout_pieces": 2, "subword_features": True}
    nlp.add_pipe("tok2vec", config={"model": embed})
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 32}
    model = {"@architectures": "spacy_bertner.TokenClassifier.v1", "tok2vec": listener}
    nlp.add_pipe("bert_ner", config={"model": model})
    fix_random_seed(0)
    optimizer = nlp.initialize(lambda: setup.examples(nlp))
    losses = [nlp.update(setup.examples(nlp), sgd=optimizer)["bert_ner"] for _ in range(15)]
    assert losses[-1] < losses[0]
    return {"first_loss": losses[0], "last_loss": losses[-1]}


def threads(setup: Setup) -> dict[str, float]:
    """Eight threads predict with one pipeline, under the allocator of the shipped configs."""
    from thinc.api import set_gpu_allocator

    nlp = setup.fitted()
    expected = [spans(doc) for doc in nlp.pipe(setup.texts)]
    found: dict[int, list] = {}
    with contextlib.ExitStack() as stack:
        if setup.device == "gpu":
            import cupy

            set_gpu_allocator("pytorch")
            stack.callback(cupy.cuda.set_allocator, cupy.get_default_memory_pool().malloc)
        run = [
            threading.Thread(target=lambda i=i: found.update({i: [spans(doc) for doc in nlp.pipe(setup.texts)]}))
            for i in range(8)
        ]
        for thread in run:
            thread.start()
        for thread in run:
            thread.join()
    assert len(found) == 8 and all(value == expected for value in found.values())
    return {"threads": 8}


def moved_while_training(setup: Setup) -> dict[str, float]:
    """Three steps here, three on the CPU, three here: the losses of nine steps that stay."""
    stays, moves = setup.pipeline(), setup.pipeline()
    optimizer = Adam(1e-4, use_averages=True)
    expected = setup.train(stays, 9, optimizer=Adam(1e-4, use_averages=True))
    model: Any = moves.get_pipe("bert_ner").model  # type: ignore[attr-defined]
    losses = setup.train(moves, 3, optimizer=optimizer)
    model.to_cpu()
    losses += setup.train(moves, 3, optimizer=optimizer)
    if setup.device == "gpu":
        model.to_gpu(0)
    losses += setup.train(moves, 3, optimizer=optimizer)
    with moves.use_params(optimizer.averages):
        assert np.isfinite(setup.scores(moves)[:, 0]).any()
    return {"losses": largest_difference(losses, expected)}


def resumed(setup: Setup) -> dict[str, float]:
    """What a checkpoint keeps: two steps, three more, and the same three from the checkpoint."""
    nlp, optimizer = setup.pipeline(mixed_precision="fp16"), Adam(1e-4, use_averages=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a CPU there is no float16
        setup.train(nlp, 2, optimizer=optimizer)
        tensors, numbers = shim_of(nlp).training_state(optimizer)
        tensors = {name: value.detach().cpu().clone() for name, value in tensors.items()}
        losses = setup.train(nlp, 3, optimizer=optimizer)
        other, fresh = setup.pipeline(mixed_precision="fp16"), Adam(1e-4, use_averages=True)
        shim_of(other).load_training_state(fresh, tensors, numbers)
        again = setup.train(other, 3, optimizer=fresh)
    difference = largest_difference(again, losses)
    assert difference < 1e-2, (again, losses)
    return {"losses": difference}


def out_of_memory(setup: Setup) -> dict[str, float]:
    """A card with too little memory for a batch: halves of it, the same losses and scores."""
    if setup.device != "gpu" or not is_real_gpu():
        return {"left_out": 1.0}
    nlp = setup.pipeline(max_batch_pieces=2**17)
    plain = setup.pipeline()
    docs = [nlp.make_doc(" ".join(setup.texts)) for _ in range(60)]
    component, reference = nlp.get_pipe("bert_ner"), plain.get_pipe("bert_ner")
    expected = reference._interface.predict_scores(reference.model, docs)  # type: ignore[attr-defined]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_reserved() + 300 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scores = component._interface.predict_scores(component.model, docs)  # type: ignore[attr-defined]
            batch = [Example(doc, reference_of(setup, nlp, doc)) for doc in docs[:8]]
            shim_of(nlp).passes.most_pieces = None
            losses = nlp.update(batch, sgd=Adam(1e-4), drop=0.0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("does not suffice" in str(w.message) for w in caught), "it had enough memory"
    difference = largest_difference(scores, expected)
    assert difference < 2e-3 and np.isfinite(losses["bert_ner"])
    return {"scores": difference, "pieces_at_last": shim_of(nlp).most_pieces}


def reference_of(setup: Setup, nlp: spacy.Language, doc: Any) -> Any:
    reference = spacy.tokens.Doc(nlp.vocab, words=[token.text for token in doc])
    reference.set_ents([spacy.tokens.Span(reference, 0, 1, label=setup.sentences[0].ents[0].label_)])
    return reference


CHECKS: dict[str, Callable[[Setup], dict[str, float]]] = {
    "scores and losses as on the CPU": same_as_on_the_cpu,
    "bf16": lambda setup: low_precision(setup, "bf16"),
    "fp16": lambda setup: low_precision(setup, "fp16"),
    "twenty sentences, float32": learns_twenty_sentences,
    "twenty sentences, bf16": lambda setup: learns_twenty_sentences(setup, mixed_precision="bf16"),
    "twenty sentences, fp16": lambda setup: learns_twenty_sentences(setup, mixed_precision="fp16"),
    "saved and loaded": saved_and_loaded,
    "every setting": every_setting,
    "rehearsal": rehearsal,
    "groups of spans": groups_of_spans,
    "shared layer": shared_layer,
    "threads": threads,
    "moved while training": moved_while_training,
    "resumed": resumed,
    "out of memory": out_of_memory,
}


def run(encoder: str, device: str, folder: Path, *, is_late: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Run the checks; each gives its name, whether it passed, seconds, and its figures or the error."""
    setup = Setup(encoder, device, folder)
    for name, check in CHECKS.items():
        if is_late():
            yield {"name": name, "ok": False, "seconds": 0.0, "error": "out of time"}
            continue
        start = time.perf_counter()
        result: dict[str, Any] = {"name": name, "ok": True}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result["figures"] = check(setup)
        except Exception as err:  # the other checks are of use all the same
            traceback.print_exc()
            result |= {"ok": False, "error": f"{type(err).__name__}: {err}"[:500]}
        finally:
            setup.require()
        result["seconds"] = round(time.perf_counter() - start, 1)
        yield result


def line(check: dict[str, Any]) -> str:
    figures = ", ".join(f"{name} {value:.3g}" for name, value in check.get("figures", {}).items())
    return (
        f"{'ok' if check['ok'] else 'FAILED':6} {check['name']} ({check['seconds']} s): {check.get('error') or figures}"
    )


def table(checks: list[dict[str, Any]]) -> list[str]:
    return ["## Checks", "", *(f"    {line(check)}" for check in checks), ""]
