"""Training: the losses, gradients and weights of a plain loop over AutoModelForMaskedLM."""

import json
import shutil
import tempfile

import numpy as np
import pytest
import spacy
import torch
from transformers import AutoModelForMaskedLM, get_linear_schedule_with_warmup

from spacy_bertner.annotate.readers import ReadSettings
from spacy_bertner.pretrain import Settings
from spacy_bertner.pretrain.blocks import read_blocks
from spacy_bertner.pretrain.masked_lm import load_masked_lm
from spacy_bertner.pretrain.trainer import make_trainer

from .conftest import DEMO, make_encoder

N_STEPS, RATE = 18, 1e-2


def read(folder):
    with tempfile.TemporaryFile(buffering=0) as file:
        blocks = read_blocks([DEMO / "dev.conll"], ReadSettings(), spacy.blank("en"), make_encoder(folder), 64, file)
        blocks.rows = np.array(blocks.rows)
    return blocks.split(0.1, 0)


@pytest.mark.parametrize("mask", ["piece", "word"])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_run_is_a_plain_loop(mask, kind, with_head, tmp_path):
    folder = shutil.copytree(with_head(kind), tmp_path / "encoder")
    # What drops out depends on all numbers that are drawn before
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    train, held_out = read(folder)
    train.spans = train.spans[: 8 * 5 + 3]  # two epochs, the last batch of each smaller
    settings = Settings(mask=mask, window=64, max_steps=N_STEPS, batch_size=8, learn_rate=RATE)
    model, tokenizer = load_masked_lm(str(folder), 64)
    torch.manual_seed(settings.seed)
    lines = []
    trainer = make_trainer(model, tokenizer, train, held_out, settings, tmp_path / "run", False, True, lines.append)
    mask_blocks, batches = trainer.data_collator, []

    def recorded(blocks):
        batch = mask_blocks(blocks)
        batches.append(([block["key"] for block in blocks], {key: value.clone() for key, value in batch.items()}))
        return batch

    trainer.data_collator = recorded
    trainer.train()
    logs = {log["step"]: log for log in trainer.state.log_history if "loss" in log}
    assert list(logs) == list(range(1, N_STEPS + 1))

    # In an epoch, each block stands in one batch; its masks change with the epoch
    n_evaluated = -(-len(held_out) // 8)
    is_held_out = {tuple(start) for start in held_out.spans[:, :1].tolist()}
    steps = [(keys, batch) for keys, batch in batches if (keys[0][1],) not in is_held_out]
    assert len(batches) - len(steps) == (1 + N_STEPS) * n_evaluated
    starts = sorted(train.spans[:, 0].tolist())
    for epoch in range(3):
        keys = [key for keys, _ in steps[6 * epoch : 6 * epoch + 6] for key in keys]
        assert sorted(keys) == [(epoch, start) for start in starts]

    reference = AutoModelForMaskedLM.from_pretrained(folder).float()
    decayed = {
        f"{name}.{parameter}"
        for name, module in reference.named_modules()
        for parameter, _ in module.named_parameters(recurse=False)
        if parameter != "bias" and not isinstance(module, torch.nn.LayerNorm)
    }
    parameters = dict(reference.named_parameters())
    groups = [
        {"params": [p for name, p in parameters.items() if name in decayed], "weight_decay": 0.01},
        {"params": [p for name, p in parameters.items() if name not in decayed], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    schedule = get_linear_schedule_with_warmup(optimizer, 1, N_STEPS)  # 6 % of 18 steps
    for step, (_, batch) in enumerate(steps[:N_STEPS], 1):
        loss = reference(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        assert logs[step]["loss"] == pytest.approx(loss.item(), abs=1e-4)
        assert logs[step]["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    expected = reference.state_dict()
    best = trainer.state.best_global_step or int(trainer.state.best_model_checkpoint.rpartition("-")[2])
    assert best == N_STEPS
    for name, value in model.state_dict().items():
        if not name.endswith("key.bias"):  # its gradient is zero but for rounding, of which Adam makes a step
            assert torch.allclose(value, expected[name], atol=2e-5), name

    # Perplexity: that of a plain loop over the held-out batches
    (*_, last) = lines
    losses = [(len(keys), reference(**batch).loss.item()) for keys, batch in batches[-n_evaluated:]]
    mean = sum(n * loss for n, loss in losses) / sum(n for n, _ in losses)
    assert last == f"step {N_STEPS} of {N_STEPS}: held-out perplexity {np.exp(mean):,.2f}"
