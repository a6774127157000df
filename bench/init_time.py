"""The training time that `spacy bertner init` predicts beside the actual one, for corpora of three sizes.

    python bench/init_time.py [small] [medium] [large]

small: the first sixth of wikigold's training documents; medium: all of them; large: NCBI-disease and WNUT-17, sentences,
with two epochs for lack of time.
In minutes of processor time with one thread, so that other programs on the machine count little.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import common
from accuracy import load
from spacy.tokens import DocBin
from spacy.training.loop import train

from spacy_bertner.training import init

FILES = {"small": ("wikigold", 1 / 6, None), "medium": ("wikigold", 1, None), "large": ("ncbi wnut", 1, 2)}


def measure(size: str, folder: Path) -> str:
    """Predict and train; return a line of figures."""
    names, share, epochs = FILES[size]
    parts = [load(name, share) for name in names.split()]
    for part in ("train", "dev"):
        DocBin(docs=[doc for docs in parts for doc in docs[part]]).to_disk(folder / f"{part}.spacy")
    config = folder / "c.cfg"
    encoder = str(common.ROOT / "assets/encoder")
    plan = init.make_config(config, folder / "train.spacy", folder / "dev.spacy", encoder, epochs=epochs)
    predicted = init.estimate_seconds(init.write_config(plan, config), plan)
    start = time.process_time()
    nlp = init.write_config(plan, config)  # anew, as the estimate has trained the other one
    with Path(os.devnull).open("w") as null:
        train(nlp, folder, use_gpu=-1, stdout=null, stderr=null)
    actual = time.process_time() - start
    n_evaluations = sum(1 for _ in (folder / "learning_curve.csv").open()) - 2  # without the heading and step 0
    return (
        f"{size:7} {plan.train.n_words:8,} {plan.schedule.epochs:7} {plan.schedule.steps:6,} "
        f"{plan.schedule.n_evaluations:12} {predicted / 60:10.1f} {actual / 60:7.1f}   {n_evaluations} made"
    )


def main() -> None:
    init.perf_counter = time.process_time
    print(common.machine_line(common.describe_machine()))
    print("corpus     words  epochs  steps  evaluations  predicted  actual", flush=True)
    for size in sys.argv[1:] or FILES:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(size, Path(folder)), flush=True)


if __name__ == "__main__":
    common.start_again_with(common.KEEP_MEMORY)
    main()
