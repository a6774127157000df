"""One optimizer step, as BERT is fine-tuned: AdamW with decoupled decay, global-norm clipping, all parameters at once.

The settings are those of the Thinc optimizer in the config's `[training.optimizer]`, with their values at that step. Thinc's
own step loops over the parameters in Python, clips each tensor separately, and decays biases and LayerNorm too; here it is
torch's fused step (Loshchilov and Hutter 2019), over the parameter groups of Devlin et al.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from thinc.api import Adam, Optimizer
from torch import Tensor, nn

# float16 may start with too large a scale and halve it, which takes a few steps. On a GPU this is also how often the number
# of skipped steps is checked, since that means waiting for the GPU.
MAX_SKIPPED = 40
# A warm-up starts with one step at a rate of zero; this many in a row are a mistake in the schedule
MAX_STEPS_AT_ZERO = 10
# Above this learning rate an encoder of usual size often learns nothing; smaller ones allow more
HIGH_LEARN_RATE = 5e-4
SMALL_ENCODER = 5_000_000


def resized(tensor: Tensor, shape: Sequence[int], fill: Tensor | None = None) -> Tensor:
    """Return a tensor of another shape, with the values that fit in both, and zeros or those of `fill` elsewhere."""
    new = tensor.new_zeros(shape) if fill is None else fill.clone()
    shared = tuple(slice(min(sizes)) for sizes in zip(tensor.shape, shape, strict=True))
    new[shared] = tensor[shared]
    return new


class TorchOptimizer:
    """Updates the parameters of a module with the settings of a Thinc optimizer.

    module: the module whose parameters are trained; those that require no gradient do not change.
    rate_factors: the factor on the learning rate of each parameter, by its name.
    scale: initial scale of the loss, which float16 needs (Micikevicius et al. 2018); None for no scaling.
    """

    def __init__(self, module: nn.Module, *, rate_factors: dict[str, float], scale: float | None) -> None:
        self._module = module
        self._rate_factors = rate_factors
        self._scaler = torch.amp.GradScaler("cuda", init_scale=scale or 1.0, enabled=scale is not None)
        self._torch: torch.optim.Optimizer | None = None
        self._thinc: Optimizer | None = None
        self._n_steps = 0
        self._n_averaged = 0
        # Steps skipped because the gradient was not finite: in all, and in a row up to now. They are counted on the device,
        # where the norm is known, so that the host does not wait.
        self._skipped = torch.zeros(2)
        self._n_at_zero = 0  # steps in a row with a learning rate of zero
        self._has_warned_of_rate = False

    @property
    def n_skipped(self) -> int:
        """The number of steps that were skipped because the gradient was not finite; waits for the device."""
        return int(self._skipped[0])

    def scale(self, d_scores: Tensor) -> Tensor:
        """Scale the gradient of the scores for the backward pass, if there is scaling."""
        return self._scaler.scale(d_scores)

    def step(self, optimizer: Optimizer, *, key: int, divisor: float) -> None:
        """Take one step with the gradients of the parameters, and set them to zero.

        optimizer: the Thinc optimizer; its learn_rate, L2, grad_clip, b1, b2 and eps are used.
        key: averages are stored in `optimizer.averages` under (key, parameter name), if it keeps averages.
        divisor: the gradients are divided by it.

        A step with a gradient that is not finite is skipped and counted in `n_skipped`. Raises FloatingPointError after
        `MAX_SKIPPED` of them in a row, on a GPU up to that many steps later. Warns once after `MAX_STEPS_AT_ZERO` steps in a
        row with a learning rate of zero.
        """
        if self._torch is None or self._thinc is not optimizer:
            self._torch = self._make(optimizer)
            self._thinc = optimizer
        self._set(self._torch, optimizer)
        self._check_rate(optimizer.learn_rate)
        self._scaler.unscale_(self._torch)
        grads = [p.grad for p in self._module.parameters() if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(grads)).norm() / divisor
        is_skipped = (~norm.isfinite()).float()
        # Dividing and clipping (Pascanu et al. 2013, as in `clip_grad_norm_`) in one pass over the gradients
        clip = (optimizer.grad_clip / (norm + 1e-6)).clamp(max=1.0) if optimizer.grad_clip else torch.ones_like(norm)
        torch._foreach_mul_(grads, clip / divisor)
        self._step_unless(is_skipped, self._torch)
        self._scaler.update()
        # The memory is kept, since allocating it for each step costs more than filling it with zeros
        self._torch.zero_grad(set_to_none=False)
        if optimizer.averages is not None:
            self._average(optimizer.averages, key)
        self._count(is_skipped, optimizer.learn_rate)

    def _step_unless(self, is_skipped: Tensor, torch_optimizer: Any) -> None:
        """Take torch's step unless `is_skipped`, a number on the device, is 1."""
        if torch_optimizer.defaults.get("fused"):
            # As GradScaler does: the kernel itself checks, so that the host need not
            torch_optimizer.found_inf = is_skipped
            torch_optimizer.step()
        elif not is_skipped:  # waits for the device
            torch_optimizer.step()

    def _count(self, is_skipped: Tensor, learn_rate: float) -> None:
        """Count skipped steps and steps at a learning rate of zero; warn or raise if there are too many in a row."""
        self._n_steps += 1
        self._skipped = self._skipped.to(is_skipped.device)
        self._skipped[1] *= is_skipped
        self._skipped += is_skipped
        self._n_at_zero = 0 if learn_rate else self._n_at_zero + 1
        if self._n_at_zero == MAX_STEPS_AT_ZERO:
            warnings.warn(
                f"the learning rate has been 0 for {MAX_STEPS_AT_ZERO} steps, which learn nothing: check "
                "[training.optimizer] learn_rate (a linear schedule is at 0 after total_steps; the length of a run is "
                "set by max_steps, max_epochs and patience)",
                stacklevel=3,
            )
        is_checked = is_skipped.device.type == "cpu" or self._n_steps % MAX_SKIPPED == 0
        if is_checked and self._skipped[1] >= MAX_SKIPPED:
            raise FloatingPointError(
                f"the gradient was not finite for {MAX_SKIPPED} steps in a row: training has diverged. Lower "
                "[training.optimizer] learn_rate (5e-5 to 2e-4 is usual), or check the data and mixed_precision"
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what the next step depends on besides parameters and settings: tensors by name, and values for JSON."""
        tensors: dict[str, Tensor] = {}
        if self._torch is not None:
            names = {parameter: name for name, parameter in self._module.named_parameters()}
            for parameter, state in self._torch.state.items():
                tensors.update({f"{kind}/{names[parameter]}": x for kind, x in state.items() if isinstance(x, Tensor)})
        numbers = {
            "has_stepped": self._torch is not None,
            "scaler": self._scaler.state_dict(),
            "n_steps": self._n_steps,
            "n_averaged": self._n_averaged,
            "skipped": self._skipped.tolist(),
            "n_at_zero": self._n_at_zero,
        }
        return tensors, numbers

    def load_state(self, optimizer: Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Restore what `state` returned; optimizer: the Thinc optimizer of the next step."""
        self._torch = self._thinc = None
        if numbers["has_stepped"]:
            self._torch, self._thinc = self._make(optimizer), optimizer
            names = {parameter: name for name, parameter in self._module.named_parameters()}
            parameters = [names[p] for group in self._torch.param_groups for p in group["params"]]
            places = {name: i for i, name in enumerate(parameters)}
            state = self._torch.state_dict()
            for key, tensor in tensors.items():
                kind, name = key.split("/", 1)
                # A copy, since torch keeps the tensor, which may be a view of a file
                state["state"].setdefault(places[name], {})[kind] = tensor.clone()
            self._torch.load_state_dict(state)
        self._scaler = torch.amp.GradScaler(
            "cuda", enabled=self._scaler.is_enabled()
        )  # since its tensors have a device
        self._scaler.load_state_dict(numbers["scaler"])
        self._n_steps = numbers["n_steps"]
        self._n_averaged = numbers["n_averaged"]
        self._skipped = torch.tensor(numbers["skipped"])
        self._n_at_zero = numbers["n_at_zero"]

    def settings(self, optimizer: Any) -> Optimizer:
        """Return the optimizer whose settings apply to a step.

        optimizer: a Thinc optimizer, which is returned; or the function with attributes learn_rate, b1 and b2 that
            `Language.rehearse` passes to components. For that, the optimizer of the last step is returned, with its L2,
            clipping and averages, or before the first step one with the function's settings.
        """
        if isinstance(optimizer, Optimizer):
            return optimizer
        if self._thinc is None:
            self._thinc = Adam(optimizer.learn_rate, beta1=optimizer.b1, beta2=optimizer.b2, use_averages=False)
        return self._thinc

    def replace(self, replaced: Sequence[tuple[nn.Parameter, nn.Parameter]]) -> None:
        """Replace parameters by others of another shape, keeping the state of the values that fit in both.

        replaced: pairs of the old and the new parameter.
        """
        if self._torch is None:
            return
        for before, after in replaced:
            for group in self._torch.param_groups:
                group["params"] = [after if p is before else p for p in group["params"]]
            state = self._torch.state.pop(before, {})
            for name, value in state.items():
                if value.shape == before.shape:  # the number of steps is not resized
                    state[name] = resized(value, after.shape)
            if state:
                self._torch.state[after] = state

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Move the state along with the parameters, which are moved to another device in the context."""
        state, thinc = self.state(), self._thinc
        yield
        if thinc is not None:
            self.load_state(thinc, *state)

    def _make(self, optimizer: Optimizer) -> torch.optim.Optimizer:
        groups: dict[tuple[bool, float], list[Tensor]] = {}
        for name, parameter in self._module.named_parameters():
            if parameter.requires_grad:
                # Biases and the weights of LayerNorm are vectors; transitions are biases too
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

    def _check_rate(self, learn_rate: float) -> None:
        """Warn once of a learning rate that is too high for the encoder."""
        if learn_rate <= HIGH_LEARN_RATE or self._has_warned_of_rate:
            return
        named = self._module.named_parameters()
        # Adapters, which are new, take higher rates
        trained = [(n, p) for n, p in named if p.requires_grad and n.startswith("encoder.") and ".lora_" not in n]
        rate = learn_rate * max((self._rate_factors[name] for name, _ in trained), default=0.0)
        if rate > HIGH_LEARN_RATE and sum(parameter.numel() for _, parameter in trained) >= SMALL_ENCODER:
            self._has_warned_of_rate = True
            warnings.warn(
                f"[training.optimizer] learn_rate is {learn_rate:.2g}: for an encoder 2e-5 to 2e-4 is usual, and above "
                f"{HIGH_LEARN_RATE:.0e} it often learns nothing (spacy init fill-config writes 0.001)",
                stacklevel=4,
            )

    def _average(self, averages: dict, key: int) -> None:
        """Move the averages towards the parameters, at the rate of Thinc's `update_averages`."""
        self._n_averaged += 1
        decay = min((1.0 + self._n_averaged) / (10.0 + self._n_averaged), 0.9999)
        names, values = zip(*((n, p.data) for n, p in self._module.named_parameters() if p.requires_grad), strict=True)
        for name, value in zip(names, values, strict=True):
            # An average of another shape is from before the head was resized
            if (key, name) not in averages or averages[key, name].shape != value.shape:
                averages[key, name] = torch.zeros_like(value)
            averages[key, name] = averages[key, name].to(value.device)
        torch._foreach_lerp_([averages[key, name] for name in names], values, 1.0 - decay)
