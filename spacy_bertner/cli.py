"""The command line, `python -m spacy bertner …`: thin typer commands over the library's functions.

spaCy imports this module for every command of its own, so each command imports what it needs only
when it runs.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from spacy.cli._util import app, parse_config_overrides
from spacy.util import load_model
from wasabi import Printer

bertner = typer.Typer(name="bertner", help="Commands of spacy-bertner", no_args_is_help=True)
app.add_typer(bertner)

# Parameters that several commands have
PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="A trained pipeline: folder or package")]
Encoding = Annotated[str, typer.Option("--encoding", help="Encoding of the input")]
GpuId = Annotated[int, typer.Option("--gpu-id", "-g", help="GPU, or -1 for the CPU")]
Code = Annotated[str | None, typer.Option("--code", "-c", help="Python file with code that the pipeline needs")]
Force = Annotated[bool, typer.Option("--force", "-F", help="Overwrite the output")]


@contextlib.contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """End a command with status 1 and one line that says what is wrong with its input."""
    try:
        yield
    except (BrokenPipeError, typer.Exit):  # whoever reads standard output has had enough: typer knows how to end then
        raise
    except (ValueError, OSError, ImportError, RuntimeError) as err:
        from .formats.faults import ConversionError

        # A conversion error is a list of lines with file and number
        typer.echo(str(err) if isinstance(err, ConversionError) else f"{command}: {err}", err=True)
        raise typer.Exit(1) from None


@contextlib.contextmanager
def output_folder(command: str, path: Path, force: bool) -> Iterator[None]:
    """Let the body of the `with` write to a folder that is new, empty or to be overwritten, and print what it wrote."""
    from .files import check_output_folder

    with one_line_errors(command):
        check_output_folder(path, force=force)
        yield
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        _print(f"Wrote {path} ({size / 1e6:,.1f} MB)")


@bertner.command("convert")
def convert_cli(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs; - is standard input")],
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder, or one file that ends in .spacy (as --to has it)")
    ],
    merge: Annotated[str | None, typer.Option(metavar="NAME", help="Write all to OUTPUT_DIR/NAME.spacy")] = None,
    ledger: Annotated[Path | None, typer.Option(help="JSON file for what was read, repaired and dropped")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired instead of failing")] = False,
    scheme: Annotated[
        str | None, typer.Option(help="Tag scheme, such as IOB2, BIOES or IO [default: detected]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail even for the rarest exception to the scheme")] = False,
    label: Annotated[str | None, typer.Option(help="Label of the entities if the tags are just B, I and O")] = None,
    missing: Annotated[
        list[str] | None, typer.Option(help="A further marker of missing annotation; repeatable")
    ] = None,
    n_sents: Annotated[
        int, typer.Option("--n-sents", "-n", help="Sentences per document if files mark none; 0: one document per file")
    ] = 10,
    word_col: Annotated[str | None, typer.Option(help="Column of the words: name, number from 1, -1 for last")] = None,
    tag_col: Annotated[str | None, typer.Option(help="Column of the tags, likewise")] = None,
    pos_col: Annotated[str | None, typer.Option(help="Column for token.tag_, likewise, or none")] = None,
    layer_col: Annotated[str | None, typer.Option(help="Columns of further layers, likewise, with commas")] = None,
    spans_key: Annotated[str | None, typer.Option(help="Key in doc.spans for a second layer, or overlaps")] = None,
    misc_key: Annotated[str | None, typer.Option(help="Key of the tags in the MISC column of CoNLL-U")] = None,
    layout: Annotated[str, typer.Option(help="Form of the files: columns, conllu, prodigy, … or auto")] = "auto",
    to: Annotated[
        str, typer.Option(help="spacy, prodigy, doccano, label-studio, brat, spacy-json, hf, conll")
    ] = "spacy",
    alignment: Annotated[str, typer.Option(help="Entities to tokens: strict (fail), contract, expand")] = "strict",
    offsets: Annotated[str, typer.Option(help="What offsets count: characters, utf16 or bytes")] = "characters",
    annotator: Annotated[str | None, typer.Option(help="Of several annotators, the one to read")] = None,
    text_key: Annotated[str | None, typer.Option(help="Key of the text in JSON [default: text]")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Names of tags that are numbers, comma-separated, in order")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="tab, space, comma or auto")] = "auto",
    encoding: Encoding = "utf-8",
    lang: Annotated[str, typer.Option("--lang", "-l", help="Language of the vocabulary and the tokenizer")] = "en",
    detokenize: Annotated[bool, typer.Option("--detokenize", help="Set spaces by rules if files give none")] = False,
) -> None:
    """Convert CoNLL files and those of annotation tools to .spacy files, or back, without losing annotation.

    Every error in the input is reported with file and line, and then nothing is written. See docs/convert.md and
    docs/annotation_tools.md.
    """
    from .formats.convert import ReadOptions, convert

    with one_line_errors("convert"):
        options = ReadOptions(
            word_col=word_col,
            tag_col=tag_col,
            pos_col=pos_col,
            layer_col=layer_col,
            layout=layout,
            delimiter=delimiter,
            scheme=scheme,
            label=label,
            missing=tuple(missing or ()),
            misc_key=misc_key,
            n_sents=n_sents,
            encoding=encoding,
            detokenize=detokenize,
            spans_key=spans_key,
            lang=lang,
            repair=repair,
            strict=strict,
            alignment=alignment,
            offsets=offsets,
            annotator=annotator,
            text_key=text_key,
            labels=tuple(label.strip() for label in labels.split(",")) if labels else (),
        )
        from tqdm import tqdm  # type: ignore[import-untyped]

        # On a short input the bar would only flicker
        with tqdm(unit="B", unit_scale=True, disable=None, delay=1.0, leave=False) as bar:

            def progress(n_bytes: int, total: int) -> None:
                bar.total = total
                bar.update(n_bytes)

            result = convert(inputs, output_dir, options, to=to, merge=merge, ledger=ledger, progress=progress)
    _print(str(result))


@bertner.command("init")
def init_cli(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The config to write")],
    train: Annotated[Path, typer.Option(help="Training data: a .spacy file, or a folder of them")],
    dev: Annotated[Path, typer.Option(help="Development data, likewise")],
    encoder: Annotated[str, typer.Option(help="Checkpoint to start from: hub name or folder")],
    epochs: Annotated[int | None, typer.Option(help="Epochs [default: by the size of the training data]")] = None,
    lang: Annotated[str, typer.Option("--lang", "-l", help="Language of the pipeline")] = "en",
    gpu: Annotated[bool, typer.Option("--gpu", "-G", help="Train on the first GPU")] = False,
    gpu_id: GpuId = -1,
    no_timing: Annotated[bool, typer.Option("--no-timing", help="Don't estimate how long training takes")] = False,
    force: Force = False,
) -> None:
    """Write a training config for these data and this encoder: steps, learning rate, evaluations and the other settings.

    A few batches are trained to estimate how long training will take. With --no-timing, the GPU need not be there.
    """
    with one_line_errors("init"):
        from .files import check_output_file
        from .processes import require_gpu
        from .training.init import estimate_seconds, format_seconds, make_config, write_config

        check_output_file(output, force=force)
        if gpu and gpu_id < 0:
            gpu_id = 0
        if gpu_id >= 0 and not no_timing:
            require_gpu(gpu_id)
        plan = make_config(output, train, dev, encoder, epochs=epochs, gpu_id=gpu_id, lang=lang)
        _print(f"Training data: {plan.train}")
        _print(f"Development data: {plan.dev}")
        with warnings.catch_warnings(record=True) as caught:
            nlp = write_config(plan, output)
        for warning in caught:
            typer.echo(f"init: {warning.message}", err=True)
        _print(f"Training: {plan.schedule}")
        _print(f"Wrote {output}; train with:\n    {plan.command}")
        if not no_timing:
            device = f"GPU {gpu_id}" if gpu_id >= 0 else "the CPU"
            _print(
                f"Training takes about {format_seconds(estimate_seconds(nlp, plan))} on {device}, or less if it stops early"
            )


@bertner.command("onnx")
def onnx_cli(
    pipeline: PipelineName,
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the converted pipeline")],
    int8: Annotated[bool, typer.Option("--int8", help="Round weights to 8 bits: faster, but not exact")] = False,
    force: Force = False,
) -> None:
    """Convert a trained pipeline to one that predicts with ONNX Runtime on the CPU.

    It is loaded like any other and needs neither torch nor transformers. It cannot be trained further.
    """
    with output_folder("onnx", output_dir, force):
        from .export.onnx import to_onnx

        nlp = load_model(pipeline)
        to_onnx(nlp, int8=int8)
        nlp.to_disk(output_dir)


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
        from .processes import require_gpu
        from .training.calibration import calibrate_pipeline

        if gpu_id >= 0:
            require_gpu(gpu_id)
        nlp = load_model(pipeline)
        for line in calibrate_pipeline(nlp, data, test):
            typer.echo(line)
        nlp.to_disk(output_dir)


@bertner.command("export")
def export_cli(
    pipeline: PipelineName,
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the checkpoint")],
    component: Annotated[str | None, typer.Option(help="Name of the bert_ner, if the pipeline has several")] = None,
    force: Force = False,
) -> None:
    """Export a trained bert_ner as a Hugging Face checkpoint with tokenizer and model card.

    AutoModelForTokenClassification, AutoTokenizer and pipeline("token-classification") load it; see docs/huggingface.md.
    """
    with output_folder("export", output_dir, force):
        from .export.huggingface import export

        export(load_model(pipeline), output_dir, component=component, force=force)


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
        from .training.check_data import check_data

        is_good = check_data(config_path, overrides, Printer(pretty=not no_format))
    if not is_good:
        raise typer.Exit(1)


@bertner.command("annotate")
def annotate_cli(
    pipeline: PipelineName,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs; - is standard input")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="A file; - is standard output")],
    input_format: Annotated[
        str | None, typer.Option(help="text, lines, jsonl, csv, tsv, parquet, spacy or conll [default: by extension]")
    ] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="jsonl, conll, spacy, csv or html [default: by extension]")
    ] = None,
    text_key: Annotated[str, typer.Option(help="Key or column of the text in JSONL, CSV and Parquet")] = "text",
    encoding: Encoding = "utf-8",
    gpu_id: GpuId = -1,
    n_process: Annotated[int, typer.Option("--n-process", "-n", help="Processes on this machine")] = 1,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Maximum records processed together")] = 1000,
    threshold: Annotated[float | None, typer.Option(help="Leave out entities with less confidence")] = None,
    disable: Annotated[str, typer.Option(help="Comma-separated names of components not to run")] = "",
    code: Code = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a record that cannot be processed")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped or killed")] = False,
    force: Force = False,
    engine: Annotated[str, typer.Option(help="local or ray")] = "local",
    num_workers: Annotated[int, typer.Option(help="Workers of --engine ray")] = 2,
    gpus_per_worker: Annotated[float, typer.Option(help="GPUs per worker")] = 0.0,
) -> None:
    """Find the entities in documents: one output record per input record, in order.

    A record that cannot be processed becomes an error record with the reason. See docs/annotate.md.
    """
    from .annotate.readers import ReadSettings
    from .annotate.run import RunSettings, annotate
    from .annotate.worker import Pipeline

    names = tuple(name.strip() for name in disable.split(",") if name.strip())
    try:
        with one_line_errors("annotate"):
            settings = RunSettings(
                output_format=output_format,
                batch_size=batch_size,
                n_process=n_process,
                strict=strict,
                force=force,
                resume=resume,
                engine=engine,
                num_workers=num_workers,
                gpus_per_worker=gpus_per_worker,
            )
            reading = ReadSettings(input_format=input_format, text_key=text_key, encoding=encoding)
            loaded = Pipeline(pipeline, names, threshold, gpu_id, code)
            summary = annotate(loaded, inputs, output, settings, reading, progress=None)
    except KeyboardInterrupt:
        resumable = "" if output == "-" else "; the records written are complete, and --resume continues after them"
        typer.echo(f"annotate: stopped{resumable}", err=True)
        raise typer.Exit(130) from None
    for path in summary.left_out:
        typer.echo(f"annotate: skipped, unknown extension: {path}", err=True)
    for error in summary.errors:
        typer.echo(f"annotate: error record: {error}", err=True)
    if summary.n_errors > len(summary.errors):
        typer.echo(f"annotate: … and {summary.n_errors - len(summary.errors)} more error records", err=True)
    if resume and summary.n_records == summary.n_resumed:
        typer.echo(f"annotate: {output}: complete already; --force starts again", err=True)
        return
    before = f", {summary.n_resumed} of them there before" if summary.n_resumed else ""
    speed = f", {summary.n_words / summary.seconds:,.0f} words/s" if summary.seconds else ""
    typer.echo(
        f"annotate: {summary.n_records} records{before}, {summary.n_errors} with errors, {summary.n_words} words{speed}",
        err=True,
    )
    if summary.n_errors and summary.n_errors == summary.n_records:
        raise typer.Exit(1)


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
    input_format: Annotated[
        str | None, typer.Option(help="text, lines, jsonl, csv, tsv, parquet, spacy or conll [default: by extension]")
    ] = None,
    text_key: Annotated[str, typer.Option(help="Key or column of the text in JSONL, CSV and Parquet")] = "text",
    encoding: Encoding = "utf-8",
    report_to: Annotated[str, typer.Option(help="Where to log to as well: tensorboard, wandb, …")] = "none",
    gpu_id: GpuId = -1,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped or killed")] = False,
    force: Force = False,
) -> None:
    """Continue the pre-training of an encoder on text without annotation, by masked language modelling.

    OUTPUT_DIR is a checkpoint for the setting `name` of bert_ner. See docs/pretraining.md.
    """
    with output_folder("pretrain", output_dir, force):
        from tqdm import tqdm

        from .annotate.readers import ReadSettings
        from .pretrain import Settings, pretrain

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
        before, after = result.perplexity[0], result.perplexity[result.best_step]
        _print(
            f"Perplexity of the held-out text: {before:,.2f} before, {after:,.2f} after step {result.best_step:,}, kept"
        )


@bertner.command("report")
def report_cli(
    pipeline: PipelineName,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A .spacy file with gold entities, or a folder of them")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the report")],
    train: Annotated[Path | None, typer.Option(help="The training data, to tell seen from unseen entities")] = None,
    compare: Annotated[str | None, typer.Option(metavar="PIPELINE", help="A second pipeline to compare with")] = None,
    spans_key: Annotated[str | None, typer.Option(help="Score this group of doc.spans instead of doc.ents")] = None,
    gold_tokens: Annotated[bool, typer.Option("--gold-tokens", help="Use the data's tokens, not its text")] = False,
    ledger: Annotated[Path | None, typer.Option(help="The ledger that convert --ledger wrote for the data")] = None,
    max_errors: Annotated[int, typer.Option(help="Maximum errors in report.html; report.json has all")] = 500,
    n_bins: Annotated[int, typer.Option(help="Bins of the reliability diagram")] = 10,
    n_resamples: Annotated[int, typer.Option(help="Bootstrap samples for --compare")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap for --compare")] = 0,
    batch_size: Annotated[int | None, typer.Option("--batch-size", "-b", help="Documents in a batch")] = None,
    gpu_id: GpuId = -1,
    code: Code = None,
    force: Force = False,
) -> None:
    """Score a pipeline on gold entities and show its errors as one page (report.html), JSON, Markdown and plots.

    Works with any spaCy pipeline that sets doc.ents. See docs/report.md.
    """
    from .annotate.worker import Pipeline
    from .files import check_output_folder
    from .report import Settings, build_report, write_report

    with one_line_errors("report"):
        settings = Settings(spans_key, gold_tokens, batch_size, n_bins, max_errors, n_resamples, seed)
        check_output_folder(output_dir, force=force)
        found = build_report(
            Pipeline(pipeline, gpu_id=gpu_id, code=code).load(),
            data,
            train=train,
            other=None if compare is None else Pipeline(compare, gpu_id=gpu_id, code=code).load(),
            ledger=ledger,
            settings=settings,
        )
        paths = write_report(found, output_dir, force=force)
    for warning in found["warnings"]:
        typer.echo(f"report: {warning}", err=True)
    if not any(path.suffix == ".png" for path in paths):
        typer.echo('report: no plots: matplotlib is not installed (pip install "spacy-bertner[plot]")', err=True)
    micro = found["entities"]["micro"]
    _print(f"F1 {micro['f1']:.1%}, precision {micro['precision']:.1%}, recall {micro['recall']:.1%} (strict, micro)")
    _print(f"Wrote {paths[0]}, and in the same folder {', '.join(path.name for path in paths[1:])}")


def _print(text: str) -> None:
    """Print text with characters that the terminal's encoding may lack."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))
