"""Entity F1 beside what people use today: the same encoder, the same data, the same number of epochs, the same selection.

    python bench/accuracy.py run [--sets wikigold ncbi wnut] [--seeds 0 1 2] [--jobs 2]
    python bench/accuracy.py table

Systems:
  bert_ner             `spacy train` with configs/demo.cfg, whole documents
  bert_ner/lower       the same with orthography = false: like the others it sees no capitals with this encoder
  bert_ner/sentences   each sentence a document of its own, batches of 300 words rather than 600: nearer to hf's
  transformer+ner      `spacy train` with spaCy's quick-start config for a GPU, sentences
  transformer+ner/600  the same with batches of 600 words, as bert_ner has them, in place of the quick start's 2,000
  transformer+ner/300  the same with batches of 300 words, as bert_ner/sentences has them
  hf                   the usual Hugging Face recipe: AdamW, linear warm-up over 10 % of the steps, batches of 16 sentences,
                       first-piece labels, best of the epochs
  hf+windows           the same over this package's windows of 256 pieces over whole documents

For every system the learning rate is the one of {5e-5, 1e-4, 2e-4} with the best F1 on development data (seed 0; on
NCBI-disease, which is four times as large as wikigold, trained on every third document), and so is the epoch. A run keeps
its predictions on the test file, and only those of the chosen runs are ever scored. Each run is a process of its own with
one thread and a file in bench/work/accuracy; what is there is not run again.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "bench/work/accuracy"
DATA = ROOT.parent / "shared/data"
LEARN_RATES = (5e-5, 1e-4, 2e-4)
SYSTEMS = (
    "bert_ner",
    "bert_ner/lower",
    "bert_ner/sentences",
    "transformer+ner",
    "transformer+ner/600",
    "transformer+ner/300",
    "hf",
    "hf+windows",
)
EPOCHS = {"wikigold": 8, "wnut": 3, "ncbi": 2}
# Where the learning rate is chosen on every third of the training documents
CHOSEN_ON_A_THIRD = ("ncbi",)
Spans = set[tuple[int, int, int, str]]  # place of the sentence, first token, last token + 1, label


# The data


def load(name: str) -> dict[str, list]:
    """Read the Docs of "train", "dev" and "test"; WNUT-17's development data is a tenth of its training file."""
    from spacy_bertner.formats.convert import read_conll

    if name == "wikigold":
        return {part: list(read_conll(DATA / f"wikigold/{part}.conll")) for part in ("train", "dev", "test")}
    if name == "ncbi":
        files = {"train": "train", "dev": "devel", "test": "test"}
        return {part: list(read_conll(DATA / f"ncbi_disease/iob/{file}.tsv")) for part, file in files.items()}
    docs = list(read_conll(DATA / "wnut17/wnut17train.conll"))
    return {
        "train": [doc for i, doc in enumerate(docs) if i % 10],
        "dev": docs[::10],
        "test": list(read_conll(DATA / "wnut17/emerging.dev.conll")),
    }


def sentences(docs: Iterable) -> list:
    return [sentence.as_doc() for doc in docs for sentence in doc.sents]


def gold(docs: Iterable) -> Spans:
    return {(i, ent.start, ent.end, ent.label_) for i, doc in enumerate(docs) for ent in doc.ents}


def f1(found: Spans, true: Spans) -> float:
    return 200 * len(found & true) / max(len(found) + len(true), 1)


# The systems; each takes the data, a learning rate, a seed, the number of epochs and the encoder, and returns the F1 on the
# development data and the predictions on the test data, beside the test data as it cut it


def spacy_train(
    config: Any, docs: dict[str, list], folder: Path, epochs: int, learn_rate: float, seed: int
) -> tuple[float, Spans]:
    import spacy
    from spacy.tokens import Doc, DocBin
    from spacy.training.initialize import init_nlp
    from spacy.training.loop import train
    from spacy.util import registry

    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "dev"):
        DocBin(docs=docs[part]).to_disk(folder / f"{part}.spacy")
        config["paths"][part] = str(folder / f"{part}.spacy")
    training = config["training"]
    batcher = registry.resolve({"batcher": training["batcher"]})["batcher"]
    # An epoch; how many batches there are depends on the order of the documents
    shuffle, order = random.Random(0), list(docs["train"])
    counts = []
    for _ in range(20):
        shuffle.shuffle(order)
        counts.append(sum(1 for _ in batcher(order)))
    steps = int(statistics.median(counts))
    config["system"]["seed"] = seed
    training.update(max_epochs=epochs, max_steps=0, patience=0)
    # As many evaluations as epochs; the last one is close to the end, but before it: spaCy makes none there
    training["eval_frequency"] = int(0.98 * min(counts))
    training["logger"] = {"@loggers": "spacy.ConsoleLogger.v1"}
    warmup = steps * epochs // 10
    training["optimizer"]["learn_rate"].update(
        initial_rate=learn_rate, warmup_steps=warmup, total_steps=int(steps * epochs * 1.02)
    )
    nlp = init_nlp(config)
    train(nlp, folder, use_gpu=-1, stdout=sys.stdout, stderr=sys.stderr)
    nlp = spacy.load(folder / "model-best")

    def predict(docs: Sequence) -> Spans:
        bare = (Doc(nlp.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc]) for doc in docs)
        return gold(nlp.pipe(bare))

    return f1(predict(docs["dev"]), gold(docs["dev"])), predict(docs["test"])


def bert_ner(
    docs: dict[str, list], folder: Path, epochs: int, learn_rate: float, seed: int, encoder: str, **settings: Any
):
    from spacy.util import load_config

    config = load_config(ROOT / "configs/demo.cfg", interpolate=False)
    config["paths"]["encoder"] = encoder
    config["components"]["bert_ner"]["model"].update(settings)
    return *spacy_train(config, docs, folder, epochs, learn_rate, seed), docs["test"]


def bert_ner_sentences(docs: dict[str, list], folder: Path, epochs: int, learn_rate: float, seed: int, encoder: str):
    from spacy.util import load_config

    config = load_config(ROOT / "configs/demo.cfg", interpolate=False)
    config["paths"]["encoder"] = encoder
    config["training"]["batcher"]["size"] = 300
    units = {part: sentences(docs[part]) for part in docs}
    return *spacy_train(config, units, folder, epochs, learn_rate, seed), units["test"]


def transformer_ner(
    docs: dict[str, list],
    folder: Path,
    epochs: int,
    learn_rate: float,
    seed: int,
    encoder: str,
    batch_words: int | None = None,
):
    from spacy.cli.init_config import init_config

    config = init_config(lang="en", pipeline=["ner"], optimize="accuracy", gpu=True)
    config["components"]["transformer"]["model"]["name"] = encoder
    if batch_words:
        config["training"]["accumulate_gradient"] = 1
        config["training"]["batcher"]["size"] = batch_words
    units = {part: sentences(docs[part]) for part in docs}
    return *spacy_train(config, units, folder, epochs, learn_rate, seed), units["test"]


def hf(docs: dict[str, list], folder: Path, epochs: int, learn_rate: float, seed: int, encoder: str):
    """The recipe of Hugging Face's token-classification example, on sentences."""
    units = {part: sentences(docs[part]) for part in docs}

    def batches(docs: Sequence, tokenizer: Any, size: int) -> Iterable[list[tuple]]:
        import torch

        def part(numbers: Sequence[int]) -> tuple:
            words = [[token.text for token in docs[i]] for i in numbers]
            encoding = tokenizer(words, is_split_into_words=True, truncation=True, max_length=256, padding=True)
            places, tokens = [], []
            for row, i in enumerate(numbers):
                seen = set()
                for k, word in enumerate(encoding.word_ids(row)):
                    if word is not None and word not in seen:
                        seen.add(word)
                        places.append(row * len(encoding["input_ids"][row]) + k)
                        tokens.append((i, word))
            return torch.tensor(encoding["input_ids"]), torch.tensor(encoding["attention_mask"]), places, tokens

        # A batch goes through in parts of about one length, which saves padding and changes no gradient
        for start in range(0, len(docs), size):
            batch = sorted(range(start, min(start + size, len(docs))), key=lambda i: len(docs[i]))
            yield [part(batch[k : k + 4]) for k in range(0, len(batch), 4)]

    return *hf_train(units, batches, 16, epochs, learn_rate, seed, encoder), units["test"]


def hf_windows(docs: dict[str, list], folder: Path, epochs: int, learn_rate: float, seed: int, encoder: str):
    """The same, with windows over documents; a batch has as many words as 16 sentences have."""
    from spacy_bertner.model.encoding import PieceEncoder

    per_sentence = sum(map(len, docs["train"])) / len(sentences(docs["train"]))

    def batches(docs: Sequence, tokenizer: Any, size: int) -> Iterable[list[tuple]]:
        import torch
        from spacy.training.batchers import minibatch_by_words

        pieces = PieceEncoder(tokenizer.backend_tokenizer, pad_id=tokenizer.pad_token_id, window=256, stride=240)
        place = {id(doc): i for i, doc in enumerate(docs)}
        for part in minibatch_by_words(docs, size=int(size * per_sentence), get_length=len):
            tokens = [(place[id(doc)], token.i) for doc in part for token in doc]
            (batch,) = pieces.encode(part, 10**9, overhead=10**9)
            arrays = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
            yield [(*arrays, batch.first.tolist(), [tokens[row] for row in batch.rows])]

    return *hf_train(docs, batches, 16, epochs, learn_rate, seed, encoder), docs["test"]


def hf_train(
    docs: dict[str, list], batches: Callable, size: int, epochs: int, learn_rate: float, seed: int, encoder: str
) -> tuple[float, Spans]:
    """Train over `batches(docs, tokenizer, size)`.

    Each batch is a list of parts: pieces, mask, places of the first pieces, their (doc, token).
    """
    import copy

    import torch
    from seqeval.metrics.sequence_labeling import get_entities
    from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

    labels = sorted({ent.label_ for doc in docs["train"] for ent in doc.ents})
    tags = ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForTokenClassification.from_pretrained(encoder, num_labels=len(tags))
    no_decay = ("bias", "LayerNorm.weight")
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if not n.endswith(no_decay)], "weight_decay": 0.01},
            {"params": [p for n, p in named if n.endswith(no_decay)], "weight_decay": 0.0},
        ],
        lr=learn_rate,
        fused=True,
    )
    n_steps = epochs * sum(1 for _ in batches(docs["train"], tokenizer, size))
    schedule = get_linear_schedule_with_warmup(optimizer, n_steps // 10, n_steps)

    def tag_ids(doc: Any) -> list[int]:
        return [tags.index(f"{t.ent_iob_}-{t.ent_type_}") if t.ent_type_ else 0 for t in doc]

    @torch.inference_mode()
    def predict(docs: Sequence) -> Spans:
        model.eval()
        found = [["O"] * len(doc) for doc in docs]
        for ids, mask, places, tokens in chain.from_iterable(batches(docs, tokenizer, 32)):
            logits = model(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)[places]
            for (i, token), tag in zip(tokens, logits.argmax(-1).tolist(), strict=True):
                found[i][token] = tags[tag]
        return {(i, start, end + 1, label) for i, row in enumerate(found) for label, start, end in get_entities(row)}

    shuffle = random.Random(seed)
    best, best_state = -1.0, None
    for epoch in range(epochs):
        model.train()
        order = list(docs["train"])
        shuffle.shuffle(order)
        for batch in batches(order, tokenizer, size):
            n_labelled = sum(len(tokens) for *_, tokens in batch)
            for ids, mask, places, tokens in batch:
                truth = {i: tag_ids(order[i]) for i in {i for i, _ in tokens}}
                logits = model(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)[places]
                target = torch.tensor([truth[i][token] for i, token in tokens])
                loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum") / n_labelled
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        score = f1(predict(docs["dev"]), gold(docs["dev"]))
        print(f"epoch {epoch + 1}: {score:.2f}", flush=True)
        if score > best:
            best, best_state = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return best, predict(docs["test"])


# Running them


def result_file(name: str, system: str, learn_rate: float, seed: int, third: bool = False) -> Path:
    return WORK / f"{name}-{system.replace('/', '-')}-{learn_rate:g}-{seed}{'-third' if third else ''}.json"


def run_one(name: str, system: str, learn_rate: float, seed: int, encoder: str, third: bool) -> None:
    docs = load(name)
    if third:
        docs["train"] = docs["train"][::3]
    functions: dict[str, Callable] = {
        "bert_ner": bert_ner,
        "bert_ner/lower": lambda *args: bert_ner(*args, orthography=False),
        "bert_ner/sentences": bert_ner_sentences,
        "transformer+ner": transformer_ner,
        "transformer+ner/600": lambda *args: transformer_ner(*args, 600),
        "transformer+ner/300": lambda *args: transformer_ner(*args, 300),
        "hf": hf,
        "hf+windows": hf_windows,
    }
    path = result_file(name, system, learn_rate, seed, third)
    start = time.perf_counter()
    dev, found, units = functions[system](docs, path.with_suffix(""), EPOCHS[name], learn_rate, seed, encoder)
    result = {"dev": dev, "seconds": time.perf_counter() - start, "found": sorted(found), "gold": sorted(gold(units))}
    path.write_text(json.dumps(result), encoding="utf8")


def start_run(name: str, system: str, learn_rate: float, seed: int, encoder: str, third: bool = False) -> None:
    path = result_file(name, system, learn_rate, seed, third)
    if path.exists():
        return
    WORK.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "one", name, system, str(learn_rate), str(seed), "--encoder", encoder]
    command += ["--third"] if third else []
    # glibc gives large blocks back to the system, and each step of training would fetch them again, page by page
    keep_memory = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
    environment = {**os.environ, **keep_memory, "OMP_NUM_THREADS": "1"}
    with path.with_suffix(".log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=environment)
    print(f"{time.strftime('%H:%M')} {path.stem}: {'done' if done.returncode == 0 else 'FAILED'}", flush=True)
    for model in path.with_suffix("").glob("model-*"):
        shutil.rmtree(model)


def dev_score(name: str, system: str, learn_rate: float) -> float:
    path = result_file(name, system, learn_rate, 0, name in CHOSEN_ON_A_THIRD)
    return json.loads(path.read_text())["dev"] if path.exists() else -1.0


def chosen(name: str, system: str) -> float:
    return max(LEARN_RATES, key=lambda learn_rate: dev_score(name, system, learn_rate))


def run(sets: Sequence[str], systems: Sequence[str], seeds: Sequence[int], jobs: int, encoder: str) -> None:
    for name in sets:
        with ThreadPoolExecutor(jobs) as pool:
            for system in systems:
                for learn_rate in LEARN_RATES:
                    pool.submit(start_run, name, system, learn_rate, 0, encoder, name in CHOSEN_ON_A_THIRD)
        with ThreadPoolExecutor(jobs) as pool:
            for seed in seeds:
                for system in systems:
                    pool.submit(start_run, name, system, chosen(name, system), seed, encoder)


def table() -> None:
    for name, epochs in EPOCHS.items():
        print(f"\n{name}, {epochs} epochs\n{'':20} {'rate':>6} {'dev':>6} {'test':>6} {'spread':>7}  seeds")
        for system in SYSTEMS:
            if any(dev_score(name, system, learn_rate) < 0 for learn_rate in LEARN_RATES):
                continue  # the rate is not chosen yet
            rate = chosen(name, system)
            files = sorted(WORK.glob(f"{name}-{system.replace('/', '-')}-{rate:g}-[0-9].json"))
            results = [json.loads(path.read_text()) for path in files]
            if not results:
                continue
            scores = [f1(set(map(tuple, r["found"])), set(map(tuple, r["gold"]))) for r in results]
            spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
            dev = statistics.mean(r["dev"] for r in results)
            print(
                f"{system:20} {rate:6g} {dev:6.1f} {statistics.mean(scores):6.1f} {spread:7.1f}  "
                + " ".join(f"{score:.1f}" for score in scores)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("run", "one"):
        sub = commands.add_parser(command)
        sub.add_argument("--encoder", default=str(ROOT / "assets/encoder"))
        if command == "one":
            sub.add_argument("name", choices=EPOCHS)
            sub.add_argument("system", choices=SYSTEMS)
            sub.add_argument("learn_rate", type=float)
            sub.add_argument("seed", type=int)
            sub.add_argument("--third", action="store_true")
        else:
            sub.add_argument("--sets", nargs="+", default=list(EPOCHS), choices=EPOCHS)
            sub.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS)
            sub.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
            sub.add_argument("--jobs", type=int, default=2)
    commands.add_parser("table")
    args = parser.parse_args()
    if args.command == "table":
        table()
    elif args.command == "one":
        run_one(args.name, args.system, args.learn_rate, args.seed, args.encoder, args.third)
    else:
        run(args.sets, args.systems, args.seeds, args.jobs, args.encoder)


if __name__ == "__main__":
    main()
