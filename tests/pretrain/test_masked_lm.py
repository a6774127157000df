"""Which checkpoints can be pre-trained, with which head."""

import json
import warnings

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from spacy_bertner.files import CheckpointError
from spacy_bertner.pretrain.masked_lm import load_masked_lm

from ..conftest import train_tokenizer, write_checkpoint


@pytest.mark.parametrize("kind", ["bert", "bert-uncased", "roberta", "xlm-roberta", "distilbert", "deberta-v2"])
def test_a_checkpoint_with_a_head_is_loaded_as_transformers_does(kind, with_head):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model, tokenizer = load_masked_lm(str(with_head(kind)), 64)
    expected = AutoModelForMaskedLM.from_pretrained(with_head(kind)).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert tokenizer.mask_token


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert", "deberta-v2"])
def test_without_a_head_there_is_a_new_one_and_a_warning(kind, checkpoint):
    with pytest.warns(
        UserWarning, match="has no head for masked language modelling.*short run can make the encoder worse"
    ):
        load_masked_lm(str(checkpoint(kind)), 64)


def test_refused(checkpoint, with_head, tmp_path):
    def refusal(folder, window=64):
        with pytest.raises(CheckpointError) as err:
            load_masked_lm(str(folder), window)
        assert str(err.value).startswith("--encoder: ") and "\n" not in str(err.value)
        return str(err.value)

    assert "ELECTRA discriminator" in refusal(checkpoint("electra"))
    tagger = checkpoint("bert", ["O", "B-PER", "I-PER"])
    assert "(BertForTokenClassification) is for another task, and would be lost" in refusal(tagger)
    assert "has 512 positions: --window 600" in refusal(with_head("bert"), 600)
    assert "has 512 positions" in refusal(with_head("roberta"), 513)
    assert "there is no folder" in refusal(tmp_path / "none")

    tokenizer = train_tokenizer("bert")
    config = AutoConfig.from_pretrained(checkpoint("bert"))
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    assert "(BertForSequenceClassification) is for another task" in refusal(tmp_path / "classifier")

    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": len(tokenizer)}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes)).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    assert "(gpt2): transformers has no masked language model of this kind" in refusal(tmp_path / "gpt2")

    folder = write_checkpoint(tmp_path / "maskless", "bert")
    tokenizer.mask_token = None
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("mask_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "has no mask token" in refusal(folder)

    damaged = write_checkpoint(tmp_path / "damaged", "bert")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    assert "no usable checkpoint" in refusal(damaged)
    other = write_checkpoint(tmp_path / "other", "bert", num_hidden_layers=1)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 2}))
    assert "are incomplete: missing or of another shape ['bert.encoder.layer.1." in refusal(other)
