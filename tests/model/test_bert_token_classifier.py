"""Scores against transformers' own models; batches, gradients and saving against the same thing done the plain way."""

import copy
import json
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import spacy
import srsly
import torch
from spacy.tokens import Doc
from thinc.api import Adam, fix_random_seed, set_dropout_rate
from transformers import AutoModelForTokenClassification

from spacy_bertner.model import devices, torch_module
from spacy_bertner.model.bert_token_classifier import BertTokenClassifier
from spacy_bertner.model.passes import Passes

from ..conftest import ARCHITECTURES, SENTENCES, make_examples, reference_tokenizer, scores_of, to_numpy

TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
LONG_WORDS = [w for text, _ in SENTENCES for w in text.split()]


def make_docs(nlp, *lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [Doc(nlp.vocab, words=rng.choice([*LONG_WORDS, "\u200b"], size=n).tolist()) for n in lengths]


@pytest.mark.parametrize(
    ("kind", "part"), [("bert", "intermediate"), ("roberta", "intermediate"), ("distilbert", "ffn")]
)
def test_the_last_layer_computes_the_rows_of_words_alone(kind, part, tagger, nlp):
    ner = tagger(kind)
    shim = ner.model.shims[0]
    computed = {"first": 0, "last": 0}

    def count(name):
        def hook(_module, args):
            computed[name] += args[0].shape[:-1].numel()

        return hook

    layers = torch_module._layers(shim.module.encoder)[1]
    getattr(layers[0], part).register_forward_pre_hook(count("first"))
    getattr(layers[-1], part).register_forward_pre_hook(count("last"))
    docs = make_docs(nlp, 12, 40)
    has_row = [~np.isneginf(rows[:, 0]) for rows in scores_of(ner, docs)]
    assert computed["last"] == sum(map(np.sum, has_row)) < computed["first"]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rows_equal_transformers(kind, checkpoint, nlp):
    folder = checkpoint(kind, TAGS)
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(folder)}})
    nlp.initialize()
    tokenizer = reference_tokenizer(kind, folder)
    reference = AutoModelForTokenClassification.from_pretrained(folder).eval()
    docs = make_docs(nlp, 3, 12, 40, 1)
    for doc, scores in zip(docs, scores_of(ner, docs), strict=True):
        encoding = tokenizer([t.text for t in doc], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            logits = reference(encoding["input_ids"], encoding["attention_mask"]).logits[0].numpy()
        first = {}
        for place, word in enumerate(encoding.word_ids()):
            if word is not None:
                first.setdefault(word, place)
        for i in range(len(doc)):
            if i in first and doc[i].text != "\u200b":
                np.testing.assert_allclose(scores[i], logits[first[i]], atol=1e-5)
            else:
                assert np.isneginf(scores[i]).all()
    assert ner.labels == ("LOC", "PER")


@pytest.mark.parametrize("kind", ["bert-uncased", "roberta", "deberta-v2"])
def test_scores_do_not_depend_on_the_batch(kind, tagger, nlp):
    ner = tagger(kind, window=64, stride=48, max_batch_pieces=300)
    docs = make_docs(nlp, 5, 0, 200, 1, 64, 7, 30)
    docs.insert(3, Doc(nlp.vocab, words=[" ", "\n"]))
    alone = [scores_of(ner, [doc])[0] for doc in docs]
    for order in (list(range(len(docs))), list(reversed(range(len(docs))))):
        together = scores_of(ner, [docs[i] for i in order])
        for i, scores in zip(order, together, strict=True):
            assert scores.shape == (len(docs[i]), len(ner.tag_set))
            np.testing.assert_allclose(scores, alone[i], atol=1e-4)


def gradients(ner, docs, dY, *, together):
    """Sum the gradients over Docs, all in one update or each in its own."""
    module = ner.model.shims[0].module
    module.zero_grad(set_to_none=True)
    for group in [range(len(docs))] if together else [[i] for i in range(len(docs))]:
        _, backprop = ner.model.begin_update([docs[i] for i in group])
        backprop([ner.model.ops.asarray2f(dY[i]) for i in group])
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("budget", [32, 128, 4000])
def test_gradients_are_those_of_autograd(budget, tagger, nlp):
    ner = tagger("bert-uncased", window=32, stride=31, max_batch_pieces=budget)
    docs = make_docs(nlp, 5, 11, 9, 1, seed=1)
    rng = np.random.default_rng(2)
    dY = [rng.normal(size=(len(doc), len(ner.tag_set))).astype("float32") for doc in docs]
    found = gradients(ner, docs, dY, together=True)
    apart = gradients(ner, docs, dY, together=False)
    # Plainly: transformers' modules, one Doc at a time, no padding
    module = copy.deepcopy(ner.model.shims[0].module).cpu()
    module.zero_grad(set_to_none=True)
    module.encoder.get_input_embeddings().sparse = False
    tokenizer = ner.model.shims[0].tokenizer
    for doc, d_rows in zip(docs, dY, strict=True):
        encoding = tokenizer([t.text for t in doc], is_split_into_words=True, return_tensors="pt")
        words = encoding.word_ids()
        hidden = module.encoder(encoding["input_ids"]).last_hidden_state[0]
        first = {word: place for place, word in reversed(list(enumerate(words))) if word is not None}
        for word, place in first.items():
            module.head(hidden[place]).backward(torch.from_numpy(d_rows[word]), retain_graph=True)
    for name, parameter in module.named_parameters():
        if name.startswith("orthography"):
            continue
        expected = parameter.grad
        scale = expected.abs().max().clamp(min=1.0)
        torch.testing.assert_close(found[name].cpu() / scale, expected / scale, atol=1e-5, rtol=0)
        torch.testing.assert_close(apart[name].cpu() / scale, expected / scale, atol=1e-5, rtol=0)


def test_a_recomputed_backward_pass_has_the_same_dropout(tagger, nlp):
    ner = tagger("bert", window=32, stride=16, max_batch_pieces=4000)
    shim, (doc,) = ner.model.shims[0], make_docs(nlp, 60)
    (batch,) = shim.pieces.encode([doc], 4000, overhead=4000)
    d_scores = np.random.default_rng(0).normal(size=(len(doc), len(ner.tag_set))).astype("float32")
    results = []
    for is_kept in (True, False):
        torch.manual_seed(5)
        scores, backprop = shim.begin_update([batch], len(doc), 0.3, is_kept=is_kept)
        torch.rand(7)  # other things draw random numbers in between
        shim.module.zero_grad(set_to_none=True)
        backprop(ner.model.ops.asarray2f(d_scores))
        results.append((to_numpy(scores), [p.grad.clone() for p in shim.module.parameters() if p.grad is not None]))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1])
    assert not shim.module.training


def test_a_loop_of_thincs_own_takes_its_steps(checkpoint, nlp):
    """Nobody tells the model how many tokens are labelled: the gradient is taken as it is, as torch's AdamW does."""
    docs, components, folder = make_docs(nlp, 9, 5), [], checkpoint("bert")
    for _ in range(2):
        fix_random_seed(0)
        components.append(tagger_of(nlp, folder))
    ner, twin = components
    rng = np.random.default_rng(0)
    dY = [rng.normal(size=(len(doc), len(ner.tag_set))).astype("float32") for doc in docs]
    set_dropout_rate(ner.model, 0.0)
    _, backprop = ner.model.begin_update(docs)
    backprop([ner.model.ops.asarray2f(rows) for rows in dY])
    ner.model.finish_update(Adam(1e-3, L2=0.0, grad_clip=0.0, use_averages=False))
    module = twin.model.shims[0].module
    _, backprop = twin.model.begin_update(docs)
    backprop([ner.model.ops.asarray2f(rows) for rows in dY])
    torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0).step()
    expected = dict(module.named_parameters())
    for name, parameter in ner.model.shims[0].module.named_parameters():
        if not name.endswith("key.bias"):  # its gradient is zero but for rounding, of which Adam makes a step
            torch.testing.assert_close(parameter, expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"freeze_layers": 1, "layer_decay": 0.9}])
def test_transformers_does_not_warn_of_its_old_names(settings, tagger, nlp):
    """For instance of `gradient_checkpointing_enable`, deprecated in transformers 5.24."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        component = tagger("bert", **settings)
        component.update(make_examples(nlp), sgd=Adam(1e-4), drop=0.1)
        component.predict([nlp.make_doc("Maria Kolb")])


@pytest.mark.parametrize("budget", [64, 4000])  # computed again in the backward pass, and at once
@pytest.mark.parametrize("mixed_precision", [False, "bf16"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_gradient_checkpointing_changes_nothing(kind, mixed_precision, budget, checkpoint, monkeypatch):
    monkeypatch.setattr(devices, "supports", lambda device, dtype: True)
    losses, weights, folder = [], [], checkpoint(kind)
    for is_on in (False, True):
        fix_random_seed(0)
        settings = {"mixed_precision": mixed_precision, "max_batch_pieces": budget, "window": 32, "stride": 24}
        ner = tagger_of(None, folder, gradient_checkpointing=is_on, **settings)
        # Transformers' own names for it change with its versions
        modules = ner.model.shims[0].module.encoder.modules()
        assert any(getattr(module, "gradient_checkpointing", False) for module in modules) == is_on
        optimizer = Adam(1e-3, use_averages=False)
        nlp = spacy.blank("en")
        text = " ".join(words for words, _ in SENTENCES[:6]), " ".join(tags for _, tags in SENTENCES[:6])
        examples = make_examples(nlp, [*SENTENCES[:4], text])
        losses.append([ner.update(examples, sgd=optimizer, drop=0.2)["bert_ner"] for _ in range(3)])
        weights.append(ner.model.shims[0].module.head.weight.detach().clone())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_prepared_attention_mask_gives_the_same_scores(kind, tagger, nlp, monkeypatch):
    """On a GPU the mask is given in a form at which transformers need not look."""
    ner = tagger(kind)
    shim, docs = ner.model.shims[0], make_docs(nlp, 12, 5, 9, 9)
    plain = scores_of(ner, docs)
    seen = []
    real = Passes._attention_mask

    def prepared(self, batch):
        on_gpu = SimpleNamespace(module=self.module, device=torch.device("cuda"), _to_tensor=self._to_tensor)
        mask = real(on_gpu, batch)
        seen.append((bool(batch.attention_mask.all()), None if mask is None else mask.ndim))
        return mask

    monkeypatch.setattr(Passes, "_attention_mask", prepared)
    for together, alone in ((scores_of(ner, docs), plain), (scores_of(ner, docs[:1]), plain[:1])):
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-5)
    rank = torch_module.mask_rank(shim.module.encoder)
    assert (rank > 2) == (kind not in ("deberta-v2", *(["distilbert"] if rank != 4 else [])))
    assert {is_full for is_full, _ in seen} == {True, False}
    assert all(ndim == (None if is_full and rank == 4 else rank) for is_full, ndim in seen)


def test_dropout_is_off_at_rate_zero_and_on_above(tagger, nlp):
    ner = tagger("bert")
    docs = make_docs(nlp, 10)
    plain = scores_of(ner, docs)[0]
    set_dropout_rate(ner.model, 0.0)
    np.testing.assert_allclose(to_numpy(ner.model.begin_update(docs)[0][0]), plain, atol=1e-6)
    set_dropout_rate(ner.model, 0.5)
    assert not np.allclose(to_numpy(ner.model.begin_update(docs)[0][0]), plain, atol=1e-3)


def test_orthography_starts_at_zero_and_is_learnt(tagger, nlp, checkpoint):
    ner = tagger("bert-uncased")
    docs = [Doc(nlp.vocab, words=["turku", "Turku", "TURKU"])]
    module = ner.model.shims[0].module
    assert module.orthography is not None
    with_it = scores_of(ner, docs)[0]
    ner.model.shims[0].module.orthography, kept = None, module.orthography
    np.testing.assert_allclose(scores_of(ner, docs)[0], with_it, atol=1e-6)
    module.orthography = kept
    assert not np.allclose(with_it[0], with_it[1])  # their places differ
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.01
    for _ in range(3):
        nlp.update(make_examples(nlp), sgd=optimizer)
    assert module.orthography.weight.abs().sum() > 0
    assert module.orthography.weight[0].abs().sum() == 0  # padding
    assert tagger_of(nlp, checkpoint("bert")).model.shims[0].module.orthography is None


def tagger_of(nlp, folder, **model):
    nlp = spacy.blank("en")
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(folder), **model}})
    nlp.initialize(lambda: make_examples(nlp))
    return ner


@pytest.mark.parametrize("kind", ["bert-uncased", "roberta", "xlm-roberta"])
def test_saved_and_loaded_without_the_checkpoint(kind, tmp_path, checkpoint):
    folder = shutil.copytree(checkpoint(kind), tmp_path / "encoder")
    nlp = spacy.blank("en")
    ner = nlp.add_pipe("bert_ner", config={"model": {"name": str(folder)}})
    nlp.initialize(lambda: make_examples(nlp))
    docs = make_docs(nlp, 30, 5)
    expected = scores_of(ner, docs)
    nlp.to_disk(tmp_path / "saved")
    in_bytes = nlp.to_bytes()
    shutil.rmtree(folder)
    from_bytes = spacy.util.load_model_from_config(nlp.config).from_bytes(in_bytes)
    for loaded in (spacy.load(tmp_path / "saved"), from_bytes):
        for a, b in zip(scores_of(loaded.get_pipe("bert_ner"), docs), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        assert [(e.start, e.end, e.label_) for e in loaded("Kolb left Porto .").ents] == [
            (e.start, e.end, e.label_) for e in nlp("Kolb left Porto .").ents
        ]
    files = {p.name for p in (tmp_path / "saved" / "bert_ner").rglob("*") if p.is_file()}
    assert {"model.safetensors", "head.safetensors", "config.json", "tokenizer.json"} <= files
    saved_by_torch = b"PK\x03\x04"  # torch.save writes zip files, pickle starts with its protocol
    for path in (tmp_path / "saved" / "bert_ner").rglob("*"):
        if path.is_file():
            assert path.suffix not in {".bin", ".pt", ".pkl"}
            assert not path.read_bytes().startswith((saved_by_torch, b"\x80\x02", b"\x80\x04"))


def test_settings_given_to_load_win_over_the_saved_ones(tmp_path, tagger, nlp):
    tagger("bert")
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path, config={"components": {"bert_ner": {"model": {"window": 40, "stride": 20}}}})
    ner = loaded.get_pipe("bert_ner")
    scores_of(ner, make_docs(loaded, 100))
    assert ner.model.shims[0].pieces.window == 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 2, "stride": 1}, "window: 2 is too small"),
        ({"window": 64, "stride": 64}, r"stride: 64 is not between 1 and window - 1 \(63\)"),
        ({"window": 64, "stride": 0}, "stride: 0 is not"),
        ({"max_batch_pieces": 100}, r"max_batch_pieces: 100 is less than one window; allowed are 256"),
        ({"layer_decay": 0.0}, "layer_decay: 0.0 is not a factor above 0 and at most 1"),
        ({"layer_decay": 1.1}, "layer_decay: 1.1 is not a factor above 0 and at most 1"),
        ({"freeze_layers": -1}, "freeze_layers: -1 is not a number of layers, 0 or more"),
        (
            {"mixed_precision": "int4"},
            'mixed_precision: \'int4\' is unknown; allowed are false, "bf16", "fp16" and "auto"',
        ),
        ({"head_learn_rate": 0.0}, "head_learn_rate: 0.0"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        BertTokenClassifier("anything", **settings)


@pytest.mark.parametrize(
    ("kind", "limit"), [("bert", 512), ("roberta", 512), ("xlm-roberta", 512), ("distilbert", 512), ("electra", 512)]
)
def test_a_window_over_the_positions(kind, limit, checkpoint, nlp):
    config = {"model": {"name": str(checkpoint(kind)), "window": limit + 1, "stride": 200}}
    nlp.add_pipe("bert_ner", config=config)
    with pytest.raises(ValueError, match=f"window: {limit + 1} is more than the {limit} positions"):
        nlp.initialize(lambda: make_examples(nlp))


@pytest.mark.parametrize("mixed_precision", ["bf16", "auto"])
def test_bf16_on_the_cpu_is_close_to_float32(mixed_precision, tagger, nlp, checkpoint, monkeypatch):
    # Torch computes in it on every CPU, if slowly
    monkeypatch.setattr(devices, "supports", lambda device, dtype: True)
    ner = tagger("bert")
    docs = make_docs(nlp, 20)
    low = tagger_of(nlp, checkpoint("bert"), mixed_precision=mixed_precision)
    low.model.shims[0].module.load_state_dict(ner.model.shims[0].module.state_dict())
    difference = np.abs(scores_of(low, docs)[0] - scores_of(ner, docs)[0])
    finite = np.isfinite(difference)
    assert 0 < difference[finite].max() < 0.2


def test_the_precision_that_a_device_has(monkeypatch):
    """The first of bf16 and fp16 for "auto", without a warning where there is neither; else what is set, or float32."""
    device = torch.device("cpu")
    for has in ([torch.bfloat16, torch.float16], [torch.float16], []):
        monkeypatch.setattr(devices, "supports", lambda device, dtype, has=has: dtype in has)
        assert devices.autocast_type(device, "auto") is (has[0] if has else None)
        assert devices.autocast_type(device, "fp16") is (torch.float16 if torch.float16 in has else None)
        assert devices.autocast_type(device, False) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixed_precision", [False, "bf16", "fp16"])
def test_training_on_the_gpu(mixed_precision, checkpoint):
    spacy.require_gpu()
    try:
        nlp = spacy.blank("en")
        ner = tagger_of(nlp, checkpoint("bert"), mixed_precision=mixed_precision)
        examples = make_examples(nlp)
        nlp.add_pipe(
            "bert_ner", config={"model": {"name": str(checkpoint("bert")), "mixed_precision": mixed_precision}}
        )
        optimizer = nlp.initialize(lambda: examples)
        optimizer.learn_rate = 5e-3
        for _ in range(30):
            nlp.update(examples, sgd=optimizer)
        assert nlp.evaluate(examples)["ents_f"] > 0.95
        assert ner.model.shims[0].device.type == "cuda"
    finally:
        spacy.require_cpu()


def test_a_pipeline_with_unpickled_weights_is_refused(tagger, nlp, tmp_path):
    ner = tagger("bert")
    ner.to_disk(tmp_path)
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(ner.model.shims[0].module.encoder.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    other = spacy.blank("en").add_pipe("bert_ner")
    with pytest.raises(ValueError, match=r"model\.safetensors: is missing"):
        other.from_disk(tmp_path)
    cfg = srsly.read_json(tmp_path / "cfg")
    del cfg["sha256"]
    srsly.write_json(tmp_path / "cfg", cfg)
    with pytest.raises(ValueError, match="no usable checkpoint"):
        other.from_disk(tmp_path)


def test_code_of_a_checkpoint_is_not_run(tmp_path, checkpoint, monkeypatch):
    folder = shutil.copytree(checkpoint("bert"), tmp_path / "hostile")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "hostile", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\nclass M: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what transformers would ask
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(folder)}})
    with pytest.raises(ValueError, match="name: no usable"):
        nlp.initialize(lambda: make_examples(nlp))
    assert not (tmp_path / "ran").exists()


def test_saved_before_it_is_initialized(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner")
    nlp.to_disk(tmp_path)
    assert spacy.load(tmp_path).pipe_names == ["bert_ner"]
    spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())


def test_a_window_over_the_positions_is_found_when_loading(tmp_path, tagger, nlp):
    tagger("bert")
    nlp.to_disk(tmp_path)
    with pytest.raises(ValueError, match="window: 600 is more than the 512 positions"):
        spacy.load(tmp_path, config={"components": {"bert_ner": {"model": {"window": 600}}}})
