"""Every bound of the norm of one layer, beside the exact value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_conv._whole_file import write_whole
from spectral_conv.cli.files import PICTURES, check_writable
from spectral_conv.cli.options import (
    AsJson,
    File,
    InputSize,
    Layer,
    Layers,
    MemoryLimit,
    parse_memory,
    parse_size,
    read,
)
from spectral_conv.cli.output import INCOMPLETE, new_console, one_message, print_json

if TYPE_CHECKING:
    from spectral_conv.results import BoundTable


def bound_layer(
    file: File,
    layer: Layer,
    input_size: InputSize = None,
    layers: Layers = None,
    rtol: Annotated[float, typer.Option(help="Wanted error of the exact value, relative to it.")] = 1e-8,
    memory_limit: MemoryLimit = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw tightness over time: .png, .pdf or .svg.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare all bounds of the largest singular value of a layer.

    Upper bounds, lower bounds and what is often taken for a bound, beside the exact value: how close they are, how
    long they take, and for which padding and image size they hold.
    """
    from importlib.metadata import version

    size = parse_size(input_size)
    with one_message(lambda text: text.replace("`memory_limit`", "`--memory-limit`")):
        limit = parse_memory(memory_limit)
        if figure is not None:
            check_writable("--figure", figure, PICTURES, [path for path in (file, layers) if path is not None])
        from spectral_conv.models import find_layer

        model = read(file, size, layers)
        chosen = find_layer(model, layer)
        from spectral_conv.bounds import table

        found = table(chosen.operator, rtol=rtol, memory_limit=limit)
    from spectral_conv.report.document import bounds_document
    from spectral_conv.report.record import is_reached

    if as_json:
        about = {"model": model.name, "schema": 1, "version": version("spectral-conv"), "layer": chosen.name}
        print_json(about | bounds_document(found))
        if chosen.assumed:
            typer.echo(f"Assumed, to be checked: {', '.join(chosen.assumed)}.", err=True)
    else:
        from spectral_conv.inspection import layer_record
        from spectral_conv.report.bounds import BoundsTable

        new_console().print(BoundsTable(layer_record(chosen), found, model.name))
    if not is_reached(found.exact):
        if figure is not None:
            typer.echo("spectral-conv: no figure, for there is no exact value to compare with.", err=True)
        raise typer.Exit(INCOMPLETE)
    if figure is not None:
        with one_message():
            _draw(figure, found, f"{model.name}: {chosen.name}")
        if not as_json:
            typer.echo(f"Figure in {figure}.")


def _draw(path: Path, table: BoundTable, title: str) -> None:
    from spectral_conv.report.plots import new_figure
    from spectral_conv.report.plots_bounds import plot_bounds

    figure = new_figure(8.0, 5.0)
    plot_bounds(table, ax=figure.add_subplot())
    figure.suptitle(title, parse_math=False)
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower()))
