"""How time and peak memory of `bert_ner` grow with the length of one document, and with the number of documents.

    python bench/scaling.py [--words 1000 10000 100000 1000000] [--rounds 1]
    python bench/scaling.py --encoder assets/encoder --words 1000 10000 100000

The encoder is a tiny BERT (2 layers of width 64, random weights, the packaged tokenizer), so that a million words can be had
on two cores, and so that what grows with the words is not hidden behind the encoder; `--encoder` takes a real one. The head
is trained a little first: an untrained one finds entities everywhere.

Each point is a process of its own, with glibc's allocator as it comes, that loads the pipeline, predicts a few sentences,
makes the Docs (wikigold, else the demo corpus, repeated), and predicts them with `nlp.pipe` (`--batch-size`).
All Docs stay in memory. "Docs" is what the memory of the process grows by while they are made, "peak" is how much more than
that it takes at most while they are predicted (VmHWM, reset before). With `--rounds`, time is the median and memory the
highest.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import common
from common import ROOT, Data

SHAPES = {"one": "one document", "many": "documents of 400 words"}


# A point, in its own process


def point(pipeline: str, shape: str, n_words: int, files: list[Path], batch_size: int) -> dict[str, Any]:
    """Predict so many words; return seconds, and memory in bytes."""
    import spacy

    sentences = common.read_sentences(files)
    nlp = spacy.load(pipeline)
    # What is made on first use is not to count
    list(nlp.pipe(Data("warm-up", sentences[:200]).fresh_docs(nlp.vocab)))
    sentences = common.repeat(sentences, n_words)
    data = Data(shape, [common.join_all(sentences)] if shape == "one" else common.join(sentences, 400))
    assert data.words, data.sent_starts  # made on first use
    give_back_memory()
    loaded = resident("VmRSS")
    docs = data.fresh_docs(nlp.vocab)
    made = resident("VmRSS")
    del data, sentences
    give_back_memory()
    before = resident("VmRSS")
    has_own_peak = reset_peak()
    start, start_cpu = time.perf_counter(), time.process_time()
    n_entities = sum(len(doc.ents) for doc in nlp.pipe(docs, batch_size=batch_size))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return {
        "shape": shape,
        "words": sum(map(len, docs)),
        "docs": len(docs),
        "entities": n_entities,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "of_docs": made - loaded,
        "before": before,
        "peak": resident("VmHWM"),
        "is_peak_of_prediction": has_own_peak,
        "maxrss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def give_back_memory() -> None:
    """Give to the system what is free, so that memory taken again is seen."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # glibc alone has it
            ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> bool:
    """Set VmHWM to what is in use now; say whether the system lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


# All points


def write_pipeline(encoder: str | None, files: list[Path], head_words: int | None, folder: Path) -> str:
    """Train a pipeline a little and save it."""
    import peers
    from throughput import demo_pipeline, train_a_little
    from transformers import BertConfig

    docs = common.read_sentences(files, head_words or (8000 if encoder else None))
    learn_rate = 2e-4 if encoder else 1e-3
    if encoder is None:
        tiny = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256)
        encoder = peers.write_random_encoder(str(ROOT / "assets/encoder"), str(folder / "encoder"), tiny)
    nlp = demo_pipeline(encoder)
    train_a_little(nlp, docs, learn_rate)
    nlp.to_disk(folder / "pipeline")
    return str(folder / "pipeline")


def run(pipeline: str, shape: str, n_words: int, files: list[Path], batch_size: int) -> dict[str, Any]:
    """Measure a point in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--point",
        pipeline,
        shape,
        "--words",
        str(n_words),
        "--batch-size",
        str(batch_size),
    ]
    done = subprocess.run([*command, "--data", *map(str, files)], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per point: median of the time, highest of the memory."""
    summary = []
    for shape, words in dict.fromkeys((row["shape"], row["words"]) for row in rows):
        own = [row for row in rows if (row["shape"], row["words"]) == (shape, words)]
        summary.append(
            {
                "shape": shape,
                "words": words,
                "seconds": statistics.median(row["seconds"] for row in own),
                "docs": max(row["of_docs"] for row in own),
                "peak": max(row["peak"] - row["before"] for row in own),
                "whole": max(row["peak"] for row in own),
            }
        )
    return summary


def table(results: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = [results["title"], ""]
    for shape, name in SHAPES.items():
        rows = [row for row in results["summary"] if row["shape"] == shape]
        lines += [
            f"**{name}**",
            "",
            "| words | seconds | words/s | Docs, MiB | peak above that, MiB | bytes a word | whole process, MiB |",
            "|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for row in rows:
            lines.append(
                f"| {row['words']:,} | {row['seconds']:.2f} | {row['words'] / row['seconds']:,.0f} "
                f"| {row['docs'] / 2**20:,.1f} | {row['peak'] / 2**20:,.1f} | {row['peak'] / row['words']:,.0f} "
                f"| {row['whole'] / 2**20:,.0f} |"
            )
        lines.append("")
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw time and memory over words, both logarithmic, beside lines of what is proportional to the words."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    time_axes, memory_axes = figure.subplots(1, 2)
    styles = {"one": ("tab:blue", "o"), "many": ("tab:orange", "s")}
    for shape, (colour, marker) in styles.items():
        rows = [row for row in results["summary"] if row["shape"] == shape]
        words = [row["words"] for row in rows]
        line = {"color": colour, "marker": marker}
        time_axes.plot(words, [row["seconds"] for row in rows], label=SHAPES[shape], **line)
        peaks = [row["peak"] / 2**20 for row in rows]
        memory_axes.plot(words, peaks, label=f"{SHAPES[shape]}: peak above the Docs", **line)
        docs = [row["docs"] / 2**20 for row in rows]
        memory_axes.plot(
            words, docs, ls=":", label=f"{SHAPES[shape]}: the Docs", **{**line, "markerfacecolor": "white"}
        )
    longest = [row for row in results["summary"] if row["shape"] == "one"]
    for axes, key, unit in ((time_axes, "seconds", 1), (memory_axes, "peak", 2**20)):
        start, end = longest[0]["words"], longest[-1]["words"]
        last = longest[-1][key] / unit
        axes.plot([start, end], [last * start / end, last], color="0.6", ls="--", lw=1, zorder=0, label="linear")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("words")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)
    time_axes.set_ylabel("seconds")
    memory_axes.set_ylabel("MiB")
    memory_axes.set_ylim(bottom=0.1)
    time_axes.set_title("Time of prediction", fontsize=11)
    memory_axes.set_title("Memory", fontsize=11)
    figure.suptitle(results["title"], fontsize=10)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", help="a real encoder in place of the tiny one")
    parser.add_argument("--data", type=Path, nargs="+", help="CoNLL files in place of wikigold")
    parser.add_argument("--words", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64, help="Docs a batch: that of configs/demo.cfg")
    parser.add_argument(
        "--head-words", type=int, help="words that the head is trained on; all, for a real encoder 8000"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench/work/scaling")
    parser.add_argument("--point", nargs=2, metavar=("PIPELINE", "SHAPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    files = args.data or common.default_files()
    if args.point:
        pipeline, shape = args.point
        print(json.dumps(point(pipeline, shape, args.words[0], files, args.batch_size)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pipeline = write_pipeline(args.encoder, files, args.head_words, Path(folder))
        size = encoder_size(Path(pipeline))
        for round_ in range(args.rounds):
            for n_words in args.words:
                for shape, name in SHAPES.items():
                    row = run(pipeline, shape, n_words, files, args.batch_size)
                    rows.append({"round": round_ + 1, **row})
                    peak = (row["peak"] - row["before"]) / 2**20
                    print(f"{name:25} {n_words:9,} words {row['seconds']:8.2f} s {peak:8.1f} MiB", flush=True)
    machine = common.describe_machine()
    results = {
        "title": f"bert_ner, {size}; {common.machine_line(machine)}",
        "machine": machine,
        "settings": {"rounds": args.rounds, "batch_size": args.batch_size, "head_words": args.head_words},
        "summary": summarize(rows),
        "measurements": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scaling.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf8")
    (args.out / "scaling.md").write_text(table(results), encoding="utf8")
    plot(results, args.out / "scaling.png")
    print("\n" + table(results))


def encoder_size(pipeline: Path) -> str:
    config = json.loads((pipeline / "bert_ner/model/config.json").read_text(encoding="utf8"))
    return f"{config['num_hidden_layers']} layers of width {config['hidden_size']}"


if __name__ == "__main__":
    main()
