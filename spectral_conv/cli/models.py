"""The commands about a whole file: what is in it, and the exact spectra of its layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_conv._whole_file import write_whole
from spectral_conv.cli.cluster import connected
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
    from spectral_conv.inspection import Inspection

# So many files or fewer are all opened before the first is analysed: a bad one is told at once, nothing is half done.
# Of more, a bad one is told when its turn has come, and the others are done.
FEW = 100


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
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Analyse so many layers at a time, a process for each.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Analyse the layers on the dask cluster of this scheduler.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep results there (a .zarr), and do not repeat those that are there."),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds that one layer may take; beyond them, a bracket.")
    ] = None,
    fail_if: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="Exit code 1 if it holds for a layer, such as 'sigma_max > 1.01'."),
    ] = None,
) -> None:
    """Compare exact singular values with the FFT's.

    For every convolution of a file: the largest and smallest singular value of the layer with its own padding
    and input size, and how far the circular estimate of the FFT is from them.
    """
    from spectral_conv.cli.condition import Condition
    from spectral_conv.cli.showing import Showing
    from spectral_conv.inspection import inspect_files

    size, last = parse_size(input_size), None
    with ExitStack() as stack:
        with one_message(_as_options):
            _check_outputs(files, layers, as_json=as_json, as_csv=as_csv, html=html)
            if jobs is not None and dask is not None:
                raise ValueError("`--jobs` and `--dask` must not be given together; choose one.")
            showing = Showing(
                "json" if as_json else "csv" if as_csv else "table", None if fail_if is None else Condition(fail_if)
            )
            inspections = inspect_files(
                files,
                input_size=size,
                layers=layers,
                fold_batchnorm=fold_batchnorm,
                select=select,
                bounds=bounds,
                memory_limit=parse_memory(memory_limit),
                time_limit=time_limit,
                rtol=rtol,
                certify=certify,
                smallest=not largest_only,
                executor=stack.enter_context(connected(dask)),
                jobs=jobs,
                store=store,
                on_failure="raise" if len(files) <= FEW else "return",
                progress=True,
            )
        for inspection in _each(inspections):
            showing.show(inspection)
            last = inspection
    showing.finish()
    if html is not None and last is not None:
        page = last.page(progress=True).encode()
        with one_message():
            write_whole(html, lambda file: file.write(page))
        typer.echo(f"Report in {html}.", err=True)
    if not showing.well:
        raise typer.Exit(INCOMPLETE)


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

    from spectral_conv.cli.showing import print_inspection
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
    print_inspection(console, inspection)
    console.print()
    for sentence in summarize(inspection.reports):
        console.print(printable(sentence))
    console.print("\nYour own: spectral-conv inspect model.safetensors --input-size 3x224x224")
    if not inspection.complete:
        raise typer.Exit(INCOMPLETE)


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


def _each(inspections: Iterator[Inspection]) -> Iterator[Inspection]:
    """Yield them, their errors as messages; those of the loop's body are its own."""
    while True:
        with one_message(_as_options):
            inspection = next(inspections, None)
        if inspection is None:
            return
        yield inspection


def _as_options(message: str) -> str:
    for name in ("time_limit", "memory_limit", "store", "jobs"):
        message = message.replace(f"`{name}`", f"`--{name.replace('_', '-')}`")
    return message.replace("`executor`", "`--dask`")
