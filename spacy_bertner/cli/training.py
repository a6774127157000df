"""The commands around training: `init`, `pretrain`, `check`, `calibrate`, `tune`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from spacy.cli._util import import_code, parse_config_overrides
from spacy.training.initialize import init_nlp
from spacy.util import load_model
from wasabi import Printer

from .app import (
    Code,
    Encoding,
    Force,
    GpuId,
    InputFormat,
    PipelineName,
    TextKey,
    bertner,
    one_line_errors,
    output_folder,
    print_text,
)

RESUMABLE = "--resume continues"


@bertner.command("init")
def init_cli(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The config to write")],
    train: Annotated[Path, typer.Option(help="Training data: a .spacy file, or a folder of them")],
    dev: Annotated[Path, typer.Option(help="Development data, likewise")],
    encoder: Annotated[str, typer.Option(help="Checkpoint to start from: hub name or folder")],
    epochs: Annotated[int | None, typer.Option(help="Epochs [default: by the size of the training data]")] = None,
    lang: Annotated[str, typer.Option("--lang", "-l", help="Language of the pipeline")] = "en",
    spans_key: Annotated[
        str | None, typer.Option(help="Learn entities from this group of doc.spans [default: from doc.ents]")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", "-G", help="Short for --gpu-id 0")] = False,
    gpu_id: GpuId = -1,
    space: Annotated[Path | None, typer.Option(help="Also write a search space for `tune`, to this file")] = None,
    no_timing: Annotated[bool, typer.Option("--no-timing", help="Don't estimate how long training takes")] = False,
    force: Force = False,
) -> None:
    """Write a training config for these data and this encoder: steps, learning rate, evaluations and the other settings.

    A few batches are trained to estimate how long training will take. With --no-timing, no GPU is needed.
    """
    with one_line_errors("init"):
        from ..files import check_output_file
        from ..processes import require_gpu
        from ..training.init import estimate_seconds, format_seconds, make_config, write_config, write_space

        check_output_file(output, force=force, inputs=(train, dev))
        if space is not None:
            check_output_file(space, force=force, inputs=(train, dev, output))
        if gpu and gpu_id < 0:
            gpu_id = 0
        if gpu_id >= 0 and not no_timing:
            require_gpu(gpu_id)
        plan = make_config(output, train, dev, encoder, epochs=epochs, gpu_id=gpu_id, lang=lang, spans_key=spans_key)
        print_text(f"Training data: {plan.train}")
        print_text(f"Development data: {plan.dev}")
        nlp = write_config(plan, output)
        if space is not None:
            write_space(plan, space)
        print_text(f"Training: {plan.schedule}")
        print_text(f"Wrote {output}; train with:\n    {plan.command}")
        if space is not None:
            print_text(f"Wrote {space}; search with:\n    python -m spacy bertner tune {output} {space} --output tune")
        if not no_timing:
            device = f"GPU {gpu_id}" if gpu_id >= 0 else "the CPU"
            print_text(
                f"Training takes about {format_seconds(estimate_seconds(nlp, plan))} on {device}, or less if it stops early"
            )


@bertner.command("check", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def check_cli(
    ctx: typer.Context,  # for the overrides, as in spaCy's commands
    config_path: Annotated[Path, typer.Argument(metavar="CONFIG", help="Training config with a bert_ner component")],
    no_format: Annotated[bool, typer.Option("--no-format", "-NF", help="Don't pretty-print the results")] = False,
) -> None:
    """Check the entities in training and development data before training, as spacy debug data does for ner.

    Reports counts by label, labels with little data, missing and misaligned annotation, entities of whitespace or
    punctuation. Settings are overridden as for spacy train: --paths.train train.spacy. The exit status is 1 if there are
    errors.
    """
    overrides = parse_config_overrides(ctx.args)
    with one_line_errors("check"):
        from ..training.check_data import check_data

        is_good = check_data(config_path, overrides, Printer(pretty=not no_format))
    if not is_good:
        raise typer.Exit(1)


@bertner.command("calibrate")
def calibrate_cli(
    pipeline: PipelineName,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A .spacy file with annotation that was not trained on")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the calibrated pipeline")],
    test: Annotated[Path | None, typer.Option(help="Another .spacy file to report the effect on")] = None,
    gpu_id: GpuId = -1,
    force: Force = False,
) -> None:
    """Calibrate the confidence of a pipeline's entities by temperature scaling, for every bert_ner.

    The entities stay the same. Choose a threshold afterwards.
    """
    with output_folder("calibrate", output_dir, force):
        from ..processes import require_gpu
        from ..training.calibration import calibrate_pipeline

        if gpu_id >= 0:
            require_gpu(gpu_id)
        nlp = load_model(pipeline)
        for line in calibrate_pipeline(nlp, data, test):
            typer.echo(line)
        nlp.to_disk(output_dir)


@bertner.command("pretrain")
def pretrain_cli(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs; - is standard input")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the checkpoint")],
    encoder: Annotated[str, typer.Option("--encoder", help="Checkpoint to start from: hub name or folder")],
    mask: Annotated[str, typer.Option(help="piece or word: mask single word pieces, or whole words")] = "piece",
    held_out: Annotated[
        str, typer.Option(help="Share of the text to compute the perplexity on, or a file or folder of other text")
    ] = "0.05",
    window: Annotated[int, typer.Option(help="Word pieces in a block, special ones included")] = 256,
    epochs: Annotated[int, typer.Option(help="Passes over the text")] = 3,
    max_steps: Annotated[int, typer.Option(help="Optimizer steps, instead of epochs")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Blocks in a step, on each GPU")] = 16,
    learn_rate: Annotated[float, typer.Option(help="Highest learning rate")] = 5e-5,
    mixed_precision: Annotated[str | None, typer.Option(help="bf16 or fp16 [default: float32]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the masks, the order and what is held out")] = 0,
    lang: Annotated[str, typer.Option("--lang", "-l", help="Language of the tokenizer for texts")] = "en",
    input_format: InputFormat = None,
    text_key: TextKey = "text",
    encoding: Encoding = "utf-8",
    report_to: Annotated[str, typer.Option(help="Also log to: tensorboard, wandb, …")] = "none",
    gpu_id: GpuId = -1,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped or killed")] = False,
    force: Force = False,
) -> None:
    """Continue the pre-training of an encoder on text without annotation, by masked language modelling.

    OUTPUT_DIR is a checkpoint for the setting `name` of bert_ner. See docs/pretraining.md.
    """
    with output_folder("pretrain", output_dir, force or resume, RESUMABLE):
        from tqdm import tqdm  # type: ignore[import-untyped]

        from ..annotate.readers import ReadSettings
        from ..pretrain import Settings, pretrain

        with contextlib.suppress(ValueError):  # a file
            held_out = float(held_out)  # type: ignore[assignment]
        result = pretrain(
            inputs,
            output_dir,
            encoder,
            Settings(
                mask=mask,
                window=window,
                held_out=held_out,
                epochs=epochs,
                max_steps=max_steps,
                batch_size=batch_size,
                learn_rate=learn_rate,
                mixed_precision=mixed_precision,
                seed=seed,
                lang=lang,
                report_to=report_to,
            ),
            ReadSettings(input_format=input_format, text_key=text_key, encoding=encoding),
            gpu_id=gpu_id,
            resume=resume,
            force=force,
            progress=None,
            on_message=lambda message: tqdm.write(message, file=sys.stderr),
        )
        if os.environ.get("RANK", "0") != "0":  # one of several processes: the first tells
            raise typer.Exit
        before, after = result.perplexity[0], result.perplexity[result.best_step]
        print_text(
            f"Perplexity of the held-out text: {before:,.2f} before, {after:,.2f} after step {result.best_step:,}, kept"
        )


@bertner.command("tune", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def tune_cli(
    ctx: typer.Context,  # for the overrides, as in spaCy's commands
    config_path: Annotated[Path, typer.Argument(metavar="CONFIG", help="Training config")],
    space: Annotated[Path, typer.Argument(metavar="SPACE", help="Settings of the config with their ranges")],
    output_dir: Annotated[Path, typer.Option("--output", "-o", help="Folder for the best config, table and plots")],
    n_trials: Annotated[int, typer.Option("--n-trials", "-n", help="Trials of all processes together")] = 30,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which no trial starts")] = None,
    metric: Annotated[str | None, typer.Option(help="Score to optimize [default: the config's own]")] = None,
    pruner: Annotated[
        str, typer.Option(help="median, hyperband or none: stop trials with low scores early")
    ] = "median",
    seed: Annotated[int, typer.Option(help="Seed of the search")] = 0,
    seeds: Annotated[
        int, typer.Option(help="Then train the best and the original settings with this many new seeds")
    ] = 0,
    gpus: Annotated[str, typer.Option(help="GPUs, comma-separated, one trial on each; -1 for the CPU")] = "-1",
    storage: Annotated[str | None, typer.Option(help="URL of a database [default: a SQLite file in OUTPUT]")] = None,
    study_name: Annotated[str | None, typer.Option(help="Name in the database [default: that of OUTPUT]")] = None,
    grace_period: Annotated[int, typer.Option(help="Seconds until the trial of a dead process is tried again")] = 120,
    code: Code = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show what would be searched")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume a study, or take part in one that is running")
    ] = False,
    force: Force = False,
) -> None:
    """Search for the settings with the best score on the development data, by Optuna; each trial is a run of spacy train.

    SPACE has the form of a config, with a range for each setting: initial_rate = {"low": 2e-5, "high": 3e-4, "log": true}.
    Settings of CONFIG are overridden as for spacy train: --paths.train train.spacy. See docs/tuning.md.
    """
    overrides = parse_config_overrides(ctx.args)
    import_code(code)
    with one_line_errors("tune", RESUMABLE):
        try:
            from ..tune import Settings, make_search, tune
        except ImportError as err:
            raise ImportError(f'the search needs Optuna: pip install "spacy-bertner[tune]" ({err})') from err

        try:
            gpu_ids = [int(gpu) for gpu in gpus.split(",")]
        except ValueError:
            raise ValueError(f"--gpus: {gpus!r} are not numbers, separated by commas") from None
        settings = Settings(
            n_trials=n_trials,
            metric=metric,
            pruner=pruner,
            seed=seed,
            n_seeds=seeds,
            gpu_ids=gpu_ids,
            timeout=timeout,
            storage=storage,
            study_name=study_name,
            code=Path(code) if code else None,
            grace_period=grace_period,
        )
        search = make_search(config_path, space, overrides, metric)
        print_text(str(search))
        if dry_run:
            init_nlp(search.apply(search.own()))
            print_text("The pipeline can be initialized; nothing was trained")
        else:
            tune(search, output_dir, settings, resume=resume, force=force, on_message=print_text)
            print_text(f"Wrote {output_dir / 'tune.html'}")
            if (output_dir / "best.cfg").exists():
                print_text(f"Train with:\n    python -m spacy train {output_dir / 'best.cfg'} --output training")
