"""The command line, `python -m spacy bertner …`: thin typer commands over the library's functions."""

import typer
from spacy.cli._util import app

bertner = typer.Typer(
    name="bertner",
    help="Commands of spacy-bertner",
    no_args_is_help=True,
)
app.add_typer(bertner)
