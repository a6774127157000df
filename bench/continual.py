"""Learning a new label without forgetting the old: wikigold, PER, LOC and ORG first, then MISC from data with MISC alone.

    python bench/continual.py run [--seed 0] [--jobs 1]
    python bench/continual.py table > bench/results/continual.txt

The first pipeline is trained on PER, LOC and ORG (`configs/demo.cfg`). It is the `source` of those that come after, which
see the same texts with MISC annotated and nothing else, once with `rehearse` and once without; their learning rate, and
the weight of `rehearse`, are the ones of LEARN_RATES and WEIGHTS with the best mean of F1 on the old labels and on the
new one, on the development file. The last line is for comparison: all labels at once. Each run is a process of its own
with one thread and a file in bench/work/continual; what is there is not run again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "bench/work/continual"
OLD, NEW = ("LOC", "ORG", "PER"), ("MISC",)
EPOCHS = 5
LEARN_RATES = (2e-4, 5e-5)
WEIGHTS = (1.0,)


def with_labels(docs: list, labels: tuple[str, ...]) -> list:
    """Copy Docs with these labels alone, as annotators who were asked for nothing else would leave them: the rest is `O`."""
    copies = [doc.copy() for doc in docs]
    for doc in copies:
        doc.set_ents([ent for ent in doc.ents if ent.label_ in labels], default="outside")
    return copies


def train(name: str, docs: dict[str, list], labels: tuple[str, ...], learn_rate: float, seed: int, **source) -> None:
    """Train with `spacy train`'s functions, keep the last model and write its scores on development and test data."""
    import spacy
    from spacy.tokens import DocBin
    from spacy.training.initialize import init_nlp
    from spacy.training.loop import train as train_nlp
    from spacy.util import load_config, registry

    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(ROOT / "configs/demo.cfg", interpolate=False)
    for part in ("train", "dev"):
        DocBin(docs=with_labels(docs[part], labels)).to_disk(folder / f"{part}.spacy")
        config["paths"][part] = str(folder / f"{part}.spacy")
    config["paths"]["encoder"] = str(ROOT / "assets/encoder")
    config["system"]["seed"] = seed
    if source:
        config["components"]["bert_ner"] = {"source": source["path"]}
        if source["rehearse"]:
            callback = {"@callbacks": "spacy_bertner.rehearse.v1", "weight": source["rehearse"]}
            config["initialize"]["before_init"] = callback
    training = config["training"]
    batcher = registry.resolve({"batcher": training["batcher"]})["batcher"]
    steps = EPOCHS * sum(1 for _ in batcher(docs["train"]))
    training.update(max_epochs=EPOCHS, max_steps=0, eval_frequency=steps // EPOCHS)
    training["logger"] = {"@loggers": "spacy.ConsoleLogger.v1"}
    training["optimizer"]["learn_rate"].update(
        initial_rate=learn_rate, warmup_steps=steps // 10, total_steps=int(steps * 1.02)
    )
    train_nlp(init_nlp(config), folder, use_gpu=-1, stdout=sys.stdout, stderr=sys.stderr)
    shutil.rmtree(folder / "model-best")
    nlp = spacy.load(folder / "model-last")
    scores = {part: scores_of(nlp, docs[part]) for part in ("dev", "test")}
    (WORK / f"{name}.json").write_text(json.dumps(scores))


def scores_of(nlp, docs: list) -> dict[str, float]:
    """Return the F1, micro-averaged, over the old labels and over the new."""
    from accuracy import f1, gold
    from spacy.tokens import Doc

    bare = (Doc(nlp.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc]) for doc in docs)
    found, true = gold(nlp.pipe(bare)), gold(docs)
    return {
        key: f1({s for s in found if s[3] in labels}, {s for s in true if s[3] in labels})
        for key, labels in (("old", OLD), ("new", NEW))
    }


def run_one(name: str, seed: int) -> None:
    from accuracy import load

    docs = load("wikigold")
    kind, *numbers = name.removesuffix(f"-{seed}").split("_")
    if kind in ("first", "all"):
        train(name, docs, OLD if kind == "first" else OLD + NEW, 2e-4, seed)
    else:
        rehearse, learn_rate = map(float, numbers)
        path = str(WORK / f"first-{seed}" / "model-last")
        train(name, docs, NEW, learn_rate, seed, path=path, rehearse=rehearse)


def second_runs(weights: tuple[float, ...] = (*WEIGHTS, 0.0)) -> list[str]:
    return [f"second_{weight:g}_{rate:g}" for rate in LEARN_RATES for weight in weights]


def run(seed: int, jobs: int) -> None:
    for names in (["first"], [*second_runs(), "all"]):
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(start, names, [seed] * len(names)))


def start(name: str, seed: int) -> None:
    name = f"{name}-{seed}"
    if (WORK / f"{name}.json").exists():
        return
    WORK.mkdir(parents=True, exist_ok=True)
    keep_memory = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
    environment = {**os.environ, **keep_memory, "OMP_NUM_THREADS": "1"}
    with (WORK / f"{name}.log").open("w") as log:
        command = [sys.executable, __file__, "one", name, "--seed", str(seed)]
        done = subprocess.run(command, stdout=log, stderr=log, env=environment)
    print(f"{time.strftime('%H:%M')} {name}: {'done' if done.returncode == 0 else 'FAILED'}", flush=True)


def read(name: str, seed: int) -> dict[str, dict[str, float]]:
    path = WORK / f"{name}-{seed}.json"
    return json.loads(path.read_text()) if path.exists() else {"dev": {"old": -1.0, "new": -1.0}, "test": {}}


def table(seed: int) -> None:
    print(f"wikigold, F1, {EPOCHS} epochs each, seed {seed}; old labels {', '.join(OLD)}; new label {', '.join(NEW)}\n")
    print(f"{'':68}{'dev old':>9}{'dev new':>9}{'test old':>9}{'test new':>9}")
    rows = [("trained on the old labels", "first")]
    for title, weights in (
        ("then on the new one alone", (0.0,)),
        ("then on the new one alone, with rehearse", WEIGHTS),
    ):
        best = max(second_runs(weights), key=lambda name: sum(read(name, seed)["dev"].values()))
        _, weight, rate = best.split("_")
        rows.append((f"{title} ({f'weight {weight}, ' if any(weights) else ''}rate {rate})", best))
    rows.append(("all labels at once", "all"))
    for title, name in rows:
        result = read(name, seed)
        figures = [result[part].get(key, -1.0) for part in ("dev", "test") for key in ("old", "new")]
        print(f"{title:68}" + "".join(f"{figure:9.1f}" for figure in figures))
    print("\nall runs of the second step, on development data:")
    for name in sorted(second_runs()):
        _, weight, rate = name.split("_")
        result = read(name, seed)["dev"]
        print(f"  weight {weight}, rate {rate}: old {result['old']:.1f}, new {result['new']:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "one", "table"])
    parser.add_argument("name", nargs="?", help="of the run, for `one`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    if args.action == "one":
        run_one(args.name, args.seed)
    elif args.action == "table":
        table(args.seed)
    else:
        run(args.seed, args.jobs)


if __name__ == "__main__":
    main()
