"""A search on the demo corpus or on wikigold; its winner and the default on the test file.

    python bench/tune.py demo > bench/results/tune.txt
    python bench/tune.py wikigold >> bench/results/tune.txt

The config and the search space are those that `init` writes, with 2 epochs instead of its 12 or 8. On the demo corpus the
same search, with the same seed, is run with and without pruning; on both, other pruners see the scores of the trials without
it. Scores are those on the development file. Then the config and the winner are trained with three other seeds each, and the
test file is read for the first time. What is done is kept in bench/work/tune; a run that was stopped continues.
"""

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import optuna
from common import DEMO, ROOT, WIKIGOLD, describe_machine, machine_line
from optuna.trial import TrialState

from spacy_bertner.tune.run import PRUNERS

N_TRIALS, EPOCHS, SEEDS = 20, 2, (1, 2, 3)
DATA = {"demo": DEMO, "wikigold": WIKIGOLD}
SEARCHES = {"demo": ("none", "median"), "wikigold": ("none",)}


def spacy(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "spacy", *map(str, arguments)], cwd=ROOT, check=True, stdout=sys.stderr)


def search(name: str, work: Path, n_trials: int) -> None:
    """Make the data, the config and the space, and run the searches."""
    corpus, config, space = work / "corpus", work / "config.cfg", work / "space.cfg"
    if not space.exists():
        for path in DATA[name]:
            spacy("bertner", "convert", path, corpus, "--merge", path.stem)
        data = ["--train", corpus / "train.spacy", "--dev", corpus / "dev.spacy", "--encoder", "assets/encoder"]
        spacy("bertner", "init", config, *data, "--epochs", EPOCHS, "--no-timing", "--space", space, "--force")
    for pruner in SEARCHES[name]:
        options = ["--output", work / pruner, "--pruner", pruner, "--n-trials", n_trials, "--resume"]
        spacy("bertner", "tune", config, space, *options)


def replay(work: Path, pruner: str) -> tuple[float, float, float, float]:
    """Show a pruner the scores of the trials without pruning, in their order and in random ones.

    Returns the share of the evaluations that are left, in their order and on average, and how often the best trial is.
    """
    study = optuna.load_study(study_name="none", storage=f"sqlite:///{work / 'none' / 'study.db'}")
    curves = [list(trial.intermediate_values.values()) for trial in study.trials if trial.value is not None]
    best, rng = max(map(max, curves)), random.Random(0)
    shares, kept = [], []
    for order in [curves, *(rng.sample(curves, len(curves)) for _ in range(40))]:
        replayed, n_left = optuna.create_study(direction="maximize", pruner=PRUNERS[pruner]()), 0
        for curve in order:
            trial, state = replayed.ask(), TrialState.COMPLETE
            for i, score in enumerate(curve):
                trial.report(score, i)
                if trial.should_prune():
                    state = TrialState.PRUNED
                    break
            n_left += i
            replayed.tell(trial, max(curve) if state == TrialState.COMPLETE else None, state=state)
        shares.append(n_left / sum(len(curve) - 1 for curve in curves))
        kept.append(float(replayed.best_value == best))
    return shares[0], statistics.mean(shares[1:]), kept[0], statistics.mean(kept[1:])


def scores_on_test(work: Path, name: str, config: Path) -> list[float]:
    """Return the F1 on the test file of a config trained with each seed."""
    scores = []
    for seed in SEEDS:
        folder = work / f"{name}-{seed}"
        if not (folder / "test.json").exists():
            spacy("train", config, "--output", folder, "--system.seed", seed)
            spacy("evaluate", folder / "model-best", work / "corpus" / "test.spacy", "--output", folder / "test.json")
        scores.append(json.loads((folder / "test.json").read_text())["ents_f"])
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=DATA)
    parser.add_argument(
        "--n-trials", type=int, default=N_TRIALS, help="Of the search; with fewer, nothing else is done"
    )
    args = parser.parse_args()
    work = ROOT / "bench" / "work" / "tune" / args.data
    search(args.data, work, args.n_trials)
    if args.n_trials < N_TRIALS:
        return
    print(f"{N_TRIALS} trials on {args.data}, {EPOCHS} epochs each: python bench/tune.py {args.data}")
    print(machine_line(describe_machine()))
    print("F1 in %; the same space and seed; trial 0 is the config that `init` writes\n")
    print("pruner   complete  pruned   best F1 (dev)   trial   F1 (dev) of trial 0   steps trained   seconds")
    for pruner in SEARCHES[args.data]:
        with (work / pruner / "trials.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        complete = [row for row in rows if row["state"] == "complete"]
        best = max(complete, key=lambda row: float(row["score"]))
        shares = statistics.mean((int(row["evaluations"]) - 1) / 10 for row in rows)
        seconds = sum(float(row["seconds"]) for row in rows)
        print(
            f"{pruner:8} {len(complete):8} {len(rows) - len(complete):7} {100 * float(best['score']):15.1f} "
            f"{best['trial']:>7} {100 * float(rows[0]['score']):22.1f} {shares:15.0%} {seconds:9,.0f}"
        )
    print("\nThe trials without pruning, in their order and in 40 others, with each pruner")
    print("pruner      steps trained, in other orders   the best trial is kept, in other orders")
    for pruner in PRUNERS:
        print(f"{pruner:10}" + "{:15.0%} {:16.0%} {:24.0%} {:16.0%}".format(*replay(work, pruner)))
    print("\nF1 on the test file with seeds " + ", ".join(map(str, SEEDS)))
    for name, config in (("default", work / "config.cfg"), ("winner", work / SEARCHES[args.data][-1] / "best.cfg")):
        scores = [100 * score for score in scores_on_test(work, name, config)]
        print(f"{name:8} mean {statistics.mean(scores):.1f}: " + ", ".join(f"{score:.1f}" for score in scores))


if __name__ == "__main__":
    main()
