"""What `annotate` takes beyond `nlp.pipe` over the same texts, and whether its memory stays flat.

    python bench/annotate.py [--words 1000000] [--rounds 3]
    python bench/annotate.py --encoder assets/encoder --words 30000

Two commands over the same JSONL file of texts of about 400 words, one after the other in each round: `annotate` to JSONL, and
a script that loads the pipeline, reads the texts and runs `nlp.pipe` over them in memory zones, and writes nothing. Each is a
process; the time is that of the whole process. Loading, which both have to do and a million words hide, is measured by a file
of one text and taken off. Processor time is user and system time of the process; with other work on the machine it says more
than the seconds. The resident memory of `annotate` is sampled from outside.

The encoder is the tiny one of `scaling.py`: it hides least of what `annotate` adds. Results go to bench/results/annotate.txt, or
beside it where `--out` says.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import common
from common import ROOT, describe_machine, machine_line
from memory import texts
from scaling import encoder_size, write_pipeline

MIB = 2**20
PIPE = """
import json, sys, spacy
nlp = spacy.load(sys.argv[1])
with open(sys.argv[2], encoding="utf8") as file:
    given = [json.loads(line)["text"] for line in file]
n = 0
for start in range(0, len(given), 100):
    with nlp.memory_zone():
        for doc in nlp.pipe(given[start : start + 100]):
            n += len(doc)
print(n)
"""


def resident(pid: int) -> int:
    """Bytes of a process that are in memory; 0 where it is no more."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(command: list[str]) -> tuple[float, float, list[int]]:
    """Run it; return seconds, seconds of processor time, and its memory four times a second."""
    start, samples, over = time.perf_counter(), [], threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def sample() -> None:
        while not over.wait(0.25):
            samples.append(resident(process.pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    over.set()
    sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:6])} … ended with status {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, [size for size in samples if size]


def write_texts(path: Path, given: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in given), encoding="utf8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", help="a real encoder in place of the tiny one")
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
        given = texts(arguments.words)
        files = {"one text": write_texts(folder / "one.jsonl", given[:1]), "all": write_texts(folder / "all.jsonl", given)}
        say(machine_line(describe_machine()))
        say(f"encoder: {encoder_size(Path(pipeline))}; {len(given)} texts, {arguments.words:,} words; whole processes")
        annotate = [sys.executable, "-m", "spacy", "bertner", "annotate", pipeline]
        commands = {
            "nlp.pipe": lambda file: [sys.executable, "-c", PIPE, pipeline, str(file)],
            "annotate": lambda file: [*annotate, str(file), str(folder / "out.jsonl"), "--force"],
        }
        loading = {what: measure(command(files["one text"]))[:2] for what, command in commands.items()}
        times: dict[str, list[tuple[float, float]]] = {what: [] for what in commands}
        memory: list[int] = []
        for round_ in range(1, arguments.rounds + 1):
            for what, command in commands.items():
                seconds, processor, samples = measure(command(files["all"]))
                times[what].append((seconds, processor))
                say(f"round {round_}: {what}: {seconds:7.1f} s, {processor:7.1f} s of processor time")
                if what == "annotate":
                    memory = samples
                    parts = [statistics.median(samples[int(len(samples) * p) :][:8]) for p in (0.25, 0.5, 0.75)]
                    parts = [*parts, statistics.median(samples[-8:]), max(samples)]
                    quarters = ", ".join(f"{size / MIB:.0f}" for size in parts)
                    say(f"round {round_}: memory at a quarter, half, three quarters of the time, the end, and at most: {quarters} MiB")
        for i, kind in enumerate(("wall time", "processor time")):
            whole = {what: statistics.median(each[i] for each in found) for what, found in times.items()}
            net = {what: seconds - loading[what][i] for what, seconds in whole.items()}
            say(
                f"{kind}, median: nlp.pipe {whole['nlp.pipe']:.1f} s, annotate {whole['annotate']:.1f} s: "
                f"{whole['annotate'] / whole['nlp.pipe'] - 1:+.1%}; without loading ({loading['nlp.pipe'][i]:.1f} and "
                f"{loading['annotate'][i]:.1f} s) {net['annotate'] / net['nlp.pipe'] - 1:+.1%}"
            )
        assert memory
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
