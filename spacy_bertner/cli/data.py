"""The commands `convert`, `annotate` and `suggest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import Code, Encoding, Force, GpuId, InputFormat, PipelineName, TextKey, bertner, one_line_errors, print_text


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
    strict: Annotated[bool, typer.Option("--strict", help="Fail even if only a few tags violate the scheme")] = False,
    label: Annotated[str | None, typer.Option(help="Label of the entities if the tags are just B, I and O")] = None,
    missing: Annotated[
        list[str] | None, typer.Option(help="A further marker of missing annotation; repeatable")
    ] = None,
    n_sents: Annotated[
        int, typer.Option("--n-sents", "-n", help="Sentences per document if files mark none; 0: one document per file")
    ] = 1,
    word_col: Annotated[str | None, typer.Option(help="Column of the words: name, number from 1, -1 for last")] = None,
    tag_col: Annotated[str | None, typer.Option(help="Column of the tags, likewise")] = None,
    pos_col: Annotated[str | None, typer.Option(help="Column for token.tag_, likewise, or none")] = None,
    layer_col: Annotated[str | None, typer.Option(help="Columns of further layers, likewise, with commas")] = None,
    spans_key: Annotated[
        str | None,
        typer.Option(help="Key in doc.spans for further layers (sc), or for all entities"),
    ] = None,
    misc_key: Annotated[str | None, typer.Option(help="Key of the tags in the MISC column of CoNLL-U")] = None,
    layout: Annotated[str, typer.Option(help="Form of the files: columns, conllu, prodigy, … or auto")] = "auto",
    to: Annotated[
        str, typer.Option(help="spacy, prodigy, doccano, label-studio, brat, argilla, spacy-json, hf, parquet, conll")
    ] = "spacy",
    alignment: Annotated[
        str, typer.Option(help="Entities off token bounds: strict (fail), contract, expand")
    ] = "strict",
    offsets: Annotated[str, typer.Option(help="Unit of offsets: characters, utf16 or bytes")] = "characters",
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
    from ..formats.convert import ReadOptions, convert

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
    print_text(str(result))


@bertner.command("annotate")
def annotate_cli(
    pipeline: PipelineName,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs; - is standard input")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="A file; - is standard output")],
    input_format: InputFormat = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="jsonl, conll, spacy, csv, html, prodigy, doccano or label-studio [default: by extension]"
        ),
    ] = None,
    text_key: TextKey = "text",
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
    from ..annotate.readers import ReadSettings
    from ..annotate.run import RunSettings, annotate
    from ..annotate.worker import Pipeline

    names = tuple(name.strip() for name in disable.split(",") if name.strip())
    stopped = "" if output == "-" else "the records written are complete, and --resume continues after them"
    with one_line_errors("annotate", stopped):
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


@bertner.command("suggest")
def suggest_cli(
    pipeline: PipelineName,
    inputs: Annotated[list[str], typer.Argument(metavar="TEXTS...", help="Files, folders, globs; - is standard input")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file of tasks to write")],
    n: Annotated[int, typer.Option("--n", "-n", help="Texts to choose")] = 100,
    exclude: Annotated[
        list[Path] | None, typer.Option(help="A file or folder with texts that are annotated already; repeatable")
    ] = None,
    strategy: Annotated[str, typer.Option(help="uncertainty or random")] = "uncertainty",
    output_format: Annotated[
        str | None,
        typer.Option("--format", help="prodigy, doccano or label-studio [default: label-studio for .json, or prodigy]"),
    ] = None,
    input_format: InputFormat = None,
    text_key: TextKey = "text",
    encoding: Encoding = "utf-8",
    seed: Annotated[int, typer.Option(help="Seed of --strategy random")] = 0,
    gpu_id: GpuId = -1,
    code: Code = None,
    force: Force = False,
) -> None:
    """Choose the texts that the pipeline is least certain of, and write them as tasks with its entities, to be corrected.

    The most informative text comes first. See docs/annotation_tools.md.
    """
    from ..annotate.readers import ReadSettings
    from ..annotate.suggest import suggest
    from ..annotate.worker import Pipeline

    with one_line_errors("suggest"):
        result = suggest(
            Pipeline(pipeline, gpu_id=gpu_id, code=code).load(),
            inputs,
            output,
            n,
            exclude=exclude or (),
            strategy=strategy,
            output_format=output_format,
            reading=ReadSettings(input_format=input_format, text_key=text_key, encoding=encoding),
            seed=seed,
            force=force,
        )
    for error in result.errors:
        typer.echo(f"suggest: cannot be processed: {error}", err=True)
    left_out = f"{result.n_excluded} annotated already, {result.n_repeated} repeated, {len(result.errors)} with errors"
    print_text(f"Wrote {output}: {len(result.chosen)} of {result.n_texts} texts (left out: {left_out})")
