"""LoRA beside full fine-tuning: F1, memory in training, what is trained and stored, speed.

    python bench/lora.py f1 [--set wikigold] [--epochs 8] [--rates 5e-4 1e-3 2e-3] [--seeds 0 1 2] [--jobs 2]
    python bench/lora.py cost [--words 20000] [--lora '{"r": 8}']

`f1` trains both with configs/demo.cfg, each at the learning rate that is best for it on the development data (seed 0), then
with the other seeds, and compares them on the test file; the interval is a bootstrap over its documents. Full fine-tuning
takes its rates from {5e-5, 1e-4, 2e-4}; LoRA has those of `--rates`, and a head_learn_rate of 1.0 where the demo's is
10.0. Each run is a process of its own with a file in bench/work/lora; what is there is not run again. `cost` trains both on
the same words, each in a process of its own, and prints the memory above that of the loaded model.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import accuracy
import common
from scaling import give_back_memory, resident

WORK = common.ROOT / "bench" / "work" / "lora"
MIB = 2**20


def settings_of(system: str, lora: str) -> dict[str, Any]:
    return {"lora": json.loads(lora), "head_learn_rate": 1.0} if system == "lora" else {}


def start(command: str, *arguments: Any, log: Any = None) -> None:
    environment = {**os.environ, **common.KEEP_MEMORY, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, command, *map(str, arguments)]
    subprocess.run(words, env=environment, check=True, stdout=log, stderr=log)


# F1


def f1_once(args: argparse.Namespace) -> None:
    docs, path = accuracy.load(args.set), Path(args.path)
    dev, found, units = accuracy.bert_ner(
        docs,
        path.with_suffix(""),
        args.epochs,
        args.rate,
        args.seed,
        args.encoder,
        **settings_of(args.system, args.lora),
    )
    result = {"dev": dev, "found": sorted(found), "gold": sorted(accuracy.gold(units)), "n_docs": len(units)}
    path.write_text(json.dumps(result), encoding="utf8")


def f1(args: argparse.Namespace) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    rates = {"full": accuracy.LEARN_RATES, "lora": args.rates}

    def result(system: str, rate: float, seed: int) -> dict[str, Any]:
        name = "lora" + re.sub(r"\W", "", args.lora) if system == "lora" else system
        path = WORK / f"{args.set}-{args.epochs}-{name}-{rate:g}-{seed}.json"
        if not path.exists():
            options = ["--set", args.set, "--epochs", args.epochs, "--encoder", args.encoder, "--lora", args.lora]
            with path.with_suffix(".log").open("w") as log:
                start("f1-once", system, rate, seed, path, *options, log=log)
        return json.loads(path.read_text(encoding="utf8"))

    with ThreadPoolExecutor(args.jobs) as pool:
        dev = {(s, r): pool.submit(lambda s=s, r=r: result(s, r, 0)["dev"]) for s in rates for r in rates[s]}
        for (system, rate), future in dev.items():
            print(f"{system:5} {rate:7g}  F1 on development data {future.result():5.1f}", flush=True)
        best = {s: max(rates[s], key=lambda rate, s=s: dev[s, rate].result()) for s in rates}
        runs = {s: list(pool.map(lambda seed, s=s: result(s, best[s], seed), args.seeds)) for s in rates}
    for system, results in runs.items():
        scores = [accuracy.f1(spans(r["found"]), spans(r["gold"])) for r in results]
        listed = " ".join(f"{score:.1f}" for score in scores)
        print(f"{system:5} {best[system]:7g}  F1 on test data {statistics.mean(scores):5.1f}  ({listed})")
    low, high = interval(runs["lora"], runs["full"])
    print(f"lora - full: between {low:+.1f} and {high:+.1f} (95 %, bootstrap over documents)")


def spans(found: list) -> set:
    return set(map(tuple, found))


def interval(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], n: int = 2000) -> tuple[float, float]:
    """Return the 95 % interval of the difference of F1 (mean over the seeds) over resampled test documents."""

    def counts(result: dict[str, Any]) -> list[tuple[int, int]]:
        found, gold = spans(result["found"]), spans(result["gold"])
        hits, sizes = [0] * result["n_docs"], [0] * result["n_docs"]
        for span in found & gold:
            hits[span[0]] += 1
        for span in (*found, *gold):
            sizes[span[0]] += 1
        return list(zip(hits, sizes, strict=True))

    sides = [[counts(result) for result in results] for results in (ours, theirs)]
    rng, differences = random.Random(0), []
    for _ in range(n):
        picked = rng.choices(range(ours[0]["n_docs"]), k=ours[0]["n_docs"])
        means = [
            statistics.mean(
                200 * sum(docs[i][0] for i in picked) / max(sum(docs[i][1] for i in picked), 1) for docs in side
            )
            for side in sides
        ]
        differences.append(means[0] - means[1])
    differences.sort()
    return differences[int(0.025 * n)], differences[int(0.975 * n)]


# What it costs


def cost_once(args: argparse.Namespace) -> None:
    import spacy
    from spacy.training import minibatch_by_words
    from thinc.api import Adam, fix_random_seed

    warnings.filterwarnings("ignore")
    fix_random_seed(0)
    nlp = spacy.blank("en")
    model = {"name": args.encoder}
    nlp.add_pipe("bert_ner", config={"model": {**model, **settings_of(args.system, args.lora)}})
    sentences = common.read_sentences(common.default_files(), args.words)
    docs = common.join(sentences, 300)
    nlp.initialize(lambda: common.examples(nlp, docs))
    batches = list(minibatch_by_words(common.examples(nlp, docs), size=600, get_length=lambda eg: len(eg.reference)))
    optimizer = Adam(1e-4, L2=0.01)
    bare = common.Data("", docs).fresh_docs(nlp.vocab)
    # Before the first step, which makes gradients and the optimizer's state
    list(nlp.pipe(bare[:2]))
    give_back_memory()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    nlp.update(batches[0], sgd=optimizer, drop=0.1)
    seconds, _, _ = common.timed(lambda: [nlp.update(batch, sgd=optimizer, drop=0.1) for batch in batches])
    memory = resident("VmHWM") - before
    predicting, _, _ = common.timed(lambda: list(nlp.pipe(bare)))
    n_words = sum(map(len, docs))
    parameters = nlp.get_pipe("bert_ner").model.shims[0].module.parameters()
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    with tempfile.TemporaryDirectory() as folder:
        nlp.to_disk(folder)
        own = [path for path in Path(folder, "bert_ner/model").iterdir() if path.name.startswith(("adapt", "head"))]
        stored = sum(
            path.stat().st_size for path in (own if args.system == "lora" else Path(folder).rglob("*.safetensors"))
        )
    print(
        f"{args.system:5} {n_words / seconds:8.0f} words/s in training {n_words / predicting:8.0f} in prediction "
        f"{memory / MIB:7.0f} MiB above the model in training {trained / 1e6:7.2f} MB trained {stored / 1e6:7.2f} MB stored"
    )


def cost(args: argparse.Namespace) -> None:
    print(common.machine_line(common.describe_machine()), flush=True)
    for system in ("full", "lora"):
        start("cost-once", system, "--words", args.words, "--encoder", args.encoder, "--lora", args.lora)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    functions = {"f1": f1, "f1-once": f1_once, "cost": cost, "cost-once": cost_once}
    for command in functions:
        sub = commands.add_parser(command)
        sub.add_argument("--encoder", default=str(common.ROOT / "assets/encoder"))
        sub.add_argument("--lora", default="{}", help="the setting, as JSON")
        if command.endswith("once"):
            sub.add_argument("system", choices=["full", "lora"])
        if command.startswith("cost"):
            sub.add_argument("--words", type=int, default=20000)
            continue
        sub.add_argument("--set", default="wikigold", choices=accuracy.EPOCHS)
        sub.add_argument("--epochs", type=int, default=8)
        if command == "f1-once":
            sub.add_argument("rate", type=float)
            sub.add_argument("seed", type=int)
            sub.add_argument("path")
        else:
            sub.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3], help="of LoRA")
            sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
            sub.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    functions[args.command](args)


if __name__ == "__main__":
    main()
