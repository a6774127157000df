"""Pre-training on the stand-in: the figures of the CPU, and what `--gpu-id` chooses."""

import pytest
import torch
from transformers import AutoModelForMaskedLM

from spacy_bertner.pretrain import Settings, pretrain
from spacy_bertner.pretrain.trainer import choose_gpu
from tests.conftest import ROOT, write_checkpoint

TEXT = ROOT / "assets" / "demo" / "dev.conll"


@pytest.fixture
def encoder(tmp_path):
    """Without dropout, which draws its own numbers on a GPU, and without tied weights, which the stand-in cannot move."""
    settings = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "tie_word_embeddings": False}
    folder = write_checkpoint(tmp_path / "encoder", "bert", **settings)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("mixed_precision", [None, "bf16", "fp16"])
def test_the_figures_of_the_cpu(mixed_precision, encoder, tmp_path):
    settings = {"window": 64, "max_steps": 8, "batch_size": 8, "learn_rate": 3e-3}
    expected = pretrain([TEXT], tmp_path / "cpu", encoder, Settings(**settings))
    on_gpu = Settings(**settings, mixed_precision=mixed_precision)
    found = pretrain([TEXT], tmp_path / "gpu", encoder, on_gpu, gpu_id=0)
    tolerance = 1e-3 if mixed_precision is None else 0.05
    assert found.perplexity.keys() == expected.perplexity.keys()
    assert list(found.perplexity.values()) == pytest.approx(list(expected.perplexity.values()), rel=tolerance)
    assert found.perplexity[8] < found.perplexity[0]
    if mixed_precision is None:
        weights = [AutoModelForMaskedLM.from_pretrained(tmp_path / name).state_dict() for name in ("cpu", "gpu")]
        for name, value in weights[0].items():
            # The gradient of key.bias is zero but for rounding, of which Adam makes a step; the other two are one tensor
            if not name.endswith(("key.bias", "predictions.bias", "decoder.bias")):
                assert torch.allclose(value, weights[1][name], atol=2e-4), name


def test_a_gpu_that_is_not_there():
    choose_gpu(0)
    with pytest.raises(ValueError, match=r"--gpu-id 1: torch finds 1 GPUs. The first is 0"):
        choose_gpu(1)
