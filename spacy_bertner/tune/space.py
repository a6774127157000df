"""The search space: a file in the form of a training config, with ranges in the place of values."""

import configparser
import contextlib
import difflib
import json
import math
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial
from spacy.util import dot_to_object, registry, set_dot_to_object
from thinc.api import Config

from ..training.init import make_schedule

Space = dict[str, BaseDistribution]

EPOCHS, MAX_STEPS = "training.epochs", "training.max_steps"
TOTAL_STEPS, WARMUP_STEPS = (f"training.optimizer.learn_rate.{name}_steps" for name in ("total", "warmup"))
# What follows from the number of epochs
FOLLOWS = (MAX_STEPS, "training.max_epochs", "training.eval_frequency", "training.patience", TOTAL_STEPS, WARMUP_STEPS)
# The same in all trials, so that their scores can be compared on the way
N_EVALUATIONS = 10


def read_space(path: Path, config: Config) -> Space:
    """Read a search space: the range of each setting by its path, such as `training.dropout`.

    config: a complete training config, which the paths are looked up in.

    Raises ValueError for what is not a range, and for settings that the config does not have or that contradict each other;
    OSError.
    """
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # case counts
    space: Space = {}
    try:
        parser.read_string(path.read_text("utf8"), str(path))
    except configparser.Error as err:
        raise ValueError(f"{path}: {' '.join(str(err).split())}") from None
    for section in parser.sections():
        for key, text in parser.items(section):
            name = f"{section}.{key}"
            try:
                space[name] = make_distribution(_parse_json(text))
                value = None if name == EPOCHS else find_setting(name, config)
                if isinstance(value, dict) and value:
                    raise ValueError("is a section of the config, not a setting")
                if name == EPOCHS and not all(type(end) is int and end >= 1 for end in ends(space[name])):
                    raise ValueError(f"{text}: epochs have to be whole numbers of at least 1")
            except ValueError as err:
                raise ValueError(f"{path}: [{section}] {key}: {err}") from None
    if not space:
        raise ValueError(f"{path}: has no ranges")
    follows = [name for name in FOLLOWS if name in space]
    if EPOCHS in space and follows:
        raise ValueError(f"{path}: {follows[0]} follows from training.epochs; leave one of them out")
    total = dot_to_object(config, TOTAL_STEPS) if _has(config, TOTAL_STEPS) else None
    if MAX_STEPS in space and total is not None and MAX_STEPS not in str(total):
        raise ValueError(
            f"{path}: [training] max_steps: total_steps in [training.optimizer.learn_rate] would stay {total}; give a range "
            "of `epochs`, which sets both, or write total_steps = ${training.max_steps} in the config"
        )
    return space


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def make_distribution(value: Any) -> BaseDistribution:
    """Return Optuna's distribution for a range; raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(
            f'{value!r} is not a range; one value is {{"choices": […]}}, or an override on the command line'
        )
    if "choices" in value:
        choices = value["choices"]
        if len(value) > 1 or not isinstance(choices, list) or not choices:
            raise ValueError(f'{value} has to be {{"choices": […]}}, with one choice or more and nothing else')
        if not all(choice is None or isinstance(choice, bool | int | float | str) for choice in choices):
            raise ValueError(f"choices {choices} have to be numbers, strings, true, false or null")
        return CategoricalDistribution(choices)
    unknown = sorted(value.keys() - {"low", "high", "step", "log"})
    if unknown or not {"low", "high"} <= value.keys():
        raise ValueError(f'{value} has to have "low" and "high", perhaps "step" or "log", and nothing else')
    low, high, step, log = value["low"], value["high"], value.get("step"), value.get("log", False)
    numbers = [low, high] + [step] * (step is not None)
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) for x in numbers):
        raise ValueError(f"{value}: low, high and step have to be numbers")
    if not isinstance(log, bool):
        raise ValueError(f"log {log!r} has to be true or false")
    if low > high:
        raise ValueError(f"low {low} is greater than high {high}")
    if log and low <= 0:
        raise ValueError(f"a log range cannot start at {low}; low has to be greater than 0")
    if step is not None and (log or step <= 0):
        raise ValueError(f"step {step} has to be greater than 0, and a log range has none")
    if all(isinstance(x, int) for x in numbers):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def find_setting(name: str, config: Config) -> Any:
    """Return the value of a setting, or a section, of a config; raises ValueError if there is none."""
    parts, node = name.split("."), config
    for i, part in enumerate(parts):
        if not isinstance(node, dict) or part not in node:
            near = difflib.get_close_matches(part, node, 1) if isinstance(node, dict) else []
            where = f"section [{'.'.join(parts[:i])}]" if i else "sections"
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no {part!r} in the {where} of the config{hint}")
        node = node[part]
    return node


def _has(config: Config, name: str) -> bool:
    try:
        find_setting(name, config)
    except ValueError:
        return False
    return True


def ends(distribution: Any) -> Sequence[Any]:
    """Return the choices, or the ends of a range."""
    is_choice = isinstance(distribution, CategoricalDistribution)
    return distribution.choices if is_choice else (distribution.low, distribution.high)


def describe(distribution: Any) -> str:
    """Return a range as text."""
    if isinstance(distribution, CategoricalDistribution):
        return json.dumps(distribution.choices)
    step = "" if distribution.step in (None, 1) else f" in steps of {distribution.step}"
    return f"{distribution.low} to {distribution.high}{step}" + ", logarithmic" * distribution.log


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """Return the settings that Optuna suggests for a trial."""
    settings: dict[str, Any] = {}
    for name, d in space.items():
        if isinstance(d, CategoricalDistribution):
            settings[name] = trial.suggest_categorical(name, d.choices)
        elif isinstance(d, IntDistribution):
            settings[name] = trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
        elif isinstance(d, FloatDistribution):
            settings[name] = trial.suggest_float(name, d.low, d.high, step=d.step, log=d.log)
    return settings


def own_settings(config: Config, space: Space, lengths: Sequence[int]) -> dict[str, Any]:
    """Return the values of the config itself for a search space, without those that are outside of their range."""
    values = config.interpolate()
    settings = {}
    for name, distribution in space.items():
        if name == EPOCHS:
            training, n_batches = values["training"], make_schedule(lengths, 1, _batcher(config)).steps
            limits = [training["max_epochs"], training["max_steps"] / n_batches]  # 0: there is none
            value = max(round(min((limit for limit in limits if limit > 0), default=0)), 1)
        else:
            value = dot_to_object(values, name)
        with contextlib.suppress(ValueError, TypeError):  # it is outside of its range, or between two steps of it
            create_trial(value=0.0, params={name: value}, distributions={name: distribution})
            settings[name] = value
    return settings


def apply_settings(config: Config, settings: dict[str, Any], lengths: Sequence[int]) -> Config:
    """Return a training config with other settings. With epochs among them, steps and schedule follow as by `init`.

    lengths: number of words of each training document.
    """
    config = config.copy()
    for name, value in settings.items():
        if name != EPOCHS:
            set_dot_to_object(config, name, value)
    if EPOCHS in settings:
        schedule = make_schedule(lengths, settings[EPOCHS], _batcher(config), (N_EVALUATIONS, N_EVALUATIONS))
        values = (schedule.steps, 0, schedule.eval_frequency, schedule.patience, schedule.steps, schedule.warmup)
        for name, value in zip(FOLLOWS, values, strict=True):
            if _has(config, name):  # not every schedule has an end and a warm-up
                set_dot_to_object(config, name, value)
    return config


def _batcher(config: Config) -> Any:
    return registry.resolve({"batcher": config.interpolate()["training"]["batcher"]})["batcher"]
