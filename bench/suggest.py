"""How many labelled sentences a pipeline needs if `suggest` chooses them, beside a random choice, on wikigold.

    python bench/suggest.py run [--seeds 0 1 2] [--strategies uncertainty random]
    python bench/suggest.py table

A round trains fresh weights on the sentences chosen so far, and lets the pipeline choose the next ones with `suggest`, from
the sentences of the training file as texts. The first 50 are drawn at random, the same for every strategy. A round with n
sentences takes 80 + n / 5 steps of 16 sentences, learning rate 2e-4 with warm-up over a tenth of them and linear decay; so
does training on all sentences. Each round is a file in bench/work/suggest; what is there is not run again.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from common import (
    KEEP_MEMORY,
    ROOT,
    WIKIGOLD,
    describe_machine,
    examples,
    machine_line,
    read_sentences,
    start_again_with,
)

WORK = ROOT / "bench/work/suggest"
RESULTS = ROOT / "bench/results"
SIZES = (50, 100, 200, 350, 500, 700)
STRATEGIES = ("uncertainty", "random")
BATCH, LEARN_RATE = 16, 2e-4
SHARE = 0.95


def train(sentences: list, seed: int, encoder: str) -> Any:
    """Train a pipeline on sentences."""
    import spacy
    from spacy.util import fix_random_seed

    fix_random_seed(seed)
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": encoder, "head_learn_rate": 10.0}})
    data = examples(nlp, sentences)
    optimizer = nlp.initialize(lambda: data)
    steps = 80 + len(data) // 5
    order: list = []
    rng = random.Random(seed)
    for step in range(steps):
        optimizer.learn_rate = LEARN_RATE * min((step + 1) / (steps / 10), (steps - step) / (steps * 0.9))
        if len(order) < BATCH:
            order += rng.sample(data, len(data))
        nlp.update(order[:BATCH], sgd=optimizer, drop=0.1)
        order = order[BATCH:]
    return nlp


def choose(nlp: Any, texts: list[str], chosen: list[str], n: int, strategy: str, seed: int) -> list[str]:
    """Add to the chosen texts what `suggest` suggests, up to n."""
    from spacy_bertner.annotate.suggest import suggest

    with tempfile.TemporaryDirectory() as folder:
        pool, done, out = (Path(folder) / f"{name}.jsonl" for name in ("pool", "done", "out"))
        for path, given in ((pool, texts), (done, chosen)):
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in given), encoding="utf8")
        suggest(nlp, [pool], out, n - len(chosen), exclude=[done], strategy=strategy, seed=seed)
        tasks = map(json.loads, out.read_text(encoding="utf8").splitlines())
        return [*chosen, *(task["text"] for task in tasks)]


def run(seeds: list[int], strategies: list[str], encoder: str) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    pool, dev, test = (read_sentences([path]) for path in WIKIGOLD)
    sentences = {doc.text: doc for doc in pool}
    (WORK / "machine.json").write_text(json.dumps(describe_machine()))

    def finish(path: Path, chosen: list[str], seed: int) -> Any:
        """Train, score and keep the scores."""
        nlp = train([sentences[text] for text in chosen], seed, encoder)
        f1 = {name: 100 * nlp.evaluate(examples(nlp, docs))["ents_f"] for name, docs in (("dev", dev), ("test", test))}
        n_words = sum(len(sentences[text]) for text in chosen)
        path.write_text(json.dumps({"n": len(chosen), "n_words": n_words, **f1}))
        print(f"{time.strftime('%H:%M')} {path.stem}: dev {f1['dev']:.1f}", flush=True)
        return nlp

    for seed in seeds:
        first = random.Random(seed).sample(list(sentences), SIZES[0])
        for strategy in strategies:
            chosen, nlp = first, None
            for n in SIZES:
                choice = WORK / f"{strategy}-{seed}-{n}.texts.json"
                if choice.exists():
                    chosen = json.loads(choice.read_text())
                elif n > SIZES[0]:
                    nlp = nlp or train([sentences[text] for text in chosen], seed, encoder)
                    chosen = choose(nlp, list(sentences), chosen, n, strategy, seed)
                    choice.write_text(json.dumps(chosen))
                path = WORK / f"{strategy}-{seed}-{n}.json"
                nlp = None if path.exists() else finish(path, chosen, seed)
        path = WORK / f"all-{seed}.json"
        if not path.exists():
            finish(path, list(sentences), seed)


def curve(strategy: str, seed: int) -> list[dict[str, float]]:
    """The rounds of a strategy, and the one with all sentences."""
    paths = [*(WORK / f"{strategy}-{seed}-{n}.json" for n in SIZES), WORK / f"all-{seed}.json"]
    return [json.loads(path.read_text()) for path in paths]


def needed(points: list[dict[str, float]], key: str) -> float:
    """How many sentences (`n`) or words (`n_words`) reach the share of the full F1, between two rounds in proportion."""
    goal = SHARE * points[-1]["test"]
    before = {"n": 0.0, "n_words": 0.0, "test": 0.0}
    for point in points:
        if point["test"] >= goal:
            share = (goal - before["test"]) / (point["test"] - before["test"])
            return before[key] + share * (point[key] - before[key])
        before = point
    raise AssertionError("the last point reaches it")


def table() -> None:
    curves = {
        strategy: [
            curve(strategy, seed) for seed in range(10) if (WORK / f"{strategy}-{seed}-{SIZES[-1]}.json").exists()
        ]
        for strategy in STRATEGIES
    }
    lines = [
        "Entity F1 on wikigold (test) by the number of labelled sentences, python bench/suggest.py; mean of",
        f"{len(curves['random'])} seeds; all-MiniLM-L6-v2; {machine_line(json.loads((WORK / 'machine.json').read_text()))}",
        "",
        f"{'':12}" + "".join(f"{n:>8}" for n in (*SIZES, "all")) + f"   {SHARE:.0%} of the full F1 at",
    ]
    for strategy, of_seeds in curves.items():
        means = [statistics.mean(points[i]["test"] for points in of_seeds) for i in range(len(SIZES) + 1)]
        at = {key: [needed(points, key) for points in of_seeds] for key in ("n", "n_words")}
        lines.append(
            f"{strategy:12}" + "".join(f"{mean:8.1f}" for mean in means)
            + f"   {statistics.mean(at['n']):.0f} sentences ({', '.join(f'{n:.0f}' for n in at['n'])}),"
            + f" {statistics.mean(at['n_words']):,.0f} words"
        )  # fmt: skip
    (RESULTS / "suggest.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    print("\n".join(lines))
    plot(curves)


def plot(curves: dict[str, list[list[dict[str, float]]]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (strategy, of_seeds), colour in zip(curves.items(), ("C0", "C1"), strict=True):
        for points in of_seeds:
            axes.plot(SIZES, [point["test"] for point in points[:-1]], color=colour, alpha=0.3, linewidth=1)
        means = [statistics.mean(points[i]["test"] for points in of_seeds) for i in range(len(SIZES))]
        axes.plot(SIZES, means, color=colour, marker="o", label=strategy)
    full = statistics.mean(points[-1]["test"] for points in curves["random"])
    axes.axhline(SHARE * full, color="grey", linestyle="--", label=f"{SHARE:.0%} of the F1 with all sentences")
    axes.set(xlabel="labelled sentences", ylabel="F1 on wikigold (test)")
    axes.legend()
    figure.savefig(RESULTS / "suggest.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("run")
    sub.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    sub.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    sub.add_argument("--encoder", default=str(ROOT / "assets/encoder"))
    commands.add_parser("table")
    args = parser.parse_args()
    if args.command == "table":
        table()
    else:
        start_again_with(KEEP_MEMORY)
        run(args.seeds, args.strategies, args.encoder)


if __name__ == "__main__":
    main()
