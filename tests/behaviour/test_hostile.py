"""Hostile documents: no exception, no entity outside its Doc, nothing illegal, the same alone and in a batch.

FUZZ_DOCS (an environment variable) is about how many documents hypothesis draws for each test: `make fuzz`.
"""

import os
import warnings

import pytest
import spacy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..conftest import make_examples
from . import hostile

N_DOCS = int(os.environ.get("FUZZ_DOCS", "600"))
DOCS_A_BATCH = 4  # on average
KINDS = ["bert", "bert-uncased", "roberta", "xlm-roberta", "deberta-v2"]


@pytest.fixture(scope="module")
def pipelines(checkpoint):
    """Give a function from architecture, scheme and `overwrite` to a pipeline, each made once."""
    made = {}

    def get(kind, scheme="BIO", overwrite=False):
        key = kind, scheme, overwrite
        if key not in made:
            nlp = spacy.blank("en")
            config = {"scheme": scheme, "overwrite": overwrite}
            model = {"name": str(checkpoint(kind)), "window": 48, "stride": 32}
            component = nlp.add_pipe("bert_ner", config={**config, "model": model})
            torch.manual_seed(0)
            nlp.initialize(lambda: make_examples(nlp))
            made[key] = nlp, component
        return made[key]

    return get


@pytest.fixture(scope="module")
def counted():
    """Count the documents; `make fuzz` prints how many there were."""
    count = [0]
    yield count
    print(f"\n{count[0]} documents drawn")


@pytest.mark.parametrize("kind", KINDS)
def test_hand_made(kind, pipelines):
    nlp, component = pipelines(kind)
    docs = hostile.corpus(nlp.vocab)
    for start in range(0, len(docs), 25):
        hostile.check(nlp, component, docs[start : start + 25], overwrite=False)


@pytest.mark.parametrize("position", range(5))
def test_empty_docs_in_every_position(position, pipelines):
    nlp, _ = pipelines("bert")
    texts = ["Maria Kolb lives in Dresden.", " ", "Oslo is cold.", "\n\n"]
    texts.insert(position, "")
    together = [[(e.start, e.end, e.label_) for e in doc.ents] for doc in nlp.pipe(texts, batch_size=10)]
    assert together == [[(e.start, e.end, e.label_) for e in nlp(text).ents] for text in texts]


def test_a_hundred_thousand_blanks(pipelines):
    nlp, component = pipelines("bert")
    doc = hostile.make_doc(nlp.vocab, ["\n"] * 50_000 + ["Maria"] + [" "] * 50_000)
    hostile.check(nlp, component, [doc], overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("scheme", ["BIO", "BILUO", "IOB1", "IO"])
def test_drawn(scheme, overwrite, pipelines, counted):
    kinds = KINDS if N_DOCS > 5000 else ["bert", "roberta"]

    @settings(
        max_examples=max(N_DOCS // 8 // DOCS_A_BATCH, 10),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.data())
    def run(data):
        nlp, component = pipelines(data.draw(st.sampled_from(kinds)), scheme, overwrite)
        batch = data.draw(st.lists(hostile.docs(nlp.vocab), min_size=1, max_size=2 * DOCS_A_BATCH))
        counted[0] += len(batch)
        hostile.check(nlp, component, batch, overwrite=overwrite)

    run()


def test_drawn_in_training(checkpoint, counted):
    """Anything may be trained on: the loss stays a number, and the weights do."""
    from spacy.training import Example

    nlp = spacy.blank("en")
    component = nlp.add_pipe(
        "bert_ner", config={"model": {"name": str(checkpoint("bert")), "window": 48, "stride": 32}}
    )
    optimizer = nlp.initialize(lambda: make_examples(nlp))

    @settings(max_examples=max(N_DOCS // 40, 20), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def run(data):
        references = data.draw(st.lists(hostile.docs(nlp.vocab), min_size=1, max_size=6))
        counted[0] += len(references)
        predicted = [
            reference.copy() if data.draw(st.booleans()) or not len(reference) else nlp.make_doc(reference.text)
            for reference in references
        ]
        examples = [Example(p, r) for p, r in zip(predicted, references, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses = component.update(examples, drop=0.1, sgd=optimizer)
        assert losses["bert_ner"] < 100

    run()
    assert all(torch.isfinite(p).all() for p in component.model.shims[0].module.parameters())
