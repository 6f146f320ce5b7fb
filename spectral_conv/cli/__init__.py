"""The command line: parse, call, print.

Results go to standard output, progress and warnings to standard error. Exit code 0: fine; 1: a layer did
not converge or reached a limit, a descent failed, a claim does not hold; 2: usage or unreadable input. What takes
time to import is imported by the command that needs it, so that ``spectral-conv --help`` answers at once.

models -- the commands about whole files: inspect, describe, layers, demo
showing, condition, cluster -- inspections as they come; what makes them fail; where dask analyses them
compare -- the command about two files
clip -- a whole file written again, its norms brought down
descend -- the descent on the kernel of one layer
runs -- descents that were kept, side by side on a page
bounds -- every bound of one layer
validate -- the claims of papers, checked
choices -- penalties and step sizes by their words on the command line
options -- options that several commands share
files -- files that appear whole or not at all
output -- streams, messages, exit codes
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

# Functions are named otherwise than their files, so that `spectral_conv.cli.descend` stays the module.
from spectral_conv.cli.bounds import bound_layer
from spectral_conv.cli.clip import clip_file
from spectral_conv.cli.compare import compare
from spectral_conv.cli.descend import descend_layer
from spectral_conv.cli.models import demo, describe, inspect, print_layers
from spectral_conv.cli.runs import show_runs
from spectral_conv.cli.validate import validate_claims

app = typer.Typer(
    name="spectral-conv",
    help="Exact largest and smallest singular values of convolution layers, beside what the FFT says.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; the entry point of the package."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown as an escape; it is no reason to stop.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"spectral-conv {version('spectral-conv')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


app.command("inspect")(inspect)
app.command("describe")(describe)
app.command("layers")(print_layers)
app.command("compare")(compare)
app.command("clip")(clip_file)
app.command("descend")(descend_layer)
app.command("runs")(show_runs)
app.command("bounds")(bound_layer)
app.command("demo")(demo)
app.command("validate")(validate_claims)
