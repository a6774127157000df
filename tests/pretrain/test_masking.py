"""Masks: 15 %, of which 80 % mask tokens, 10 % random and 10 % unchanged; whole words; the same for the same blocks."""

import numpy as np
import pytest
import torch
from transformers import DataCollatorForLanguageModeling

from spacy_bertner.pretrain.blocks import FIRST, FURTHER, SPECIAL
from spacy_bertner.pretrain.masking import make_collator

from ..conftest import reference_tokenizer

KINDS = ["bert", "roberta", "xlm-roberta", "deberta-v2"]


def make_blocks(tokenizer, n_blocks=200, n_pieces=120, seed=0):
    """Blocks of random pieces, in words of one to four pieces."""
    rng = np.random.default_rng(seed)
    first = max(tokenizer.all_special_ids) + 1
    blocks = []
    for i in range(n_blocks):
        lengths = rng.integers(1, 5, size=n_pieces)
        kinds = np.concatenate([[FIRST] + [FURTHER] * (n - 1) for n in lengths])[:n_pieces]
        kinds[50] = FIRST  # after a separator
        pieces = rng.integers(first, len(tokenizer), size=n_pieces)
        ends = [[tokenizer.cls_token_id, SPECIAL]], [[tokenizer.sep_token_id, SPECIAL]]
        middle = np.stack([pieces, kinds], axis=1)
        rows = np.concatenate([ends[0], middle[:50], ends[1], middle[50:], ends[1]]).astype(np.int32)
        blocks.append({"rows": rows[: len(rows) - i % 7], "key": (0, i)})
    return blocks


def is_near(count, n, rate):
    """Whether a count is within four standard deviations of a binomial distribution."""
    return abs(count - n * rate) < 4 * (n * rate * (1 - rate)) ** 0.5


@pytest.mark.parametrize("mask", ["piece", "word"])
@pytest.mark.parametrize("kind", KINDS)
def test_rates(mask, kind, checkpoint):
    tokenizer = reference_tokenizer(kind, checkpoint(kind))
    blocks = make_blocks(tokenizer)
    collate = make_collator(tokenizer, mask, seed=0)
    batches = [collate(blocks[i : i + 8]) for i in range(0, len(blocks), 8)]
    originals, inputs, labels, kinds = [], [], [], []
    for i, batch in enumerate(batches):
        for j, block in enumerate(blocks[8 * i : 8 * i + 8]):
            n = len(block["rows"])
            originals.append(torch.from_numpy(block["rows"][:, 0].astype(np.int64)))
            kinds.append(torch.from_numpy(block["rows"][:, 1]))
            inputs.append(batch["input_ids"][j, :n])
            labels.append(batch["labels"][j, :n])
            assert batch["attention_mask"][j].tolist() == [1] * n + [0] * (batch["input_ids"].shape[1] - n)
            assert (batch["input_ids"][j, n:] == tokenizer.pad_token_id).all() and (
                batch["labels"][j, n:] == -100
            ).all()
    original, given, label, kind_of = map(torch.cat, (originals, inputs, labels, kinds))
    chosen = label != -100
    assert not chosen[kind_of == SPECIAL].any()
    assert (label[chosen] == original[chosen]).all() and (given[~chosen] == original[~chosen]).all()
    if mask == "word":  # words vary in length, so count them
        words = torch.cumsum((kind_of != FURTHER).long(), 0)
        starts = kind_of == FIRST
        assert is_near(int(chosen[starts].sum()), int(starts.sum()), 0.15)
        for word in words[kind_of != SPECIAL].unique():
            assert len(chosen[words == word].unique()) == 1
    else:
        assert is_near(int(chosen.sum()), int((kind_of != SPECIAL).sum()), 0.15)
    n = int(chosen.sum())
    replaced = chosen & (given == tokenizer.mask_token_id)
    kept = chosen & (given == original)
    others = chosen & ~replaced & ~kept
    # A random piece is the same one, or the mask token, now and then
    chance = 1 / len(tokenizer)
    assert is_near(int(replaced.sum()), n, 0.8 + 0.1 * chance)
    assert is_near(int(kept.sum()), n, 0.1 + 0.1 * chance)
    assert is_near(int(others.sum()), n, 0.1 - 0.2 * chance)


def test_single_pieces_are_masked_by_transformers_own_collator(checkpoint):
    tokenizer = reference_tokenizer("bert", checkpoint("bert"))
    blocks = make_blocks(tokenizer, 4)
    found = make_collator(tokenizer, "piece", seed=3)(blocks)
    numbers = [3, *(number for block in blocks for number in block["key"])]
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
    expected = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)(
        [
            {
                "input_ids": b["rows"][:, 0].tolist(),
                "special_tokens_mask": (b["rows"][:, 1] == SPECIAL).astype(int).tolist(),
            }
            for b in blocks
        ]
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_masks_depend_on_seed_epoch_and_blocks_alone(checkpoint):
    tokenizer = reference_tokenizer("bert", checkpoint("bert"))
    blocks = make_blocks(tokenizer, 4)
    collate = make_collator(tokenizer, "piece", seed=0)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = collate(blocks)
    assert torch.equal(torch.get_rng_state(), state)  # nothing else draws other numbers for it
    torch.manual_seed(7)
    assert torch.equal(collate(blocks)["labels"], first["labels"])
    later = [{**block, "key": (1, block["key"][1])} for block in blocks]
    assert not torch.equal(collate(later)["labels"], first["labels"])
    assert not torch.equal(make_collator(tokenizer, "piece", seed=1)(blocks)["labels"], first["labels"])


@pytest.mark.parametrize("mask", ["piece", "word"])
def test_something_is_always_predicted(mask, checkpoint):
    """Without this, the loss of a short block, alone in its batch, is NaN more often than not."""
    tokenizer = reference_tokenizer("bert", checkpoint("bert"))
    rows = np.array(
        [[tokenizer.cls_token_id, SPECIAL], [20, FURTHER], [tokenizer.sep_token_id, SPECIAL]], dtype=np.int32
    )
    collate = make_collator(tokenizer, mask, seed=0)
    assert all(collate([{"rows": rows, "key": (0, i)}])["labels"].tolist() == [[-100, 20, -100]] for i in range(20))
