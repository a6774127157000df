"""The head on a sublayer: the scores of transformers' own head, its gradient, labels, saving, bad input."""

import numpy as np
import pytest
import spacy
import torch
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam, Model, fix_random_seed

from ..conftest import LABELS, SENTENCES, make_examples, scores_of, to_numpy

HASH_EMBED = {
    "@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": 24, "depth": 2, "embed_size": 300,
    "window_size": 1, "maxout_pieces": 2, "subword_features": True,
}  # fmt: skip
LISTENER = {"@architectures": "spacy.Tok2VecListener.v1", "width": 24, "upstream": "*"}
TAGS = ["O", *(f"{prefix}-{label}" for label in LABELS for prefix in "BI")]


def entities(doc):
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


def add_head(nlp, tok2vec=HASH_EMBED, **config):
    model = {"@architectures": "spacy_bertner.TokenClassifier.v1", "tok2vec": tok2vec}
    return nlp.add_pipe("bert_ner", config={"model": model, **config})


def train(nlp, examples, steps=60, learn_rate=1e-2):
    fix_random_seed(0)
    optimizer = Adam(learn_rate, use_averages=False)
    return [nlp.update(examples, sgd=optimizer, drop=0.0)["bert_ner"] for _ in range(steps)]


def gradient(model):
    """The sum of all that waits for the next step."""
    return sum(
        np.abs(node.get_grad(name)).sum() for node in model.walk() for name in node.grad_names if node.has_grad(name)
    )


@pytest.fixture
def own(nlp):
    """A head on an embedding of its own."""
    ner = add_head(nlp)
    fix_random_seed(0)
    nlp.initialize(lambda: make_examples(nlp))
    return ner


@pytest.fixture
def listening(nlp):
    """A head and a tagger on one `tok2vec`."""
    nlp.add_pipe("tok2vec", config={"model": HASH_EMBED})
    ner = add_head(nlp, LISTENER)
    nlp.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": LISTENER}})
    nlp.get_pipe("tagger").add_label("X")
    fix_random_seed(0)
    nlp.initialize(lambda: make_examples(nlp))
    return ner


def test_scores_are_those_of_transformers(nlp, checkpoint):
    """Over the first piece of each word, with the weights of a checkpoint's head."""
    pytest.importorskip("spacy_transformers")
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    folder = checkpoint("bert", TAGS)
    tok2vec = {
        "@architectures": "spacy-transformers.Tok2VecTransformer.v3", "name": str(folder),
        "tokenizer_config": {"use_fast": True}, "pooling": {"@layers": "reduce_first.v1"},
        "get_spans": {"@span_getters": "spacy-transformers.doc_spans.v1"},
    }  # fmt: skip
    ner = add_head(nlp, tok2vec)
    nlp.initialize(lambda: make_examples(nlp))
    reference = AutoModelForTokenClassification.from_pretrained(folder).eval()
    head = ner.model.get_ref("output_layer")
    head.set_param("W", head.ops.asarray(reference.classifier.weight.detach().numpy()))
    head.set_param("b", head.ops.asarray(reference.classifier.bias.detach().numpy()))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    docs = [Doc(nlp.vocab, words=text.split()) for text, _ in SENTENCES[:4]]
    for doc, rows in zip(docs, scores_of(ner, docs), strict=True):
        encoded = tokenizer([[token.text for token in doc]], is_split_into_words=True, return_tensors="pt")
        words = encoded.word_ids()
        with torch.no_grad():
            logits = reference(**encoded).logits[0, [words.index(i) for i in range(len(doc))]]
        np.testing.assert_allclose(rows, logits.numpy(), atol=1e-5)


def test_the_gradient_is_that_of_torch(own, nlp):
    """Down to what goes into the head, and what the head itself gets."""
    examples = make_examples(nlp)[:3]
    docs = [eg.predicted for eg in examples]
    vectors = [torch.tensor(to_numpy(v), requires_grad=True) for v in own.model.get_ref("tok2vec").predict(docs)]
    linear = own.model.get_ref("output_layer")
    weight, bias = (torch.tensor(to_numpy(linear.get_param(name)), requires_grad=True) for name in "Wb")
    truth = torch.tensor([own.tag_set.tags.index(tag) for _, tags in SENTENCES[:3] for tag in tags.split()])
    torch.nn.functional.cross_entropy(torch.cat(vectors) @ weight.T + bias, truth, reduction="sum").backward()
    seen = []
    spy = Model(
        "spy", lambda model, X, is_train: ([own.model.ops.asarray(v.detach().numpy()) for v in vectors], seen.append)
    )
    own.model.layers[0] = spy  # what is below the head gets the gradient
    scores, backprop = own.model.begin_update(docs)
    backprop(own.get_loss(examples, scores)[1])
    for got, vector in zip(seen[0], vectors, strict=True):
        np.testing.assert_allclose(to_numpy(got), vector.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(to_numpy(linear.get_grad("W")), weight.grad.numpy(), atol=1e-4)
    np.testing.assert_allclose(to_numpy(linear.get_grad("b")), bias.grad.numpy(), atol=1e-4)


@pytest.mark.parametrize("scheme", ["BIO", "BILUO", "IOB1"])
def test_overfits(scheme, nlp):
    add_head(nlp, scheme=scheme)
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    losses = train(nlp, examples)
    assert losses[-1] < 0.05 < losses[0]
    assert nlp.evaluate(examples)["ents_f"] == 1.0
    assert nlp.get_pipe("bert_ner").labels == tuple(LABELS)


def test_the_shared_layer_learns_from_it(listening, nlp):
    """Though no example has a tag for the tagger, which is the last to listen: its gradient is none."""
    tok2vec = nlp.get_pipe("tok2vec").model
    before = tok2vec.to_bytes()
    examples = make_examples(nlp)
    with nlp.select_pipes(enable=["tok2vec", "bert_ner"]):
        losses = train(nlp, examples)
    assert tok2vec.to_bytes() == before  # the tagger, disabled, listens last and holds the step back, as with `ner`
    nlp.remove_pipe("tagger")
    nlp._link_components()
    losses = train(nlp, examples)
    assert tok2vec.to_bytes() != before
    assert losses[-1] < 0.05 < losses[0]


def test_batches_without_annotation_do_not_hold_up_the_others(nlp):
    """The last listener sets off the step of the shared layer: with nothing to learn itself it must still do so."""
    nlp.add_pipe("tok2vec", config={"model": HASH_EMBED})
    nlp.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": LISTENER}})
    add_head(nlp, LISTENER)
    words = ["Maria", "Kolb"]
    both = Example(Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words, tags=["X", "Y"], ents=["B-PER", "O"]))
    tagged = Example(Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words, tags=["X", "Y"]))
    empty = Example(Doc(nlp.vocab), Doc(nlp.vocab))
    nlp.initialize(lambda: [both])
    train(nlp, [both, empty], steps=2)  # lets the tagger's weights leave zero
    for batch in ([tagged], [tagged, empty]):
        assert train(nlp, batch, steps=1) == [0.0]
        assert gradient(nlp.get_pipe("tok2vec").model) > 0  # steps with the next update, as spaCy's order has it
    assert train(nlp, [empty], steps=1) == [0.0]
    assert gradient(nlp.get_pipe("tok2vec").model) == 0


def test_hard_documents(own, nlp):
    docs = [Doc(nlp.vocab), Doc(nlp.vocab, words=[" "]), Doc(nlp.vocab, words=["Oslo", "\u200b", "\n"]), Doc(nlp.vocab)]
    rows = scores_of(own, docs)
    assert [row.shape for row in rows] == [(0, 9), (1, 9), (3, 9), (0, 9)]
    assert np.isneginf(rows[1]).all() and np.isneginf(rows[2][1:]).all() and np.isfinite(rows[2][0]).all()
    assert [len(row) for row in scores_of(own, [Doc(nlp.vocab)])] == [0]
    assert [len(doc) for doc in nlp.pipe(docs)] == [0, 1, 3, 0]


def test_add_label_keeps_the_rows_of_the_others(own, nlp):
    doc = nlp.make_doc("Maria Kolb lives in Dresden .")
    (before,) = scores_of(own, [doc])
    weights = to_numpy(own.model.layers[2].get_param("W")).copy()
    assert own.add_label("DATE") == 1 and own.add_label("PER") == 0
    (after,) = scores_of(own, [doc])
    assert after.shape[1] == before.shape[1] + 2
    np.testing.assert_array_equal(to_numpy(own.model.layers[2].get_param("W"))[: len(weights)], weights)
    # Not equal: a product of another width may be added up in another order
    np.testing.assert_allclose(after[:, : before.shape[1]], before, atol=1e-6)
    sentences = [("Nothing happened on Monday .", "O O O B-DATE O")]
    losses = train(nlp, make_examples(nlp, sentences), steps=40)
    assert losses[-1] < 0.05 and entities(nlp(sentences[0][0])) == [(3, 4, "DATE")]


def test_initialize_again_starts_anew(own, nlp):
    train(nlp, make_examples(nlp))
    own.add_label("DATE")
    nlp.initialize(lambda: make_examples(nlp))
    assert own.model.get_ref("output_layer").get_param("W").shape == (11, 24)
    assert scores_of(own, [nlp.make_doc("Oslo")])[0].shape == (1, 11)


@pytest.mark.parametrize("kind", ["own", "listening"])
def test_saved_and_loaded(kind, request, nlp, tmp_path):
    request.getfixturevalue(kind)
    train(nlp, make_examples(nlp), steps=20)
    docs = [nlp.make_doc(text) for text, _ in SENTENCES]
    expected = [entities(doc) for doc in nlp.pipe(text for text, _ in SENTENCES)]
    nlp.to_disk(tmp_path)
    from_bytes = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    for other in (spacy.load(tmp_path), from_bytes):
        assert [entities(doc) for doc in other.pipe(text for text, _ in SENTENCES)] == expected
        assert other.get_pipe("bert_ner").labels == tuple(LABELS)
        if kind == "own":
            for row, other_row in zip(
                scores_of(nlp.get_pipe("bert_ner"), docs),
                scores_of(other.get_pipe("bert_ner"), docs),
                strict=True,
            ):
                np.testing.assert_array_equal(row, other_row)
