"""transformers' `Trainer`, set up for masked language modelling."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from .blocks import Blocks
from .masking import make_collator
from .settings import Settings

# How often in a run the perplexity is computed and a checkpoint is saved
N_CHECKPOINTS = 20
WARMUP = 0.06  # of the steps (Liu et al. 2019)


def make_trainer(
    model: Any,
    tokenizer: Any,
    train: Blocks,
    held_out: Blocks,
    settings: Settings,
    folder: Path,
    use_gpu: bool,
    disable: bool,
    on_message: Callable[[str], None],
) -> Trainer:
    """Return the trainer of a run. folder: for its checkpoints. disable: whether to show no progress bar."""
    n_processes = int(os.environ.get("WORLD_SIZE", 1))
    n_steps = settings.max_steps or settings.epochs * math.ceil(len(train) / (settings.batch_size * n_processes))
    every = math.ceil(n_steps / N_CHECKPOINTS)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learn_rate,
        weight_decay=0.01,
        warmup_steps=int(WARMUP * n_steps),
        max_steps=n_steps,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=every,
        save_steps=every,
        logging_steps=every,
        save_total_limit=2,
        metric_for_best_model="eval_loss",  # which checkpoint is kept; `write_checkpoint` loads it
        greater_is_better=False,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=settings.mixed_precision == "bf16",
        fp16=settings.mixed_precision == "fp16",
        use_cpu=not use_gpu,
        dataloader_pin_memory=use_gpu,
        report_to=settings.report_to,
        remove_unused_columns=False,
        disable_tqdm=disable,
        log_level="error",
        log_level_replica="error",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=held_out,
        data_collator=make_collator(tokenizer, settings.mask, settings.seed),
        callbacks=[Watch(train, on_message)],
    )
    for callback in (PrinterCallback, ProgressCallback):  # both print dictionaries
        trainer.remove_callback(callback)
    if not disable:
        trainer.add_callback(Bar)
    return trainer


def perplexity(loss: float) -> float:
    """Return the perplexity for a mean cross-entropy."""
    return math.exp(loss) if loss < 700 else math.inf


class Watch(TrainerCallback):
    """Tells the blocks their epoch, has the last step evaluated, and reports perplexities."""

    def __init__(self, train: Blocks, on_message: Callable[[str], None]) -> None:
        self.train, self.on_message = train, on_message

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch; accelerate calls `set_epoch` of a dataset only in some cases."""
        self.train.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate after the last step, as transformers 5 does by itself."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        """Report the perplexity."""
        if state.is_world_process_zero:
            place = f"step {state.global_step:,} of {state.max_steps:,}" if state.global_step else "before"
            self.on_message(f"{place}: held-out perplexity {perplexity(metrics['eval_loss']):,.2f}")


class Bar(ProgressCallback):
    """transformers' progress bar, with the loss beside it instead of dictionaries above it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the loss."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")


def choose_gpu(gpu_id: int) -> None:
    """Let torch see one GPU alone, as transformers uses all it finds; raises ValueError if it is not there.

    `torchrun` and `accelerate launch` give each process its own.
    """
    n_gpus = torch.cuda.device_count()
    if gpu_id >= n_gpus:
        raise ValueError(
            f"--gpu-id {gpu_id}: torch finds {n_gpus} GPUs. The first is 0; --gpu-id -1 computes on the CPU"
        )
    if "LOCAL_RANK" not in os.environ and n_gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n_gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[gpu_id]
