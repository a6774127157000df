"""The acceptance run on a GPU: first whether all of it works there, then how fast it is. One command, nine minutes at most.

    python bench/gpu.py --out DIR                          on a GPU
    python bench/gpu.py --out DIR --device cpu --tiny      the same in small, where there is none

It needs no network, no hub and no data but the demo corpus: encoders of the shape of bert-base and of MiniLM have random
weights, and a tokenizer that is trained on that corpus. Installed or not, the package of this checkout is used.

DIR/gpu.json and DIR/gpu.md are written anew after each part, so that a run which is cut short still says something:

  checks     each with its figures, or the error (gpu_checks.py)
  speed      words per second beside spaCy's `transformer` + `ner`, transformers' pipeline and the bare encoder; the share of
             the measured rate of matrix products; the share of the time that the card is busy; how often it is waited
             for; memory (gpu_speed.py)

`transformer` + `ner` runs in a process of its own; --peer-path puts a folder before its PYTHONPATH, for a transformers that
goes with spacy-transformers. The exit status is 1 where something failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gpu_checks
import gpu_speed
import spacy
from common import describe_machine, machine_line
from peers import write_demo_encoder


def register() -> None:
    """Make factory and architectures known to spaCy: it finds entry points of installed distributions alone."""
    import spacy_bertner.component  # noqa: F401
    from spacy_bertner.model.bert_token_classifier import BertTokenClassifier
    from spacy_bertner.model.token_classifier import TokenClassifier

    for function in (BertTokenClassifier, TokenClassifier):
        name = f"spacy_bertner.{function.__name__}.v1"
        if name not in spacy.registry.architectures:
            spacy.registry.architectures.register(name, func=function)


def write(out: Path, results: dict[str, Any]) -> None:
    (out / "gpu.json").write_text(json.dumps(results, indent=1), encoding="utf8")
    lines = [f"# {results['machine']['gpu'] or results['machine']['cpu']}", "", machine_line(results["machine"]), ""]
    lines += gpu_checks.table(results["checks"]) + gpu_speed.table(results["speed"]) + results["errors"]
    (out / "gpu.md").write_text("\n".join(lines), encoding="utf8")


def run_peer(args: argparse.Namespace, out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure `transformer` + `ner` in a process of its own; return its rows, and the error where it failed."""
    file = out / "peer.json"
    command = [sys.executable, str(Path(__file__).with_name("gpu_speed.py")), str(file), args.device]
    command += ["tiny"] if args.tiny else []
    path = [args.peer_path, os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in path if part)}
    if args.standin:
        command[1:1] = [args.standin]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
        error = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        error = ["took longer than 150 seconds"]
    rows = json.loads(file.read_text()) if file.exists() else []
    return rows, [f"transformer + ner: {line}" for line in error]


def main() -> None:
    parser = argparse.ArgumentParser(description="See the first lines of this file.")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny encoder and few words, to see that it runs")
    parser.add_argument("--minutes", type=float, default=9.0, help="no part is begun after so many")
    parser.add_argument("--peer-path", help="before the PYTHONPATH of the process of transformer + ner")
    parser.add_argument("--standin", help="a script that puts a stand-in for a GPU in place, for that process")
    args = parser.parse_args()
    start = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    register()
    if args.device == "gpu":
        spacy.require_gpu(0)
    results: dict[str, Any] = {"machine": describe_machine(), "checks": [], "speed": {}, "errors": []}

    def is_late(share: float = 1.0) -> bool:
        return time.perf_counter() - start > 60 * args.minutes * share

    with tempfile.TemporaryDirectory() as folder:
        small = write_demo_encoder("tiny" if args.tiny else "minilm", f"{folder}/small")
        for check in gpu_checks.run(small, args.device, Path(folder), is_late=lambda: is_late(0.5)):
            results["checks"].append(check)
            print(gpu_checks.line(check), flush=True)
            write(args.out, results)
        large = write_demo_encoder("tiny" if args.tiny else "bert-base", f"{folder}/large")
        for name, part in gpu_speed.parts(large, args.device, args.tiny):
            if is_late(0.9):
                print("out of time", flush=True)
                break
            try:
                results["speed"][name] = part()
            except Exception as err:  # the other parts are of use all the same
                traceback.print_exc()
                results["errors"].append(f"{name}: {type(err).__name__}: {err}"[:500])
            write(args.out, results)
        if not is_late(0.8):
            results["speed"]["transformer + ner"], error = run_peer(args, args.out)
            results["errors"] += error
    results["seconds"] = round(time.perf_counter() - start, 1)
    write(args.out, results)
    print((args.out / "gpu.md").read_text())
    sys.exit(bool(results["errors"]) or not all(check["ok"] for check in results["checks"]))


if __name__ == "__main__":
    main()
