"""Adapters against arithmetic on the weights of transformers' own models, and against the same model without adapters."""

import copy
import gc
import pickle
import sys

import numpy as np
import pytest
import spacy
import torch
from spacy.tokens import Doc
from thinc.api import Adam
from transformers import AutoModel

from spacy_bertner.export import huggingface
from spacy_bertner.model.bert_token_classifier import BertTokenClassifier

from ..conftest import SENTENCES, make_examples, scores_of, to_numpy

pytest.importorskip("peft")

LORA = {"r": 4, "alpha": 12, "dropout": 0.1}
QUERY = "encoder.encoder.layer.{}.attention.self.query"


def module_of(ner):
    return ner.model.shims[0].module


def docs_of(nlp):
    return [Doc(nlp.vocab, words=words.split()) for words, _ in SENTENCES]


def train(nlp, steps=5, learn_rate=0.01, drop=0.1, **settings):
    optimizer = Adam(learn_rate, L2=0.01, grad_clip=1.0, **settings)
    for _ in range(steps):
        nlp.update(make_examples(nlp), sgd=optimizer, drop=drop)
    return optimizer


@pytest.fixture(scope="module")
def trained(checkpoint, tmp_path_factory):
    """Folder of a pipeline with trained adapters."""
    return make_trained(checkpoint, tmp_path_factory.mktemp("trained"))


def load_with(lora, folder):
    """Load a pipeline with another setting, which `spacy.load` cannot change from null to a dict."""
    config = spacy.util.load_config(folder / "config.cfg")
    config["components"]["bert_ner"]["model"]["lora"] = lora
    return spacy.util.load_model_from_config(config).from_disk(folder)


def make_trained(checkpoint, folder, **model):
    nlp = spacy.blank("en")
    settings = {"name": str(checkpoint("bert")), "lora": LORA, **model}
    nlp.add_pipe("bert_ner", config={"model": settings})
    nlp.initialize(lambda: make_examples(nlp))
    train(nlp)
    nlp.to_disk(folder)
    return folder


@pytest.mark.parametrize(("targets", "n"), [(None, 2), (["query", "output.dense"], 3), ("all-linear", 6)])
def test_adapters_and_what_is_new_are_trained_and_nothing_else(targets, n, tagger, nlp, checkpoint):
    ner = tagger("bert-uncased", crf=True, lora={**LORA, "target_modules": targets})
    module = module_of(ner)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    train(nlp)
    changed = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    adapters = {name for name in changed if ".lora_" in name}
    assert len(adapters) == 2 * 2 * n  # two matrices for each, in both layers
    assert changed - adapters == {"head.weight", "head.bias", "orthography.weight", "transitions"}
    plain = AutoModel.from_pretrained(checkpoint("bert-uncased")).state_dict()
    for name, value in module.encoder.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(value.cpu(), plain[name.replace(".base_layer", "")])


def test_new_adapters_change_nothing(tagger, nlp, checkpoint):
    with_adapters, other = tagger("bert", lora=LORA), spacy.blank("en")
    without = other.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    other.initialize(lambda: make_examples(other))
    module_of(without).head.load_state_dict(module_of(with_adapters).head.state_dict())
    for found, expected in zip(scores_of(with_adapters, docs_of(nlp)), scores_of(without, docs_of(nlp)), strict=True):
        np.testing.assert_array_equal(found, expected)


def plain_of(ner, checkpoint, other):
    """A component without adapters whose weights are W + alpha / r · B A."""
    plain = other.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    other.initialize(lambda: make_examples(other))
    state = {name: value.detach().clone() for name, value in module_of(ner).state_dict().items()}
    weights = {}
    for name, value in state.items():
        if ".lora_" not in name:
            weights[name.replace(".base_layer", "")] = value
    for name in state:
        if name.endswith("lora_A.default.weight"):
            update = state[name.replace("lora_A", "lora_B")] @ state[name] * (LORA["alpha"] / LORA["r"])
            weights[name.replace("lora_A.default.", "")] += update
    module_of(plain).load_state_dict(weights)
    return plain


def test_scores_and_gradients_are_those_of_the_sum(tagger, nlp, checkpoint):
    ner = tagger("bert", lora=LORA)
    train(nlp, drop=0.0)
    plain = plain_of(ner, checkpoint, spacy.blank("en"))
    docs = docs_of(nlp)
    for found, expected in zip(scores_of(ner, docs), scores_of(plain, docs), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    rng = np.random.default_rng(0)
    dY = [rng.normal(size=(len(doc), len(ner.tag_set))).astype("float32") for doc in docs]
    for component in (ner, plain):
        module_of(component).zero_grad(set_to_none=True)
        _, backprop = component.model.begin_update(docs)
        backprop([component.model.ops.asarray2f(rows) for rows in dY])
    scale = LORA["alpha"] / LORA["r"]
    for i in range(2):
        layer = module_of(ner).get_submodule(QUERY.format(i))
        dW = module_of(plain).get_submodule(QUERY.format(i)).weight.grad
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        for found, expected in ((A.grad, scale * B.T @ dW), (B.grad, scale * dW @ A.T)):
            torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), atol=1e-5, rtol=0)


def test_a_loaded_pipeline_predicts_the_same(trained, tmp_path):
    nlp = spacy.load(trained)
    first = scores_of(nlp.get_pipe("bert_ner"), docs_of(nlp))
    files = {path.name for path in (trained / "bert_ner" / "model").iterdir()}
    assert {"model.safetensors", "adapters.safetensors", "head.safetensors"} <= files
    nlp.to_disk(tmp_path)
    from_bytes = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    pickled = spacy.load(trained).get_pipe("bert_ner")
    pickled.model = pickle.loads(pickle.dumps(pickled.model))
    copied = spacy.load(trained).get_pipe("bert_ner")
    copied.model = copied.model.copy()
    others = [spacy.load(tmp_path).get_pipe("bert_ner"), from_bytes.get_pipe("bert_ner"), pickled, copied]
    for other in others:
        for found, expected in zip(scores_of(other, docs_of(nlp)), first, strict=True):
            np.testing.assert_array_equal(found, expected)
    # The encoder in the pipeline is the one that it started from
    reference = AutoModel.from_pretrained(tmp_path / "bert_ner" / "model").state_dict()
    for name, value in module_of(nlp.get_pipe("bert_ner")).encoder.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(value.cpu(), reference[name.replace(".base_layer", "")])


def test_a_trained_pipeline_keeps_what_it_saved(tagger, nlp, tmp_path):
    ner = tagger("bert", lora=LORA)
    train(nlp)
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path).get_pipe("bert_ner")
    for found, expected in zip(scores_of(loaded, docs_of(nlp)), scores_of(ner, docs_of(nlp)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_exported_the_adapters_are_merged(tagger, nlp, checkpoint, tmp_path):
    ner = tagger("bert", lora=LORA, orthography=False)
    train(nlp, steps=20, learn_rate=0.02)
    weights = {name: value.clone() for name, value in module_of(ner).state_dict().items()}
    expected = scores_of(ner, docs_of(nlp))
    huggingface.export(nlp, tmp_path / "exported")
    assert not list((tmp_path / "exported").glob("adapter*"))
    other = spacy.blank("en")
    exported = other.add_pipe("bert_ner", config={"model": {"name": str(tmp_path / "exported")}})
    other.initialize()
    for found, rows in zip(scores_of(exported, docs_of(nlp)), expected, strict=True):
        np.testing.assert_allclose(found, rows, atol=1e-5)
    for name, value in module_of(ner).state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.cpu_only
def test_converted_to_onnx_the_adapters_are_merged(trained, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from spacy_bertner.export.onnx import to_onnx

    nlp = spacy.load(trained)
    expected = scores_of(nlp.get_pipe("bert_ner"), docs_of(nlp))
    to_onnx(nlp)
    nlp.to_disk(tmp_path)
    for found, rows in zip(scores_of(spacy.load(tmp_path).get_pipe("bert_ner"), docs_of(nlp)), expected, strict=True):
        np.testing.assert_allclose(found, rows, atol=1e-5)
    assert spacy.load(tmp_path).get_pipe_config("bert_ner")["model"]["lora"] is None


# Sharing


def addresses(nlp):
    """Where the encoder's own weights are, by the names without adapters."""
    named = module_of(nlp.get_pipe("bert_ner")).encoder.named_parameters()
    return {name.replace(".base_layer", ""): p.data_ptr() for name, p in named if ".lora_" not in name}


def test_pipelines_with_the_same_encoder_share_it(trained, checkpoint, tmp_path):
    model = {"lora": {"r": 2, "target_modules": ["key", "query"]}}
    make_trained(checkpoint, tmp_path / "b", **model)
    first, second = spacy.load(trained), spacy.load(tmp_path / "b")
    assert addresses(first) == addresses(second)
    expected = scores_of(first.get_pipe("bert_ner"), docs_of(first))
    train(second)
    second.get_pipe("bert_ner").model.to_cpu()
    for found, rows in zip(scores_of(first.get_pipe("bert_ner"), docs_of(first)), expected, strict=True):
        np.testing.assert_array_equal(found, rows)
    if torch.cuda.is_available():  # the one that moved has its own
        assert not set(addresses(first).values()) & set(addresses(second).values())
        return
    del first
    gc.collect()
    third = spacy.load(trained)
    assert addresses(third) == addresses(second)


def test_other_encoders_and_pipelines_without_adapters_are_not_shared(trained, checkpoint, tmp_path):
    nlp = spacy.blank("en")
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    nlp.initialize(lambda: make_examples(nlp))
    nlp.to_disk(tmp_path / "full")
    full = spacy.load(tmp_path / "full")
    loaded = spacy.load(trained)
    assert not set(addresses(loaded).values()) & set(addresses(full).values())
    with torch.no_grad():
        module_of(ner).encoder.get_input_embeddings().weight.add_(1.0)
    nlp.to_disk(tmp_path / "changed")
    changed = load_with(LORA, tmp_path / "changed")
    assert not set(addresses(loaded).values()) & set(addresses(changed).values())


# Together with other settings


def test_a_fully_trained_pipeline_can_be_trained_further_with_adapters(tagger, nlp, tmp_path):
    ner = tagger("bert")
    train(nlp)
    nlp.to_disk(tmp_path / "full")
    further = load_with(LORA, tmp_path / "full")
    for found, rows in zip(
        scores_of(further.get_pipe("bert_ner"), docs_of(nlp)), scores_of(ner, docs_of(nlp)), strict=True
    ):
        np.testing.assert_array_equal(found, rows)
    before = addresses(further), module_of(further.get_pipe("bert_ner")).head.weight.detach().clone()
    train(further)
    assert addresses(further) == before[0]
    assert not torch.equal(module_of(further.get_pipe("bert_ner")).head.weight, before[1])


def test_gradient_checkpointing_changes_no_gradient(trained):
    gradients, n_computed = [], []
    for is_checkpointed in (False, True):
        changes = {"gradient_checkpointing": is_checkpointed, "max_batch_pieces": 4096}
        nlp = spacy.load(trained, config={"components": {"bert_ner": {"model": changes}}})
        ner = nlp.get_pipe("bert_ner")
        calls = []
        module_of(ner).get_submodule(QUERY.format(0)).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(0)
        nlp.update(make_examples(nlp), drop=0.2)
        gradients.append({n: p.grad.clone() for n, p in module_of(ner).named_parameters() if p.requires_grad})
        n_computed.append(len(calls))
    assert n_computed[1] == 2 * n_computed[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
    assert any(name.endswith("lora_A.default.weight") for name in gradients[0])


def test_layer_decay_and_head_learn_rate_scale_the_steps(tagger, nlp):
    """Adam's first step is the learning rate for every value."""
    ner = tagger("bert", lora=LORA, layer_decay=0.5, head_learn_rate=3.0)
    module = module_of(ner)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = Adam(1e-3, L2=0.0, grad_clip=0.0, eps=1e-12)
    nlp.update(make_examples(nlp), sgd=optimizer, drop=0.0)
    steps = {name: (value - before[name]).abs().max().item() for name, value in module.named_parameters()}
    for i, expected in ((0, 0.5e-3), (1, 1e-3)):
        assert steps[QUERY.format(i) + ".lora_B.default.weight"] == pytest.approx(expected, rel=1e-3)
    assert steps["head.weight"] == pytest.approx(3e-3, rel=1e-3)


def test_averages_hold_what_is_trained(tagger, nlp):
    ner = tagger("bert", lora=LORA)
    module = module_of(ner)
    optimizer = train(nlp, steps=1, drop=0.0, use_averages=True)
    names = {name for key, name in optimizer.averages}
    assert names == {name for name, value in module.named_parameters() if value.requires_grad}
    train_more = [module.get_parameter(name).detach().clone() for name in sorted(names)]
    with nlp.use_params(optimizer.averages):
        # Thinc's average after one step: 1 - min((1 + 1) / (10 + 1), 0.9999) of the parameters
        for name, value in zip(sorted(names), train_more, strict=True):
            torch.testing.assert_close(module.get_parameter(name), value * (1 - 2 / 11))
    for name, value in zip(sorted(names), train_more, strict=True):
        assert torch.equal(module.get_parameter(name), value)


def test_rehearsal_keeps_old_labels(trained):
    """The teacher is the model with its adapters as they were."""
    nlp = spacy.load(trained)
    ner = nlp.get_pipe("bert_ner")
    optimizer = nlp.resume_training()
    before = scores_of(ner, docs_of(nlp))
    losses = {}
    nlp.rehearse(make_examples(nlp), sgd=optimizer, losses=losses)
    assert losses["bert_ner"] == pytest.approx(0.0, abs=1e-6)
    ner.set_rehearse(1.0)
    train(nlp, learn_rate=0.05)
    teacher = ner._rehearsal.teacher.model.predict(docs_of(nlp))
    for found, rows in zip(teacher, before, strict=True):
        np.testing.assert_array_equal(to_numpy(found), rows)


def test_labels_can_be_added(trained, tmp_path):
    nlp = spacy.load(trained)
    nlp.get_pipe("bert_ner").add_label("NEW")
    train(nlp)
    nlp.to_disk(tmp_path)
    assert "NEW" in spacy.load(tmp_path).get_pipe("bert_ner").labels


def test_dropout_of_adapters_is_replayed(tagger, nlp):
    """In training only, and the same in a backward pass that computes the batch again."""
    ner = tagger("bert", lora={**LORA, "dropout": 0.5}, window=32, stride=16, max_batch_pieces=4000)
    train(nlp)
    shim, (doc,) = ner.model.shims[0], docs_of(nlp)[2:3]
    (batch,) = shim.pieces.encode([doc], 4000, overhead=4000)
    d_scores = np.random.default_rng(0).normal(size=(len(doc), len(ner.tag_set))).astype("float32")
    results = []
    for is_kept in (True, False):
        torch.manual_seed(5)
        scores, backprop = shim.begin_update([batch], len(doc), 0.3, is_kept=is_kept)
        torch.rand(7)
        shim.module.zero_grad(set_to_none=True)
        backprop(ner.model.ops.asarray2f(d_scores))
        gradient = shim.module.get_submodule(QUERY.format(0)).lora_A["default"].weight.grad
        results.append((to_numpy(scores), to_numpy(gradient).copy()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(results[0][0], scores_of(ner, [doc])[0])


def test_a_high_learning_rate_is_usual_for_adapters(tagger, nlp, monkeypatch, recwarn):
    from spacy_bertner.model import optimizer

    monkeypatch.setattr(optimizer, "SMALL_ENCODER", 1)
    tagger("bert", lora=LORA)
    train(nlp, steps=1, learn_rate=1e-3)
    assert not [warning for warning in recwarn if "learn_rate" in str(warning.message)]


# Bad input


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"r": 0}, "lora: r: 0 is not a rank"),
        ({"r": 2.5}, "lora: r: 2.5 is not a rank"),
        ({"r": True}, "lora: r: True is not a rank"),
        ({"alpha": 0}, "lora: alpha: 0 is not a number above 0"),
        ({"alpha": float("nan")}, "lora: alpha: nan is not"),
        ({"alpha": float("inf")}, "lora: alpha: inf is not"),
        ({"alpha": "16"}, "lora: alpha: '16' is not"),
        ({"dropout": 1.0}, "lora: dropout: 1.0 is not a rate, at least 0 and below 1"),
        ({"dropout": -0.1}, "lora: dropout: -0.1 is not"),
        ({"target_modules": []}, r"lora: target_modules: \[\] is neither"),
        ({"target_modules": [1]}, r"lora: target_modules: \[1\] is neither"),
        ({"target_modules": ""}, "lora: target_modules: '' is neither"),
        ({"rank": 8}, r"lora: \['rank'\] are unknown; allowed are \['alpha', 'dropout', 'r', 'target_modules'\]"),
    ],
)
def test_settings_that_cannot_work(lora, message):
    with pytest.raises(ValueError, match=message):
        BertTokenClassifier("bert", lora=lora)


def test_freezing_layers_as_well():
    with pytest.raises(ValueError, match="freeze_layers: 2 does not go with lora"):
        BertTokenClassifier("bert", lora={}, freeze_layers=2)


def test_frozen_embeddings_as_well(tagger):
    ner = tagger("bert", lora=LORA, freeze_embeddings=True)
    trained = {name for name, p in module_of(ner).named_parameters() if p.requires_grad}
    assert all(".lora_" in name or not name.startswith("encoder.") for name in trained)


@pytest.mark.parametrize("targets", [["query", "q_lin"], "q_lin", "embeddings.LayerNorm", ["LayerNorm"], ["y"], "["])
def test_target_modules_that_the_encoder_lacks(targets, tagger):
    with pytest.raises(ValueError, match=r"lora: target_modules: .*\['dense', 'key', 'query', 'value'\]"):
        tagger("bert", lora={"target_modules": targets})


def test_an_encoder_that_peft_has_no_default_for(tagger, nlp):
    message = r"lora: target_modules: null .*\['k_lin', 'lin1', 'lin2', 'out_lin', 'q_lin', 'v_lin'\]"
    with pytest.raises(ValueError, match=message):
        tagger("distilbert", lora=LORA)
    nlp.remove_pipe("bert_ner")
    tagger("distilbert", lora={"target_modules": ["q_lin", "v_lin"]})
    train(nlp)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'lora: needs the package peft: pip install "spacy-bertner\[lora\]"'):
        BertTokenClassifier("bert", lora={})
    BertTokenClassifier("bert")


@pytest.mark.parametrize(
    "lora", [None, {**LORA, "r": 8}, {**LORA, "alpha": 16}, {**LORA, "target_modules": ["key", "value"]}]
)
def test_other_adapters_than_those_of_the_config(lora, trained):
    with pytest.raises(
        ValueError, match=r'lora: is .* in the config, but the adapters in .* with \{"r": 4, "alpha": 12'
    ):
        load_with(lora, trained)


def test_another_dropout_than_in_training(trained):
    nlp = spacy.load(trained, config={"components": {"bert_ner": {"model": {"lora": {"dropout": 0.0}}}}})
    expected = spacy.load(trained)
    scores = [scores_of(each.get_pipe("bert_ner"), docs_of(nlp)) for each in (nlp, expected)]
    for found, rows in zip(*scores, strict=True):
        np.testing.assert_array_equal(found, rows)


def test_a_damaged_file_of_adapters(trained, tmp_path):
    nlp = spacy.load(trained)
    model = nlp.get_pipe("bert_ner").model
    model.to_disk(tmp_path)
    (tmp_path / "adapters.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"adapters\.safetensors: cannot be read"):
        copy.copy(model).from_disk(tmp_path)


def test_saved_over_one_with_adapters(trained, tagger, nlp, tmp_path):
    spacy.load(trained).to_disk(tmp_path)
    ner = tagger("bert")
    nlp.to_disk(tmp_path)
    found = scores_of(spacy.load(tmp_path).get_pipe("bert_ner"), docs_of(nlp))
    for rows, expected in zip(found, scores_of(ner, docs_of(nlp)), strict=True):
        np.testing.assert_array_equal(rows, expected)
