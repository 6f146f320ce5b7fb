"""The command line: parse, call, print.

Results go to standard output, progress and warnings to standard error. Exit code 0: fine; 1: a layer did
not converge or reached a limit; 2: usage or unreadable input. What takes time to import is imported by the
command that needs it, so that ``spectral-conv --help`` answers at once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from spectral_conv.inspection import Inspection
    from spectral_conv.models import Model

INCOMPLETE, UNUSABLE = 1, 2  # exit codes; 0 where all is fine

app = typer.Typer(
    name="spectral-conv",
    help="Exact largest and smallest singular values of convolution layers, beside what the FFT says.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(help="A file of weights: .safetensors, .npz, .pt, .pth or .th.")]
InputSize = Annotated[
    str | None,
    typer.Option(metavar="CxHxW", help="Channels and size of the network's input, such as 3x32x32."),
]
Layers = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A layers.json with stride, padding and input size of every layer."),
]


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


@app.command()
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
    memory_limit: Annotated[
        float | None, typer.Option(metavar="GB", help="Memory that one layer may take, in gigabytes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    largest_only: Annotated[
        bool, typer.Option("--largest-only", help="Leave the smallest singular values out.")
    ] = False,
) -> None:
    """Compare exact singular values with the FFT's.

    For every convolution of a file: the largest and smallest singular value of the layer with its own padding
    and input size, and how far the circular estimate of the FFT is from them.
    """
    from dataclasses import replace

    from spectral_conv.inspection import inspect_model

    size = _parse_size(input_size)
    with _one_message():
        # Every file is opened before the first is analysed: a bad one is told at once, nothing is half done.
        models = [_selected(_read(path, size, layers), select) for path in files]
    inspections = []
    for model in models:
        with _one_message():
            inspection = inspect_model(
                model,
                memory_limit=_parse_memory(memory_limit),
                rtol=rtol,
                certify=certify,
                smallest=not largest_only,
                progress=True,
            )
        inspections.append(replace(inspection, input_size=size))
        if not as_json:
            _print_inspection(_console(), inspections[-1])
    if as_json:
        documents = [inspection.document() for inspection in inspections]
        _print_json(documents[0] if len(documents) == 1 else {"schema": 1, "models": documents})
    _leave(inspections)


@app.command()
def describe(file: File, input_size: InputSize = None, layers: Layers = None) -> None:
    """Show the layers of a file and their geometry."""
    from spectral_conv.inspection import layer_record
    from spectral_conv.report.contents import ContentsTable

    with _one_message():
        model = _read(file, _parse_size(input_size), layers)
    records = [layer_record(layer) for layer in model.layers]
    skipped = [(entry.name, entry.reason) for entry in model.skipped]
    _console().print(ContentsTable(records, f"{model.name} ({model.format})", skipped))


@app.command("layers")
def print_layers(file: File, input_size: InputSize = None, layers: Layers = None) -> None:
    """Print a layers.json of a file, to be edited.

    What the file does not say is filled with assumptions, named on standard error.
    """
    from spectral_conv.models import layers_document

    with _one_message():
        model = _read(file, _parse_size(input_size), layers)
        document = layers_document(model)
    _print_json(document)
    assumed = sorted({field for layer in model.layers for field in layer.assumed})
    if assumed:
        typer.echo(f"Assumed, to be checked: {', '.join(assumed)}.", err=True)


@app.command()
def demo() -> None:
    """Inspect a small network of the package."""
    from importlib.resources import as_file, files

    from spectral_conv.inspection import inspect_model
    from spectral_conv.report.summary import summarize
    from spectral_conv.report.text import printable

    with as_file(files("spectral_conv") / "data") as folder:
        about = json.loads((folder / "digits.layers.json").read_text(encoding="utf-8"))
        inspection = inspect_model(folder / "digits.safetensors", layers=folder / "digits.layers.json", progress=True)
    console = _console()
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


@contextmanager
def _one_message() -> Iterator[None]:
    """Turn an error of the input into one message on standard error and the exit code for it."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        from spectral_conv.report.text import printable

        typer.echo(f"spectral-conv: {printable(_text_of(error))}", err=True)
        raise typer.Exit(UNUSABLE) from None


def _text_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def _read(path: Path, size: tuple[int, ...] | None, layers: Path | None) -> Model:
    from spectral_conv.models import read_model

    return read_model(path, input_size=size, layers=layers)


def _selected(model: Model, pattern: str | None) -> Model:
    """Keep the layers that the pattern names: a glob for the whole name, or else a part of it."""
    if pattern is None:
        return model
    from dataclasses import replace
    from fnmatch import fnmatchcase

    glob = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    chosen = tuple(layer for layer in model.layers if fnmatchcase(layer.name, glob))
    if not chosen:
        names = [layer.name for layer in model.layers]
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"`--select` must match a layer of {model.name}; got {pattern!r}. Its layers are {shown}.")
    return replace(model, layers=chosen)


def _parse_size(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8}){1,3}", text.strip().lower()):
        raise typer.BadParameter(
            f"`--input-size` must be channels and one to three sizes, such as 3x32x32; got {text!r}."
        )
    return tuple(int(number) for number in text.strip().lower().split("x"))


def _parse_memory(gigabytes: float | None) -> int | None:
    if gigabytes is None:
        return None
    if not 0 < gigabytes < float("inf"):
        raise ValueError(f"`--memory-limit` must be a positive number of gigabytes; got {gigabytes}.")
    return int(gigabytes * 1e9)


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def _print_inspection(console: Console, inspection: Inspection) -> None:
    from spectral_conv.report.table import LayerTable

    console.print(LayerTable(inspection.reports, inspection.model, inspection.skipped))


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=1, allow_nan=False))


def _leave(inspections: list[Inspection]) -> None:
    if not all(inspection.complete for inspection in inspections):
        raise typer.Exit(INCOMPLETE)
