"""What the commands share: the app, options that several have, and how errors and results are shown."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from spacy.cli._util import app

bertner = typer.Typer(name="bertner", help="Commands of spacy-bertner", no_args_is_help=True)
app.add_typer(bertner)

# Parameters that several commands have
PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="A trained pipeline: folder or package")]
InputFormat = Annotated[
    str | None,
    typer.Option(
        "--input-format", help="text, lines, jsonl, csv, tsv, parquet, spacy or conll [default: by extension]"
    ),
]
TextKey = Annotated[str, typer.Option("--text-key", help="Key or column of the text in JSONL, CSV and Parquet")]
Encoding = Annotated[str, typer.Option("--encoding", help="Encoding of the input")]
GpuId = Annotated[int, typer.Option("--gpu-id", "-g", help="GPU, or -1 for the CPU")]
Code = Annotated[str | None, typer.Option("--code", "-c", help="Python file with code that the pipeline needs")]
Force = Annotated[bool, typer.Option("--force", "-F", help="Overwrite the output")]


@contextlib.contextmanager
def one_line_errors(command: str, stopped: str = "") -> Iterator[None]:
    """End a command with status 1 and one line that says what is wrong with its input; print warnings as lines too.

    stopped: what to tell the user after Ctrl-C, which ends the command with status 130.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: typer.echo(f"{command}: {message}", err=True)
            yield
    except (BrokenPipeError, typer.Exit):  # whoever reads standard output has had enough: typer knows how to end then
        raise
    except (ValueError, OSError, ImportError, RuntimeError) as err:
        from ..formats.faults import ConversionError

        # A conversion error is a list of lines with file and number
        typer.echo(str(err) if isinstance(err, ConversionError) else f"{command}: {err}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(f"{command}: stopped{stopped and f'; {stopped}'}", err=True)
        raise typer.Exit(130) from None


@contextlib.contextmanager
def output_folder(command: str, path: Path, force: bool, stopped: str = "") -> Iterator[None]:
    """Let the body of the `with` write to a folder that is new, empty or to be overwritten, and print what it wrote."""
    from ..files import check_output_folder

    with one_line_errors(command, stopped):
        check_output_folder(path, force=force)
        yield
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print_text(f"Wrote {path} ({size / 1e6:,.1f} MB)")


def print_text(text: str) -> None:
    """Print text with characters that the terminal's encoding may lack."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))
