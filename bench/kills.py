"""Kills training runs with SIGKILL, resumes them, and compares the results with those of an uninterrupted run.

    python bench/kills.py [--kills 60]

A run is what `spacy train` does, in a process of its own that reports its activity through a pipe: computing (forward,
backward, optimizer), evaluating, saving a checkpoint, saving `model-last` or copying it to `model-best`, replaying. The
harness waits for the activity that has had the fewest kills so far, for some time within it, and kills. The same command
starts the run again, until it comes to its end; then the next run begins. Each completed run must have produced the same
models (all files) and the same table of scores (except the column of seconds) as one that was not killed, and the same
weights as one without checkpoints. Kills are counted by the activity that they interrupted.

Writes bench/results/kills.txt, and ends with an error if anything differs. The encoder is a tiny random one with the
tokenizer of assets/encoder.
"""

import argparse
import contextlib
import csv
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import common
import spacy
from common import ROOT
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import loop

RESULTS = ROOT / "bench" / "results"
COMPUTE, EVALUATE, CHECKPOINT, COPY, REPLAY = "compute", "evaluate", "checkpoint", "copy", "replay"
ACTIVITIES = {
    COMPUTE: "forward, backward, optimizer",
    EVALUATE: "evaluation",
    CHECKPOINT: "saving a checkpoint",
    COPY: "saving model-last, copying it to model-best",
    REPLAY: "replay",
}


# In the process that trains


class Reporter:
    """Reports the activity of the process through a pipe: a line with all nested activities, outermost first."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.within: list[str] = []

    def enter(self, kind: str) -> None:
        self.within.append(kind)
        self.report()

    def leave(self) -> None:
        self.within.pop()
        self.report()

    def report(self) -> None:
        os.write(self.pipe, f"{'/'.join(self.within)}\n".encode())

    def wrap(self, function: Callable, kind: str) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.enter(kind)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return wrapped


def instrument(reporter: Reporter) -> None:
    """Report when the functions in question are entered and left; nothing else changes."""
    from spacy_bertner.model.optimizer import TorchOptimizer
    from spacy_bertner.model.passes import Passes
    from spacy_bertner.model.torch_shim import EncoderShim
    from spacy_bertner.training import resume

    def wrap(owner: Any, name: str, kind: str) -> None:
        setattr(owner, name, reporter.wrap(getattr(owner, name), kind))

    wrap(EncoderShim, "begin_update", COMPUTE)
    wrap(Passes, "_add_gradient", COMPUTE)
    wrap(TorchOptimizer, "step", COMPUTE)
    wrap(Language, "evaluate", EVALUATE)
    wrap(Language, "to_disk", COPY)
    wrap(resume.Run, "save", CHECKPOINT)
    wrap(resume.Run, "_copy_best", COPY)
    loop.shutil = SimpleNamespace(
        rmtree=reporter.wrap(shutil.rmtree, COPY), copytree=reporter.wrap(shutil.copytree, COPY)
    )
    begin, restore, update = resume.Run._begin, resume.Run._restore, resume.Run.update

    def begin_and_report(run: Any) -> None:
        begin(run)
        if run._replayed is not None:
            reporter.enter(REPLAY)

    def update_and_report(run: Any, *args: Any, **kwargs: Any) -> Any:
        if run._replayed is not None:
            reporter.report()
        return update(run, *args, **kwargs)

    def restore_and_report(run: Any, checkpoint: Any) -> None:
        reporter.report()
        restore(run, checkpoint)
        reporter.leave()

    resume.Run._begin, resume.Run._restore, resume.Run.update = begin_and_report, restore_and_report, update_and_report


@contextlib.contextmanager
def training(config: Path, output: Path, log: Path) -> Iterator[tuple[int, Iterator[str]]]:
    """Train in a forked process; yields its id, and the lines that it reports until it ends."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.close(read_end)
            instrument(Reporter(write_end))
            from spacy.cli.train import train

            train(config, output)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end) as lines:
        yield pid, (line.strip() for line in lines)


# In the process that kills


def is_kind(activity: str, kind: str) -> bool:
    """Return whether an activity is of this kind; saving also happens during a replay."""
    return kind in activity.split("/") if kind == REPLAY else activity.split("/")[-1] == kind


def run_undisturbed(config: Path, output: Path, log: Path) -> dict[str, float]:
    """Run without a kill; returns the mean length of each activity in seconds."""
    start: dict[str, float] = {}
    lengths: dict[str, list[float]] = {kind: [] for kind in ACTIVITIES}
    before = ""
    with training(config, output, log) as (pid, lines):
        for activity in lines:
            now = time.perf_counter()
            for kind in ACTIVITIES:
                if is_kind(activity, kind) and not is_kind(before, kind):
                    start[kind] = now
                elif is_kind(before, kind) and not is_kind(activity, kind):
                    lengths[kind].append(now - start[kind])
            before = activity
        _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"a run failed; its output is in {log}:\n{log.read_text()[-3000:]}")
    return {kind: sum(found) / len(found) for kind, found in lengths.items() if found}


def run_and_kill(config: Path, output: Path, log: Path, kind: str, n: int, delay: float) -> str | None:
    """Kill a run some time after an activity begins for the n-th time.

    Returns what it was doing when it died; None if it came to its end before.
    """
    activity = ""
    with training(config, output, log) as (pid, lines):
        for activity in lines:
            n -= is_kind(activity, kind)
            if not n:
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)
                break
        for activity in lines:  # noqa: B007
            pass
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return activity
    if status:
        raise SystemExit(f"a run failed; its output is in {log}:\n{log.read_text()[-3000:]}")
    return None


def kind_of(activity: str) -> str:
    """Return the kind of activity in a reported line."""
    parts = activity.split("/")
    return REPLAY if REPLAY in parts else next((p for p in reversed(parts) if p in ACTIVITIES), "other")


def sha256(folder: Path, *, weights_alone: bool = False) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors" if weights_alone else "*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def read_scores(output: Path) -> list[dict[str, str]]:
    """Return the rows of the learning curve without the seconds, which differ in every run."""
    with (output / "learning_curve.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def outcome(output: Path) -> dict[str, Any]:
    return {
        "model-last": sha256(output / "model-last"),
        "model-best": sha256(output / "model-best"),
        "scores": read_scores(output),
    }


def write_config(folder: Path, *, steps: int) -> Path:
    """Write the config of a short training with a tiny encoder, based on the demo's."""
    import peers
    from transformers import BertConfig

    tiny = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    encoder = peers.write_random_encoder(str(ROOT / "assets/encoder"), str(folder / "encoder"), tiny)
    sentences = common.read_sentences(common.DEMO[:1], 3000)
    DocBin(docs=sentences[20:]).to_disk(folder / "train.spacy")
    DocBin(docs=sentences[:20]).to_disk(folder / "dev.spacy")
    config = spacy.util.load_config(ROOT / "configs" / "demo.cfg")
    config["paths"] = {
        "train": str(folder / "train.spacy"),
        "dev": str(folder / "dev.spacy"),
        "encoder": str(encoder),
    }
    config["training"]["batcher"]["size"] = 100
    config["training"]["optimizer"]["learn_rate"].update(warmup_steps=20, total_steps=steps, initial_rate=5e-3)
    config["training"].update(max_epochs=0, max_steps=steps, eval_frequency=steps // 10)
    config.to_disk(folder / "config.cfg")
    return folder / "config.cfg"


def main() -> None:
    """Train, kill, compare, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--kills-per-run", type=int, default=12)
    parser.add_argument("--config", type=Path, help="config of the training to kill (default: a tiny one)")
    parser.add_argument("--steps", type=int, default=240, help="steps of the tiny one")
    parser.add_argument("--save-every", type=int, default=7, help="steps from one checkpoint to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS / "kills.txt")
    args = parser.parse_args()
    # So that forked processes need not import it
    import torch

    import spacy_bertner.model.torch_shim
    import spacy_bertner.training.resume  # noqa: F401

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = spacy.util.load_config(args.config or write_config(folder, steps=args.steps))
        config["training"]["before_update"] = None
        config.to_disk(folder / "without.cfg")
        config["training"]["before_update"] = {
            "@callbacks": "spacy_bertner.resumable_training.v1",
            "minutes": None,
            "steps": args.save_every,
            "resume": True,
        }
        config.to_disk(folder / "with.cfg")
        steps = config["training"]["max_steps"]
        lines, is_same = compare(folder, steps, args.kills, args.kills_per_run, random.Random(args.seed))
    lines.insert(0, f"{steps} steps, a checkpoint every {args.save_every}")
    lines.append(common.machine_line(common.describe_machine()))
    args.results.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if not is_same:
        raise SystemExit("resumed runs differ from the uninterrupted one")


def compare(folder: Path, n_steps: int, n_kills: int, kills_per_run: int, rng: random.Random) -> tuple[list[str], bool]:
    """Return the lines of the results, and whether all outcomes are the same."""
    # The longest wait for an activity, in occurrences; each attempt should make some progress
    longest = {COMPUTE: n_steps // 4, EVALUATE: 2, CHECKPOINT: 4, COPY: 4, REPLAY: n_steps // 8}
    log = folder / "log"
    config = folder / "with.cfg"
    run_undisturbed(folder / "without.cfg", folder / "without", log)
    lengths = run_undisturbed(config, folder / "alone", log)
    expected = outcome(folder / "alone")
    plain = {m: sha256(folder / "without" / m, weights_alone=True) for m in ("model-last", "model-best")}
    alone = {m: sha256(folder / "alone" / m, weights_alone=True) for m in ("model-last", "model-best")}
    same_as_plain = plain == alone and read_scores(folder / "without") == expected["scores"]
    kills: Counter[str] = Counter()
    runs: list[tuple[int, bool]] = []  # kills, whether the outcome is the same
    while sum(kills.values()) < n_kills:
        output = folder / f"killed-{len(runs)}"
        killed = 0
        while killed < kills_per_run and sum(kills.values()) < n_kills:
            kinds = [m for m in ACTIVITIES if m != REPLAY or any((output / "checkpoints").glob("*-step-*"))]
            kind = min(kinds, key=lambda m: (kills[m], rng.random()))
            delay = rng.uniform(0, lengths.get(kind, 0.02))
            activity = run_and_kill(config, output, log, kind, rng.randint(1, longest[kind]), delay)
            if activity is None:
                break
            kills[kind_of(activity)] += 1
            killed += 1
            print(f"kill {sum(kills.values())}, run {len(runs)}: {activity or 'other'}", flush=True)
        else:
            run_undisturbed(config, output, log)
        runs.append((killed, outcome(output) == expected))
        shutil.rmtree(output)
    return [
        f"evaluations {len(expected['scores'])}",
        f"kills {sum(kills.values())}",
        *(f"  {kills[kind]:3} {name}" for kind, name in ACTIVITIES.items()),
        f"  {kills['other']:3} elsewhere (initialization, batches, logging)",
        *(
            f"run {i}: killed {n} times and resumed; models (every file) and scores "
            + ("the same" if is_same else "NOT THE SAME")
            for i, (n, is_same) in enumerate(runs)
        ),
        f"without checkpoints: weights and scores {'the same' if same_as_plain else 'NOT THE SAME'}",
        *(f"sha256 {m} {expected[m]}" for m in ("model-last", "model-best")),
    ], same_as_plain and all(is_same for _, is_same in runs)


if __name__ == "__main__":
    main()
