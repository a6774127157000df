"""Prediction through ONNX Runtime, against torch."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import spacy
import torch
from spacy.tokens import Doc
from typer.testing import CliRunner

from spacy_bertner.cli import bertner
from spacy_bertner.files import CheckpointError

from ..conftest import ARCHITECTURES, LABELS, SENTENCES, make_examples, scores_of

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from spacy_bertner.export.onnx import export, round_to_int8, smooth, to_onnx  # noqa: E402
from spacy_bertner.model.bert_token_classifier import encode  # noqa: E402
from spacy_bertner.model.onnx_shim import new_session  # noqa: E402

TEXTS = [words for words, _ in SENTENCES]


def make_docs(nlp) -> list[Doc]:
    """Docs shorter and longer than a window of 40 pieces, and hard ones."""
    words = " ".join(TEXTS).split()
    docs = [Doc(nlp.vocab, words=text.split()) for text in TEXTS]
    return [*docs, Doc(nlp.vocab, words=words), Doc(nlp.vocab), Doc(nlp.vocab, words=["\n", "Oslo", "\u200b"])]


def entities(doc) -> list[tuple[int, int, str]]:
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


@pytest.fixture(scope="module")
def trained(checkpoint, tmp_path_factory):
    """Folder of a pipeline that has learnt the sentences by heart."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert-uncased")), "window": 40, "stride": 20}})
    examples = make_examples(nlp)
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.003
    for _ in range(60):
        nlp.update(examples, sgd=optimizer, drop=0.0)
    assert nlp.evaluate(examples)["ents_f"] == 1.0
    folder = tmp_path_factory.mktemp("trained")
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def converted(trained, tmp_path_factory):
    """Folder of the same pipeline, converted by the command."""
    folder = tmp_path_factory.mktemp("converted") / "onnx"
    result = CliRunner().invoke(bertner, ["onnx", str(trained), str(folder)])
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_scores_equal_those_of_torch(nlp, tagger, kind):
    ner = tagger(kind, window=40, stride=20)
    expected = scores_of(ner, make_docs(nlp))
    to_onnx(nlp)
    for scores, of_torch in zip(scores_of(ner, make_docs(nlp)), expected, strict=True):
        np.testing.assert_allclose(scores, of_torch, atol=1e-4)


def test_a_converted_pipeline_finds_the_same_entities(trained, converted):
    nlp, of_torch = spacy.load(converted), spacy.load(trained)
    expected = [entities(doc) for doc in of_torch.pipe(TEXTS)]
    assert sum(map(len, expected)) > 20
    assert [entities(doc) for doc in nlp.pipe(TEXTS)] == expected
    assert nlp.config["components"]["bert_ner"]["model"]["runtime"] == "onnx"
    files = {path.name for path in (converted / "bert_ner/model").iterdir()}
    assert files == {"model.onnx", "onnx.json", "tokenizer.json"}


def test_it_is_copied_saved_and_loaded(converted, tmp_path):
    folder = tmp_path / "pipeline"
    shutil.copytree(converted, folder)
    nlp = spacy.load(folder)
    expected = [entities(doc) for doc in nlp.pipe(TEXTS)]
    nlp.to_disk(folder)  # over the file that it runs from
    assert [entities(doc) for doc in spacy.load(folder).pipe(TEXTS)] == expected
    shutil.rmtree(folder)
    other = spacy.blank("en")
    other.add_pipe("bert_ner", config={"model": {"name": "gone", "runtime": "onnx", "window": 40, "stride": 20}})
    other.from_bytes(nlp.to_bytes())
    for again in (nlp, copy.deepcopy(nlp), pickle.loads(pickle.dumps(nlp)), other):
        assert [entities(doc) for doc in again.pipe(TEXTS)] == expected


def test_processes_and_threads_share_it(converted):
    nlp = spacy.load(converted)
    expected = [entities(doc) for doc in nlp.pipe(TEXTS)]
    assert [entities(doc) for doc in nlp.pipe(TEXTS, n_process=2, batch_size=5)] == expected
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [entities(doc) for doc in nlp.pipe(TEXTS)], range(8)):
            assert found == expected


def test_it_needs_neither_torch_nor_transformers(trained, converted):
    program = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        # What needs them is as good as not installed: spacy-transformers, spacy-curated-transformers
        "from importlib.metadata import EntryPoint; load = EntryPoint.load\n"
        "EntryPoint.load = lambda point: None if '_transformers' in point.value else load(point)\n"
        "import spacy\n"
        f"nlp = spacy.load({str(converted)!r})\n"
        f"print([[(e.start, e.end, e.label_) for e in doc.ents] for doc in nlp.pipe({TEXTS!r})])"
    )
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, env=os.environ, check=False
    )
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.strip() == str([entities(doc) for doc in spacy.load(trained).pipe(TEXTS)])


def test_int8_rounds_all_but_one_product_of_the_first_layer_and_the_head(trained, tmp_path):
    result = CliRunner().invoke(bertner, ["onnx", str(trained), str(tmp_path / "int8"), "--int8"])
    assert result.exit_code == 0, result.output
    graph = onnx.load(tmp_path / "int8/bert_ner/model/model.onnx").graph
    rounded = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(rounded) == 2 * 6 - 1  # two layers of six products
    nlp = spacy.load(tmp_path / "int8")
    assert nlp.evaluate(make_examples(nlp))["ents_f"] > 0.9


def test_a_large_column_costs_the_others_no_accuracy_in_int8():
    """One product, `x @ weight`, of activations whose last column is a thousand times as large as the others."""
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(50, 8)).astype(np.float32), random.normal(size=(8, 16)).astype(np.float32)
    x[:, -1] *= 1000
    weight[-1] /= 1000
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["scores"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 8])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [None, 16])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    rounded = new_session(round_to_int8(content, [SimpleNamespace(x=x)])).run(None, {"x": x})[0]
    assert "MatMulInteger" in {node.op_type for node in onnx.load_from_string(round_to_int8(content, [])).graph.node}
    # One scale for the whole of x would round its small columns, most of the product, to 0
    np.testing.assert_allclose(rounded, x @ weight, atol=0.05 * np.abs(x @ weight).max())


@pytest.mark.parametrize("kind", ["bert", "albert", "deberta-v2"])  # weights of each layer's own, shared, used twice
def test_smoothing_changes_nothing_in_float32(nlp, tagger, kind):
    ner = tagger(kind, window=40, stride=20)
    content, docs = export(ner.model.shims[0].module), make_docs(nlp)
    model = onnx.load_from_string(content)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    smooth(model, products, weights, encode(ner.model, docs))
    before, after = new_session(content), new_session(model.SerializeToString())
    assert [item.name for item in before.get_inputs()] == [item.name for item in after.get_inputs()]
    for batch in encode(ner.model, docs):
        inputs = {item.name: getattr(batch, item.name) for item in before.get_inputs()}
        np.testing.assert_allclose(after.run(None, inputs)[0], before.run(None, inputs)[0], atol=1e-4)


def test_training_it_names_the_setting(converted):
    nlp = spacy.load(converted)
    with pytest.raises(ValueError, match="runtime"):
        nlp.update(make_examples(nlp), sgd=nlp.create_optimizer())
    with pytest.raises(ValueError, match="runtime"):
        nlp.get_pipe("bert_ner").add_label("NEW")
    assert set(nlp.get_pipe("bert_ner").labels) == set(LABELS)
    with pytest.raises(ValueError, match="runtime"):
        nlp.initialize(lambda: make_examples(nlp))


def test_a_runtime_that_does_not_go_with_the_files_is_named(trained, converted, tmp_path):
    with pytest.raises(CheckpointError, match="runtime"):
        spacy.load(trained, config={"components": {"bert_ner": {"model": {"runtime": "onnx"}}}})
    with pytest.raises(CheckpointError, match="runtime"):
        spacy.load(converted, config={"components": {"bert_ner": {"model": {"runtime": "torch"}}}})
    with pytest.raises(ValueError, match="runtime"):
        spacy.blank("en").add_pipe("bert_ner", config={"model": {"name": "any", "runtime": "tensorrt"}})
    shutil.copytree(converted, tmp_path / "cut")
    model = tmp_path / "cut/bert_ner/model/model.onnx"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        spacy.load(tmp_path / "cut")


def test_what_cannot_be_converted_is_named(converted, tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    with pytest.raises(ValueError, match="no component bert_ner"):
        to_onnx(nlp)
    result = CliRunner().invoke(bertner, ["onnx", str(converted), str(tmp_path / "again")])
    assert result.exit_code == 1
    assert "already" in result.output
    result = CliRunner().invoke(bertner, ["onnx", str(tmp_path / "nothing"), str(tmp_path / "again")])
    assert result.exit_code == 1
    assert not (tmp_path / "again").exists()


def test_an_onnxscript_that_is_too_old_is_named(trained, monkeypatch):
    def export(*_, **__):  # as torch 2.13 does with onnxscript 0.5
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_2_11'")

    monkeypatch.setattr(torch.onnx, "export", export)
    message = r"needs a newer onnxscript than [\d.]+ to convert to ONNX: pip install --upgrade onnxscript \(No module"
    with pytest.raises(ImportError, match=message):
        to_onnx(spacy.load(trained))


def test_more_weights_than_a_file_holds(trained):
    nlp = spacy.load(trained)
    # Weights on the meta device have a shape, and no memory
    nlp.get_pipe("bert_ner").model.shims[0].module.head = torch.nn.Linear(2**15, 2**15, device="meta")
    with pytest.raises(ValueError, match=r"the weights take 4\.0 GiB in float32, an ONNX file holds 2 GiB"):
        to_onnx(nlp)
