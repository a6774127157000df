"""What the benchmarks share: data, settings of the process, a description of the machine."""

import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab

ROOT = Path(__file__).resolve().parent.parent
WIKIGOLD = [ROOT.parent / f"shared/data/wikigold/{part}.conll" for part in ("train", "dev", "test")]
DEMO = [ROOT / f"assets/demo/{part}.conll" for part in ("train", "dev", "test")]
# glibc gives large blocks back to the system, and each batch would fetch them again, page by page
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
PACKAGES = (
    "spacy-bertner",
    "spacy",
    "thinc",
    "spacy-transformers",
    "spacy-huggingface-pipelines",
    "transformers",
    "tokenizers",
    "torch",
    "onnxruntime",
    "numpy",
    "cupy-cuda12x",
)


@dataclass(frozen=True)
class Data:
    """Docs with gold entities and sentence starts, to be predicted or trained on."""

    name: str
    docs: list[Doc]

    @cached_property
    def n_words(self) -> int:
        return sum(map(len, self.docs))

    @cached_property
    def words(self) -> list[list[str]]:
        return [[token.text for token in doc] for doc in self.docs]

    @cached_property
    def sent_starts(self) -> list[list[bool]]:
        return [[bool(token.is_sent_start) for token in doc] for doc in self.docs]

    @cached_property
    def texts(self) -> list[str]:
        return [doc.text for doc in self.docs]

    def fresh_docs(self, vocab: Vocab) -> list[Doc]:
        """The words and sentence starts alone, in new Docs."""
        return [
            Doc(vocab, words=words, sent_starts=starts)
            for words, starts in zip(self.words, self.sent_starts, strict=True)
        ]


def examples(nlp: spacy.Language, docs: Iterable[Doc]) -> list[Example]:
    """The documents to learn from, beside their words alone."""
    data = Data("examples", list(docs))
    return [Example(bare, doc) for bare, doc in zip(data.fresh_docs(nlp.vocab), data.docs, strict=True)]


def default_files() -> list[Path]:
    """The three files of wikigold; those of the demo corpus where wikigold is not there."""
    if all(path.exists() for path in WIKIGOLD):
        return WIKIGOLD
    print(f"no {WIKIGOLD[0].parent.name} in ../shared/data: the demo corpus is used")
    return DEMO


def read_sentences(files: Sequence[Path], n_words: int | None = None) -> list[Doc]:
    """Read CoNLL files, one Doc per sentence, up to the sentence with word number `n_words`."""
    from spacy_bertner.formats.convert import read_conll

    vocab = spacy.blank("en").vocab
    sentences: list[Doc] = []
    n = 0
    for path in files:
        for doc in read_conll(path, vocab=vocab):
            for sentence in doc.sents:
                sentences.append(sentence.as_doc())
                n += len(sentence)
                if n_words and n >= n_words:
                    return sentences
    return sentences


def join(sentences: Sequence[Doc], n_words: int) -> list[Doc]:
    """Join sentences into documents of `n_words` words, and as many more as the last sentence needs."""
    documents: list[Doc] = []
    part: list[Doc] = []
    for sentence in sentences:
        part.append(sentence)
        if sum(map(len, part)) >= n_words:
            documents.append(join_all(part))
            part = []
    return [*documents, join_all(part)] if part else documents


def join_all(sentences: Sequence[Doc]) -> Doc:
    """Join sentences into one document that knows where they start."""
    if len(sentences) == 1:
        return sentences[0]
    document = Doc.from_docs(list(sentences))
    assert document is not None
    return document


def repeat(sentences: Sequence[Doc], n_words: int) -> list[Doc]:
    """Repeat the sentences until there are `n_words` words; the last sentence may be cut."""
    repeated: list[Doc] = []
    n = 0
    while True:
        for sentence in sentences:
            repeated.append(sentence if n + len(sentence) <= n_words else sentence[: n_words - n].as_doc())
            n += len(repeated[-1])
            if n == n_words:
                return repeated


def start_again_with(environment: dict[str, str]) -> None:
    """Start the running script again with these variables, unless they are set: glibc reads its own at the start."""
    if sys.platform == "linux" and any(name not in os.environ for name in environment):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**environment, **os.environ})


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Run it; return seconds, seconds of processor time, and what it returned."""
    gc.collect()
    synchronize()
    start, start_cpu = time.perf_counter(), time.process_time()
    result = work()
    synchronize()
    return time.perf_counter() - start, time.process_time() - start_cpu, result


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def is_real_gpu() -> bool:
    """Whether there is a card, and not a stand-in for one, which can show neither speed nor memory."""
    import torch

    return torch.cuda.is_available() and getattr(torch._C, "_cuda_getDeviceCount", int)() > 0


def describe_machine() -> dict[str, Any]:
    """Name processor, GPU, memory, threads and versions; neither host nor paths."""
    import torch

    flags = cpu_info("flags").split()
    features = [
        name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if name in flags
    ]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_info("model name") or platform.processor() or platform.machine(),
        "cpu_features": features,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "malloc": {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
    }


def cpu_info(field: str) -> str:
    """The first such line of /proc/cpuinfo; nothing where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    features = f" ({', '.join(machine['cpu_features'])})" if machine["cpu_features"] else ""
    versions = machine["versions"]
    names = [name for name in ("torch", "transformers", "spacy", "spacy-transformers") if name in versions]
    return (
        (f"{machine['gpu']}, " if machine["gpu"] else "")
        + f"{machine['cpu']}{features}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}, "
        + ", ".join(f"{name} {versions[name]}" for name in names)
    )
