"""A search on the demo corpus, with and without pruning; its winner and the default on the test file.

    python bench/tune.py > bench/results/tune.txt

The config and the search space are those that `init` writes, with 2 epochs instead of its 12. The same search, with the same
seed, is run with and without pruning; scores are those on the development file. Then the config and the winner of the search
with pruning are trained with three other seeds each, and the test file is read for the first time. What is done is kept in
bench/work/tune; a run that was stopped continues.
"""

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

from common import DEMO, ROOT, describe_machine, machine_line

WORK = ROOT / "bench" / "work" / "tune"
N_TRIALS, EPOCHS, SEEDS = 20, 2, (1, 2, 3)
PRUNERS = ("none", "median")


def spacy(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "spacy", *map(str, arguments)], cwd=ROOT, check=True, stdout=sys.stderr)


def search(n_trials: int) -> None:
    """Make the data, the config and the space, and run both searches."""
    corpus, config, space = WORK / "corpus", WORK / "config.cfg", WORK / "space.cfg"
    if not space.exists():
        for path in DEMO:
            spacy("bertner", "convert", path, corpus, "--merge", path.stem)
        data = ["--train", corpus / "train.spacy", "--dev", corpus / "dev.spacy", "--encoder", "assets/encoder"]
        spacy("bertner", "init", config, *data, "--epochs", EPOCHS, "--no-timing", "--space", space, "--force")
    for pruner in PRUNERS:
        options = ["--output", WORK / pruner, "--pruner", pruner, "--n-trials", n_trials, "--resume"]
        spacy("bertner", "tune", config, space, *options)


def scores_on_test(name: str, config: Path) -> list[float]:
    """Return the F1 on the test file of a config trained with each seed."""
    scores = []
    for seed in SEEDS:
        folder = WORK / f"{name}-{seed}"
        if not (folder / "test.json").exists():
            spacy("train", config, "--output", folder, "--system.seed", seed)
            spacy("evaluate", folder / "model-best", WORK / "corpus" / "test.spacy", "--output", folder / "test.json")
        scores.append(json.loads((folder / "test.json").read_text())["ents_f"])
    return scores


def main() -> None:
    if len(sys.argv) > 1:  # part of the search
        search(int(sys.argv[1]))
        return
    search(N_TRIALS)
    print(f"{N_TRIALS} trials on the demo corpus, {EPOCHS} epochs each: python bench/tune.py")
    print(machine_line(describe_machine()))
    print("F1 in %; the same search and seed twice; trial 0 is the config that `init` writes\n")
    print("pruner   complete  pruned   best F1 (dev)   trial   F1 (dev) of trial 0   steps trained   seconds")
    for pruner in PRUNERS:
        with (WORK / pruner / "trials.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        complete = [row for row in rows if row["state"] == "complete"]
        best = max(complete, key=lambda row: float(row["score"]))
        shares = statistics.mean((int(row["evaluations"]) - 1) / 10 for row in rows)
        seconds = sum(float(row["seconds"]) for row in rows)
        print(
            f"{pruner:8} {len(complete):8} {len(rows) - len(complete):7} {100 * float(best['score']):15.1f} "
            f"{best['trial']:>7} {100 * float(rows[0]['score']):22.1f} {shares:15.0%} {seconds:9,.0f}"
        )
    print("\nF1 on the test file with seeds " + ", ".join(map(str, SEEDS)))
    for name, config in (("default", WORK / "config.cfg"), ("winner", WORK / "median" / "best.cfg")):
        scores = [100 * score for score in scores_on_test(name, config)]
        print(f"{name:8} mean {statistics.mean(scores):.1f}: " + ", ".join(f"{score:.1f}" for score in scores))


if __name__ == "__main__":
    main()
