"""Kills training runs with SIGKILL, lets them go on, and compares what comes out with a run that was left alone.

    python bench/kills.py [--kills 60]

A run is what `spacy train` does, in a process of its own that says through a pipe what it is about: computing (forward,
backward, optimizer), evaluating, saving a checkpoint, saving `model-last` or copying it to `model-best`, playing back what
is done. The harness waits for the moment of which there have been the fewest kills, for some time within it, and kills. The
run is started again by the same command, until it comes to its end; then the next begins. Each that comes to its end must
have made the same models (all files) and the same table of scores (but for its column of seconds) as one that was not
killed, and the same weights as one without checkpoints. Kills are counted by the moment in which they struck.

Writes bench/results/kills.txt; ends with an error where something differs. The encoder is a tiny random one with the
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
MOMENTS = {
    COMPUTE: "forward, backward, optimizer",
    EVALUATE: "evaluation",
    CHECKPOINT: "saving a checkpoint",
    COPY: "saving model-last, copying it to model-best",
    REPLAY: "playing back",
}


# In the process that trains


class Teller:
    """Says through a pipe what the process is about: a line with all that it is within, outermost first."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.within: list[str] = []

    def enter(self, moment: str) -> None:
        self.within.append(moment)
        self.tell()

    def leave(self) -> None:
        self.within.pop()
        self.tell()

    def tell(self) -> None:
        os.write(self.pipe, f"{'/'.join(self.within)}\n".encode())

    def wrap(self, function: Callable, moment: str) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.enter(moment)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return wrapped


def instrument(teller: Teller) -> None:
    """Have the functions in question tell when they are entered and left; nothing else changes."""
    from spacy_bertner.model.optimizer import TorchOptimizer
    from spacy_bertner.model.torch_shim import EncoderShim
    from spacy_bertner.training import resume

    def wrap(owner: Any, name: str, moment: str) -> None:
        setattr(owner, name, teller.wrap(getattr(owner, name), moment))

    wrap(EncoderShim, "begin_update", COMPUTE)
    wrap(EncoderShim, "_add_gradient", COMPUTE)
    wrap(TorchOptimizer, "step", COMPUTE)
    wrap(Language, "evaluate", EVALUATE)
    wrap(Language, "to_disk", COPY)
    wrap(resume.Run, "save", CHECKPOINT)
    wrap(resume.Run, "_copy_best", COPY)
    loop.shutil = SimpleNamespace(rmtree=teller.wrap(shutil.rmtree, COPY), copytree=teller.wrap(shutil.copytree, COPY))
    begin, restore, update = resume.Run._begin, resume.Run._restore, resume.Run.update

    def begin_and_tell(run: Any) -> None:
        begin(run)
        if run._replayed is not None:
            teller.enter(REPLAY)

    def update_and_tell(run: Any, *args: Any, **kwargs: Any) -> Any:
        if run._replayed is not None:
            teller.tell()
        return update(run, *args, **kwargs)

    def restore_and_tell(run: Any, checkpoint: Any) -> None:
        teller.tell()
        restore(run, checkpoint)
        teller.leave()

    resume.Run._begin, resume.Run._restore, resume.Run.update = begin_and_tell, restore_and_tell, update_and_tell


@contextlib.contextmanager
def training(config: Path, output: Path, log: Path) -> Iterator[tuple[int, Iterator[str]]]:
    """Train in a forked process; gives its id, and the lines that it tells, to the end of the process."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.close(read_end)
            instrument(Teller(write_end))
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


def is_about(told: str, moment: str) -> bool:
    """Whether what was told is such a moment; within playing back, there is saving too."""
    return moment in told.split("/") if moment == REPLAY else told.split("/")[-1] == moment


def run_to_its_end(config: Path, output: Path, log: Path) -> dict[str, float]:
    """Leave a run alone; returns the mean length of each moment in seconds."""
    start: dict[str, float] = {}
    lengths: dict[str, list[float]] = {moment: [] for moment in MOMENTS}
    before = ""
    with training(config, output, log) as (pid, lines):
        for told in lines:
            now = time.perf_counter()
            for moment in MOMENTS:
                if is_about(told, moment) and not is_about(before, moment):
                    start[moment] = now
                elif is_about(before, moment) and not is_about(told, moment):
                    lengths[moment].append(now - start[moment])
            before = told
        _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"a run failed; its output is in {log}:\n{log.read_text()[-3000:]}")
    return {moment: sum(found) / len(found) for moment, found in lengths.items() if found}


def run_and_kill(config: Path, output: Path, log: Path, moment: str, n: int, delay: float) -> str | None:
    """Kill a run some time after it comes to such a moment for the n-th time.

    Returns what it was about when it died; None where it came to its end before.
    """
    told = ""
    with training(config, output, log) as (pid, lines):
        for told in lines:
            n -= is_about(told, moment)
            if not n:
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)
                break
        for told in lines:  # noqa: B007
            pass
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return told
    if status:
        raise SystemExit(f"a run failed; its output is in {log}:\n{log.read_text()[-3000:]}")
    return None


def name_moment(told: str) -> str:
    """The kind of moment that a line tells of."""
    parts = told.split("/")
    return REPLAY if REPLAY in parts else next((p for p in reversed(parts) if p in MOMENTS), "other")


def sha256(folder: Path, *, weights_alone: bool = False) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors" if weights_alone else "*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def read_scores(output: Path) -> list[dict[str, str]]:
    """The rows of the learning curve, without the column that no two runs have in common."""
    with (output / "learning_curve.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def outcome(output: Path) -> dict[str, Any]:
    return {
        "model-last": sha256(output / "model-last"),
        "model-best": sha256(output / "model-best"),
        "scores": read_scores(output),
    }


def write_config(folder: Path, *, steps: int) -> Path:
    """A short training with a tiny encoder, as the demo's config has it."""
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
    """Train, kill, compare, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--kills-per-run", type=int, default=12)
    parser.add_argument("--config", type=Path, help="config of the training to kill (default: a tiny one)")
    parser.add_argument("--steps", type=int, default=240, help="steps of the tiny one")
    parser.add_argument("--save-every", type=int, default=7, help="steps from one checkpoint to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS / "kills.txt")
    args = parser.parse_args()
    # Forked processes have it all imported
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
        raise SystemExit("what was resumed is not what was left alone")


def compare(folder: Path, n_steps: int, n_kills: int, kills_per_run: int, rng: random.Random) -> tuple[list[str], bool]:
    """Return what is to be reported, and whether all outcomes are the same."""
    # The longest wait for a moment, in times that it comes; each attempt should get ahead a little
    longest = {COMPUTE: n_steps // 4, EVALUATE: 2, CHECKPOINT: 4, COPY: 4, REPLAY: n_steps // 8}
    log = folder / "log"
    config = folder / "with.cfg"
    run_to_its_end(folder / "without.cfg", folder / "without", log)
    lengths = run_to_its_end(config, folder / "alone", log)
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
            moments = [m for m in MOMENTS if m != REPLAY or any((output / "checkpoints").glob("*-step-*"))]
            moment = min(moments, key=lambda m: (kills[m], rng.random()))
            delay = rng.uniform(0, lengths.get(moment, 0.02))
            told = run_and_kill(config, output, log, moment, rng.randint(1, longest[moment]), delay)
            if told is None:
                break
            kills[name_moment(told)] += 1
            killed += 1
            print(f"kill {sum(kills.values())}, run {len(runs)}: {told or 'other'}", flush=True)
        else:
            run_to_its_end(config, output, log)
        runs.append((killed, outcome(output) == expected))
        shutil.rmtree(output)
    return [
        f"evaluations {len(expected['scores'])}",
        f"kills {sum(kills.values())}",
        *(f"  {kills[moment]:3} {name}" for moment, name in MOMENTS.items()),
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
