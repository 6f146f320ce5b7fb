"""The claims of papers, checked: in a checkout of the repository only, for an installed package has no cases."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from spectral_conv.cli.options import AsJson
from spectral_conv.cli.output import UNUSABLE

CHECKOUT = Path(__file__).resolve().parents[2]


def validate_claims(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="CASE", help="Names of cases; without, all of them.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Take more layers, sizes and random kernels.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the report goes; by default, of all cases, validation/report."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the claims of papers, and write a report with figures.

    Needs a checkout of the repository. The report is index.html, and report.json with the same as data. Exit code 1
    where a claim does not hold.
    """
    if not (CHECKOUT / "validation" / "cases" / "__init__.py").is_file():
        typer.echo(
            "spectral-conv: `validate` needs a checkout of the repository, whose folder `validation` is not part of "
            "the installed package. Clone the repository and run `make validate` there.",
            err=True,
        )
        raise typer.Exit(UNUSABLE)
    # Before all else: another package of that name may be installed.
    sys.path.insert(0, str(CHECKOUT))
    # By name, because the package itself does not depend on the folder.
    command = importlib.import_module("validation.checks.command")
    raise typer.Exit(command.validate(cases or (), full=full, folder=output, as_json=as_json))
