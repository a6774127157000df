"""Listeners of spaCy and of spacy-curated-transformers that hear nothing: an error, not zeros for vectors."""

import numpy as np
import pytest
import spacy
from thinc.api import fix_random_seed

from ..conftest import make_examples, train_tokenizer
from .test_token_classifier import HASH_EMBED, LISTENER, add_head


@pytest.mark.parametrize("upstream", ["*", "encoder"])
def test_nothing_upstream(upstream, nlp):
    add_head(nlp, {**LISTENER, "upstream": upstream})
    message = "needs a component 'tok2vec'" if upstream == "*" else "needs the component 'encoder'"
    message = f"bert_ner: its model has a tok2vec-listener, which {message}, and there is none before it"
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        nlp.initialize(lambda: make_examples(nlp))
    nlp.add_pipe("tok2vec", config={"model": HASH_EMBED}, name="encoder")  # but after it
    with pytest.raises(ValueError, match=message):
        nlp.initialize(lambda: make_examples(nlp))


def test_the_component_upstream_is_left_out(nlp, tmp_path):
    nlp.add_pipe("tok2vec", config={"model": HASH_EMBED})
    add_head(nlp, LISTENER)
    nlp.initialize(lambda: make_examples(nlp))
    nlp.to_disk(tmp_path)
    message = "tok2vec-listener, which needs a component 'tok2vec', and no such component has seen these Docs"
    excluded = spacy.load(tmp_path, exclude=["tok2vec"])
    with pytest.raises(ValueError, match=message):
        excluded("Maria Kolb")
    with pytest.raises(ValueError, match=f"{message}.*annotating_components"):
        excluded.update(make_examples(excluded))
    with nlp.select_pipes(disable=["tok2vec"]), pytest.raises(ValueError, match=message):
        nlp("Maria Kolb")
    assert nlp("Maria Kolb").has_annotation("ENT_IOB")


# spacy-curated-transformers, whose listeners are plain Thinc models


@pytest.fixture(params=["LastTransformerLayerListener", "ScalarWeightingListener"])
def curated(request, tmp_path):
    """Give a function that makes a pipeline of these components, initialized if `transformer` is before `bert_ner`."""
    pytest.importorskip("spacy_curated_transformers")
    pieces = train_tokenizer("bert").get_vocab()
    pieces = sorted(pieces, key=pieces.__getitem__)
    (tmp_path / "pieces.txt").write_text("\n".join(pieces), encoding="utf8")
    package, pooling = "spacy-curated-transformers", {"@layers": "reduce_mean.v1"}
    transformer = {
        "@architectures": f"{package}.BertTransformer.v1", "vocab_size": len(pieces), "num_hidden_layers": 1,
        "hidden_width": 24, "intermediate_width": 32, "num_attention_heads": 2,
        "piece_encoder": {"@architectures": f"{package}.BertWordpieceEncoder.v1"},
        "with_spans": {"@architectures": f"{package}.WithStridedSpans.v1"},
    }  # fmt: skip
    listener = {"@architectures": f"{package}.{request.param}.v1", "width": 24, "pooling": pooling}
    has_all_layers = request.param == "ScalarWeightingListener"
    if has_all_layers:
        listener["weighting"] = {"@architectures": f"{package}.ScalarWeight.v1", "num_layers": 1}

    def make(*names, upstream="*"):
        nlp = spacy.blank("en")
        for name in names:
            if name == "bert_ner":
                add_head(nlp, {**listener, "upstream": upstream})
            else:
                config = {"model": transformer, "all_layer_outputs": has_all_layers}
                nlp.add_pipe("curated_transformer", name=name, config=config)
                loader = {
                    "@model_loaders": f"{package}.WordpieceLoader.v1",
                    "path": str(tmp_path / "pieces.txt"),
                }
                nlp.config["initialize"]["components"][name] = {"piecer_loader": loader}
        fix_random_seed(0)
        nlp.initialize(lambda: make_examples(nlp))
        return nlp

    make.listener = {
        "LastTransformerLayerListener": "last_transformer_layer",
        "ScalarWeightingListener": "scalar_weighting",
    }[request.param]
    return make


@pytest.mark.parametrize(
    ("names", "upstream", "needed"),
    [
        (["bert_ner"], "*", "needs a component 'curated_transformer'"),
        (["bert_ner", "transformer"], "*", "needs a component 'curated_transformer'"),
        (["transformer", "bert_ner"], "encoder", "needs the component 'encoder'"),
    ],
)
def test_nothing_upstream_curated(names, upstream, needed, curated):
    with pytest.raises(ValueError, match=f"bert_ner: its model has a {curated.listener}_listener, which {needed}, and"):
        curated(*names, upstream=upstream)


def test_the_curated_component_upstream_is_left_out(curated, tmp_path):
    nlp = curated("transformer", "bert_ner")
    doc = nlp("Maria Kolb")
    assert doc.has_annotation("ENT_IOB")
    message = f"{curated.listener}_listener, which needs a component 'curated_transformer', and no such component"
    with nlp.select_pipes(disable=["transformer"]), pytest.raises(ValueError, match=message):
        nlp("Maria Kolb")
    nlp.to_disk(tmp_path / "pipeline")
    excluded = spacy.load(tmp_path / "pipeline", exclude=["transformer"])
    with pytest.raises(ValueError, match=message):
        excluded("Maria Kolb")
    with pytest.raises(ValueError, match=f"{message}.*annotating_components"):
        excluded.update(make_examples(excluded))
    with pytest.raises(ValueError, match="rehearse: the model listens to another component"):
        nlp.rehearse(make_examples(nlp), exclude=["transformer"])


def test_a_curated_layer_of_its_own_needs_nothing(curated):
    nlp = curated("transformer", "bert_ner")
    (expected,) = nlp.get_pipe("bert_ner").model.predict([nlp("Maria Kolb lives in Dresden")])
    nlp.replace_listeners("transformer", "bert_ner", ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    (scores,) = nlp.get_pipe("bert_ner").model.predict([nlp.make_doc("Maria Kolb lives in Dresden")])
    np.testing.assert_allclose(scores, expected, atol=1e-6)
