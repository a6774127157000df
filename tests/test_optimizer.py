"""One step against torch's own AdamW with parameter groups and `clip_grad_norm_` on the same gradients."""

import copy

import pytest
import torch
from thinc.api import SGD, Adam, RAdam
from torch import nn

from spacy_bertner.optimizer import TorchOptimizer


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"dense": nn.Linear(8, 6), "LayerNorm": nn.LayerNorm(6)})
        self.head = nn.Linear(6, 3)

    def forward(self, X):
        return self.head(self.encoder["LayerNorm"](self.encoder["dense"](X)))


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
    optimizer = TorchOptimizer(ours, head_learn_rate=head_factor, scaled=False)
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
    optimizer = TorchOptimizer(module, head_learn_rate=1.0, scaled=False)
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
    optimizer = TorchOptimizer(module, head_learn_rate=1.0, scaled=False)
    module(torch.full((1, 8), float("nan"))).sum().backward()
    optimizer.step(Adam(1.0), key=1, divisor=1)
    torch.testing.assert_close(module.state_dict(), before)
    assert optimizer.n_skipped == 1
    assert all(p.grad.abs().sum() == 0 for p in module.parameters())


def test_averages_are_those_of_thinc():
    module = Tiny()
    optimizer = TorchOptimizer(module, head_learn_rate=1.0, scaled=False)
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
    optimizer = TorchOptimizer(module, head_learn_rate=1.0, scaled=False)
    with pytest.raises(FloatingPointError, match=r"training has diverged\. Lower .* learn_rate"):
        for _ in range(100):
            module(torch.full((1, 8), float("nan"))).sum().backward()
            optimizer.step(Adam(1.0), key=1, divisor=1)
    assert optimizer.n_skipped == 40
