"""How fast it is on a GPU, and where the time goes; used by gpu.py, which runs it as a program for `transformer` + `ner`.

The encoder has the shape of bert-base and random weights, in bf16 (spaCy's own mixed precision is float16). Inputs are the
demo corpus, repeated: sentences, and documents of 400 words. Each figure is the median of three passes after a warm-up.
"""

import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers
import spacy
import torch
from common import DEMO, Data, examples, is_real_gpu, join, read_sentences, repeat, timed
from spacy.training import Example, minibatch_by_words
from thinc.api import Adam, fix_random_seed

ROUNDS = 3
WAITS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"}
COLUMNS = {
    "system": "system",
    "task": "task",
    "words_per_second": "words/s",
    "limit": "of the limit",
    "busy": "card busy",
    "waits": "waits",
    "memory": "GiB",
}


def inputs(device: str, tiny: bool, share: float = 1.0) -> dict[str, Data]:
    """Sentences and documents of so many words."""
    n_words = 600 if tiny else int((200_000 if device == "gpu" else 4_000) * share)
    sentences = repeat(read_sentences(DEMO), n_words)
    return {"sentences": Data("sentences", sentences), "documents": Data("documents", join(sentences, 400))}


def measure(work: Callable[[Any], Any], ready: Callable[[], Any], n_words: int, n_steps: int = 1) -> dict[str, Any]:
    """Time some work, and on a GPU see what the card does meanwhile.

    work: takes what `ready` makes, which is not timed. n_words: words of it. n_steps: steps or calls, to count waits by.
    Returns the columns of a row. "busy" is the time of the kernels, from a profiled pass, over that of a pass that is not.
    """
    timed(lambda: work(ready()))
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(ROUNDS):
        given = ready()
        seconds.append(timed(lambda given=given: work(given))[0])
    row: dict[str, Any] = {"words_per_second": round(n_words / statistics.median(seconds), 1)}
    if is_real_gpu():
        row["memory"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        given = ready()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            timed(lambda: work(given))
        events = profile.key_averages()
        kernels = sum(event.self_device_time_total for event in events if not event.key.startswith("cuda")) / 1e6
        row["busy"] = round(kernels / statistics.median(seconds), 3)
        # `timed` waits twice itself
        row["waits"] = round((sum(event.count for event in events if event.key in WAITS) - 2) / n_steps, 2)
    return row


def initialized(nlp: spacy.Language, data: Data) -> spacy.Language:
    """Trained for a few steps, so that it decides something."""
    fix_random_seed(0)
    nlp.initialize(lambda: examples(nlp, data.docs[:200]))
    optimizer = Adam(1e-4)
    for batch in list(minibatch_by_words(data.docs, size=300, get_length=len))[:5]:
        nlp.update(examples(nlp, batch), sgd=optimizer, drop=0.1)
    return nlp


def predicting(nlp: spacy.Language, data: Data, batch_size: int) -> dict[str, Any]:
    return measure(
        lambda docs: list(nlp.pipe(docs, batch_size=batch_size)),
        lambda: data.fresh_docs(nlp.vocab),
        data.n_words,
        -(-len(data.docs) // batch_size),
    )


def training(nlp: spacy.Language, data: Data) -> dict[str, Any]:
    """Steps over batches of 1,000 words, as configs/bert.cfg has them."""
    batches = [examples(nlp, batch) for batch in minibatch_by_words(data.docs, size=1000, get_length=len)]
    optimizer = Adam(5e-5, L2=0.01, use_averages=False)

    def work(batches: list[list[Example]]) -> None:
        for batch in batches:
            nlp.update(batch, sgd=optimizer, drop=0.1)

    return measure(work, lambda: batches, sum(len(eg.predicted) for batch in batches for eg in batch), len(batches))


def bert_ner(encoder: str, device: str) -> spacy.Language:
    nlp = spacy.blank("en")
    model = {"name": encoder, "window": 256, "stride": 240, "mixed_precision": "bf16" if device == "gpu" else False}
    nlp.add_pipe("bert_ner", config={"model": model})
    return nlp


def to_bytes(texts: list[str]) -> bytes:
    """Tokenize in another process."""
    nlp = spacy.blank("en")
    return spacy.tokens.DocBin(docs=[nlp.make_doc(text) for text in texts]).to_bytes()


def parts(encoder: str, device: str, tiny: bool) -> Iterator[tuple[str, Callable[[], list[dict[str, Any]]]]]:
    """Give the names of the parts and what measures each."""
    from limit import Limits

    from spacy_bertner.model.bert_token_classifier import BATCH_OVERHEAD, DEFAULT_BATCH_PIECES

    data, less = inputs(device, tiny), inputs(device, tiny, 0.25)
    nlp = initialized(bert_ner(encoder, device), less["sentences"])
    shim: Any = nlp.get_pipe("bert_ner").model.shims[0]  # type: ignore[attr-defined]
    precision = "bf16" if device == "gpu" else "float32"
    limits = Limits(nlp, 512 if tiny else 16384 if device == "gpu" else 1024, [precision])
    batch_size = {"sentences": 4096, "documents": 256} if device == "gpu" else {"sentences": 1000, "documents": 64}

    def with_limit(row: dict[str, Any], task: str, of: Data, factor: int = 1) -> dict[str, Any]:
        rate = limits.measure_rates()[precision]
        seconds = of.n_words / row["words_per_second"]
        return {"task": task, **row, "limit": round(factor * limits.multiply_adds(of) / rate / seconds, 3)}

    def predicts() -> list[dict[str, Any]]:
        return [
            with_limit({"system": "bert_ner", **predicting(nlp, of, batch_size[name])}, f"predicts {name}", of)
            for name, of in data.items()
        ]

    def bare() -> list[dict[str, Any]]:
        rows = []
        for name, of in data.items():
            docs = of.fresh_docs(nlp.vocab)
            budget = max(DEFAULT_BATCH_PIECES[shim.kind], 256)
            ready = list(shim.pieces.encode(docs, budget, BATCH_OVERHEAD[shim.kind]))
            row = measure(
                lambda ready, n=of.n_words: shim.predict_numpy(ready, n), lambda ready=ready: ready, of.n_words
            )
            rows.append(with_limit({"system": "bare encoder", **row}, f"predicts {name}", of))
        return rows

    def trains() -> list[dict[str, Any]]:
        return [
            with_limit({"system": "bert_ner", **training(nlp, of)}, f"trains on {name}", of, 3)
            for name, of in less.items()
        ]

    def hf() -> list[dict[str, Any]]:
        from transformers import pipeline

        folder = peers.write_hf_checkpoint(nlp, encoder, Path(encoder) / "hf")
        pipe = pipeline("token-classification", model=folder, device=shim.device, batch_size=32, stride=64)

        def work(texts: list[str]) -> None:
            with torch.autocast(shim.device.type, torch.bfloat16, enabled=device == "gpu"):
                pipe(texts)

        rows = []
        for name, of in less.items():
            row = measure(work, lambda of=of: of.texts, of.n_words, -(-len(of.texts) // 32))
            rows.append(with_limit({"system": "transformers' pipeline", **row}, f"predicts {name}", of))
        return rows

    def host() -> list[dict[str, Any]]:
        """Where the host is the limit: the same documents ready-made, as texts, and tokenized in other processes."""
        of, size = data["documents"], batch_size["documents"]
        rows = [{"system": "ready-made Docs", **predicting(nlp, of, size)}]
        work = lambda texts: list(nlp.pipe(texts, batch_size=size))  # noqa: E731
        rows.append({"system": "texts", **measure(work, lambda: of.texts, of.n_words, -(-len(of.texts) // size))})
        chunks = [of.texts[i : i + size] for i in range(0, len(of.texts), size)]
        with multiprocessing.get_context("spawn").Pool(2 if tiny else 8) as pool:

            def tokenized_elsewhere(chunks: list[list[str]]) -> None:
                for data_of_chunk in pool.imap(to_bytes, chunks):
                    docs = spacy.tokens.DocBin().from_bytes(data_of_chunk).get_docs(nlp.vocab)
                    list(nlp.pipe(docs, batch_size=size))

            row = measure(tokenized_elsewhere, lambda: chunks, of.n_words, len(chunks))
            rows.append({"system": "texts, tokenized in other processes", **row})
        return [{"task": "predicts documents", **row} for row in rows]

    yield "bert_ner predicts", predicts
    yield "bert_ner trains", trains
    yield "bare encoder", bare
    yield "transformers' pipeline", hf
    yield "host", host


def peer(encoder: str, device: str, tiny: bool) -> Iterator[list[dict[str, Any]]]:
    """Measure `transformer` + `ner`; give the rows so far after each."""
    less = inputs(device, tiny, 0.25)
    nlp = initialized(peers.transformer_ner(encoder, "fp16" if device == "gpu" else None), less["sentences"])
    rows: list[dict[str, Any]] = []
    for name, of in less.items():
        found = [predicting(nlp, of, size) for size in ((64, 256) if not tiny else (64,))]
        best = max(found, key=lambda row: row["words_per_second"])
        rows.append({"system": "transformer + ner", "task": f"predicts {name}", **best})
        yield rows
    for name, of in less.items():
        rows.append({"system": "transformer + ner", "task": f"trains on {name}", **training(nlp, of)})
        yield rows


def table(speed: dict[str, Any]) -> list[str]:
    """The rows as a table in Markdown; for `bert_ner` also how many times the peer's words per second."""
    rows = [row for found in speed.values() for row in found]
    if not rows:
        return []
    peers_rate = {row["task"]: row["words_per_second"] for row in speed.get("transformer + ner", [])}
    lines = [
        "## Speed",
        "",
        f"| {' | '.join([*COLUMNS.values(), 'times transformer + ner'])} |",
        "|---|---" + "|---:" * 6 + "|",
    ]
    for row in rows:
        cells = [str(row.get(column, "")) for column in COLUMNS]
        rate = peers_rate.get(row["task"])
        ratio = f"{row['words_per_second'] / rate:.2f}" if rate else ""
        lines.append(f"| {' | '.join([*cells, ratio])} |")
    return [*lines, ""]


if __name__ == "__main__":
    out, device, *rest = sys.argv[1:]
    if device == "gpu":
        spacy.require_gpu(0)
    with tempfile.TemporaryDirectory() as folder:
        for rows in peer(peers.write_demo_encoder("tiny" if rest else "bert-base", folder), device, bool(rest)):
            Path(out).write_text(json.dumps(rows))
