"""Distillation from the model as it was, against torch's own divergence and autograd; what it does to old labels."""

import numpy as np
import pytest
import spacy
import torch
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.training.initialize import init_nlp
from thinc.api import Adam, NumpyOps

from spacy_bertner.rehearsal import distil
from spacy_bertner.tags import MISSING, TagSet

from .conftest import SENTENCES, make_examples, scores_of, to_numpy

OLD = ["LOC", "ORG", "PER"]
TAGS = TagSet(["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "B-CAR", "I-CAR"], "BIO")
N_OLD = 5


def annotated_with(nlp, *labels):
    """The examples as annotators leave them who were asked for these labels alone."""
    sentences = [
        (text, " ".join(tag if tag[2:] in labels else "O" for tag in tags.split())) for text, tags in SENTENCES
    ]
    return make_examples(nlp, sentences)


def weights(ner):
    return {name: p.detach().clone() for name, p in ner.model.shims[0].module.named_parameters()}


@pytest.mark.parametrize("annotated", [{"CAR"}, {"CAR", "LOC"}, {"CAR", "LOC", "PER"}])
def test_the_divergence_is_that_of_torch(annotated):
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(8, len(TAGS))).astype("float32")
    P = torch.from_numpy(rng.normal(size=(8, N_OLD)).astype("float32")).softmax(1)
    is_kept = np.ones(8, dtype=bool)
    is_kept[7] = False
    Y[7], P[7] = -np.inf, np.nan
    truth = np.array([2, 2, 0, MISSING, 2, 5, MISSING, MISSING])
    loss, dY, n = distil(NumpyOps(), Y, P.numpy(), truth, is_kept, TAGS, annotated)
    scores = torch.from_numpy(Y.copy()).requires_grad_()
    expected = torch.zeros(())
    for i in range(7):
        if truth[i] == 2:  # O
            target = torch.zeros(len(TAGS))
            for k, tag in enumerate(TAGS.tags[:N_OLD]):
                target[2 if tag[2:] in annotated else k] += P[i, k]
            expected = expected + torch.nn.functional.kl_div(scores[i].log_softmax(0), target, reduction="sum")
        elif truth[i] == MISSING:
            student = scores[i, :N_OLD].log_softmax(0)
            expected = expected + torch.nn.functional.kl_div(student, P[i], reduction="sum")
    expected.backward()
    assert n == 5 and loss == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(dY, scores.grad.numpy(), atol=1e-6)
    assert (dY[[2, 5, 7]] == 0).all()


def test_where_all_labels_are_annotated_it_is_plain_training(tagger, nlp, tmp_path):
    tagger("bert")
    nlp.to_disk(tmp_path)
    found = []
    for rehearse in (0.0, 1.0):
        loaded = spacy.load(tmp_path, config={"components": {"bert_ner": {"rehearse": rehearse}}})
        loaded.update(make_examples(loaded), sgd=False)
        module = loaded.get_pipe("bert_ner").model.shims[0].module
        found.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


def f1(nlp, labels):
    """F1 over some labels on the sentences, all annotated."""
    n_right = n_found = n_true = 0
    for example in make_examples(nlp):
        found, true = (
            {(ent.start, ent.end, ent.label_) for ent in doc.ents if ent.label_ in labels}
            for doc in (nlp(Doc(nlp.vocab, words=[t.text for t in example.reference])), example.reference)
        )
        n_right, n_found, n_true = n_right + len(found & true), n_found + len(found), n_true + len(true)
    return 2 * n_right / (n_found + n_true)


@pytest.fixture
def trained(checkpoint, tmp_path):
    """The folder of a pipeline that knows the old labels."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    torch.manual_seed(0)
    examples = annotated_with(nlp, *OLD)
    nlp.initialize(lambda: examples)
    optimizer = Adam(5e-3)
    for _ in range(40):
        nlp.update(examples, sgd=optimizer)
    assert f1(nlp, OLD) > 0.95
    nlp.to_disk(tmp_path / "trained")
    return tmp_path / "trained"


def test_old_labels_are_kept_alive(trained):
    """What is learnt of a new label alone costs the old ones without rehearsal, and not with it."""
    scores = {}
    for rehearse in (0.0, 1.0):
        nlp = spacy.load(trained, config={"components": {"bert_ner": {"rehearse": rehearse}}})
        ner = nlp.get_pipe("bert_ner")
        before = weights(ner)
        examples, optimizer = annotated_with(nlp, "MISC"), Adam(2e-3)
        for _ in range(60):
            nlp.update(examples, sgd=optimizer)
        scores[rehearse] = f1(nlp, OLD), f1(nlp, ["MISC"])
        assert (ner._rehearsal_model is not None) == bool(rehearse)
        if rehearse:  # the teacher is the model as it was, and no part of what is saved
            torch.testing.assert_close(dict(ner._rehearsal_model.shims[0].module.named_parameters()), before)
            n_bytes = sum(4 * p.numel() for p in ner.model.shims[0].module.parameters())
            assert len(ner.to_bytes(exclude=["vocab"])) < 1.8 * n_bytes
            again = spacy.blank("en").add_pipe("bert_ner", config={"model": {"name": "none"}})
            again.from_bytes(ner.to_bytes())
            assert again._rehearsal_model is None
    assert scores[0.0][0] < 0.5 and scores[0.0][1] > 0.9
    assert scores[1.0][0] > 0.95 and scores[1.0][1] > 0.9


def test_the_teacher_of_a_checkpoint_with_a_head_is_that_head(checkpoint):
    folder = checkpoint("bert", ["I-PER", "O", "B-PER"])
    nlp = spacy.blank("en")
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(folder)}, "rehearse": 1.0})
    examples = annotated_with(nlp, "LOC")
    nlp.initialize(lambda: examples)
    assert ner._rehearsal.teacher is None and ner.labels == ("PER", "LOC")
    (scores,) = scores_of(ner, [examples[0].predicted])
    nlp.update(examples[:1], sgd=Adam(1e-3))
    assert ner._rehearsal.teacher.n_tags == 3
    P = ner._rehearsal.teacher.probabilities([examples[0].predicted])
    np.testing.assert_allclose(to_numpy(P), torch.from_numpy(scores[:, :3].copy()).softmax(1), atol=1e-6)


def test_what_starts_from_nothing_has_no_teacher(checkpoint, nlp):
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}, "rehearse": 1.0})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    for _ in range(2):
        nlp.update(examples, sgd=Adam(1e-3))
    assert ner._rehearsal.teacher is None
    nlp.resume_training()  # by now it is trained
    assert ner._rehearsal.teacher.n_tags == len(ner.tag_set)


def unannotated(nlp):
    return [Example(nlp.make_doc(text), nlp.make_doc(text)) for text, _ in SENTENCES]


def forget(ner):
    """Change the head, so that there is something to rehearse."""
    with torch.no_grad():
        noise = torch.randn(len(ner.tag_set), generator=torch.manual_seed(1))
        ner.model.shims[0].module.head.bias += 5 * noise.to(ner.model.shims[0].device)


def test_documents_without_annotation_are_rehearsed(trained):
    nlp = spacy.load(trained, config={"components": {"bert_ner": {"rehearse": 1.0}}})
    ner = nlp.get_pipe("bert_ner")
    plain = unannotated(nlp)
    assert nlp.update(plain, sgd=False)["bert_ner"] == pytest.approx(0.0, abs=1e-5)  # nothing is forgotten yet
    forget(ner)
    docs = [eg.predicted for eg in plain]
    student = torch.from_numpy(np.concatenate(scores_of(ner, docs))).log_softmax(1)
    teacher = torch.from_numpy(to_numpy(ner._rehearsal.teacher.probabilities(docs)))
    expected = torch.nn.functional.kl_div(student, teacher, reduction="batchmean").item()
    assert nlp.update(plain, sgd=False)["bert_ner"] == pytest.approx(expected, rel=1e-4)


def test_language_rehearse(trained):
    """spaCy passes a function that gathers gradients, and no optimiser: the step is the component's all the same."""
    results = []
    for by_language in (True, False):
        torch.manual_seed(0)
        nlp = spacy.load(trained)
        ner = nlp.get_pipe("bert_ner")
        ner.add_label("MISC")
        optimizer = nlp.resume_training(sgd=Adam(1e-3, L2=0.01, use_averages=False))
        assert ner._rehearsal.teacher.n_tags == len(ner.tag_set) - 2  # what has just been added is not worth keeping
        nlp.update(annotated_with(nlp, "MISC"), sgd=optimizer)
        (nlp if by_language else ner).rehearse(unannotated(nlp), sgd=optimizer)
        results.append(weights(ner))
    torch.testing.assert_close(results[0], results[1])
    losses = [nlp.rehearse(unannotated(nlp), sgd=optimizer)["bert_ner"] for _ in range(15)]
    assert losses[-1] < losses[0] / 2


def test_rehearsal_before_any_update(trained):
    nlp = spacy.load(trained)
    nlp.resume_training(sgd=Adam(2e-3))
    forget(nlp.get_pipe("bert_ner"))
    losses = [nlp.rehearse(unannotated(nlp))["bert_ner"] for _ in range(12)]
    assert losses[-1] < losses[0] / 2


def test_not_with_learnt_transitions(nlp, checkpoint):
    model = {"name": str(checkpoint("bert")), "crf": True}
    ner = nlp.add_pipe("bert_ner", config={"model": model, "rehearse": 1.0})
    ner.initialize(lambda: make_examples(nlp), nlp=nlp)
    with pytest.raises(ValueError, match=r"rehearse: .* crf = false"):
        nlp.update(make_examples(nlp), sgd=Adam(1e-3))


def test_nothing_to_rehearse(trained):
    nlp = spacy.load(trained)
    before = weights(nlp.get_pipe("bert_ner"))
    with pytest.warns(UserWarning, match=r"bert_ner: nothing to rehearse: call nlp\.resume_training"):
        nlp.rehearse([Example(nlp.make_doc("a"), nlp.make_doc("a"))], sgd=Adam(1e-3))
    torch.testing.assert_close(weights(nlp.get_pipe("bert_ner")), before)


def test_spacy_train_sets_it_for_a_sourced_component(trained, tmp_path):
    nlp = spacy.blank("en")
    DocBin(docs=[eg.reference for eg in annotated_with(nlp, "MISC")]).to_disk(tmp_path / "corpus.spacy")
    config = nlp.config.copy()
    config["nlp"]["pipeline"] = ["bert_ner"]
    config["components"] = {"bert_ner": {"source": str(trained)}}
    for part in ("train", "dev"):
        config["corpora"][part] = {"@readers": "spacy.Corpus.v1", "path": str(tmp_path / "corpus.spacy")}
    config["initialize"]["before_init"] = {"@callbacks": "spacy_bertner.rehearse.v1", "weight": 2.0}
    ner = init_nlp(config).get_pipe("bert_ner")
    assert ner.cfg["rehearse"] == 2.0 and ner._rehearsal.teacher.n_tags == len(ner.tag_set) == 7
    config["initialize"]["before_init"]["component"] = "ner"
    config["components"]["ner"] = {"factory": "ner"}
    config["nlp"]["pipeline"] = ["bert_ner", "ner"]
    with pytest.raises(ValueError, match="component: 'ner' is not a bert_ner component"):
        init_nlp(config)


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none(weight, nlp):
    ner = nlp.add_pipe("bert_ner")
    with pytest.raises(ValueError, match=r"rehearse: .* is not a weight; allowed are 0\.0 and more"):
        ner.set_rehearse(weight)
    if weight < 0:  # the others spaCy has in no config
        with pytest.raises(ValueError, match=r"rehearse: -1\.0 is not a weight"):
            nlp.add_pipe("bert_ner", name="second", config={"rehearse": weight})


TOK2VEC = {
    "@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": 32, "depth": 1, "embed_size": 500,
    "window_size": 1, "maxout_pieces": 2, "subword_features": True,
}  # fmt: skip


def shared_pipeline(rehearse):
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec", config={"model": TOK2VEC})
    tok2vec = {"@architectures": "spacy.Tok2VecListener.v1", "width": 32, "upstream": "tok2vec"}
    model = {"@architectures": "spacy_bertner.TokenClassifier.v1", "tok2vec": tok2vec}
    nlp.add_pipe("bert_ner", config={"model": model, "rehearse": rehearse})
    examples = annotated_with(nlp, *OLD)
    nlp.initialize(lambda: examples)
    return nlp


def test_a_shared_layer_is_no_teacher():
    nlp = shared_pipeline(rehearse=1.0)
    message = r"rehearse: the model listens to another component, .* replace_listeners"
    with pytest.raises(ValueError, match=message):
        nlp.update(make_examples(nlp), sgd=Adam(1e-3))
    plain = shared_pipeline(rehearse=0.0)
    optimizer = plain.resume_training()
    assert plain.get_pipe("bert_ner")._rehearsal.teacher is None
    with pytest.raises(ValueError, match=message):
        plain.rehearse(make_examples(plain), sgd=optimizer)


def test_a_layer_of_its_own_is_one():
    nlp = shared_pipeline(rehearse=0.0)
    optimizer = nlp.create_optimizer()
    for _ in range(30):
        nlp.update(annotated_with(nlp, *OLD), sgd=optimizer)
    nlp.replace_listeners("tok2vec", "bert_ner", ["model.tok2vec"])
    ner = nlp.get_pipe("bert_ner")
    ner.set_rehearse(1.0)
    nlp.resume_training(sgd=optimizer)
    before = f1(nlp, OLD)
    ner.add_label("MISC")
    for _ in range(30):
        nlp.update(annotated_with(nlp, "MISC"), sgd=optimizer)
    assert before > 0.8 and f1(nlp, OLD) > before - 0.1 and f1(nlp, ["MISC"]) > 0.8
    assert nlp.rehearse(make_examples(nlp), sgd=optimizer)["bert_ner"] < 0.2
