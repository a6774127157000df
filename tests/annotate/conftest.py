"""A pipeline that finds entities, texts for it, and components that fail, for the tests of `annotate`."""

import json
import sys
from pathlib import Path

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc

from ..conftest import SENTENCES, make_examples

TEXTS = [words for words, _ in SENTENCES]


def make_pipeline(checkpoint) -> Language:
    """A pipeline that has learnt a little, so that it finds entities."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    torch.manual_seed(0)
    examples = make_examples(nlp)
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.005
    for _ in range(20):
        nlp.update(examples, sgd=optimizer)
    return nlp


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory, checkpoint) -> Path:
    """The folder of such a pipeline."""
    folder = tmp_path_factory.mktemp("pipeline")
    make_pipeline(checkpoint).to_disk(folder)
    return folder


@pytest.fixture
def ner(pipeline) -> Language:
    return spacy.load(pipeline)


def spans(doc: Doc) -> list[tuple[int, int, str]]:
    return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]


def expected(ner: Language, texts=TEXTS) -> list[list[tuple[int, int, str]]]:
    found = [spans(doc) for doc in ner.pipe(texts)]
    assert sum(map(len, found)) > 10
    return found


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def found_spans(records: list[dict]) -> list[list[tuple[int, int, str]]]:
    return [[(ent["start"], ent["end"], ent["label"]) for ent in record["entities"]] for record in records]


def write_jsonl(path: Path, records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf8")
    return path


@pytest.fixture
def texts_file(tmp_path) -> Path:
    return write_jsonl(tmp_path / "texts.jsonl", ({"text": text, "id": i} for i, text in enumerate(TEXTS)))


@Language.component("annotate_tests_raises")
def raises(doc):
    if "Elbe" in doc.text:
        raise ValueError("no rivers")
    return doc


class Drops:
    """Leaves Docs out without a word."""

    def __call__(self, doc):
        return doc

    def pipe(self, docs, batch_size):
        return (doc for doc in docs if "Elbe" not in doc.text)


@Language.factory("annotate_tests_drops")
def drops(nlp, name):
    return Drops()


@Language.factory("annotate_tests_stops")
class Stops:
    """As Ctrl-C would, after some Docs."""

    def __init__(self, nlp, name):
        self.after = 0

    def __call__(self, doc):
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
        return doc


COMMAND = [sys.executable, "-m", "spacy", "bertner", "annotate"]
