"""Pre-training as a whole: from text and a checkpoint to a checkpoint."""

import contextlib
import hashlib
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import spacy
import torch
from tokenizers import Tokenizer

from ..annotate.readers import ReadSettings
from ..files import check_output_folder
from ..model.checkpoint import quiet_transformers
from ..model.encoding import PieceEncoder
from .blocks import SPECIAL, Blocks, read_blocks
from .masked_lm import load_masked_lm
from .output import check_part, part_of, start_or_resume, write_checkpoint, write_errors_explained
from .settings import Settings


@dataclass(frozen=True)
class Result:
    """What a run did.

    perplexity: that of the held-out text by step, 0 before training. best_step: the step that was kept.
    n_pieces: in the text, special pieces aside. n_blocks, n_held_out: blocks trained on and held out.
    """

    perplexity: dict[int, float]
    best_step: int
    n_pieces: int
    n_blocks: int
    n_held_out: int


def pretrain(
    inputs: Sequence[str | Path],
    output_dir: str | Path,
    encoder: str,
    settings: Settings | None = None,
    reading: ReadSettings | None = None,
    *,
    gpu_id: int = -1,
    resume: bool = False,
    force: bool = False,
    progress: bool | None = False,
    on_message: Callable[[str], None] = lambda message: None,
) -> Result:
    """Continue the masked language modelling of an encoder on text; write a checkpoint for the setting `name`.

    inputs, reading: as for `annotate`. output_dir: a folder, new or empty; checkpoints are in `OUTPUT_DIR.part` until the
    end. encoder: hub name or folder. gpu_id: -1 for the CPU.
    resume: continue a run that was stopped or killed. force: overwrite what is there; start again, without `resume`.
    progress: whether to show progress bars; None: if standard error is a terminal. on_message: called with each figure.

    Raises ConversionError for input that cannot be read, CheckpointError, FileExistsError, ValueError, OSError;
    ImportError without the extra `pretrain`.
    """
    settings, reading, path = settings or Settings(), reading or ReadSettings(), Path(output_dir)
    try:
        import accelerate  # noqa: F401
    except ImportError as err:
        raise ImportError(f'Pre-training needs accelerate: pip install "spacy-bertner[pretrain]" ({err})') from err
    from transformers import set_seed

    from .trainer import choose_gpu, make_trainer, perplexity

    part = part_of(path)
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main:  # the others could see what it has begun to write
        is_unfinished = check_part(part, resume=resume, force=force)
        check_output_folder(path, force=force or (resume and is_unfinished))  # allowed when that run was started
    if gpu_id >= 0:
        choose_gpu(gpu_id)
    elif settings.mixed_precision == "fp16":
        raise ValueError("--mixed-precision: fp16 needs a GPU; set --gpu-id, or choose bf16")
    disable = not sys.stderr.isatty() if progress is None else not progress
    set_seed(settings.seed)  # for a new head
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_transformers())
        stack.enter_context(warnings.catch_warnings())
        if not is_main:  # each process would give the same
            warnings.simplefilter("ignore")
        model, tokenizer = load_masked_lm(encoder, settings.window)
        # On the disk of the output; they vanish with the process
        folder = next(folder for folder in part.parents if folder.is_dir())
        try:
            files = [stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0)) for _ in range(2)]
            train, held_out = _read(inputs, tokenizer, settings, reading, files, disable)
        except OSError as err:
            raise OSError(
                f"{folder}: the blocks of word pieces could not be written; is the disk full? ({err})"
            ) from err
        n_pieces = int((train.rows[:, 1] != SPECIAL).sum())
        state = {
            **asdict(settings),
            "encoder": os.path.normpath(encoder),
            "processes": os.environ.get("WORLD_SIZE", "1"),
        }
        state["text"] = [hashlib.sha256(blocks.rows.data).hexdigest() for blocks in (train, held_out)]
        trainer = make_trainer(
            model, tokenizer, train, held_out, settings, part, gpu_id >= 0, disable, on_message=on_message
        )
        checkpoint = start_or_resume(part, state, trainer.args.max_steps, resume=resume, is_main=is_main)
        if is_main:
            on_message(f"{n_pieces:,} word pieces: {len(train):,} blocks to train on, {len(held_out):,} held out")
        if is_main and resume:
            on_message(
                f"resumed from {checkpoint}"
                if checkpoint
                else "no checkpoint to resume from: starting from the beginning"
            )
        stack.enter_context(write_errors_explained(part))
        warnings.filterwarnings("ignore", module=r"transformers\b")  # of use to its developers
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.OutOfMemoryError as err:
            raise RuntimeError(f"--batch-size: {settings.batch_size} blocks need too much memory; lower it") from err
        evaluated = [logs for logs in trainer.state.log_history if "eval_loss" in logs]
        figures = {logs["step"]: perplexity(logs["eval_loss"]) for logs in evaluated}
        result = Result(figures, _best_step(figures), n_pieces, len(train), len(held_out))
        if is_main:
            write_checkpoint(model, tokenizer, result.best_step, {**state, **asdict(result)}, part, path)
        trainer.accelerator.wait_for_everyone()
    return result


def _read(
    inputs: Sequence[str | Path],
    tokenizer: Any,
    settings: Settings,
    reading: ReadSettings,
    files: Sequence[IO[bytes]],
    disable: bool,
) -> tuple[Blocks, Blocks]:
    """Return the blocks to train on and those held out. Raises ValueError for too little text."""
    nlp = spacy.blank(settings.lang)
    # A copy, as the tokenizer is saved again as it was; no word is cut off
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    encoder = PieceEncoder(backend, pad_id=tokenizer.pad_token_id, window=sys.maxsize, stride=sys.maxsize)
    blocks = read_blocks(inputs, reading, nlp, encoder, settings.window, files[0], disable=disable)
    is_share = not isinstance(settings.held_out, str)
    if len(blocks) < 1 + is_share:
        raise ValueError(
            f"the text fills {len(blocks)} blocks of {settings.window} word pieces; needed are at least {1 + is_share}, "
            "to train on and to hold out: give more text, or a smaller --window"
        )
    if isinstance(settings.held_out, float):
        return blocks.split(settings.held_out, settings.seed)
    held_out = read_blocks([settings.held_out], reading, nlp, encoder, settings.window, files[1], disable=disable)
    if not len(held_out):
        raise ValueError(f"--held-out: there is no text in {settings.held_out}")
    return blocks, held_out


def _best_step(perplexity: dict[int, float]) -> int:
    """Return the step with the lowest perplexity. Raises RuntimeError if there is none; warns if that before was lower."""
    after = {step: value for step, value in perplexity.items() if step and math.isfinite(value)}
    if not after:
        raise RuntimeError("the perplexity is not finite: training has diverged; lower --learn-rate")
    best = min(after, key=after.__getitem__)
    if after[best] >= perplexity[0]:
        warnings.warn(
            f"the perplexity of the held-out text has not fallen: {perplexity[0]:,.2f} before, {after[best]:,.2f} after "
            f"step {best}. Change --learn-rate, train for more steps, or keep the encoder as it was",
            stacklevel=3,
        )
    return best
