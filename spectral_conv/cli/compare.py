"""The command about two files: what became of each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectral_conv.cli.options import AsJson, InputSize, Layers, parse_size
from spectral_conv.cli.output import INCOMPLETE, new_console, one_message, print_json


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A file of weights.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same network.")],
    input_size: InputSize = None,
    layers: Layers = None,
    rtol: Annotated[float, typer.Option(help="Wanted error, relative to a layer's largest singular value.")] = 1e-8,
    as_json: AsJson = False,
    largest_only: Annotated[
        bool, typer.Option("--largest-only", help="Leave the smallest singular values out.")
    ] = False,
) -> None:
    """Compare two checkpoints of one network, layer by layer.

    Exact largest and smallest singular values and condition numbers in both, the layers whose norm moved most first.
    """
    from spectral_conv.comparison import compare_models

    with one_message():
        comparison = compare_models(
            first,
            second,
            input_size=parse_size(input_size),
            layers=layers,
            rtol=rtol,
            smallest=not largest_only,
            progress=True,
        )
    if as_json:
        print_json(comparison.document())
    else:
        from spectral_conv.report.comparison import ComparisonTable

        names = (str(first), str(second)) if len(set(comparison.models)) == 1 else comparison.models
        unmatched = [(item.name, item.reason) for item in comparison.unmatched]
        new_console().print(ComparisonTable(comparison.changes, names, unmatched))
    if not comparison.complete:
        raise typer.Exit(INCOMPLETE)
