"""One optimiser step, as BERT is fine-tuned: AdamW with decoupled decay, global-norm clipping, all parameters at once.

The settings are those of the Thinc optimiser in the config's `[training.optimizer]`, as they stand at that step. Thinc's
own step walks the parameters in Python, clips each tensor by itself and decays biases and LayerNorm too; here the step is
torch's fused one (Loshchilov and Hutter 2019), over the groups that Devlin et al. used.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from thinc.api import Adam, Optimizer
from torch import Tensor, nn

# float16 starts with a scale that is too large and halves it, which takes a few steps
MAX_SKIPPED = 40
# A warm-up starts with one step at a rate of zero; so many in a row are a mistake in the schedule
MAX_STEPS_AT_ZERO = 10


def resized(tensor: Tensor, n_rows: int, fill: Tensor | None = None) -> Tensor:
    """Return the tensor with so many rows: its own, then zeros or those of `fill`, (n_rows, …)."""
    rows = tensor.new_zeros(n_rows, *tensor.shape[1:]) if fill is None else fill.clone()
    n = min(n_rows, len(tensor))
    rows[:n] = tensor[:n]
    return rows


class TorchOptimizer:
    """Steps the parameters of a module under the settings of a Thinc optimiser.

    module: the module whose parameters are trained; those that ask for no gradient stay as they are.
    rate_factors: the factor on the learning rate for each parameter, by its name.
    scaled: whether to scale the loss, as float16 needs.
    """

    def __init__(self, module: nn.Module, *, rate_factors: dict[str, float], scaled: bool) -> None:
        self._module = module
        self._rate_factors = rate_factors
        self._scaler = torch.amp.GradScaler("cuda", enabled=scaled)
        self._torch: torch.optim.Optimizer | None = None
        self._thinc: Optimizer | None = None
        self._n_averaged = 0
        self.n_skipped = 0  # steps not taken because the gradient was not finite
        self._n_skipped_in_a_row = 0
        self._n_at_zero = 0  # steps in a row with a learning rate of zero

    def scale(self, d_scores: Tensor) -> Tensor:
        """Scale the gradient of the scores for the backward pass; itself where there is no scaling."""
        return self._scaler.scale(d_scores)

    def step(self, optimizer: Optimizer, *, key: int, divisor: float) -> None:
        """Take one step with the gradients of the parameters, and set them to nothing.

        optimizer: the Thinc optimiser whose learn_rate, L2, grad_clip, b1, b2 and eps hold for this step.
        key: under (key, parameter name) the averages go into `optimizer.averages`, where it has them.
        divisor: the gradients are divided by it.

        A step with a gradient that is not finite is skipped and counted in `n_skipped`; raises FloatingPointError after
        `MAX_SKIPPED` of them in a row. Warns once of `MAX_STEPS_AT_ZERO` steps in a row with a learning rate of zero.
        """
        if self._torch is None or self._thinc is not optimizer:
            self._torch = self._make(optimizer)
            self._thinc = optimizer
        self._set(self._torch, optimizer)
        self._scaler.unscale_(self._torch)
        grads = [p.grad for p in self._module.parameters() if p.grad is not None]
        norm = float(torch.stack(torch._foreach_norm(grads)).norm()) / divisor
        is_finite = math.isfinite(norm)
        if is_finite:
            # Dividing and clipping (Pascanu et al. 2013, as in `clip_grad_norm_`) in one pass over the gradients
            clip = min(1.0, optimizer.grad_clip / (norm + 1e-6)) if optimizer.grad_clip else 1.0
            torch._foreach_mul_(grads, clip / divisor)
            self._scaler.step(self._torch)
            self._n_skipped_in_a_row = 0
        else:
            self.n_skipped += 1
            self._n_skipped_in_a_row += 1
        self._scaler.update()
        # The memory is kept: to get it anew for each step costs more than to fill it with zeros
        self._torch.zero_grad(set_to_none=False)
        if is_finite and optimizer.averages is not None:
            self._average(optimizer.averages, key)
        self._n_at_zero = 0 if optimizer.learn_rate else self._n_at_zero + 1
        if self._n_at_zero == MAX_STEPS_AT_ZERO:
            warnings.warn(
                f"the learning rate has been 0 for {MAX_STEPS_AT_ZERO} steps, which teach nothing: look at "
                "[training.optimizer] learn_rate (a linear schedule is at 0 after total_steps; the length of a run is "
                "set by max_steps, max_epochs and patience)",
                stacklevel=2,
            )
        if self._n_skipped_in_a_row >= MAX_SKIPPED:
            raise FloatingPointError(
                f"the gradient was not finite for {MAX_SKIPPED} steps in a row: training has diverged. Lower "
                "[training.optimizer] learn_rate (5e-5 to 2e-4 is usual), or check the data and mixed_precision"
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what the next step depends on besides parameters and settings: tensors by name, and numbers for JSON."""
        tensors: dict[str, Tensor] = {}
        if self._torch is not None:
            names = {parameter: name for name, parameter in self._module.named_parameters()}
            for parameter, state in self._torch.state.items():
                tensors.update({f"{kind}/{names[parameter]}": x for kind, x in state.items() if isinstance(x, Tensor)})
        numbers = {
            "has_stepped": self._torch is not None,
            "scaler": self._scaler.state_dict(),
            "n_averaged": self._n_averaged,
            "n_skipped": self.n_skipped,
            "n_skipped_in_a_row": self._n_skipped_in_a_row,
            "n_at_zero": self._n_at_zero,
        }
        return tensors, numbers

    def load_state(self, optimizer: Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go on from what `state` returned, under the settings of a Thinc optimiser."""
        self._torch = self._thinc = None
        if numbers["has_stepped"]:
            self._torch, self._thinc = self._make(optimizer), optimizer
            names = {parameter: name for name, parameter in self._module.named_parameters()}
            parameters = [names[p] for group in self._torch.param_groups for p in group["params"]]
            places = {name: i for i, name in enumerate(parameters)}
            state = self._torch.state_dict()
            for key, tensor in tensors.items():
                kind, name = key.split("/", 1)
                # A copy, since torch keeps what it is given, and this may be a view of a file
                state["state"].setdefault(places[name], {})[kind] = tensor.clone()
            self._torch.load_state_dict(state)
        self._scaler.load_state_dict(numbers["scaler"])
        self._n_averaged = numbers["n_averaged"]
        self.n_skipped = numbers["n_skipped"]
        self._n_skipped_in_a_row = numbers["n_skipped_in_a_row"]
        self._n_at_zero = numbers["n_at_zero"]

    def settings(self, optimizer: Any) -> Optimizer:
        """Return the optimiser whose settings hold for a step.

        optimizer: a Thinc optimiser; or, as `Language.rehearse` gives it to components, a function with attributes
            learn_rate, b1 and b2. For that one it is the optimiser of the last step, with L2, clipping and averages, or
            before the first step one with the function's settings.
        """
        if isinstance(optimizer, Optimizer):
            return optimizer
        if self._thinc is None:
            self._thinc = Adam(optimizer.learn_rate, beta1=optimizer.b1, beta2=optimizer.b2, use_averages=False)
        return self._thinc

    def replace(self, old: Sequence[nn.Parameter], new: Sequence[nn.Parameter]) -> None:
        """Let parameters with more or fewer rows take the place of others; what is known of the rows they share stays."""
        if self._torch is None:
            return
        for before, after in zip(old, new, strict=True):
            for group in self._torch.param_groups:
                group["params"] = [after if p is before else p for p in group["params"]]
            state = self._torch.state.pop(before, {})
            for name, value in state.items():
                if value.shape == before.shape:  # not the number of steps
                    state[name] = resized(value, len(after))
            if state:
                self._torch.state[after] = state

    def _make(self, optimizer: Optimizer) -> torch.optim.Optimizer:
        groups: dict[tuple[bool, float], list[Tensor]] = {}
        for name, parameter in self._module.named_parameters():
            if parameter.requires_grad:
                # Biases and the weights of LayerNorm are the vectors among the parameters; transitions are biases too
                decays = parameter.ndim > 1 and name != "transitions"
                groups.setdefault((decays, self._rate_factors[name]), []).append(parameter)
        named = [{"params": p, "decays": decays, "factor": factor} for (decays, factor), p in groups.items()]
        if optimizer.use_radam:
            return torch.optim.RAdam(named, decoupled_weight_decay=optimizer.L2_is_weight_decay, foreach=True)
        if optimizer.b2 > 0:
            kind = torch.optim.AdamW if optimizer.L2_is_weight_decay else torch.optim.Adam
            return kind(named, fused=True)
        return torch.optim.SGD(named, fused=True)

    def _set(self, torch_optimizer: torch.optim.Optimizer, optimizer: Optimizer) -> None:
        for group in torch_optimizer.param_groups:
            settings: dict[str, Any] = {
                "lr": optimizer.learn_rate * group["factor"],
                "weight_decay": optimizer.L2 if group["decays"] else 0.0,
                "betas": (optimizer.b1, optimizer.b2),
                "eps": optimizer.eps,
            }
            group.update({name: value for name, value in settings.items() if name in group})

    def _average(self, averages: dict, key: int) -> None:
        """Move the averages towards the parameters, at the rate of Thinc's `update_averages`."""
        self._n_averaged += 1
        decay = min((1.0 + self._n_averaged) / (10.0 + self._n_averaged), 0.9999)
        names, values = zip(*((n, p.data) for n, p in self._module.named_parameters() if p.requires_grad), strict=True)
        for name, value in zip(names, values, strict=True):
            # Of another shape: from before the head was resized
            if (key, name) not in averages or averages[key, name].shape != value.shape:
                averages[key, name] = torch.zeros_like(value)
        torch._foreach_lerp_([averages[key, name] for name in names], values, 1.0 - decay)
