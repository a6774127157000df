"""Search spaces: ranges, what they must not be, and the configs that come of them."""

import random
import re

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from spacy.training.batchers import minibatch_by_words
from spacy.util import load_config, load_model_from_config

from spacy_bertner.training.init import make_schedule
from spacy_bertner.tune.space import apply_settings, describe, make_distribution, own_settings, read_space, suggest

LENGTHS = [len(str(i)) * 30 for i in range(1, 200)]


@pytest.fixture(scope="module")
def config(project):
    config = load_config(project / "config.cfg", interpolate=False)
    return load_model_from_config(config, auto_fill=True).config


def test_ranges(config, write_space_file):
    path = write_space_file(
        '[training]\nepochs = {"low": 2, "high": 8, "step": 2}\n# comment\ndropout = {"low": 0, "high": 0.3, "step": 0.1}\n'
        '[training.optimizer.learn_rate]\ninitial_rate = {"low": 2e-5, "high": 3e-4, "log": true}\n'
        '[components.bert_ner.model]\ncrf = {"choices": [false, true]}\northography = {"choices": [null, true]}\n'
    )
    space = read_space(path, config)
    assert space == {
        "training.epochs": IntDistribution(2, 8, step=2),
        "training.dropout": FloatDistribution(0, 0.3, step=0.1),
        "training.optimizer.learn_rate.initial_rate": FloatDistribution(2e-5, 3e-4, log=True),
        "components.bert_ner.model.crf": CategoricalDistribution([False, True]),
        "components.bert_ner.model.orthography": CategoricalDistribution([None, True]),
    }
    assert [*map(describe, space.values())] == [
        "2 to 8 in steps of 2",
        "0.0 to 0.3 in steps of 0.1",
        "2e-05 to 0.0003, logarithmic",
        "[false, true]",
        "[null, true]",
    ]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        settings = suggest(trial, space)
        assert trial.distributions == space and settings == trial.params


@pytest.mark.parametrize(
    "text, message",
    [
        ('[training]\ndropuot = {"low": 0.0, "high": 0.3}', "[training] dropuot: no 'dropuot' in the section [training] of "
         "the config; did you mean 'dropout'?"),
        ('[trainig]\ndropout = {"low": 0.0, "high": 0.3}', "[trainig] dropout: no 'trainig' in the sections of the config; "
         "did you mean 'training'?"),
        ('[training]\nbatcher = {"choices": [1]}', "[training] batcher: is a section of the config, not a setting"),
        ('[training]\ndropout = {"low": 0.3, "high": 0.1}', "[training] dropout: low 0.3 is greater than high 0.1"),
        ('[training]\ndropout = {"low": 0, "high": 0.1, "log": true}', "[training] dropout: a log range cannot start at 0; "
         "low has to be greater than 0"),
        ('[training]\ndropout = {"low": 0.1, "high": 0.3, "step": 0}', "step 0 has to be greater than 0, and a log range"),
        ('[training]\ndropout = {"low": 0.1, "high": "0.3"}', "low, high and step have to be numbers"),
        ('[training]\ndropout = {"low": 0.1, "high": NaN}', "low, high and step have to be numbers"),
        ('[training]\ndropout = {"low": 0.1, "high": 0.3, "log": 1}', "log 1 has to be true or false"),
        ('[training]\ndropout = {"min": 0.1, "max": 0.3}', 'has to have "low" and "high", perhaps "step" or "log"'),
        ('[training]\ndropout = {"low": 0.1, "high": 0.3, "size": 1}', 'has to have "low" and "high", perhaps'),
        ('[training]\ndropout = {"choices": []}', 'has to be {"choices": […]}, with one choice or more'),
        ('[training]\ndropout = {"choices": [[1]]}', "choices [[1]] have to be numbers, strings, true, false or null"),
        ("[training]\ndropout = 0.1", '[training] dropout: 0.1 is not a range; one value is {"choices": […]}'),
        ("[training]\ndropout = {low: 1}", "[training] dropout: '{low: 1}' is not a range"),
        ('[training]\nepochs = {"low": 0, "high": 3}', "epochs have to be whole numbers of at least 1"),
        ('[training]\nepochs = {"choices": [1, 2.5]}', "epochs have to be whole numbers of at least 1"),
        ('[training]\nepochs = {"choices": [1]}\npatience = {"choices": [1]}', "training.patience follows from "
         "training.epochs; leave one of them out"),
        ('[training]\nmax_steps = {"low": 5, "high": 9}', "[training] max_steps: total_steps in "
         "[training.optimizer.learn_rate] would stay 6; give a range of `epochs`, which sets both, or write total_steps = "
         "${training.max_steps} in the config"),
        ("[training]", "has no ranges"),
        ("dropout = 1", "File contains no section headers."),
        ('[training]\ndropout = {"choices": [1]}\ndropout = {"choices": [1]}', "[line  3]: option 'dropout' in section"),
    ],
)  # fmt: skip
def test_what_is_no_search_space(text, message, config, write_space_file):
    path = write_space_file(text)
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\ \ ", " +")) as caught:
        read_space(path, config)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_steps_may_be_searched_if_the_schedule_follows(config, write_space_file):
    config = config.copy()
    config["training"]["optimizer"]["learn_rate"]["total_steps"] = "${training.max_steps}"
    space = read_space(write_space_file('[training]\nmax_steps = {"low": 5, "high": 9}'), config)
    changed = apply_settings(config, {"training.max_steps": 7}, []).interpolate()
    assert [*space] == ["training.max_steps"]
    assert changed["training"]["optimizer"]["learn_rate"]["total_steps"] == 7
    config["training"]["optimizer"]["learn_rate"] = 1e-4  # no schedule
    read_space(write_space_file('[training]\nmax_steps = {"low": 5, "high": 9}'), config)


@pytest.mark.parametrize("size", [60, 300, 900])
def test_epochs_are_those_of_init(size, config):
    settings = {"training.epochs": 7, "training.batcher.size": size, "training.dropout": 0.3}
    before = config.to_str()
    training = apply_settings(config, settings, LENGTHS).interpolate()["training"]
    assert config.to_str() == before
    # Batches of spaCy's own batcher, in other orders
    documents, n_batches = [[0] * n for n in LENGTHS], 0
    for _ in range(7):
        random.shuffle(documents)
        n_batches += len([*minibatch_by_words(documents, size, 0.2)])
    assert training["max_steps"] == pytest.approx(n_batches, abs=10 + 0.02 * n_batches)
    assert training["batcher"]["size"] == size and training["dropout"] == 0.3
    assert training["eval_frequency"] * 10 == training["max_steps"]
    assert training["patience"] == training["max_steps"] // 2 and training["max_epochs"] == 0
    schedule = training["optimizer"]["learn_rate"]
    assert schedule["total_steps"] == training["max_steps"]
    assert schedule["warmup_steps"] == round(training["max_steps"] / 10)
    if size == 300:
        assert training["max_steps"] == pytest.approx(make_schedule(LENGTHS, 7).steps, abs=20)


def test_the_configs_own_settings(config):
    space = {
        "training.epochs": IntDistribution(1, 10),
        "training.dropout": FloatDistribution(0.2, 0.3),
        "training.batcher.size": CategoricalDistribution([300, 600]),
        "components.bert_ner.model.name": CategoricalDistribution(["other"]),
        "training.optimizer.learn_rate.initial_rate": FloatDistribution(1e-4, 1e-3, log=True),
    }
    expected = {
        "training.epochs": 6, "training.batcher.size": 300, "training.optimizer.learn_rate.initial_rate": 1e-4,
    }  # fmt: skip
    assert own_settings(config, space, [5, 10, 7] * 6) == expected


def test_own_values_between_two_steps_of_a_range(config):
    for step, expected in ((0.05, {"training.dropout": 0.1}), (0.2, {})):
        assert own_settings(config, {"training.dropout": FloatDistribution(0, 0.4, step=step)}, [5]) == expected


@pytest.mark.parametrize(
    "max_steps, max_epochs, expected", [(6, 0, 6), (0, 10, 10), (20000, 4, 4), (3, 9, 3), (0, 0, 1)]
)
def test_own_epochs(max_steps, max_epochs, expected, config):
    """Whichever limit comes first; one step is one epoch here; 0: no limit."""
    config = config.copy()
    config["training"].update(max_steps=max_steps, max_epochs=max_epochs)
    assert own_settings(config, {"training.epochs": IntDistribution(1, 10)}, [5]) == {"training.epochs": expected}


def test_one_value_is_a_range():
    assert make_distribution({"low": 1, "high": 1}) == IntDistribution(1, 1)
    assert make_distribution({"low": 1, "high": 1.0}) == FloatDistribution(1, 1)
