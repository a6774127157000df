"""What starting costs: importing the package, and loading a saved pipeline beside `from_pretrained` of the same encoder.

    python bench/startup.py [--rounds 7] [--encoder FOLDER]

Every figure is of a process of its own, in turn; medians over the rounds. "import" is the time beyond `import spacy`.
Loading is timed once spaCy, torch and transformers are imported; its memory is what the process grows by at most.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import common
import spacy
from common import ROOT

LOAD = """
import gc, json, re, time
import spacy, torch, transformers
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertModel
import spacy_bertner.component, spacy_bertner.model.torch_shim
spacy.blank("en")
def resident(field):
    return int(re.search(field + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
gc.collect()
open("/proc/self/clear_refs", "w").write("5")
before, start = resident("VmRSS"), time.perf_counter()
{load}
print(json.dumps([time.perf_counter() - start, resident("VmHWM") - before]))
"""
IMPORT = """
import json, sys, time
import spacy
known, start = set(sys.modules), time.perf_counter()
import spacy_bertner
new = [name for name in set(sys.modules) - known if name.split(".")[0] in ("torch", "transformers")]
print(json.dumps([time.perf_counter() - start, len(new)]))
"""


def measure(program: str) -> list[float]:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def small_pipeline(encoder: str, folder: Path) -> Path:
    nlp = spacy.blank("en")
    ner: Any = nlp.add_pipe("bert_ner", config={"model": {"name": encoder}})
    for label in ("LOC", "MISC", "ORG", "PER"):
        ner.add_label(label)
    nlp.initialize()
    nlp.to_disk(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default=str(ROOT / "assets/encoder"))
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pipeline = small_pipeline(args.encoder, Path(folder) / "pipeline")
        blank = Path(folder) / "blank"
        spacy.blank("en").to_disk(blank)
        model = pipeline / "bert_ner/model"
        size = (model / "model.safetensors").stat().st_size / 2**20
        name = repr(str(model))
        hf = f"AutoTokenizer.from_pretrained({name}); AutoModelForTokenClassification.from_pretrained({name})"
        programs = {
            "import spacy_bertner": IMPORT,
            "spacy.load": LOAD.format(load=f"nlp = spacy.load({str(pipeline)!r})"),
            "spacy.load of a blank pipeline": LOAD.format(load=f"nlp = spacy.load({str(blank)!r})"),
            "from_pretrained": LOAD.format(load=hf),
        }
        found: dict[str, list[list[float]]] = {name: [] for name in programs}
        for _ in range(args.rounds + 1):
            for name, program in programs.items():
                found[name].append(measure(program))
    print(f"{common.machine_line(common.describe_machine())}; {args.rounds} rounds; weights of {size:.0f} MiB")
    for name, rows in found.items():
        seconds, other = (statistics.median(values) for values in zip(*rows[1:], strict=True))  # the first warms up
        unit = "modules of torch and transformers" if name.startswith("import") else "MiB at most"
        print(f"{name:32} {1000 * seconds:7.1f} ms {other:6.0f} {unit}")
    rounds = list(zip(*(found[name][1:] for name in list(programs)[1:]), strict=True))
    ratio = statistics.median(ours[0] / theirs[0] for ours, _, theirs in rounds)
    added = statistics.median((ours[0] - blank[0]) / theirs[0] for ours, blank, theirs in rounds)
    print(f"spacy.load / from_pretrained: {ratio:.2f}; without what spaCy takes for a blank pipeline: {added:.2f}")


if __name__ == "__main__":
    main()
