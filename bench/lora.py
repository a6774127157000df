"""LoRA beside full fine-tuning: memory in training, what is trained and stored, speed. (F1: bench/accuracy.py.)

    python bench/lora.py [--words 20000] [--lora '{"r": 8}']

Trains both on the same words, each in a process of its own, and prints the memory above that of the loaded model.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import common
from scaling import give_back_memory, resident

MIB = 2**20


def train_and_predict(system: str, encoder: str, lora: str, n_words: int) -> None:
    """Print what one of the two costs."""
    import spacy
    from spacy.training import minibatch_by_words
    from thinc.api import Adam, fix_random_seed

    warnings.filterwarnings("ignore")
    fix_random_seed(0)
    nlp = spacy.blank("en")
    settings = {"lora": json.loads(lora), "head_learn_rate": 1.0} if system == "lora" else {}
    nlp.add_pipe("bert_ner", config={"model": {"name": encoder, **settings}})
    sentences = common.read_sentences(common.default_files(), n_words)
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
        stored = sum(path.stat().st_size for path in (own if system == "lora" else Path(folder).rglob("*.safetensors")))
    print(
        f"{system:5} {n_words / seconds:8.0f} words/s in training {n_words / predicting:8.0f} in prediction "
        f"{memory / MIB:7.0f} MiB above the model in training {trained / 1e6:7.2f} MB trained {stored / 1e6:7.2f} MB stored"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default=str(common.ROOT / "assets/encoder"))
    parser.add_argument("--lora", default="{}", help="the setting, as JSON")
    parser.add_argument("--words", type=int, default=20000)
    parser.add_argument("--only", choices=["full", "lora"], help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.only:
        train_and_predict(args.only, args.encoder, args.lora, args.words)
        return
    print(common.machine_line(common.describe_machine()), flush=True)
    environment = {**os.environ, **common.KEEP_MEMORY, "OMP_NUM_THREADS": "1"}
    for system in ("full", "lora"):
        subprocess.run([sys.executable, *sys.argv, "--only", system], env=environment, check=True)


if __name__ == "__main__":
    main()
