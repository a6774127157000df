"""Pre-training as a whole: the checkpoint that it leaves, runs that are killed, and what can be wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import spacy
import torch
from safetensors.torch import load, load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
from typer.testing import CliRunner

from spacy_bertner.cli import bertner
from spacy_bertner.pretrain import Settings, pretrain

from ..conftest import make_examples
from .conftest import DEMO

# Two epochs and a half, with dropout
SETTINGS = {"window": 64, "max_steps": 40, "batch_size": 8, "learn_rate": 3e-3}


def run(
    output, encoder, inputs=DEMO / "dev.conll", *, resume=False, force=False, on_message=lambda line: None, **settings
):
    settings = Settings(**{**SETTINGS, **settings})
    return pretrain([inputs], output, str(encoder), settings, resume=resume, force=force, on_message=on_message)


def command(output, encoder, inputs=DEMO / "dev.conll", **settings):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in {**SETTINGS, **settings}.items()]
    return ["pretrain", str(inputs), str(output), "--encoder", str(encoder), *options]


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(with_head, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    lines = []
    return output, run(output, with_head("bert"), on_message=lines.append), lines


def test_what_is_written(uninterrupted, with_head):
    output, result, lines = uninterrupted
    assert [path.name for path in output.parent.iterdir()] == ["out"]  # nothing is left beside it
    figures = json.loads((output / "pretraining.json").read_text())
    assert figures["perplexity"] == {str(step): value for step, value in result.perplexity.items()}
    assert list(result.perplexity) == [0, *range(2, 41, 2)]
    assert result.best_step == min(result.perplexity, key=result.perplexity.__getitem__)
    assert result.perplexity[result.best_step] < result.perplexity[0] / 2
    assert (
        lines[0]
        == f"{result.n_pieces:,} word pieces: {result.n_blocks} blocks to train on, {result.n_held_out} held out"
    )
    assert lines[1] == f"before: held-out perplexity {result.perplexity[0]:,.2f}"
    assert lines[-1] == f"step 40 of 40: held-out perplexity {result.perplexity[40]:,.2f}"
    # With its head, the encoder alone, and in the component
    model, info = AutoModelForMaskedLM.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    encoder = AutoModel.from_pretrained(output, add_pooling_layer=False)
    weights = {name: value for name, value in model.base_model.state_dict().items() if "pooler" not in name}
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in weights.items())
    before = AutoModel.from_pretrained(with_head("bert"), add_pooling_layer=False).state_dict()
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(weights[name], before[name])
    text = "Nordbank bought it."
    assert AutoTokenizer.from_pretrained(output)(text) == AutoTokenizer.from_pretrained(with_head("bert"))(text)
    nlp = spacy.blank("en")
    component = nlp.add_pipe("bert_ner", config={"model": {"name": str(output)}})
    nlp.initialize(lambda: make_examples(nlp))
    assert torch.equal(component.model.shims[0].module.encoder.state_dict()[name], weights[name])
    assert not component.model.shims[0].module.state_dict().get("orthography.weight", torch.zeros(1)).any()


def start(arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-m", "spacy", "bertner", *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_a_run_that_was_killed_ends_with_the_same_figures(uninterrupted, with_head, tmp_path):
    output = tmp_path / "out"
    part = tmp_path / "out.part"
    process = start(command(output, with_head("bert")))
    end = time.monotonic() + 60
    while not any(int(path.name.split("-")[1]) >= 22 for path in part.glob("checkpoint-*")):  # in the second epoch
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists() and part.exists()
    for options, message in (
        ({}, "is that of an unfinished run: --resume continues it, --force starts again"),
        ({"resume": True, "learn_rate": 1e-3}, "this is another run: learn_rate is 0.001 and was 0.003. To start"),
        ({"resume": True, "inputs": DEMO / "test.conll"}, "this is another run: text is"),
    ):
        with pytest.raises((FileExistsError, ValueError), match=message):
            run(output, with_head("bert"), **options)
    # The checkpoint that was being written when it was killed, and files that the disk lost
    (part / "checkpoint-38").mkdir()
    (part / "checkpoint-38" / "model.safetensors").write_bytes(b"half")
    whole = max(path.parent for path in part.glob("checkpoint-2?/trainer_state.json"))
    for number, name in enumerate(["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"], 30):
        damaged = shutil.copytree(whole, part / f"checkpoint-{number}")
        os.truncate(damaged / name, 30)
    lines = []
    # The encoder's folder by another name
    result = run(output, f"{with_head('bert')}/.", resume=True, on_message=lines.append)
    assert any("resumed from" in line and "checkpoint-2" in line for line in lines), lines
    expected, expected_result, _ = uninterrupted
    assert result == expected_result
    found, expected = files(output), files(expected)
    assert found.keys() == expected.keys() and all(found[name] == expected[name] for name in found)
    assert not part.exists()


def test_killed_before_the_first_checkpoint_and_after_the_last(uninterrupted, with_head, tmp_path, monkeypatch):
    """Stopped when the checkpoint is about to be written; a run that cannot be resumed starts again."""
    from spacy_bertner.pretrain import run as run_module

    def stop(*args):
        raise KeyboardInterrupt

    lines = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_module, "write_checkpoint", stop)
        run(tmp_path / "out", with_head("bert"), resume=True, on_message=lines.append)
    assert "no checkpoint to resume from: starting from the beginning" in lines
    assert (tmp_path / "out.part" / "checkpoint-40").exists()
    assert run(tmp_path / "out", with_head("bert"), resume=True) == uninterrupted[1]
    assert files(tmp_path / "out") == files(uninterrupted[0])


def test_the_best_step_is_kept(with_head, tmp_path, monkeypatch):
    from spacy_bertner.pretrain import run as run_module

    best = []

    def copy(model, tokenizer, step, figures, part, path):
        best.append((part / f"checkpoint-{step}" / "model.safetensors").read_bytes())
        write_checkpoint(model, tokenizer, step, figures, part, path)

    write_checkpoint = run_module.write_checkpoint
    monkeypatch.setattr(run_module, "write_checkpoint", copy)
    result = run(tmp_path / "out", with_head("bert"), learn_rate=0.1)
    assert 0 < result.best_step < 40
    assert result.best_step == min(list(result.perplexity)[1:], key=result.perplexity.__getitem__)
    weights, expected = load_file(tmp_path / "out" / "model.safetensors"), load(best[0])
    assert weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in weights)


def test_two_processes(with_head, tmp_path):
    """On the CPU, by torchrun; each result is printed once."""
    command_line = command(tmp_path / "out", with_head("bert"), max_steps=2, batch_size=4)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            "-m",
            "spacy",
            "bertner",
            *command_line,
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("Perplexity of the held-out text: ") and last.startswith("Wrote ")
    assert done.stderr.count("before: held-out perplexity") == 1
    assert (tmp_path / "out" / "model.safetensors").exists() and not (tmp_path / "out.part").exists()


def test_force_overwrites_and_leaves_other_files(uninterrupted, with_head, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "config.json").write_text("old")
    (output / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already; --force overwrites it"):
        run(output, with_head("bert"))
    run(output, with_head("bert"), force=True)
    assert files(output) == {**files(uninterrupted[0]), "mine.txt": b"mine"}


def test_force_that_was_stopped_is_resumed(with_head, tmp_path):
    """The permission to overwrite was given when the run was started."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine.txt").write_text("mine")

    def stop(line):
        if line.startswith("step 20 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(output, with_head("bert"), force=True, on_message=stop)
    lines = []
    run(output, with_head("bert"), resume=True, on_message=lines.append)
    assert any("resumed from" in line for line in lines)
    assert (output / "mine.txt").read_text() == "mine" and (output / "model.safetensors").exists()
    with pytest.raises(FileExistsError, match="exists already; --force overwrites it"):  # no run is left to resume
        run(output, with_head("bert"), resume=True)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"force": True}])
def test_a_folder_of_another_kind_is_not_removed(options, with_head, tmp_path):
    part = tmp_path / "out.part"
    part.mkdir()
    (part / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out\.part: is not the folder of a run, but needed for its checkpoints"):
        run(tmp_path / "out", with_head("bert"), **options)
    assert files(part) == {"mine.txt": b"mine"}


def test_a_damaged_run_is_named(with_head, tmp_path):
    part = tmp_path / "out.part"
    part.mkdir()
    (part / "run.json").write_text('{"mask":')
    with pytest.raises(ValueError, match=r"out\.part.run\.json: is damaged; to start again, delete the folder"):
        run(tmp_path / "out", with_head("bert"), resume=True)
    run(tmp_path / "out", with_head("bert"), force=True, max_steps=2)


def test_a_single_step_learns(with_head, tmp_path):
    result = run(tmp_path / "out", with_head("bert"), max_steps=1)
    assert result.perplexity[1] < result.perplexity[0]


def test_a_block_is_left_to_train_on(with_head, tmp_path):
    result = run(tmp_path / "out", with_head("bert"), max_steps=1, held_out=0.999)
    assert result.n_blocks == 1 and result.n_held_out > 1


def test_stopped_by_the_user(with_head, tmp_path):
    process = start([*command(tmp_path / "out", with_head("bert")), "--max-steps=100000"])
    for line in process.stderr:
        if "before: " in line:
            process.send_signal(signal.SIGINT)
            break
    assert process.stderr.read().splitlines()[-1] == "pretrain: stopped; --resume continues"
    assert process.wait() == 130


def test_an_output_that_cannot_be_written(with_head, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match=r"cannot be written, as .*file is a file"):
        run(tmp_path / "file" / "out", with_head("bert"))


def test_held_out_text_from_a_file(with_head, tmp_path):
    found = run(
        tmp_path / "out", with_head("bert"), DEMO / "train.conll", max_steps=2, held_out=str(DEMO / "dev.conll")
    )
    everything = run(tmp_path / "all", with_head("bert"), DEMO / "train.conll", max_steps=2)
    assert found.n_blocks == everything.n_blocks + everything.n_held_out
    assert found.n_held_out > everything.n_held_out


def test_too_little_text(with_head, tmp_path):
    (tmp_path / "a.txt").write_text("Oslo is cold.", encoding="utf8")
    (tmp_path / "empty.txt").write_text("", encoding="utf8")
    with pytest.raises(
        ValueError, match=r"the text fills 1 blocks of 64 word pieces; needed are at least 2, to train on"
    ):
        run(tmp_path / "out", with_head("bert"), tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"the text fills 0 blocks of 64 word pieces; needed are at least 1"):
        run(tmp_path / "out", with_head("bert"), tmp_path / "empty.txt", held_out=str(tmp_path / "a.txt"))
    with pytest.raises(ValueError, match=r"--held-out: there is no text in .*empty\.txt"):
        run(tmp_path / "out", with_head("bert"), tmp_path / "a.txt", held_out=str(tmp_path / "empty.txt"))
    # One block to train on is enough where other text is held out
    run(tmp_path / "out", with_head("bert"), tmp_path / "a.txt", max_steps=2, held_out=str(DEMO / "dev.conll"))


def test_a_run_that_diverges_is_reported(with_head, tmp_path):
    with pytest.warns(UserWarning, match=r"has not fallen: .* before, .* after step \d+\. Change --learn-rate"):
        run(tmp_path / "out", with_head("bert"), max_steps=4, learn_rate=0.9)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask", "words", "--mask: 'words' is unknown; allowed are piece and word"),
        ("mixed_precision", "f16", "--mixed-precision: 'f16' is unknown; allowed are bf16 and fp16"),
        ("mixed_precision", "fp16", "--mixed-precision: fp16 needs a GPU; set --gpu-id, or choose bf16"),
        ("window", 2, "--window: 2 is less than 8"),
        ("max_steps", -1, "--max-steps: -1 is less than 0"),
        ("learn_rate", 5.0, "--learn-rate: 5.0 is not between 0 and 1"),
        ("held_out", 1.0, "--held-out: 1.0 is neither between 0 and 1 nor a file"),
        ("encoder", "./nowhere", "--encoder: there is no folder './nowhere'"),
        ("report_to", "paper", "paper is not supported, only"),
        ("gpu_id", 99, "--gpu-id 99: torch finds"),
    ],
)
def test_a_wrong_option_is_one_line(name, value, message, with_head, tmp_path):
    arguments = command(tmp_path / "out", with_head("bert"), **({} if name == "encoder" else {name: value}))
    if name == "encoder":
        arguments[arguments.index("--encoder") + 1] = value
    result = CliRunner().invoke(bertner, arguments)
    assert result.exit_code == 1
    line = result.output.strip().splitlines()[-1]
    assert line.startswith(f"pretrain: {message}"), result.output
    assert list(tmp_path.iterdir()) == []


def test_the_extra_is_not_installed(with_head, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    result = CliRunner().invoke(bertner, command(tmp_path / "out", with_head("bert")))
    assert result.exit_code == 1
    assert 'pretrain: Pre-training needs accelerate: pip install "spacy-bertner[pretrain]"' in result.output


def test_the_command(with_head, tmp_path):
    result = CliRunner().invoke(
        bertner, command(tmp_path / "out", with_head("bert"), max_steps=4, report_to="tensorboard")
    )
    assert result.exit_code == 0, result.output
    first, last = result.stdout.splitlines()
    assert first.startswith("Perplexity of the held-out text: ") and first.endswith(" after step 4, kept")
    assert last.startswith(f"Wrote {tmp_path / 'out'} (")
    assert list((tmp_path / "out" / "runs").rglob("events.*"))
    again = CliRunner().invoke(bertner, command(tmp_path / "out", with_head("bert")))
    assert again.exit_code == 1 and "exists already; --force overwrites it" in again.output


@pytest.mark.parametrize(("what", "size"), [("blocks", 0.1), ("weights", 0.9), ("optimizer", 1.5)])
def test_no_space_on_the_disk(what, size, with_head, tmp_path):
    """What is too large, as a share of the weights, cannot be written; then there is room again."""
    output = tmp_path / "out"
    expected = run(tmp_path / "whole", with_head("bert"), max_steps=4)
    n_bytes = int(size * (tmp_path / "whole" / "model.safetensors").stat().st_size)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limit[1]))
        result = CliRunner().invoke(bertner, command(output, with_head("bert"), max_steps=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert result.exit_code == 1
    line = result.output.strip().splitlines()[-1]
    if what == "blocks":
        assert line.startswith(
            f"pretrain: {tmp_path}: the blocks of word pieces could not be written; is the disk full?"
        )
    else:
        assert line.startswith(f"pretrain: {output}.part: could not be written: ") and "--resume continues" in line
    assert not output.exists()
    assert run(output, with_head("bert"), max_steps=4, resume=True) == expected
