"""Documents and pipelines for the tests of reports."""

import random

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

from spacy_bertner.cli import bertner
from spacy_bertner.report.documents import Document, Entity

from ..conftest import SENTENCES

LABELS = ["LOC", "MISC", "ORG", "PER"]


def random_documents(n=60, seed=0) -> list[Document]:
    """Documents with dense entities, of which the predictions have many, other and further ones, with scores."""
    rng = random.Random(seed)

    def cover(length, dense):
        entities, i = [], 0
        while i < length:
            size = rng.choice([1, 1, 2, 3, 5])
            if rng.random() < dense and i + size <= length:
                entities.append(Entity(i, i + size, rng.choice(LABELS)))
                i += size
            else:
                i += 1
        return entities

    documents = []
    for number in range(1, n + 1):
        length = rng.choice([1, 4, 15, 40])
        gold = cover(length, 0.4)
        predicted = cover(length, 0.3) if rng.random() < 0.5 else [e for e in gold if rng.random() < 0.8]
        predicted = [e._replace(label=e.label if rng.random() < 0.8 else rng.choice(LABELS)) for e in predicted]
        predicted = [e._replace(score=rng.random()) for e in predicted]
        words = [rng.choice(["Oslo", "Kolb", "der", "x"]) for _ in range(length)]
        documents.append(Document(number, words, [True] * length, [0], None, gold, predicted))
    return documents


def docs_of(vocab, sentences=SENTENCES):
    return [Doc(vocab, words=words.split(), ents=tags.split()) for words, tags in sentences]


def save(path, docs):
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@pytest.fixture
def data(tmp_path, nlp):
    return save(tmp_path / "data.spacy", docs_of(nlp.vocab))


def ruler(patterns=None, *, has_infixes=True) -> Language:
    """A pipeline that finds these mentions: right ones, other labels, other ends, and one that is none."""
    nlp = spacy.blank("en")
    if not has_infixes:
        nlp.tokenizer.infix_finditer = None
    patterns = patterns or {
        "Maria Kolb": "PER", "Dresden": "LOC", "Tarrant Group": "ORG", "Nordbank in": "ORG", "Lisbon": "LOC",
        "Paris": "LOC", "Harlan": "PER", "Oslo": "LOC", "Monday": "MISC", "Tallinn": "LOC", "Elbe Times reported": "LOC",
    }  # fmt: skip
    nlp.add_pipe("entity_ruler").add_patterns([{"label": v, "pattern": k} for k, v in patterns.items()])
    return nlp


@pytest.fixture
def pipeline(tmp_path):
    ruler().to_disk(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def run(*arguments):
    result = CliRunner().invoke(bertner, ["report", *map(str, arguments)])
    return result.exit_code, result.output
