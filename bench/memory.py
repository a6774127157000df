"""Whether memory stays flat: over a stream of words, over a large development set, and over a long time.

    python bench/memory.py stream [--words 1000000]     nlp.pipe over texts whose Docs are dropped, in memory zones
    python bench/memory.py evaluate [--words 1000000]   nlp.evaluate, as `spacy evaluate` calls it
    python bench/memory.py soak [--minutes 30]          mixed documents, hostile ones too; results must not drift

Each runs in a process of its own, samples its resident memory (VmRSS) and adds a curve to bench/results/memory/ (JSON and a
picture of all curves there are). `soak` ends with an error where a document's entities or scores differ from those of the
first round, or where memory grows by more than 1 % between the middle and the end of the run.

The encoder is the tiny one of `scaling.py`: what is looked for is what is left behind, not what the encoder takes.
"""

import argparse
import ctypes
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import common
import numpy as np
from common import ROOT
from scaling import give_back_memory, resident, write_pipeline

RESULTS = ROOT / "bench" / "results" / "memory"
MIB = 2**20


class Sampler:
    """Samples the resident memory of this process in a thread, beside a count that the work keeps."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.done = 0
        self.samples: list[tuple[float, int, int]] = []  # seconds, count, bytes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        start = time.perf_counter()
        while not self._stop.wait(self.seconds):
            self.samples.append((time.perf_counter() - start, self.done, resident("VmRSS")))

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()


def texts(n_words: int) -> list[str]:
    """Texts of about 400 words from the sentences there are, each shuffled differently, so that they are not the same."""
    sentences = [doc.text for doc in common.read_sentences(common.default_files())]
    rng, made, n = random.Random(0), [], 0
    while n < n_words:
        text = " ".join(rng.choices(sentences, k=20))
        n += text.count(" ")
        made.append(text)
    return made


class Mallinfo(ctypes.Structure):
    """What glibc says of its heap, in bytes (mallinfo(3))."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_: ClassVar = [(name, ctypes.c_size_t) for name in _names.split()]


def heap() -> tuple[float, float]:
    """Return how much of glibc's heap is in use, and how much is free and was not given back, in MiB; NaN without glibc."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return float("nan"), float("nan")
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return info.uordblks / MIB, info.fordblks / MIB


def stream(nlp: Any, n_words: int) -> Sampler:
    """Annotate a stream and keep nothing."""
    given = texts(n_words)
    list(nlp.pipe(given[:50]))
    give_back_memory()
    began, tenth = time.process_time(), len(given) // 10
    with Sampler(0.25) as sampler:
        for part in (given[:tenth], given[tenth:]):
            for start in range(0, len(part), 100):
                with nlp.memory_zone():
                    for doc in nlp.pipe(part[start : start + 100]):
                        sampler.done += len(doc)
            in_use, free = heap()
            print(f"{sampler.done:,} words: {in_use:.1f} MiB of the heap in use, {free:.1f} free, not given back")
    print(f"{sampler.done / (time.process_time() - began):,.0f} words per second of processor time")
    return sampler


def evaluate(nlp: Any, n_words: int) -> Sampler:
    """Evaluate on a development set that is in memory, as spaCy has it; the Docs stay."""
    from spacy.training import Example

    given = [nlp(text) for text in texts(n_words)]
    examples = [Example(nlp.make_doc(doc.text), doc) for doc in given]
    give_back_memory()
    with Sampler(0.25) as sampler:
        nlp.evaluate(examples)
        sampler.done = sum(map(len, given))
    return sampler


def soak(nlp: Any, minutes: float) -> Sampler:
    """Annotate mixed documents over and over; what is found must stay what it was."""
    sys.path.insert(0, str(ROOT))
    from tests import hostile

    component = nlp.get_pipe("bert_ner")
    ordinary = texts(8000)
    words = [word for kind in hostile.CHARACTERS.values() for word in kind]
    rng = random.Random(0)
    strange = ["".join(rng.choices([*words, " ", " ", "Maria "], k=rng.randint(1, 80))) for _ in range(150)]
    given = [*ordinary, *strange, "", " ", " ".join(ordinary)]

    def outcome() -> list[tuple[Any, float]]:
        order = list(range(len(given)))
        rng.shuffle(order)
        found: dict[int, tuple[Any, float]] = {}
        with nlp.memory_zone():
            for doc, i in nlp.pipe(
                [(given[i], i) for i in order], as_tuples=True, batch_size=rng.choice([1, 7, 64, 1000])
            ):
                entities = tuple((ent.start, ent.end, ent.label_) for ent in doc.ents)
                rows = component.model.predict([doc])[0] if len(doc) and i % 10 == 0 else np.zeros(1)
                found[i] = entities, float(rows[np.isfinite(rows)].sum())
        return [found[i] for i in range(len(given))]

    expected = outcome()
    drifted, memory = 0, []
    with Sampler(2.0) as sampler:
        end = time.perf_counter() + minutes * 60
        while time.perf_counter() < end:
            for (entities, total), (first, first_total) in zip(outcome(), expected, strict=True):
                drifted += entities != first or abs(total - first_total) > 1e-3 * max(1.0, abs(first_total))
                sampler.done += 1
            give_back_memory()
            memory.append(resident("VmRSS"))
    middle = memory[len(memory) // 2]
    print(
        f"{sampler.done} documents, {drifted} drifted; {middle / MIB:.1f} MiB half-way, {memory[-1] / MIB:.1f} at the end"
    )
    if drifted or memory[-1] > 1.01 * middle:
        raise SystemExit("soak: results drifted or memory grew")
    return sampler


def plot(path: Path) -> None:
    """Draw all curves there are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    titles = {"stream": "nlp.pipe, Docs dropped", "evaluate": "nlp.evaluate", "soak": "mixed documents"}
    curves = {name: json.loads(file.read_text()) for name in titles if (file := RESULTS / f"{name}.json").exists()}
    figure = Figure(figsize=(4.5 * len(curves), 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, curve) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        in_minutes = name == "soak"
        axes.plot(
            [t / (60 if in_minutes else 1) for t, _, _ in curve["samples"]], [m / MIB for _, _, m in curve["samples"]]
        )
        axes.set_title(f"{titles[name]}\n{curve['done']:,} {'documents' if in_minutes else 'words'}", fontsize=10)
        axes.set_xlabel("minutes" if in_minutes else "seconds")
        axes.set_ylabel("resident memory, MiB")
        axes.set_ylim(0, None)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["stream", "evaluate", "soak"])
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=30)
    arguments = parser.parse_args()
    import spacy

    with tempfile.TemporaryDirectory() as folder:
        nlp = spacy.load(write_pipeline(None, common.default_files(), None, Path(folder)))
    if arguments.what == "soak":
        sampler = soak(nlp, arguments.minutes)
    else:
        sampler = {"stream": stream, "evaluate": evaluate}[arguments.what](nlp, arguments.words)
    memory = [size for _, _, size in sampler.samples]
    tenth = max(len(memory) // 10, 1)
    print(
        f"{arguments.what}: {sampler.done:,} counted; resident memory {memory[0] / MIB:.1f} MiB at first, "
        f"{memory[tenth] / MIB:.1f} after a tenth, {memory[-1] / MIB:.1f} at the end, {max(memory) / MIB:.1f} at most"
    )
    RESULTS.mkdir(parents=True, exist_ok=True)
    every = max(len(sampler.samples) // 400, 1)
    result = {"done": sampler.done, "machine": common.describe_machine(), "samples": sampler.samples[::every]}
    (RESULTS / f"{arguments.what}.json").write_text(json.dumps(result), encoding="utf8")
    plot(RESULTS / "memory.png")


if __name__ == "__main__":
    main()
