"""The commands for trained pipelines: `report`, `export`, `onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from spacy.util import load_model

from .app import Code, Force, GpuId, PipelineName, bertner, one_line_errors, output_folder, print_text


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
    from ..annotate.worker import Pipeline
    from ..files import check_output_folder
    from ..report import Settings, build_report, write_report

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
    print_text(
        f"F1 {micro['f1']:.1%}, precision {micro['precision']:.1%}, recall {micro['recall']:.1%} (strict, micro)"
    )
    print_text(f"Wrote {paths[0]}, and in the same folder {', '.join(path.name for path in paths[1:])}")


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
        from ..export.huggingface import export

        export(load_model(pipeline), output_dir, component=component, force=force)


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
        from ..export.onnx import to_onnx

        nlp = load_model(pipeline)
        to_onnx(nlp, int8=int8)
        nlp.to_disk(output_dir)
