"""One pipeline in many threads and processes gives what it gives in one."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import spacy
import torch

from ..conftest import SENTENCES, make_examples

TEXTS = [" ".join(text for text, _ in SENTENCES[i % 7 : 3 + i % 17]) for i in range(48)] + ["", " \n"]


def entities(doc):
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


@pytest.fixture(scope="module")
def folders(checkpoint, tmp_path_factory):
    """A pipeline saved for torch, and the same for ONNX Runtime."""
    pytest.importorskip("onnx")
    from spacy_bertner.export.onnx import to_onnx

    folder = tmp_path_factory.mktemp("pipelines")
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert")), "window": 64, "stride": 48}})
    torch.manual_seed(0)
    optimizer = nlp.initialize(lambda: make_examples(nlp))
    optimizer.learn_rate = 1e-3
    for _ in range(40):
        nlp.update(make_examples(nlp), sgd=optimizer)
    nlp.to_disk(folder / "torch")
    to_onnx(nlp)
    nlp.to_disk(folder / "onnx")
    return folder


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_eight_threads(runtime, folders):
    nlp = spacy.load(folders / runtime)
    expected = [entities(nlp(text)) for text in TEXTS]
    assert any(expected)
    for _ in range(3):
        fresh = spacy.load(folders / runtime)  # its caches are empty, and filled by all at once
        with ThreadPoolExecutor(8) as pool:
            assert [entities(doc) for doc in pool.map(fresh, TEXTS)] == expected


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_eight_threads_that_stream(runtime, folders):
    nlp = spacy.load(folders / runtime)
    expected = [entities(nlp(text)) for text in TEXTS]

    def stream(batch_size):
        return [entities(doc) for doc in nlp.pipe(TEXTS, batch_size=batch_size)]

    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(stream, [1, 2, 3, 5, 8, 13, 21, 100]))


def test_predicting_while_another_pipeline_trains(folders, checkpoint):
    nlp, other = spacy.load(folders / "torch"), spacy.blank("en")
    expected = [entities(nlp(text)) for text in TEXTS]
    other.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    optimizer = other.initialize(lambda: make_examples(other))
    with ThreadPoolExecutor(2) as pool:
        training = pool.submit(lambda: [other.update(make_examples(other), sgd=optimizer) for _ in range(10)])
        found = [[entities(nlp(text)) for text in TEXTS] for _ in range(3)]
        training.result()
    assert found == [expected] * 3


@pytest.mark.parametrize(
    ("method", "runtime"),
    [("fork", "torch"), ("spawn", "torch"), ("forkserver", "torch"), ("fork", "onnx"), ("spawn", "onnx")],
)
def test_processes(method, runtime, folders, tmp_path):
    """`n_process=2` with each way of starting a process, after the parent has used its own threads."""
    nlp = spacy.load(folders / runtime)
    expected = [[list(entity) for entity in entities(nlp(text))] for text in TEXTS]
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import json, multiprocessing, sys
import spacy

if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    nlp = spacy.load({str(folders / runtime)!r})
    texts = json.loads(sys.stdin.read())
    list(nlp.pipe(texts[:5]))
    docs = nlp.pipe(texts, n_process=2, batch_size=7)
    print(json.dumps([[(e.start, e.end, e.label_) for e in doc.ents] for doc in docs]))
""",
        encoding="utf8",
    )
    done = subprocess.run(
        [sys.executable, script], input=json.dumps(TEXTS), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
