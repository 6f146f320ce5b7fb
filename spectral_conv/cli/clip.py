"""The command that brings the norms of a whole model down and writes it again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_conv.cli.files import check_writable
from spectral_conv.cli.options import AsJson, File, InputSize, Layers, parse_size
from spectral_conv.cli.output import INCOMPLETE, new_console, one_message, print_json

if TYPE_CHECKING:
    from spectral_conv.clipping import ClippedModel


def clip_file(
    file: File,
    maximum: Annotated[float, typer.Option(metavar="NORM", help="No layer may stretch a signal by more.")],
    out: Annotated[Path, typer.Option(metavar="NEW", help="The new file, .safetensors.")],
    minimum: Annotated[
        float | None,
        typer.Option(metavar="VALUE", help="Raise smallest singular values towards it, too: a heuristic, and slow."),
    ] = None,
    input_size: InputSize = None,
    layers: Layers = None,
    select: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Only layers whose name has this part, or matches this glob."),
    ] = None,
    rtol: Annotated[float, typer.Option(help="Residuals of the iteration, relative to the kernel.")] = 1e-4,
    maxiter: Annotated[int, typer.Option(help="Iterations at most; fewer cost nearness, not the norm.")] = 1000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the new file where it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model again with the norm of every convolution brought down.

    Each kernel moves as little as possible; all other tensors stay as they are, bit by bit.
    """
    from spectral_conv.clipping import clip_model

    with one_message(_in_options):
        # A mistake in the command is told before a large file is read.
        check_writable("--out", out, (".safetensors",), [path for path in (file, layers) if path is not None])
        clipped = clip_model(
            file,
            maximum,
            out,
            minimum=minimum,
            input_size=parse_size(input_size),
            layers=layers,
            select=select,
            overwrite=overwrite,
            rtol=rtol,
            maxiter=maxiter,
            progress=True,
        )
    if as_json:
        print_json(clipped.document())
    else:
        _print(clipped)
    if not clipped.complete:
        raise typer.Exit(INCOMPLETE)


def _print(clipped: ClippedModel) -> None:
    from spectral_conv.report.clipping import ClippingTable
    from spectral_conv.report.text import printable, seconds_text

    console = new_console()
    title = f"{clipped.model}: norms of {clipped.maximum:g} at most"
    console.print(ClippingTable(clipped.layers, title, clipped.minimum, clipped.left_out))
    changed = sum(layer.changed for layer in clipped.layers)
    time = seconds_text(sum(layer.seconds for layer in clipped.layers))
    console.print(f"\n{changed} of {len(clipped.layers)} kernels clipped in {time} s.")
    if clipped.out is None:
        console.print("Nothing was written: not every layer could be brought below.")
    else:
        console.print(
            f"{printable(str(clipped.out))} holds {clipped.tensors} tensors, {clipped.tensors - changed} of them "
            "bit by bit as they were."
        )


def _in_options(text: str) -> str:
    text = re.sub(r"`(maximum|minimum|out|rtol|maxiter|select)`", r"`--\1`", text)
    return text.replace("overwrite=True", "--overwrite")
