"""Blocks of pieces to masked batches, by transformers' own collator."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .blocks import FIRST, SPECIAL, Rows

# The share of pieces to predict (Devlin et al. 2019, §3.1)
RATE = 0.15


def make_collator(tokenizer: Any, mask: str, seed: int) -> Callable[[Sequence[dict[str, Any]]], dict[str, Any]]:
    """Return a function from blocks to a padded and masked batch for a masked language model.

    Of the pieces to predict, 80 % become the mask token and 10 % a random piece. The masks depend on the seed, the epoch
    and the blocks of a batch alone: a resumed run has those of an uninterrupted one, and held-out text always the same.

    mask: "piece" or "word", whether pieces are chosen one by one or by whole words.
    """
    from transformers import DataCollatorForLanguageModeling

    # transformers' own masking of whole words depends on the version and the kind of tokenizer
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=RATE if mask == "piece" else 1.0)

    def features(rows: Rows) -> dict[str, Any]:
        excluded = torch.from_numpy(rows[:, 1] == SPECIAL)
        if mask == "word":
            words = torch.from_numpy(np.cumsum(rows[:, 1] == FIRST))
            chosen = torch.rand(int(words[-1]) + 1) < RATE
            excluded |= ~chosen[words]
        return {"input_ids": rows[:, 0].tolist(), "special_tokens_mask": excluded.long().tolist()}

    def collate(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        key = np.random.SeedSequence([seed, *(number for block in blocks for number in block["key"])])
        with torch.random.fork_rng(devices=[]):  # those of GPUs, which drop out, are not touched
            torch.default_generator.manual_seed(int(key.generate_state(1, np.uint64)[0]))
            while True:
                batch = collator([features(block["rows"]) for block in blocks])
                if (batch["labels"] != -100).any():  # nothing to predict would make the loss NaN
                    return batch

    return collate
