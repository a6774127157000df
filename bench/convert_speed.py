"""Tokens per second of `spacy bertner convert` and of `spacy convert -c ner`, on the same file.

Writes a made-up CoNLL-2003 file (IOB2, `-DOCSTART- -X- O O`, which is what spaCy's converter
understands) to a temporary folder and converts it with both commands in turn, each in its own
process, so that times are of the whole command and memory is the peak of the process. Prints one
line per run, medians and their ratio. Nothing is kept unless `--output` names a file for the figures.

    python bench/convert_speed.py --tokens 1000000 --rounds 3

With `--tools`, the documents of such files are written and read in the formats of annotation tools instead, one
JSON object per line (Prodigy) and in one array (Label Studio), beside CoNLL: seconds of processor time and peak
memory, for files of 200,000 tokens and of `--tokens`.

    python bench/convert_speed.py --tools --tokens 1000000 > bench/results/convert.txt

With `--array GB` a JSON array of that size is read, of tasks of Label Studio with much beside their text.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS, THEIRS = "spacy bertner convert", "spacy convert -c ner"


def write_corpus(path: Path, n_tokens: int, seed: int = 0) -> int:
    """A file of about as many tokens: a vocabulary with a long tail, every tenth word a name."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 11))) for _ in range(30_000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    labels = ["PER", "LOC", "ORG", "MISC"]
    drawn = rng.choices(words, weights, k=n_tokens)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < n_tokens:
            file.write("-DOCSTART- -X- O O\n\n")
            for _ in range(rng.randint(10, 20)):
                inside = ""
                for _ in range(rng.randint(5, 25)):
                    if written == n_tokens:
                        break
                    word = drawn[written]
                    written += 1
                    if inside and rng.random() < 0.4:
                        tag = f"I-{inside}"
                    elif rng.random() < 0.1:
                        inside = rng.choice(labels)
                        tag = f"B-{inside}"
                    else:
                        inside, tag = "", "O"
                    file.write(f"{word if tag == 'O' else word.title()} NN I-NP {tag}\n")
                file.write("\n")
    return written


def run(command: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of processor time and peak MiB of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    scale = 1024 if sys.platform == "darwin" else 1
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024 / scale


def tools(sizes: list[int], rounds: int) -> None:
    """The documents of files of these sizes, in the formats of annotation tools and back."""
    convert = [sys.executable, "-m", "spacy", "bertner", "convert"]
    steps = {
        "read CoNLL": ["corpus.conll", "corpus.spacy"],
        "write JSONL": ["corpus.spacy", "corpus.jsonl", "--to", "prodigy"],
        "read JSONL": ["corpus.jsonl", "back.spacy", "--alignment", "expand"],
        "write an array": ["corpus.spacy", "corpus.json", "--to", "label-studio"],
        "read an array": ["corpus.json", "back.spacy", "--alignment", "expand"],
    }
    print(f"{'python bench/convert_speed.py --tools':40}" + "".join(f"{n:>12,} tokens" for n in sizes))
    figures: dict[str, list[str]] = {name: [] for name in steps}
    for n_tokens in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(Path(folder) / "corpus.conll", n_tokens)
            for name, (source, target, *options) in steps.items():
                command = [*convert, f"{folder}/{source}", f"{folder}/{target}", *options]
                runs = [run(command)[1:] for _ in range(rounds)]
                seconds, peak = statistics.median(took for took, _ in runs), max(peak for _, peak in runs)
                figures[name].append(f"{seconds:8.1f} s {peak:5.0f} MiB")
    for name, cells in figures.items():
        print(f"{name:40}" + "".join(f"{cell:>19}" for cell in cells), flush=True)


def large_array(gigabytes: float) -> None:
    """Read an array of tasks of 100,000 characters each, most of which are no text."""
    result = {"from_name": "l", "to_name": "t", "type": "labels", "value": {"start": 0, "end": 4, "labels": ["PER"]}}
    task = {"data": {"text": "Ayla left Oslo.", "html": "x" * 99_500}, "annotations": [{"result": [result]}]}
    n_tasks = round(gigabytes * 10_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.json"
        with path.open("w") as file:
            file.write("[")
            for i in range(n_tasks):
                file.write(",\n" * (i > 0) + json.dumps({"id": i, **task}))
            file.write("]")
        size = path.stat().st_size
        command = [sys.executable, "-m", "spacy", "bertner", "convert", str(path), f"{folder}/out.spacy"]
        _, seconds, peak = run(command)
    print(f"an array of {n_tasks:,} tasks, {size / 1e9:.2f} GB: {seconds:.1f} s, {peak:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input", type=Path, help="a CoNLL-2003 file of your own instead")
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--tools", action="store_true", help="annotation tools instead of spaCy's converter")
    parser.add_argument("--array", type=float, help="read a JSON array of so many GB instead")
    args = parser.parse_args()
    if args.array:
        large_array(args.array)
        return
    if args.tools:
        tools([200_000, args.tokens], args.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = args.input or Path(folder) / "corpus.conll"
        n_tokens = args.tokens
        if args.input is None:
            n_tokens = write_corpus(path, args.tokens)
        else:
            with path.open(encoding="utf-8") as lines:
                n_tokens = sum(1 for line in lines if line.strip() and "-DOCSTART-" not in line)
        spacy = [sys.executable, "-m", "spacy"]
        out = {OURS: Path(folder) / "ours", THEIRS: Path(folder) / "theirs"}
        for target in out.values():
            target.mkdir()
        commands = {
            OURS: [*spacy, "bertner", "convert", str(path), str(out[OURS])],
            THEIRS: [*spacy, "convert", str(path), str(out[THEIRS]), "-c", "ner", "-n", "10"],
        }
        seconds: dict[str, list[float]] = {OURS: [], THEIRS: []}
        memory: dict[str, list[float]] = {OURS: [], THEIRS: []}
        for round_ in range(args.rounds):
            # The other one first in every second round, so that neither always meets a warm cache.
            for name in list(commands)[:: 1 if round_ % 2 == 0 else -1]:
                took, _, peak = run(commands[name])
                seconds[name].append(took)
                memory[name].append(peak)
                print(f"{name:>22}: {took:6.2f} s, {n_tokens / took:9,.0f} tokens/s, {peak:5.0f} MiB")
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = median[THEIRS] / median[OURS]
    for name, took in median.items():
        peak = max(memory[name])
        print(f"{name:>22}: median {took:6.2f} s, {n_tokens / took:9,.0f} tokens/s, {peak:5.0f} MiB")
    print(f"ratio of tokens per second, ours to spaCy's: {ratio:.2f}")
    if args.output:
        figures = {"tokens": n_tokens, "seconds": seconds, "peak_mib": memory, "ratio": ratio}
        args.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
