"""Running out of memory, simulated: a pass over more pieces than so many raises what torch raises then."""

import warnings

import numpy as np
import pytest
import torch
from spacy.tokens import Doc

from ..conftest import SENTENCES, make_examples, scores_of


@pytest.fixture
def full_memory(monkeypatch):
    """Give a function that lets passes of a component's module fail beyond so many pieces, forward or backward."""

    class Fail(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, fails):
            ctx.fails = fails
            return x.clone()

        @staticmethod
        def backward(ctx, d):
            if ctx.fails:
                raise error_of[0]
            return d, None

    error_of = [torch.OutOfMemoryError("simulated")]

    def set_limit(component, forward=10**9, backward=10**9, error=None):
        error_of[0] = error or error_of[0]
        module = component.model.shims[0].module
        real = type(module).forward
        layer = module.encoder.encoder.layer[0]
        real_layer = type(layer).forward
        sizes = []

        def limited(self, input_ids, *args, **kwargs):
            sizes.append(input_ids.numel())
            if input_ids.numel() > forward:
                raise error_of[0]
            return real(self, input_ids, *args, **kwargs)

        def limited_layer(self, hidden, *args, **kwargs):
            # Between the layers: the gradient of the upper ones is there when it fails
            output = real_layer(self, hidden, *args, **kwargs)
            if self is not layer or not torch.is_grad_enabled():
                return output
            fails = hidden.shape[0] * hidden.shape[1] > backward
            return (
                (Fail.apply(output[0], fails), *output[1:]) if isinstance(output, tuple) else Fail.apply(output, fails)
            )

        monkeypatch.setattr(type(module), "forward", limited)
        monkeypatch.setattr(type(layer), "forward", limited_layer)
        return sizes

    return set_limit


def docs_of(nlp):
    return [Doc(nlp.vocab, words=words.split()) for words, _ in SENTENCES]


def test_prediction_halves_the_batch(tagger, nlp, full_memory):
    component = tagger()
    expected = scores_of(component, docs_of(nlp))
    sizes = full_memory(component, forward=60)
    with pytest.warns(UserWarning, match=r"is not sufficient for \d+ pieces.*max_batch_pieces = ") as caught:
        found = scores_of(component, docs_of(nlp))
        scores_of(component, docs_of(nlp))
    assert sum("sufficient" in str(w.message) for w in caught) == 1
    assert max(sizes) > 60 > min(sizes)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-5)


def test_later_batches_are_smaller_from_the_start(tagger, nlp, full_memory):
    component = tagger(window=24, stride=16)
    docs = docs_of(nlp) * 20
    sizes = full_memory(component, forward=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores_of(component, docs)
    assert max(sizes) > 300
    sizes.clear()
    scores_of(component, docs)
    assert max(sizes) <= 300


def test_one_window_too_much_is_an_error(tagger, nlp, full_memory):
    component = tagger()
    full_memory(component, forward=3)
    with pytest.raises(torch.OutOfMemoryError, match="simulated"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores_of(component, docs_of(nlp))


@pytest.mark.parametrize("limits", [{"forward": 60}, {"backward": 60}, {"forward": 100, "backward": 40}])
@pytest.mark.parametrize("budget", [None, 300])  # at once, and computed again in the backward pass
def test_training_halves_the_batch(limits, budget, tagger, nlp, full_memory):
    component = tagger(max_batch_pieces=budget, window=32, stride=24)
    if budget:  # one Doc of more windows than may be kept at once
        words = " ".join(words for words, _ in SENTENCES * 3)
        examples = make_examples(nlp, [(words, " ".join(tags for _, tags in SENTENCES * 3))])
    else:
        examples = make_examples(nlp)
    module = component.model.shims[0].module
    component.update(examples)
    expected = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    for p in module.parameters():
        p.grad = None
    full_memory(component, **limits)
    with pytest.warns(UserWarning, match="is not sufficient"):
        component.update(examples)
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory",
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.",
    ],
)
def test_memory_that_another_library_lacks(message, tagger, nlp, full_memory):
    component = tagger()
    expected = component._interface.predict_scores(component.model, docs_of(nlp))
    full_memory(component, forward=60, error=RuntimeError(message))
    with pytest.warns(UserWarning, match="is not sufficient"):
        np.testing.assert_allclose(
            component._interface.predict_scores(component.model, docs_of(nlp)), expected, atol=1e-5
        )


def test_another_error_is_raised(tagger, nlp, full_memory):
    component = tagger()
    full_memory(component, forward=60, error=RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        component._interface.predict_scores(component.model, docs_of(nlp))


def test_memory_that_lacks_when_all_gradients_are_there(tagger, nlp, monkeypatch):
    """The embeddings' gradient is the last one to come; what fails after it has nothing left to compute."""
    component = tagger()
    module = component.model.shims[0].module
    component.update(make_examples(nlp))
    expected = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    real = torch.Tensor.backward

    def backward(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise torch.OutOfMemoryError("simulated, at the end")

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.warns(UserWarning, match="is not sufficient"):
        component.update(make_examples(nlp))
    for name, grad in expected.items():
        torch.testing.assert_close(dict(module.named_parameters())[name].grad, grad)
