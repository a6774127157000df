"""Dropout in attention on a CPU, held against sums over all masks and against torch's own attention."""

import itertools

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from spacy_bertner.model.attention import ValueDropout

from ..conftest import SENTENCES, make_examples


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 4, 5, generator=generator)  # (n_windows, n_heads, n_pieces, width)
    mask = torch.ones(2, 1, 1, 4, dtype=torch.bool)
    mask[1, ..., 3:] = False
    return query, key, value, mask


@pytest.mark.parametrize("by_name", [True, False])
def test_whole_values_are_dropped(by_name, inputs):
    query, key, value, mask = inputs
    weights = torch.softmax((query @ key.mT / 5**0.5).masked_fill(~mask, -torch.inf), -1)
    products = weights[..., None] * value[:, :, None] / (1 - 0.5)  # (2, 3, n_pieces, n_pieces attended to, width)
    possible = [
        sum((kept * products[..., i, :] for i, kept in enumerate(choice)), torch.zeros_like(value))
        for choice in itertools.product([0, 1], repeat=4)
    ]
    torch.testing.assert_close(torch.stack(possible).mean(0), weights @ value)  # the expectation
    for _ in range(50):
        with ValueDropout():
            if by_name:
                output = F.scaled_dot_product_attention(
                    query=query, key=key, value=value, attn_mask=mask, dropout_p=0.5
                )
            else:
                output = F.scaled_dot_product_attention(query, key, value, mask, 0.5)
        near = torch.stack([(output - one).abs().amax((-1, -2)) for one in possible]).amin(0)  # (n_windows, n_heads)
        assert near.max() < 1e-5


def test_without_dropout_nothing_changes(inputs):
    query, key, value, mask = inputs
    plain = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3)
    with ValueDropout():
        assert torch.equal(F.scaled_dot_product_attention(query, key, value, mask, scale=0.3), plain)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "mpnet", "albert"])
def test_training_on_a_cpu_uses_fused_attention(kind, tagger, nlp):
    ner = tagger(kind)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        ner.update(make_examples(nlp, SENTENCES[:2]), drop=0.1)
    names = {event.key for event in profiler.key_averages()}
    if "aten::scaled_dot_product_attention" not in names:
        pytest.skip("this version of transformers has no fused attention for it")
    assert "aten::_scaled_dot_product_attention_math" not in names
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
