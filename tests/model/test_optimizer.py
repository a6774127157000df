"""One step against torch's own AdamW with parameter groups and `clip_grad_norm_` on the same gradients."""

import copy
import warnings

import pytest
import torch
from thinc.api import SGD, Adam, RAdam
from torch import nn

from spacy_bertner.model import optimizer as optimizer_module
from spacy_bertner.model.optimizer import MAX_STEPS_AT_ZERO, TorchOptimizer

from ..conftest import make_examples, write_checkpoint


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"dense": nn.Linear(8, 6), "LayerNorm": nn.LayerNorm(6)})
        self.head = nn.Linear(6, 3)

    def forward(self, X):
        return self.head(self.encoder["LayerNorm"](self.encoder["dense"](X)))


def make_optimizer(module, head_factor=1.0):
    factors = {name: 1.0 if name.startswith("encoder") else head_factor for name, _ in module.named_parameters()}
    return TorchOptimizer(module, rate_factors=factors, scale=None)


def groups(module, L2, head_factor, learn_rate):
    for name, parameter in module.named_parameters():
        decays = not (name.endswith("bias") or "LayerNorm" in name)
        yield {
            "params": [parameter],
            "weight_decay": L2 if decays else 0.0,
            "lr": learn_rate * (1.0 if name.startswith("encoder") else head_factor),
        }


def run(thinc_optimizer, make_reference, *, head_factor=1.0, divisor=7, steps=4, clip=1.0):
    """Take the same steps with both; return the parameters of each."""
    torch.manual_seed(0)
    ours = Tiny()
    reference = copy.deepcopy(ours)
    optimizer = make_optimizer(ours, head_factor)
    reference_optimizer = make_reference(reference)
    for _ in range(steps):
        X, dY = torch.randn(5, 8), torch.randn(5, 3) * 30
        ours(X).backward(dY)
        reference(X).backward(dY / divisor)
        optimizer.step(thinc_optimizer, key=1, divisor=divisor)
        if clip:
            torch.nn.utils.clip_grad_norm_(reference.parameters(), clip)
        reference_optimizer.step()
        reference_optimizer.zero_grad()
    return dict(ours.named_parameters()), dict(reference.named_parameters())


@pytest.mark.parametrize("clip", [1.0, 0.0, 0.3])
@pytest.mark.parametrize("head_factor", [1.0, 10.0])
def test_equals_adamw(clip, head_factor):
    thinc_optimizer = Adam(1e-2, L2=0.1, grad_clip=clip, beta1=0.8, beta2=0.95, eps=1e-6, use_averages=False)
    found, expected = run(
        thinc_optimizer,
        lambda module: torch.optim.AdamW(groups(module, 0.1, head_factor, 1e-2), betas=(0.8, 0.95), eps=1e-6),
        head_factor=head_factor,
        clip=clip,
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("thinc_optimizer", "kind", "settings"),
    [
        (Adam(1e-2, L2=0.1, L2_is_weight_decay=False, use_averages=False), torch.optim.Adam, {}),
        (RAdam(1e-2, L2=0.1, use_averages=False), torch.optim.RAdam, {"decoupled_weight_decay": True}),
        (SGD(1e-2, L2=0.1, use_averages=False), torch.optim.SGD, {}),
    ],
)
def test_other_optimizers(thinc_optimizer, kind, settings):
    found, expected = run(thinc_optimizer, lambda module: kind(groups(module, 0.1, 1.0, 1e-2), **settings))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6)


def test_the_schedule_is_followed():
    module = Tiny()
    optimizer = make_optimizer(module)
    thinc_optimizer = Adam(iter([0.0, 0.5, 0.0]), use_averages=False)
    moved = []
    for _ in range(3):
        before = module.head.weight.detach().clone()
        module(torch.randn(5, 8)).sum().backward()
        optimizer.step(thinc_optimizer, key=1, divisor=1)
        thinc_optimizer.step_schedules()
        moved.append(not torch.equal(before, module.head.weight))
    assert moved == [False, True, False]


def test_a_gradient_that_is_not_finite_is_skipped_and_counted():
    module = Tiny()
    before = copy.deepcopy(module.state_dict())
    optimizer = make_optimizer(module)
    module(torch.full((1, 8), float("nan"))).sum().backward()
    optimizer.step(Adam(1.0), key=1, divisor=1)
    torch.testing.assert_close(module.state_dict(), before)
    assert optimizer.n_skipped == 1
    assert all(p.grad.abs().sum() == 0 for p in module.parameters())


def test_averages_are_those_of_thinc():
    module = Tiny()
    optimizer = make_optimizer(module)
    thinc_optimizer = Adam(0.01, use_averages=True)
    expected = torch.zeros_like(module.head.weight)
    for t in range(1, 5):
        module(torch.randn(5, 8)).sum().backward()
        optimizer.step(thinc_optimizer, key=1, divisor=1)
        decay = (1 + t) / (10 + t)
        expected = decay * expected + (1 - decay) * module.head.weight.detach()
    torch.testing.assert_close(thinc_optimizer.averages[1, "head.weight"], expected)


def test_a_run_of_gradients_that_are_not_finite_stops():
    module = Tiny()
    optimizer = make_optimizer(module)
    with pytest.raises(FloatingPointError, match=r"training has diverged\. Lower .* learn_rate"):
        for _ in range(100):
            module(torch.full((1, 8), float("nan"))).sum().backward()
            optimizer.step(Adam(1.0), key=1, divisor=1)
    assert optimizer.n_skipped == 40


def test_a_schedule_that_stays_at_zero_is_warned_of_once():
    module = Tiny()
    optimizer = make_optimizer(module)

    def step(learn_rate):
        module(torch.randn(5, 8)).sum().backward()
        optimizer.step(Adam(learn_rate, use_averages=False), key=1, divisor=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for learn_rate in (0.0, 0.1, *[0.0] * (MAX_STEPS_AT_ZERO - 1)):  # a warm-up starts at zero
            step(learn_rate)
    with pytest.warns(UserWarning, match=r"has been 0 for 10 steps.*\[training.optimizer\] learn_rate.*total_steps"):
        step(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(0.0)


@pytest.mark.parametrize("kind", ["bert-uncased", "roberta", "distilbert", "electra", "deberta-v2"])
def test_layer_decay_and_freezing_equal_adamw_with_parameter_groups(kind, tagger, nlp):
    ner = tagger(kind, layer_decay=0.5, head_learn_rate=10.0, freeze_embeddings=True, freeze_layers=0)
    module = ner.model.shims[0].module
    reference = copy.deepcopy(module)
    layer_lists = {"distilbert": "encoder.transformer.layer."}
    layers = layer_lists.get(kind, "encoder.encoder.layer.")

    def rate(name):
        if name.startswith(("head", "orthography")):
            return 1e-3 * 10.0
        if name.startswith(("encoder.embeddings.", "encoder.embeddings_project.")):
            return 0.0
        return 1e-3 * (0.5 if name.startswith(f"{layers}0.") else 1.0)

    named = dict(reference.named_parameters())
    n_layers = {name.removeprefix(layers).split(".")[0] for name in named if name.startswith(layers)}
    assert n_layers == {"0", "1"}
    groups = [
        {"params": [p], "lr": rate(name), "weight_decay": 0.0 if p.ndim == 1 else 0.01} for name, p in named.items()
    ]
    reference_optimizer = torch.optim.AdamW(groups, eps=1e-8)
    optimizer = Adam(1e-3, L2=0.01, grad_clip=0.5, use_averages=False)
    for _ in range(3):
        n = sum(len(eg.predicted) for eg in make_examples(nlp))
        ner.update(make_examples(nlp))
        for name, parameter in module.named_parameters():
            named[name].grad = None if parameter.grad is None else parameter.grad / n
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        reference_optimizer.step()
        ner.finish_update(optimizer)
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(parameter, named[name], atol=1e-6, rtol=1e-5, msg=lambda m, name=name: name + m)


def test_frozen_layers_stay_and_the_rest_moves(tagger, nlp):
    ner = tagger("bert-uncased", freeze_embeddings=False, freeze_layers=1)
    module = ner.model.shims[0].module
    before = copy.deepcopy(module.state_dict())
    nlp.update(make_examples(nlp), drop=0.1, sgd=Adam(0.01))
    same = {name for name, value in module.state_dict().items() if torch.equal(value, before[name])}
    frozen = {name for name in before if name.startswith("encoder.encoder.layer.0.")}
    assert frozen
    assert {name for name in same if "pooler" not in name} == frozen


def test_layers_that_are_not_there(checkpoint, nlp):
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert")), "freeze_layers": 3}})
    with pytest.raises(ValueError, match="freeze_layers: 3 is more than the 2 layers that the encoder has"):
        nlp.initialize(lambda: make_examples(nlp))


def test_layers_that_are_shared(tmp_path, nlp):
    config = {"hidden_size": 32, "embedding_size": 16, "num_hidden_groups": 1}
    folder = write_checkpoint(tmp_path, "albert", **config)
    nlp.add_pipe("bert_ner", config={"model": {"name": str(folder), "layer_decay": 0.9}})
    with pytest.raises(ValueError, match=r"layer_decay, .*: AlbertModel has no list of 2 layers"):
        nlp.initialize(lambda: make_examples(nlp))


def test_a_loss_that_explodes_is_warned_of_once(tagger, nlp):
    tagger("bert")
    with pytest.warns(UserWarning, match=r"the loss is .* training diverges. Lower \[training.optimizer\] learn_rate"):
        for _ in range(5):
            nlp.update(make_examples(nlp), sgd=Adam(3.0, grad_clip=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nlp.update(make_examples(nlp), sgd=Adam(3.0, grad_clip=0.0))


@pytest.mark.parametrize(("rate", "n_small", "factor", "warns"), [
    (1e-3, 0, 1.0, True), (5e-4, 0, 1.0, False), (1e-3, 10**9, 1.0, False), (1e-3, 0, 0.1, False), (1e-3, 0, None, False),
])  # fmt: skip
def test_a_learning_rate_that_is_too_high(rate, n_small, factor, warns, monkeypatch):
    """For an encoder of usual size, of which something is trained at that rate; once."""
    monkeypatch.setattr(optimizer_module, "SMALL_ENCODER", n_small)
    module = torch.nn.ModuleDict({"encoder": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 2)})
    module["encoder"].requires_grad_(factor is not None)
    factors = {name: factor or 1.0 if name.startswith("encoder.") else 1.0 for name, _ in module.named_parameters()}
    own, thinc = TorchOptimizer(module, rate_factors=factors, scale=None), Adam(rate)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            module["head"](module["encoder"](torch.ones(1, 4))).sum().backward()
            own.step(thinc, key=0, divisor=1.0)
    messages = [str(w.message) for w in caught if "learn_rate is 0.001" in str(w.message)]
    assert len(messages) == warns and all("2e-5 to 2e-4 is usual, and above 5e-04" in m for m in messages)
