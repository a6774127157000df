"""The training loggers, in real runs of spaCy's training loop, beside its own console logger."""

import csv
import io
import json
import math
import re
import shutil
import signal
import subprocess
import sys

import pytest
import spacy
from spacy.cli.init_config import fill_config
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as train_loop
from torch.optim.optimizer import register_optimizer_step_pre_hook

from spacy_bertner.training.learning_curve import plot_learning_curve

from ..conftest import ROOT, make_examples

CONSOLE = {"@loggers": "spacy.ConsoleLogger.v3", "progress_bar": "eval"}
CURVE = {"@loggers": "spacy_bertner.LearningCurve.v1"}
TENSORBOARD = {"@loggers": "spacy_bertner.TensorBoardLogger.v1"}
FIRST = ["step", "epoch", "words", "seconds", "learn_rate", "score"]
ACT_AT_STEP = """
import os, signal, spacy

@spacy.registry.callbacks("test_loggers.act_at_step")
def act_at_step(step: int, action: str):
    def before_update(nlp, args):
        if args["step"] == step:
            if action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif action == "interrupt":
                raise KeyboardInterrupt
            raise RuntimeError("no more")
    return before_update
"""
exec(ACT_AT_STEP)


@spacy.registry.loggers("test_loggers.recording")
def recording(into: str):
    """Keep what spaCy says to loggers, as it is at that time."""

    def setup(nlp, stdout, stderr):
        infos = RECORDED[into] = []

        def log_step(info):
            if info is not None:
                infos.append({**info, "losses": dict(info["losses"]), "other_scores": dict(info["other_scores"])})

        return log_step, lambda: None

    return setup


RECORDED: dict[str, list] = {}


class Terminal(io.StringIO):
    """Output that tqdm takes for a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def config(tmp_path, checkpoint):
    """Give a function that makes the config of a short training with these loggers: `configs/demo.cfg` with changes."""
    docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")

    def make(*loggers, **training):
        config = spacy.util.load_config(ROOT / "configs" / "demo.cfg")
        config["paths"].update({"train": str(tmp_path / "train.spacy"), "dev": str(tmp_path / "train.spacy")})
        config["paths"]["encoder"] = str(checkpoint("bert"))
        config["components"]["bert_ner"]["model"]["head_learn_rate"] = 1.0
        config["training"].update({"max_epochs": 0, "max_steps": 21, "eval_frequency": 5, **training})
        config["training"]["optimizer"]["learn_rate"] = training.pop("learn_rate", 5e-3)
        config["training"].pop("learn_rate", None)
        if loggers:
            chain = {f"logger{i}": dict(logger) for i, logger in enumerate(loggers, start=1)}
            config["training"]["logger"] = {"@loggers": "spacy.ChainLogger.v1", **chain}
        return config

    return make


def train(config, output=None, **streams):
    """Run the training loop; return what it writes to stdout and stderr."""
    streams = {"stdout": io.StringIO(), "stderr": io.StringIO(), **streams}
    if output is not None:
        output.mkdir(exist_ok=True)  # as the command does
    try:
        train_loop(init_nlp(config), output, **streams)
    finally:
        train.output = [stream.getvalue() for stream in streams.values()]
    return train.output


def read_table(path):
    with path.open(encoding="utf8", newline="") as file:
        reader = csv.DictReader(file)
        return reader.fieldnames, [{name: float(value or "nan") for name, value in row.items()} for row in reader]


@pytest.fixture
def torch_rates():
    """The learning rate of each step that torch really takes."""
    rates = []

    def hook(optimizer, args, kwargs):
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        rates.append(rate)

    handle = register_optimizer_step_pre_hook(hook)
    yield rates
    handle.remove()


WARMUP = {"@schedules": "warmup_linear.v1", "warmup_steps": 4, "total_steps": 21, "initial_rate": 5e-3}
CYCLIC = {"@schedules": "cyclic_triangular.v1", "min_lr": 1e-3, "max_lr": 2e-3, "period": 7}


@pytest.mark.parametrize(
    "learn_rate", [5e-3, [1e-3, 2e-3, 3e-3], WARMUP, CYCLIC], ids=["number", "list", "warmup", "cyclic"]
)
def test_table_says_what_spacy_and_torch_say(learn_rate, config, tmp_path, torch_rates):
    console = {**CONSOLE, "output_file": str(tmp_path / "console.jsonl")}
    recorder = {"@loggers": "test_loggers.recording", "into": "table"}
    train(config(console, CURVE, recorder, learn_rate=learn_rate), tmp_path / "out")
    columns, rows = read_table(tmp_path / "out" / "learning_curve.csv")
    assert columns == [*FIRST, "loss_bert_ner", "ents_f", "ents_p", "ents_r"]
    logged = [json.loads(line) for line in (tmp_path / "console.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 5, 10, 15, 20]
    assert len(torch_rates) == 22  # spaCy's max_steps is the last step, from 0
    for row, line, info in zip(rows, logged, RECORDED["table"], strict=True):
        assert (row["step"], row["epoch"]) == (line["step"], line["epoch"])
        assert row["score"] == pytest.approx(line["score"])
        assert row["loss_bert_ner"] == pytest.approx(line["losses"]["bert_ner"])
        for name in ("ents_f", "ents_p", "ents_r"):
            assert 100 * row[name] == pytest.approx(line["scores"][name])
        assert (row["words"], row["seconds"]) == (info["words"], info["seconds"])
        assert row["learn_rate"] == pytest.approx(torch_rates[int(row["step"])], rel=1e-12)


def test_picture_shows_the_table_and_the_best_model(config, tmp_path, torch_rates):
    out = tmp_path / "out"
    train(config(CURVE, learn_rate=WARMUP, max_steps=20, eval_frequency=4), out)
    _, rows = read_table(out / "learning_curve.csv")
    figure = plot_learning_curve(out / "learning_curve.csv", torch_rates)
    loss_axes, score_axes, rate_axes = figure.axes
    (loss,) = [line for line in loss_axes.lines if line.get_label() == "bert_ner"]
    n_steps = [1, *[4] * (len(rows) - 1)]  # the first evaluation comes after one step
    assert loss.get_ydata() == pytest.approx([row["loss_bert_ner"] / n for row, n in zip(rows, n_steps, strict=True)])
    drawn = {line.get_label(): list(line.get_ydata()) for line in score_axes.lines}
    for name, label in (("ents_f", "entity F1"), ("ents_p", "entity precision"), ("ents_r", "entity recall")):
        assert drawn[label] == pytest.approx([100 * row[name] for row in rows])
    assert "score" not in drawn  # it is F1
    assert list(rate_axes.lines[0].get_ydata()) == torch_rates
    assert rate_axes.get_xlabel() == "training step"
    assert all(axes.get_ylabel() for axes in figure.axes)
    # The best model is the one that spaCy kept, known by the loss in its meta
    performance = json.loads((out / "model-best" / "meta.json").read_text())["performance"]
    (best,) = [row for row in rows if row["loss_bert_ner"] == pytest.approx(performance["bert_ner_loss"], rel=1e-9)]
    (star,) = [line for line in score_axes.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[best["step"], pytest.approx(100 * performance["ents_f"])]]
    title = f"Best: step {best['step']:.0f}, entity F1 {100 * performance['ents_f']:.1f} %"
    assert figure.get_suptitle() == title


def colours(path):
    """The colours in the upper, middle and lower third of a picture."""
    from matplotlib.image import imread

    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    assert pixels.shape[0] > 500 and pixels.shape[1] > 500
    third = pixels.shape[0] // 3
    return [{tuple(c) for c in pixels[i * third : (i + 1) * third].reshape(-1, 3).tolist()} for i in range(3)]


def test_picture_is_not_blank(config, tmp_path):
    stdout, stderr = train(config(CURVE, learn_rate=WARMUP), tmp_path / "out")
    blue, orange, gray = (31, 119, 180), (255, 127, 14), (127, 127, 127)
    upper, middle, lower = colours(tmp_path / "out" / "learning_curve.png")
    assert blue in upper and {blue, orange} <= middle and gray in lower
    assert f"{tmp_path / 'out' / 'learning_curve.png'}" in stdout and not stderr


def test_several_components_and_a_main_score_of_its_own(config, tmp_path):
    """Losses of all that is trained, scores that have a weight, and the weighted score where it is none of them."""
    config = config({**CURVE, "path": str(tmp_path / "curve")}, max_steps=5)
    config["nlp"]["pipeline"] = ["bert_ner", "ner", "sentencizer"]
    config["components"]["ner"] = {"factory": "ner"}
    config["components"]["sentencizer"] = {"factory": "sentencizer"}
    config["training"]["score_weights"] = {"ents_f": 0.5, "ents_p": 0.5, "speed": 0.0, "ents_per_type": None}
    config["training"]["optimizer"]["learn_rate"] = 1e-3
    train(config)
    columns, rows = read_table(tmp_path / "curve" / "learning_curve.csv")
    # spaCy fills in the scores of the sentencizer, for which the data has no gold
    sents = ["sents_f", "sents_p", "sents_r"]
    assert columns == [*FIRST, "loss_bert_ner", "loss_ner", "ents_f", "ents_p", "ents_r", *sents, "speed"]
    assert all(math.isnan(row[name]) for row in rows for name in sents)
    assert len(rows) == 2 and all(row["speed"] > 0 and row["loss_ner"] > 0 for row in rows)
    lines = (tmp_path / "curve" / "learning_curve.csv").read_text().splitlines()
    lines.append("10,0,1441,9,0.001,0.75,3.0,99.0,0.5,1.0,0.33,,,,2500.0")
    (tmp_path / "longer.csv").write_text("\n".join(lines) + "\n")
    loss_axes, score_axes, _ = plot_learning_curve(tmp_path / "longer.csv").axes
    assert {text.get_text() for text in loss_axes.get_legend().get_texts()} == {"bert_ner", "ner"}
    labels = {text.get_text() for text in score_axes.get_legend().get_texts()}
    assert labels == {"score", "entity F1", "entity precision", "entity recall"}


@pytest.mark.parametrize("action, error", [("interrupt", KeyboardInterrupt), ("fail", RuntimeError)])
def test_a_run_that_breaks_off(action, error, config, tmp_path):
    act = {"@callbacks": "test_loggers.act_at_step", "step": 12, "action": action}
    with pytest.raises(error):
        train(config(CONSOLE, CURVE, before_update=act), tmp_path / "out")
    _, rows = read_table(tmp_path / "out" / "learning_curve.csv")
    assert [row["step"] for row in rows] == [0, 5, 10]
    assert len(colours(tmp_path / "out" / "learning_curve.png")[0]) > 10
    assert (tmp_path / "out" / "model-last").exists()


def test_nothing_was_evaluated(config, tmp_path):
    act = {"@callbacks": "test_loggers.act_at_step", "step": 0, "action": "fail"}
    with pytest.raises(RuntimeError, match="no more"):
        train(config({**CURVE, "path": str(tmp_path / "curve")}, before_update=act), tmp_path / "out")
    columns, rows = read_table(tmp_path / "curve" / "learning_curve.csv")
    assert columns[: len(FIRST)] == FIRST and rows == []
    assert len(colours(tmp_path / "curve" / "learning_curve.png")[0]) > 10
    with pytest.raises(RuntimeError, match="no more"):
        train(config(CURVE, TENSORBOARD, before_update=act), tmp_path / "out")
    assert not (tmp_path / "out" / "learning_curve.csv").exists()  # that folder spaCy tells at an evaluation only
    assert "No learning curve" in train.output[1] and "Nothing for TensorBoard" in train.output[1]


def test_no_output_folder(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    _, stderr = train(config(CURVE, TENSORBOARD, max_steps=5))
    assert "No learning curve" in stderr and "neither --output nor a path is set" in stderr
    assert "neither --output nor log_dir is set" in stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_the_table_outlives_a_killed_run(config, tmp_path):
    (tmp_path / "code.py").write_text(ACT_AT_STEP)
    act = {"@callbacks": "test_loggers.act_at_step", "step": 12, "action": "kill"}
    config(CONSOLE, CURVE, before_update=act).to_disk(tmp_path / "config.cfg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "learning_curve.png").write_bytes(b"of an earlier run")
    (tmp_path / "out" / "learning_curve.csv").write_text("of an earlier run\n" * 100)
    arguments = ["train", "config.cfg", "--output", "out", "--code", "code.py"]
    result = subprocess.run([sys.executable, "-m", "spacy", *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    _, rows = read_table(tmp_path / "out" / "learning_curve.csv")
    assert [row["step"] for row in rows] == [0, 5, 10]
    assert not (tmp_path / "out" / "learning_curve.png").exists()
    rate_axes = plot_learning_curve(tmp_path / "out" / "learning_curve.csv").axes[2]
    assert list(rate_axes.lines[0].get_xdata()) == [0, 5, 10]


def test_without_matplotlib(config, tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    _, stderr = train(config(CURVE), tmp_path / "out")
    (line,) = stderr.splitlines()
    assert 'pip install "spacy-bertner[plot]"' in line and str(tmp_path / "out" / "learning_curve.csv") in line
    assert len(read_table(tmp_path / "out" / "learning_curve.csv")[1]) == 5
    assert not (tmp_path / "out" / "learning_curve.png").exists()
    assert (tmp_path / "out" / "model-last").exists()


@spacy.registry.callbacks("test_loggers.remove")
def remove(folder: str):
    def before_update(nlp, args):
        if args["step"] == 7:
            shutil.rmtree(folder)

    return before_update


def test_a_fault_at_the_end_does_not_cost_the_model(config, tmp_path):
    before_update = {"@callbacks": "test_loggers.remove", "folder": str(tmp_path / "curve")}
    curve = {**CURVE, "path": str(tmp_path / "curve")}
    _, stderr = train(config(curve, before_update=before_update), tmp_path / "out")
    assert "could not be finished: FileNotFoundError" in stderr
    assert (tmp_path / "out" / "model-last").exists()


@pytest.mark.parametrize("logger, setting", [(CURVE, "path"), (TENSORBOARD, "log_dir")])
def test_a_file_is_not_a_folder(logger, setting, config, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "curve.png"):
        with pytest.raises(ValueError, match=rf"{setting}: '.*{path.name}' is a file; give a folder"):
            init_nlp(config({**logger, setting: str(path)}))


def test_the_console_is_as_it_was(config, tmp_path):
    """Table and progress bar of spaCy's console logger, alone and in the chain that the shipped configs have."""
    alone = config()
    alone["training"]["logger"] = dict(CONSOLE)
    expected, bar = train(alone, tmp_path / "alone", stderr=Terminal())
    assert "Epoch 21:" in bar
    out = tmp_path / "out"
    for name in ("demo", "bert"):
        shipped = config()
        shipped["training"]["logger"] = spacy.util.load_config(ROOT / "configs" / f"{name}.cfg")["training"]["logger"]
        stdout, stderr = train(shipped, out, stderr=Terminal())
        curve = f"Learning curve: {out / 'learning_curve.csv'}, {out / 'learning_curve.png'}\n"
        plain = re.sub("\x1b\\[[0-9;]*m", "", stdout)
        assert curve in plain
        assert plain.replace(curve, "") == re.sub("\x1b\\[[0-9;]*m", "", expected).replace("/alone/", "/out/")
        assert re.findall(r"Epoch \d+:", stderr)[-1] == re.findall(r"Epoch \d+:", bar)[-1]
        shutil.rmtree(out)


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard(config, tmp_path, torch_rates):
    recorder = {"@loggers": "test_loggers.recording", "into": "tensorboard"}
    logger = {**TENSORBOARD, "log_dir": str(tmp_path / "runs" / "first")}
    # A longer run into the same folder first: the second takes its place
    train(config(logger, learn_rate=1e-3, max_steps=30), tmp_path / "out")
    torch_rates.clear()
    train(config(logger, recorder, learn_rate=WARMUP), tmp_path / "out")
    events = read_events(tmp_path / "runs" / "first")
    assert list(events["learn_rate"]) == list(range(22))
    assert list(events["learn_rate"].values()) == pytest.approx(torch_rates)
    infos = RECORDED["tensorboard"]
    steps = [info["step"] for info in infos]
    for tag, name in (("epoch", "epoch"), ("score", "score")):
        assert events[tag] == pytest.approx({info["step"]: info[name] for info in infos})
    means = [info["losses"]["bert_ner"] / n for info, n in zip(infos, (1, 5, 5, 5, 5), strict=True)]
    assert events["loss/bert_ner"] == pytest.approx(dict(zip(steps, means, strict=True)))
    for name in ("ents_f", "ents_p", "ents_r"):
        assert events[f"score/{name}"] == pytest.approx({info["step"]: info["other_scores"][name] for info in infos})
    by_type = {info["step"]: info["other_scores"]["ents_per_type"].get("PER", {}).get("r") for info in infos}
    assert events["score/ents_per_type/PER/r"] == pytest.approx({s: r for s, r in by_type.items() if r is not None})
    assert list(events["words_per_second"]) == steps[1:]
    assert all(0 < speed < 1e7 for speed in events["words_per_second"].values())
    tags = ["epoch", "learn_rate", "loss/bert_ner", "score", "words_per_second"]
    assert sorted(tag for tag in events if not tag.startswith("score/")) == tags


def test_tensorboard_beside_the_models(config, tmp_path):
    act = {"@callbacks": "test_loggers.act_at_step", "step": 7, "action": "interrupt"}
    with pytest.raises(KeyboardInterrupt):
        train(config(CONSOLE, CURVE, TENSORBOARD, before_update=act), tmp_path / "out")
    events = read_events(tmp_path / "out" / "tensorboard")
    assert list(events["learn_rate"]) == list(range(7)) and list(events["score"]) == [0, 5]


def test_without_tensorboard(config, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r'TensorBoardLogger.v1 .* pip install "spacy-bertner\[tensorboard\]"'):
        init_nlp(config(CONSOLE, TENSORBOARD))


def test_the_module_imports_nothing_heavy():
    """What spaCy itself imports is left out of account."""
    code = "import sys, spacy.cli\nbefore = set(sys.modules)\nimport spacy_bertner.loggers\n"
    code += "print({name.split('.')[0] for name in set(sys.modules) - before})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not re.search("torch|transformers|matplotlib|tensorboard", result.stdout)
    assert "spacy_bertner" in result.stdout


@pytest.mark.parametrize("name", ["demo", "bert"])
def test_filling_changes_no_setting_of_the_shipped_configs(name, tmp_path):
    fill_config(tmp_path / "filled.cfg", ROOT / "configs" / f"{name}.cfg")
    filled = spacy.util.load_config(tmp_path / "filled.cfg")
    shipped = spacy.util.load_config(ROOT / "configs" / f"{name}.cfg")

    def holds(part, whole):
        if not isinstance(part, dict):
            return part == whole
        return set(part) <= set(whole) and all(holds(part[key], whole[key]) for key in part)

    assert holds(shipped, filled)
    added = set(filled["training"]["logger"]) - set(shipped["training"]["logger"])
    assert all(filled["training"]["logger"][key] is None for key in added)
