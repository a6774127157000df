"""Entity F1 beside what people use today: the same encoder, data and epochs, and for each system its own learning rate.

    python bench/accuracy.py run wikigold bert_ner hf [--rates 5e-5 1e-4 2e-4 4e-4] [--seeds 0 1 2] [--part 1] [--jobs 1]
    python bench/accuracy.py table
    python bench/accuracy.py curve

Data: wikigold and wikigold-e5 (documents), ncbi and wnut (single sentences; WNUT-17's development data is a tenth of its
training file, its test data is emerging.dev). The encoder is all-MiniLM-L6-v2, which lower-cases; of wikigold-e5 it is a
cased one, bench/work/e5, made as ../shared/data/README.md says.

Systems:
  bert_ner         `spacy train` with the config of `spacy bertner init`, but for the learning rate
  bert_ner/X+Y     the same with other settings, one or several: VARIANTS
  transformer+ner  `spacy train` with spaCy's quick-start config for a GPU, sentences; batches and schedule of bert_ner
  hf               the usual Hugging Face recipe: AdamW, linear warm-up over 10 % of the steps, batches of 16 sentences,
                   first-piece labels, best of the epochs
  hf/head          the same with ten times the learning rate for the head, as bert_ner has it

Epochs are those that `init` plans for the data, or EPOCHS; each system keeps its best evaluation on development data. So
chosen, with seed 0, is its learning rate. Predictions on the test file are kept, and those of the chosen rate are scored;
the pipelines of spaCy are kept too, for bench/precision.py.
Each run is a process of its own with one thread and a file in bench/work/accuracy; what is there is not run again.
"""

import argparse
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import KEEP_MEMORY

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "bench/work/accuracy"
RESULTS = ROOT / "bench/results"
DATA = ROOT.parent / "shared/data"
FILES = {
    "wikigold": ("wikigold/train.conll", "wikigold/dev.conll", "wikigold/test.conll"),
    "ncbi": ("ncbi_disease/iob/train.tsv", "ncbi_disease/iob/devel.tsv", "ncbi_disease/iob/test.tsv"),
    "wnut": ("wnut17/wnut17train.conll", None, "wnut17/emerging.dev.conll"),
}
SETS = ("wikigold", "wikigold-e5", "ncbi", "wnut")
# Fewer than `init` plans (6 and 10), for lack of time
EPOCHS = {"ncbi": 4, "wnut": 5}
PEERS = ("transformer+ner", "hf", "hf/head")
MODEL = "components.bert_ner.model"
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {f"{MODEL}.mixed_precision": False},  # `init` sets "auto": bf16 where the processor has it
    "lower": {f"{MODEL}.orthography": False},  # like the others it sees no capitals where the encoder lower-cases
    "lora": {f"{MODEL}.lora": {}, f"{MODEL}.head_learn_rate": 1.0},
    "crf": {f"{MODEL}.crf": True},
    "averages": {"training.optimizer.use_averages": True},
    "decay": {f"{MODEL}.layer_decay": 0.9},
    "window": {f"{MODEL}.window": 128, f"{MODEL}.stride": 112},
    "sentences": {"corpora.train.gold_preproc": True},
    "pretrained": {},  # from bench/work/pretrained/SET, an encoder that has read the texts of the training file
}
RATES = ("5e-5", "1e-4", "2e-4", "4e-4", "1e-3", "2e-3", "4e-3", "8e-3")  # the last four are for adapters
PARTS = (0.1, 0.25, 0.5, 1)  # of the training data, for `curve`
N_SAMPLES = 10_000  # of the bootstrap
Spans = set[tuple[int, int, int, str]]  # document, first token, last token + 1, label


# The data


def load(name: str, part: float = 1) -> dict[str, list]:
    """Read the Docs of "train" (the first of them, if `part` is less than 1), "dev" and "test"."""
    from spacy_bertner.formats.convert import read_conll

    train, dev, test = (file and list(read_conll(DATA / file)) for file in FILES[name.split("-")[0]])
    if dev is None:
        train, dev = [doc for i, doc in enumerate(train) if i % 10], train[::10]
    return {"train": train[: round(part * len(train))], "dev": dev, "test": test}


def sentences(docs: Sequence) -> list:
    return [sentence.as_doc() for doc in docs for sentence in doc.sents]


def of_documents(found: Spans, docs: Sequence) -> Spans:
    """Return spans of sentences as spans of the documents."""
    starts = [(i, sentence.start) for i, doc in enumerate(docs) for sentence in doc.sents]
    return {(starts[k][0], starts[k][1] + start, starts[k][1] + end, label) for k, start, end, label in found}


def gold(docs: Sequence) -> Spans:
    return {(i, ent.start, ent.end, ent.label_) for i, doc in enumerate(docs) for ent in doc.ents}


def f1(found: Spans, true: Spans) -> float:
    return 200 * len(found & true) / max(len(found) + len(true), 1)


# The systems; each returns the F1 on the development data and the spans found in the test data


def variants_of(system: str) -> list[str]:
    return [] if system in PEERS else system.removeprefix("bert_ner").replace("/", "+").split("+")[1:]


def system_of(argument: str) -> str:
    """Check the name of a system."""
    variants = variants_of(argument)
    if argument in PEERS or (argument.split("/")[0] == "bert_ner" and set(variants) <= VARIANTS.keys()):
        return argument
    raise argparse.ArgumentTypeError(
        f"{argument} is none of {', '.join(PEERS)}, bert_ner, bert_ner/{', bert_ner/'.join(VARIANTS)}"
    )


def spacy_train(
    docs: dict[str, list], system: str, learn_rate: float, seed: int, encoder: str, epochs: int | None, folder: Path
) -> tuple[float, Spans]:
    """`spacy train` in a folder, which keeps the pipeline as "model-best"."""
    import spacy
    from spacy.cli.init_config import init_config
    from spacy.tokens import Doc, DocBin
    from spacy.training.initialize import init_nlp
    from spacy.training.loop import train
    from spacy.util import set_dot_to_object
    from thinc.api import Config

    from spacy_bertner.training.init import make_config

    units = {part: sentences(docs[part]) for part in docs} if system == "transformer+ner" else docs
    for part in ("train", "dev"):
        DocBin(docs=units[part]).to_disk(folder / f"{part}.spacy")
    plan = make_config(folder / "c.cfg", folder / "train.spacy", folder / "dev.spacy", encoder, epochs=epochs)
    config = Config().from_str(plan.text, interpolate=False)
    if system == "transformer+ner":
        ours = config
        config = init_config(lang="en", pipeline=["ner"], optimize="accuracy", gpu=True)
        config["components"]["transformer"]["model"]["name"] = encoder
        config["paths"].update(train=ours["paths"]["train"], dev=ours["paths"]["dev"])
        for key in ("max_steps", "eval_frequency", "patience", "batcher", "accumulate_gradient"):
            config["training"][key] = ours["training"][key]
        config["training"]["optimizer"]["learn_rate"] = ours["training"]["optimizer"]["learn_rate"]
    config["system"]["seed"] = seed
    config["training"]["optimizer"]["learn_rate"]["initial_rate"] = learn_rate
    config["training"]["logger"] = {"@loggers": "spacy.ConsoleLogger.v1"}
    for variant in variants_of(system):
        for key, value in VARIANTS[variant].items():
            set_dot_to_object(config, key, value)
    train(init_nlp(config), folder, use_gpu=-1, stdout=sys.stdout, stderr=sys.stderr)
    nlp = spacy.load(folder / "model-best")

    def predict(docs: Sequence) -> Spans:
        bare = (Doc(nlp.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc]) for doc in docs)
        return gold(list(nlp.pipe(bare)))

    found = predict(units["test"])
    return f1(predict(units["dev"]), gold(units["dev"])), found if units is docs else of_documents(found, docs["test"])


def hf_train(
    docs: dict[str, list], system: str, learn_rate: float, seed: int, encoder: str, epochs: int | None, folder: Path
) -> tuple[float, Spans]:
    """The recipe of Hugging Face's token-classification example, on sentences."""
    import torch
    from seqeval.metrics.sequence_labeling import get_entities
    from spacy.util import minibatch
    from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

    from spacy_bertner.training.init import make_schedule

    epochs = make_schedule([len(doc) for doc in docs["train"]], epochs).epochs
    units = {part: sentences(docs[part]) for part in docs}
    tags = ["O", *(f"{prefix}-{label}" for label in sorted({x[3] for x in gold(docs["train"])}) for prefix in "BI")]
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForTokenClassification.from_pretrained(encoder, num_labels=len(tags))
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        rate = learn_rate * (10 if system == "hf/head" and name.startswith("classifier") else 1)
        decay = 0.0 if name.endswith(("bias", "LayerNorm.weight")) else 0.01
        groups.setdefault((rate, decay), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": p, "lr": lr, "weight_decay": d} for (lr, d), p in groups.items()], fused=True
    )
    n_steps = epochs * -(-len(units["train"]) // 16)
    schedule = get_linear_schedule_with_warmup(optimizer, n_steps // 10, n_steps)

    def parts(batch: Sequence) -> Iterator[tuple]:
        """Yield pieces, mask, places of the first pieces, and their (sentence, word), for a few sentences at a time.

        These are of about one length, which saves padding and changes no gradient.
        """
        for numbers in minibatch(sorted(range(len(batch)), key=lambda i: len(batch[i])), 4):
            words = [[token.text for token in batch[i]] for i in numbers]
            encoding = tokenizer(
                words, is_split_into_words=True, truncation=True, max_length=256, padding=True, return_tensors="pt"
            )
            firsts = {
                (row, w): k for row in range(len(words)) for k, w in reversed([*enumerate(encoding.word_ids(row))])
            }
            words_of = [place for place in firsts if place[1] is not None]
            n_pieces = encoding["input_ids"].shape[1]
            places = [row * n_pieces + firsts[row, word] for row, word in words_of]
            yield encoding["input_ids"], encoding["attention_mask"], places, [(numbers[row], w) for row, w in words_of]

    def logits(ids: Any, mask: Any, places: list[int]) -> Any:
        return model(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)[places]  # (n_words, n_tags)

    @torch.inference_mode()
    def predict(docs: Sequence) -> Spans:
        model.eval()
        found = [["O"] * len(doc) for doc in docs]
        for ids, mask, places, words in parts(docs):
            for (i, word), tag in zip(words, logits(ids, mask, places).argmax(-1).tolist(), strict=True):
                found[i][word] = tags[tag]
        return {(i, start, end + 1, label) for i, row in enumerate(found) for label, start, end in get_entities(row)}

    shuffle, order = random.Random(seed), list(units["train"])
    best, best_state = -1.0, None
    for epoch in range(epochs):
        model.train()
        shuffle.shuffle(order)
        for batch in minibatch(order, 16):
            truth = [[tags.index(f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O") for t in doc] for doc in batch]
            n_words = sum(map(len, batch))
            for ids, mask, places, words in parts(batch):
                target = torch.tensor([truth[i][word] for i, word in words])
                loss = torch.nn.functional.cross_entropy(logits(ids, mask, places), target, reduction="sum")
                (loss / n_words).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        score = f1(predict(units["dev"]), gold(units["dev"]))
        print(f"epoch {epoch + 1}: {score:.2f}", flush=True)
        if score > best:
            best, best_state = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return best, of_documents(predict(units["test"]), docs["test"])


# Running them


def result_file(name: str, system: str, rate: str, seed: int, part: float) -> Path:
    of_part = "" if part == 1 else f"-part{part:g}"
    return WORK / f"{name}_{system.replace('/', '.')}_{rate}_{seed}{of_part}.json"


def run_one(name: str, system: str, rate: str, seed: int, part: float) -> None:
    """Train once, in this process."""
    docs, encoder = load(name, part), str(ROOT / ("bench/work/e5" if name.endswith("e5") else "assets/encoder"))
    if "pretrained" in variants_of(system):
        encoder = str(ROOT / "bench/work/pretrained" / name)
    start = time.process_time()
    train = hf_train if system.startswith("hf") else spacy_train
    path = result_file(name, system, rate, seed, part)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dev, found = train(docs, system, float(rate), seed, encoder, EPOCHS.get(name), folder)
        if (folder / "model-best").exists():
            shutil.move(folder / "model-best", path.with_suffix(""))
    result = {"dev": dev, "seconds": time.process_time() - start, "found": sorted(found)}
    path.write_text(json.dumps(result), encoding="utf8")


def start_run(name: str, system: str, rate: str, seed: int, part: float) -> None:
    path = result_file(name, system, rate, seed, part)
    if path.exists():
        return
    WORK.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "one", name, system, rate, str(seed), str(part)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if system != "transformer+ner":  # which would need over 20 GB then
        environment |= KEEP_MEMORY
    with path.with_suffix(".log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)
    print(f"{time.strftime('%H:%M')} {path.stem}: {'done' if done.returncode == 0 else 'FAILED'}", flush=True)


def systems_of(name: str) -> list[str]:
    """The systems that were run on a set."""
    found = {path.stem.split("_", 1)[1].rsplit("_", 2)[0].replace(".", "/") for path in WORK.glob(f"{name}_*.json")}
    return sorted(found, key=lambda system: (system in PEERS, system))


def read_result(name: str, system: str, rate: str, seed: int, part: float = 1) -> dict[str, Any] | None:
    path = result_file(name, system, rate, seed, part)
    return json.loads(path.read_text()) if path.exists() else None


def dev_scores(name: str, system: str, part: float = 1) -> dict[str, float]:
    """The F1 on development data of each learning rate that was tried, with seed 0."""
    results = {rate: read_result(name, system, rate, 0, part) for rate in RATES}
    return {rate: result["dev"] for rate, result in results.items() if result}


def chosen_results(name: str, system: str, part: float = 1) -> list[dict[str, Any]]:
    """The results of all seeds with the chosen learning rate; empty where nothing was run."""
    if not (scores := dev_scores(name, system, part)):
        return []
    results = [read_result(name, system, max(scores, key=scores.__getitem__), seed, part) for seed in range(10)]
    return [result for result in results if result]


def run(name: str, systems: Sequence[str], rates: Sequence[str], seeds: Sequence[int], part: float, jobs: int) -> None:
    def run_all(choose: Callable[[str], Sequence[str]], seeds: Sequence[int]) -> None:
        with ThreadPoolExecutor(jobs) as pool:
            for system in systems:
                for rate in choose(system):
                    for seed in seeds:
                        pool.submit(start_run, name, system, rate, seed, part)

    run_all(lambda system: rates, [0])
    run_all(lambda system: sorted(s := dev_scores(name, system, part), key=s.__getitem__)[-1:], seeds)


# The results


def counts(results: list[dict[str, Any]], docs: Sequence) -> np.ndarray:
    """Count, for each document, the entities that are right, found and annotated, as means over the seeds: (n_docs, 3)."""
    true, table = gold(docs), np.zeros((len(docs), 3))
    for result in results:
        found = set(map(tuple, result["found"]))
        for column, spans in enumerate((found & true, found, true)):
            np.add.at(table[:, column], [span[0] for span in spans], 1 / len(results))
    return table


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 in percent by counts of entities that are right, found and annotated, (..., 3)."""
    return 200 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1e-9)


def interval(values: np.ndarray, form: str = ".1f") -> str:
    """The 95 % interval of sampled values."""
    low, high = np.percentile(values, (2.5, 97.5))
    return f"({low:{form}} to {high:{form}})"


def table() -> None:
    # By set and system: F1 of the test documents, then of each sample of them
    samples: dict[tuple[str, str], np.ndarray] = {}
    dev: dict[tuple[str, str], float] = {}
    for name in SETS:
        docs = load(name)["test"]
        results = {system: found for system in systems_of(name) if (found := chosen_results(name, system))}
        if not results:
            continue
        draws = np.random.default_rng(0).multinomial(len(docs), [1 / len(docs)] * len(docs), N_SAMPLES)
        weights = np.concatenate((np.ones((1, len(docs))), draws))  # how often each document is in a sample
        samples |= {(name, system): f1_of(weights @ counts(found, docs)) for system, found in results.items()}
        print(
            f"\n{name}\n{'':21} {'dev':>5} {'test':>5}  {'95 %':14}  {'by seed':14}  {'minus bert_ner (95 %)':22}  "
            "dev F1 by rate, seed 0"
        )
        for system, found in results.items():
            test, line = samples[name, system], ""
            if system != "bert_ner" and (name, "bert_ner") in samples:
                difference = test - samples[name, "bert_ner"]
                line = f"{difference[0]:+5.1f} {interval(difference[1:], '+.1f')}"
            seeds = " ".join(f"{f1_of(counts([result], docs).sum(0)):.1f}" for result in found)
            rates = ", ".join(f"{rate} {score:.1f}" for rate, score in dev_scores(name, system).items())
            dev[name, system] = float(np.mean([result["dev"] for result in found]))
            scores = f"{dev[name, system]:5.1f} {test[0]:5.1f}  {interval(test[1:])}"
            print(f"{system:21} {scores}  {seeds:14}  {line:22}  {rates}".rstrip())
    print(
        "\nmeans of the differences over sets; with and without orthography, which bert_ner has for lower-casing encoders"
    )
    without = {name: "bert_ner" if name.endswith("e5") else "bert_ner/lower" for name in SETS}
    best = {name: max(PEERS, key=lambda peer: dev.get((name, peer), 0)) for name in SETS}
    for title, ours in (
        ("bert_ner", dict.fromkeys(SETS, "bert_ner")),
        ("with orthography", {name: "bert_ner" for name in SETS if not name.endswith("e5")}),
        ("without orthography", without),
    ):
        for peer, theirs in ({peer: dict.fromkeys(SETS, peer) for peer in PEERS} | {"the best peer": best}).items():
            pairs = {name: ((name, ours[name]), (name, theirs[name])) for name in ours}
            names = [name for name, pair in pairs.items() if all(key in samples for key in pair)]
            if len(names) > 1:
                difference = np.mean([np.subtract(*(samples[key] for key in pairs[name])) for name in names], axis=0)
                print(
                    f"{title} minus {peer}: {difference[0]:+.1f} {interval(difference[1:], '+.1f')} on {', '.join(names)}"
                )


def curve() -> None:
    """Print test F1 by the size of the training data, seed 0, and plot it for wikigold."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name in SETS:
        docs = load(name)
        n_words = {part: sum(map(len, docs["train"][: round(part * len(docs["train"]))])) for part in PARTS}
        print(f"\n{name:21}" + "".join(f"{n:>9,}" for n in n_words.values()), "words")
        for system in systems_of(name):
            results = {part: chosen_results(name, system, part)[:1] for part in PARTS}
            scores = {part: f1_of(counts(found, docs["test"]).sum(0)) for part, found in results.items() if found}
            if len(scores) < 2:
                continue
            print(f"{system:21}" + "".join(f"{scores[part]:9.1f}" if part in scores else " " * 9 for part in PARTS))
            if name == "wikigold" and system in ("bert_ner", "hf"):
                label = {"hf": "Hugging Face recipe"}.get(system, system)
                axes.plot([n_words[part] for part in scores], list(scores.values()), marker="o", label=label)
    axes.set(xlabel="words of training data", ylabel="F1 on test documents", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(RESULTS / "learning_curve.png", dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    several = commands.add_parser("run")
    several.add_argument("name", choices=SETS)
    several.add_argument("systems", nargs="+", type=system_of)
    several.add_argument("--rates", nargs="+", default=RATES[:4], choices=RATES)
    several.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    several.add_argument("--part", type=float, default=1, help="Share of the training data")
    several.add_argument("--jobs", type=int, default=1)
    one = commands.add_parser("one")
    for argument, kind in (("name", str), ("system", str), ("rate", str), ("seed", int), ("part", float)):
        one.add_argument(argument, type=kind)
    commands.add_parser("table")
    commands.add_parser("curve")
    options = vars(parser.parse_args())
    {"run": run, "one": run_one, "table": table, "curve": curve}[options.pop("command")](**options)


if __name__ == "__main__":
    main()
