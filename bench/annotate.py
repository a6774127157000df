"""How much longer `annotate` takes than `nlp.pipe` over the same texts, and whether its memory stays flat.

    python bench/annotate.py [--words 1000000] [--rounds 3]
    python bench/annotate.py --encoder assets/encoder --words 30000

A JSONL file of texts of about 400 words, and a loaded pipeline. Each round runs, one after the other, `nlp.pipe` over
the texts of the file in memory zones, which keeps and writes nothing, and `annotate` from the file to a JSONL file.
Processor time is that of the process; on a busy machine it is more reliable than wall time. Resident memory is
sampled during both.

The encoder is the tiny one of `scaling.py`, so that it hides little of what `annotate` adds. Results are written to `--out`.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import common
import spacy
from common import ROOT, describe_machine, machine_line, timed
from memory import MIB, Sampler, texts
from scaling import encoder_size, give_back_memory, write_pipeline

from spacy_bertner.annotate.run import RunSettings, annotate


def pipe(nlp: Any, path: Path) -> None:
    """`nlp.pipe` alone."""
    with path.open(encoding="utf8") as file:
        given = [json.loads(line)["text"] for line in file]
    for start in range(0, len(given), 100):
        with nlp.memory_zone():
            for _ in nlp.pipe(given[start : start + 100]):
                pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", help="a real encoder instead of the tiny one")
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/annotate.txt")
    arguments = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline = write_pipeline(arguments.encoder, common.default_files(), None, folder)
        nlp, path, output = spacy.load(pipeline), folder / "in.jsonl", folder / "out.jsonl"
        given = texts(arguments.words)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in given), encoding="utf8")
        list(nlp.pipe(given[:50]))  # warm up
        say(machine_line(describe_machine()))
        say(f"encoder: {encoder_size(Path(pipeline))}; {len(given)} texts, {arguments.words:,} words")
        del given
        work: dict[str, Callable[[], Any]] = {
            "nlp.pipe": lambda: pipe(nlp, path),
            "annotate": lambda: annotate(nlp, [path], output, RunSettings(force=True)),
        }
        times: dict[str, list[tuple[float, float]]] = {what: [] for what in work}
        for round_ in range(1, arguments.rounds + 1):
            for what, do in work.items():
                give_back_memory()
                with Sampler(0.1) as sampler:
                    seconds, processor, _ = timed(do)
                times[what].append((seconds, processor))
                memory = [size / MIB for _, _, size in sampler.samples]
                n = len(memory)
                parts = ", ".join(f"{memory[i]:.0f}" for i in (n // 10, n // 4, n // 2, 3 * n // 4, n - 1))
                say(
                    f"round {round_}: {what}: {seconds:.1f} s, {processor:.1f} s of processor time; memory after 1/10, "
                    f"1/4, 1/2, 3/4 of the time and at the end: {parts} MiB"
                )
        for i, kind in enumerate(("wall time", "processor time")):
            alone, whole = (statistics.median(each[i] for each in found) for found in times.values())
            say(f"{kind}, median: nlp.pipe {alone:.1f} s, annotate {whole:.1f} s: {whole / alone - 1:+.1%}")
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
