"""The command line, `python -m spacy bertner …`: thin typer commands over the library's functions.

spaCy imports this module for every command of its own, so each command imports what it needs only
when it runs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from spacy.cli._util import app

bertner = typer.Typer(
    name="bertner",
    help="Commands of spacy-bertner",
    no_args_is_help=True,
)
app.add_typer(bertner)


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


@bertner.command("convert")
def convert_cli(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Files, folders, glob patterns; - for standard input"),
    ],
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the .spacy files")],
    merge: Annotated[
        str | None,
        typer.Option("--merge", metavar="NAME", help="Write all documents to OUTPUT_DIR/NAME.spacy"),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option("--ledger", help="Write what was read, written, repaired and dropped to this JSON file"),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Repair what can be repaired, and record it, instead of failing"),
    ] = False,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", help="Tag scheme, such as IOB2, BIOES or IO [default: detected]"),
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option("--missing", help="Marker of a missing annotation besides _ (may be repeated)"),
    ] = None,
    n_sents: Annotated[
        int,
        typer.Option("--n-sents", "-n", help="Sentences per document in files without marks; 0: one document per file"),
    ] = 10,
    word_col: Annotated[
        str | None,
        typer.Option("--word-col", help="Column of the words: a name, a number from 1, or -1 for the last"),
    ] = None,
    tag_col: Annotated[str | None, typer.Option("--tag-col", help="Column of the tags, likewise")] = None,
    pos_col: Annotated[str | None, typer.Option("--pos-col", help="Column for token.tag_, likewise, or none")] = None,
    layer_col: Annotated[
        str | None,
        typer.Option("--layer-col", help="Column of a second layer of entities, likewise"),
    ] = None,
    spans_key: Annotated[str, typer.Option("--spans-key", help="Group of doc.spans for the second layer")] = "sc",
    misc_key: Annotated[
        str | None, typer.Option("--misc-key", help="Key of the tags in the MISC column of CoNLL-U")
    ] = None,
    layout: Annotated[str, typer.Option("--layout", help="columns, conllu, table, inline, or auto")] = "auto",
    delimiter: Annotated[str, typer.Option("--delimiter", help="tab, space or auto")] = "auto",
    encoding: Annotated[str, typer.Option("--encoding", help="Encoding of the input")] = "utf-8",
    lang: Annotated[str, typer.Option("--lang", "-l", help="Language of the vocabulary and the tokenizer")] = "en",
    detokenize: Annotated[
        bool,
        typer.Option("--detokenize", help="Set spaces by rules where the file does not give them"),
    ] = False,
) -> None:
    """Convert CoNLL files and their relatives to .spacy files, with nothing lost.

    Whatever is wrong with the input is reported by file and line; then nothing is written. See docs/convert.md for the
    dialects that are read.
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
            missing=tuple(missing or ()),
            misc_key=misc_key,
            n_sents=n_sents,
            encoding=encoding,
            detokenize=detokenize,
            spans_key=spans_key,
            lang=lang,
            repair=repair,
        )
        from tqdm import tqdm  # type: ignore[import-untyped]

        # On a short input the bar would only flicker
        with tqdm(unit="B", unit_scale=True, disable=None, delay=1.0, leave=False) as bar:

            def progress(n_bytes: int, total: int) -> None:
                bar.total = total
                bar.update(n_bytes)

            result = convert(inputs, output_dir, options, merge=merge, ledger=ledger, progress=progress)
    _print(str(result))


@bertner.command("onnx")
def onnx_cli(
    input_dir: Annotated[Path, typer.Argument(metavar="PIPELINE", help="A trained pipeline: folder or package")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the converted one")],
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Round weights to 8 bits: quicker, not exact; compare with spacy evaluate"),
    ] = False,
) -> None:
    """Convert a trained pipeline into one that predicts through ONNX Runtime, for CPUs.

    It is loaded as any other, and needs neither torch nor transformers; it cannot be trained any more.
    """
    from spacy.util import load_model

    with one_line_errors("onnx"):
        from .export.onnx import to_onnx

        nlp = load_model(input_dir)
        to_onnx(nlp, int8=int8)
        nlp.to_disk(output_dir)


@bertner.command("calibrate")
def calibrate_cli(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A trained pipeline: folder or package")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Annotated documents that were not trained on, .spacy")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the calibrated pipeline")],
    test: Annotated[
        Path | None, typer.Option("--test", help="Other annotated documents, to say of these too what it has changed")
    ] = None,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU, or -1 for the CPU")] = -1,
) -> None:
    """Make the scores of a pipeline's entities nearer to how often they are right, by temperature scaling.

    The same entities are found as before; a threshold should be chosen afterwards. Every bert_ner gets a temperature.
    """
    from spacy.util import load_model

    with one_line_errors("calibrate"):
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
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A trained pipeline: folder or package")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder for the checkpoint, new or empty")],
    component: Annotated[
        str | None, typer.Option("--component", help="Which bert_ner, where the pipeline has several")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-F", help="Write into a folder that is not empty")] = False,
) -> None:
    """Write a trained bert_ner as a checkpoint that Hugging Face transformers opens, with tokenizer and model card.

    AutoModelForTokenClassification, AutoTokenizer and pipeline("token-classification") read it; see docs/huggingface.md.
    """
    from spacy.util import load_model

    with one_line_errors("export"):
        from .export.huggingface import export

        export(load_model(pipeline), output_dir, component=component, force=force)


@bertner.command("check", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def check_cli(
    ctx: typer.Context,  # for the overrides, as in spaCy's commands
    config_path: Annotated[Path, typer.Argument(metavar="CONFIG", help="Training config with a component bert_ner")],
    no_format: Annotated[bool, typer.Option("--no-format", "-NF", help="Don't pretty-print the results")] = False,
) -> None:
    """Check the entities of training and development data before training, as spacy debug data does for ner.

    Counts by label, labels with little data, missing and misaligned annotation, entities of whitespace or punctuation.
    Settings are overridden as for spacy train: --paths.train train.spacy. The exit status is 1 where there are errors.
    """
    from spacy.cli._util import parse_config_overrides
    from wasabi import Printer

    overrides = parse_config_overrides(ctx.args)
    with one_line_errors("check"):
        from .training.check_data import check_data

        is_good = check_data(config_path, overrides, Printer(pretty=not no_format))
    if not is_good:
        raise typer.Exit(1)


@bertner.command("annotate")
def annotate_cli(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A trained pipeline: folder or package")],
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Texts, JSONL, CSV, Parquet, DocBins, CoNLL: files, folders, globs, -"),
    ],
    output: Annotated[
        str,
        typer.Argument(metavar="OUTPUT", help="A .jsonl, .conll, .spacy, .csv or .html file; - for standard output"),
    ],
    input_format: Annotated[
        str | None,
        typer.Option(help="text, lines, jsonl, csv, tsv, parquet, spacy or conll [default: by the ending]"),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option("--format", help="jsonl, conll, spacy, csv or html [default: by the ending]"),
    ] = None,
    text_key: Annotated[str, typer.Option(help="Key or column of the text in JSONL, CSV and Parquet")] = "text",
    encoding: Annotated[str, typer.Option(help="Encoding of the input")] = "utf-8",
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU, or -1 for the CPU")] = -1,
    n_process: Annotated[int, typer.Option("--n-process", "-n", help="Processes on this machine")] = 1,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Most records processed together")] = 1000,
    threshold: Annotated[float | None, typer.Option(help="Leave out entities that are less sure than this")] = None,
    disable: Annotated[str, typer.Option(help="Components not to run, parted by commas")] = "",
    code: Annotated[str | None, typer.Option("--code", "-c", help="Python file with code the pipeline needs")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a record that cannot be processed")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed")] = False,
    force: Annotated[bool, typer.Option("--force", "-F", help="Overwrite the output")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray")] = "local",
    num_workers: Annotated[int, typer.Option(help="Workers of --engine ray")] = 2,
    gpus_per_worker: Annotated[float, typer.Option(help="GPUs each of them has")] = 0.0,
) -> None:
    """Find the entities in documents: one output record an input record, in order.

    A record that cannot be processed becomes an error record with its reason. See docs/annotate.md.
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
        go_on = "" if output == "-" else "; what is written is whole, and --resume goes on with it"
        typer.echo(f"annotate: stopped{go_on}", err=True)
        raise typer.Exit(130) from None
    for path in summary.left_out:
        typer.echo(f"annotate: left out, unknown ending: {path}", err=True)
    for what in summary.errors:
        typer.echo(f"annotate: error record: {what}", err=True)
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


@bertner.command("report")
def report_cli(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A trained pipeline: folder or package")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A .spacy file with gold entities, or a folder of them")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder for the report")],
    train: Annotated[
        Path | None, typer.Option(help="The training data, to tell entities that it has from others")
    ] = None,
    compare: Annotated[str | None, typer.Option(metavar="PIPELINE", help="A second pipeline to compare with")] = None,
    spans_key: Annotated[str | None, typer.Option(help="Look at this group of doc.spans, not at doc.ents")] = None,
    gold_tokens: Annotated[
        bool, typer.Option("--gold-tokens", help="Give the pipeline the tokens of the data, not the text")
    ] = False,
    ledger: Annotated[Path | None, typer.Option(help="What convert --ledger wrote when it made the data")] = None,
    max_errors: Annotated[int, typer.Option(help="Most errors listed in report.html; report.json has all")] = 500,
    n_bins: Annotated[int, typer.Option(help="Bins of the reliability diagram")] = 10,
    n_resamples: Annotated[int, typer.Option(help="Samples of the bootstrap of --compare")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap of --compare")] = 0,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "-b", help="Documents in a batch [default: the pipeline's]")
    ] = None,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU, or -1 for the CPU")] = -1,
    code: Annotated[str | None, typer.Option("--code", "-c", help="Python file with code the pipeline needs")] = None,
    force: Annotated[bool, typer.Option("--force", "-F", help="Write over an earlier report")] = False,
) -> None:
    """Score a pipeline on gold entities and show where it goes wrong, as one page (report.html), JSON, Markdown and plots.

    For any spaCy pipeline with doc.ents. See docs/report.md.
    """
    from .annotate.worker import Pipeline
    from .report import Settings, build_report, check_folder, write_report

    with one_line_errors("report"):
        settings = Settings(spans_key, gold_tokens, batch_size, n_bins, max_errors, n_resamples, seed)
        check_folder(output_dir, force)
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
    _print(f"Wrote {paths[0]}, and beside it {', '.join(path.name for path in paths[1:])}")


def _print(text: str) -> None:
    """Print what the terminal's encoding may not have."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))
