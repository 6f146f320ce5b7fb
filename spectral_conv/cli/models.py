"""The commands about a whole file: what is in it, and the exact spectra of its layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_conv._whole_file import write_whole
from spectral_conv.cli.files import check_writable
from spectral_conv.cli.options import (
    AsJson,
    File,
    FoldBatchnorm,
    InputSize,
    Layers,
    MemoryLimit,
    parse_memory,
    parse_size,
    read,
)
from spectral_conv.cli.output import INCOMPLETE, new_console, one_message, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from spectral_conv.inspection import Inspection


def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files of weights.")],
    input_size: InputSize = None,
    layers: Layers = None,
    select: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Only layers whose name has this part, or matches this glob."),
    ] = None,
    rtol: Annotated[float, typer.Option(help="Wanted error, relative to a layer's largest singular value.")] = 1e-8,
    certify: Annotated[
        bool, typer.Option("--certify", help="Prove the bounds, rounding errors included; takes longer.")
    ] = False,
    bounds: Annotated[
        bool, typer.Option("--bounds", help="Compare all bounds of the largest singular values, too.")
    ] = False,
    memory_limit: MemoryLimit = None,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated values for a spreadsheet and nothing else.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a report with figures: one .html, no network needed."),
    ] = None,
    largest_only: Annotated[
        bool, typer.Option("--largest-only", help="Leave the smallest singular values out.")
    ] = False,
    fold_batchnorm: FoldBatchnorm = False,
) -> None:
    """Compare exact singular values with the FFT's.

    For every convolution of a file: the largest and smallest singular value of the layer with its own padding
    and input size, and how far the circular estimate of the FFT is from them.
    """
    from dataclasses import replace

    from spectral_conv.inspection import inspect_model
    from spectral_conv.models._lookup import select_layers

    size = parse_size(input_size)
    with one_message():
        _check_outputs(files, layers, as_json=as_json, as_csv=as_csv, html=html)
        # Every file is opened before the first is analysed: a bad one is told at once, nothing is half done.
        models = [read(path, size, layers, fold_batchnorm=fold_batchnorm) for path in files]
        if select is not None:
            models = [select_layers(model, select, option="--select") for model in models]
    inspections = []
    for model in models:
        with one_message():
            inspection = inspect_model(
                model,
                bounds=bounds,
                memory_limit=parse_memory(memory_limit),
                rtol=rtol,
                certify=certify,
                smallest=not largest_only,
                progress=True,
            )
        inspections.append(replace(inspection, input_size=size))
        if not as_json and not as_csv:
            _print_inspection(new_console(), inspections[-1])
    if as_csv:
        from spectral_conv.report.spreadsheet import layers_csv

        typer.echo(layers_csv([(inspection.model, inspection.reports) for inspection in inspections]), nl=False)
    if as_json:
        documents = [inspection.document() for inspection in inspections]
        print_json(documents[0] if len(documents) == 1 else {"schema": 1, "models": documents})
    if html is not None:
        page = inspections[0].page(progress=True).encode()
        with one_message():
            write_whole(html, lambda file: file.write(page))
        typer.echo(f"Report in {html}.", err=True)
    _leave(inspections)


def describe(
    file: File, input_size: InputSize = None, layers: Layers = None, fold_batchnorm: FoldBatchnorm = False
) -> None:
    """Show the layers of a file, their geometry, and about how long and how much memory `inspect` will take."""
    from spectral_conv.inspection import Settings, layer_cost, layer_record
    from spectral_conv.report.contents import ContentsTable

    with one_message():
        model = read(file, parse_size(input_size), layers, fold_batchnorm=fold_batchnorm)
        costs = [layer_cost(layer, Settings()) for layer in model.layers]
    records = [layer_record(layer) for layer in model.layers]
    skipped = [(entry.name, entry.reason) for entry in model.skipped]
    predicted = [None if cost is None else (cost.seconds, cost.bytes) for cost in costs]
    new_console().print(ContentsTable(records, f"{model.name} ({model.format})", skipped, predicted))


def print_layers(file: File, input_size: InputSize = None, layers: Layers = None) -> None:
    """Print a layers.json of a file, to be edited.

    What the file does not say is filled with assumptions, named on standard error.
    """
    from spectral_conv.models import layers_document

    with one_message():
        model = read(file, parse_size(input_size), layers)
        document = layers_document(model)
    print_json(document)
    assumed = sorted({field for layer in model.layers for field in layer.assumed})
    if assumed:
        typer.echo(f"Assumed, to be checked: {', '.join(assumed)}.", err=True)


def demo() -> None:
    """Inspect a small network of the package."""
    from importlib.resources import as_file, files

    from spectral_conv.inspection import inspect_model
    from spectral_conv.report.summary import summarize
    from spectral_conv.report.text import printable

    with as_file(files("spectral_conv") / "data") as folder:
        about = json.loads((folder / "digits.layers.json").read_text(encoding="utf-8"))
        inspection = inspect_model(folder / "digits.safetensors", layers=folder / "digits.layers.json", progress=True)
    console = new_console()
    console.print(
        f"A network for handwritten digits ({about['accuracy']:.1%} right): the singular values of its "
        "convolutions as they really are, and as the FFT has them.\n"
    )
    _print_inspection(console, inspection)
    console.print()
    for sentence in summarize(inspection.reports):
        console.print(printable(sentence))
    console.print("\nYour own: spectral-conv inspect model.safetensors --input-size 3x224x224")
    _leave([inspection])


def _check_outputs(files: list[Path], layers: Path | None, *, as_json: bool, as_csv: bool, html: Path | None) -> None:
    """Refuse, before the work, what could not be written after it."""
    if as_json and as_csv:
        raise ValueError("`--json` and `--csv` must not be given together; choose one.")
    if html is None:
        return
    if len(files) > 1:
        raise ValueError(f"`--html` must go with one file; got {len(files)}. Run inspect once for each.")
    taken = [*files, *([layers] if layers is not None else [])]
    check_writable("--html", html, (".html", ".htm"), taken)


def _print_inspection(console: Console, inspection: Inspection) -> None:
    from spectral_conv.report.contents import folded_note
    from spectral_conv.report.table import LayerTable

    console.print(LayerTable(inspection.reports, inspection.model, inspection.skipped))
    if any(report.bounds is not None for report in inspection.reports):
        from spectral_conv.report.bounds import bounds_summary

        console.print("\nBounds of the largest singular values: ratio to the exact ones, and time", style="bold")
        console.print(bounds_summary(inspection.reports))
    for note in folded_note(inspection.reports):
        console.print(note)


def _leave(inspections: list[Inspection]) -> None:
    if not all(inspection.complete for inspection in inspections):
        raise typer.Exit(INCOMPLETE)
