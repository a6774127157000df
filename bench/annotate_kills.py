"""Whether `annotate --resume` makes, after a kill, exactly the file that an uninterrupted run makes.

    python bench/annotate_kills.py [--outputs 20] [--in-record 5] [--mb 60]

Each run is killed with SIGKILL when its output has reached a random size (more than its first record), and resumed with
`--resume`. Records are large (a text of 2,000 words, and a field of 2 to 8 MB that is carried over), so that many kills come
in the middle of writing one: the output then ends without a newline. Runs are added until there are enough of these kills.
The pipeline is an entity ruler, and processes are forked, so that it takes minutes only. The kills and the SHA-256 of all
outputs are written to bench/results/annotate_kills.txt; the exit status is 1 if one differs.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import spacy
from common import ROOT, describe_machine, machine_line

from spacy_bertner.cli import bertner

PLACES = ["Oslo", "Porto", "Dresden", "Tallinn", "Turku"]
WORDS = [
    *PLACES,
    "the",
    "of",
    "and",
    "rain",
    "report",
    "harbour",
    "signed",
    "on",
    "Monday",
    "with",
    "40",
    "trains,",
    ".",
]
MB = 1_000_000


def write_pipeline(folder: Path) -> Path:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "LOC", "pattern": place} for place in PLACES])
    nlp.to_disk(folder)
    return folder


def write_input(path: Path, n_bytes: int, rng: random.Random) -> Path:
    n = 0
    with path.open("w", encoding="utf8") as file:
        while n < n_bytes:
            text = " ".join(rng.choices(WORDS, k=2000))
            attachment = rng.randbytes(rng.randint(MB, 4 * MB)).hex()
            n += file.write(json.dumps({"text": text, "id": n, "attachment": attachment}) + "\n")
    return path


def start(*arguments: str | Path) -> Any:
    """Run the command in a fork of this process, which has already imported spaCy; its messages go to a file."""
    process = multiprocessing.get_context("fork").Process(target=run, args=[list(map(str, arguments))])
    process.start()
    return process


def run(arguments: list[str]) -> None:
    log = os.open(f"{arguments[2]}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    bertner(["annotate", *arguments], standalone_mode=False)


def finish(process: Any) -> None:
    process.join()
    if process.exitcode:
        raise SystemExit(f"ended with status {process.exitcode}")


def kill_at(process: Any, output: Path, size: int) -> bool:
    """Kill a process when its output has that size; return whether that was before it ended."""
    while not output.exists():
        time.sleep(0.01)
    while output.stat().st_size < size and process.is_alive():
        time.sleep(0.0002)  # a write takes milliseconds
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=int, default=20)
    parser.add_argument("--in-record", type=int, default=5, help="minimum number of kills in the middle of a record")
    parser.add_argument("--mb", type=int, default=52, help="size of the output")
    arguments = parser.parse_args()
    rng = random.Random(0)
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline = write_pipeline(folder / "pipeline")
        given = write_input(folder / "in.jsonl", arguments.mb * MB, rng)
        whole = folder / "whole.jsonl"
        finish(start(pipeline, given, whole))
        expected, size = sha256(whole), whole.stat().st_size
        with whole.open("rb") as file:
            sizes = [len(line) for line in file]
        first, before_last, n_records = sizes[0], size - sizes[-1], len(sizes)
        say(machine_line(describe_machine()))
        say(f"uninterrupted: {size / MB:.1f} MB, {n_records} records, sha256 {expected}")
        n_done = n_same = n_inside = n_late = 0
        while n_done < arguments.outputs or n_inside < arguments.in_record:
            if n_done + n_late >= 4 * arguments.outputs:
                break
            output = folder / "out.jsonl"
            if not kill_at(start(pipeline, given, output, "--force"), output, rng.randint(first + 1, before_last)):
                n_late += 1
                continue
            left = output.read_bytes()
            if left.count(b"\n") == n_records:
                n_late += 1
                continue
            is_inside = not left.endswith(b"\n")
            finish(start(pipeline, given, output, "--resume"))
            said = (folder / "out.jsonl.log").read_text()
            n_there = left.count(b"\n")
            if n_there < 1 or f" {n_there} of them there before" not in said:
                raise SystemExit(f"killed after {n_there} records, but: {said}")
            is_same = sha256(output) == expected
            n_done, n_same, n_inside = n_done + 1, n_same + is_same, n_inside + is_inside
            where = "in the middle of a record" if is_inside else "between records"
            result = "identical" if is_same else f"DIFFERS: {sha256(output)}"
            say(
                f"{n_done:2}: killed at {len(left) / MB:5.1f} MB, {n_there:2} whole records, {where}; resumed: {result}"
            )
            output.unlink()
        say(
            f"{n_done} outputs, each of a run killed once by SIGKILL, {n_inside} of them in the middle of a record: "
            f"{n_same} identical to the uninterrupted one ({n_late} runs ended before the kill and are not counted)"
        )
    (ROOT / "bench/results/annotate_kills.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    is_enough = n_done >= arguments.outputs and n_inside >= arguments.in_record
    raise SystemExit(0 if is_enough and n_same == n_done else 1)


if __name__ == "__main__":
    main()
