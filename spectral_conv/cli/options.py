"""Options that several commands share, and what they say of a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spectral_conv.models import Model

File = Annotated[Path, typer.Argument(help="A model: .safetensors, .npz, .pt, .pth, .th, .onnx, .keras or .h5.")]
InputSize = Annotated[
    str | None,
    typer.Option(metavar="CxHxW", help="Channels and size of the network's input, such as 3x32x32."),
]
Layers = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A layers.json with stride, padding and input size of every layer."),
]
FoldBatchnorm = Annotated[
    bool,
    typer.Option("--fold-batchnorm", help="Scale each kernel by the batch norm that follows it directly."),
]
Layer = Annotated[str, typer.Option(metavar="NAME", help="The layer's name, as `describe` shows it.")]
MemoryLimit = Annotated[
    float | None, typer.Option(metavar="GB", help="Memory that one layer may take, in gigabytes.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def parse_size(text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of ``3x32x32``.

    Examples
    --------
    >>> parse_size("3x32x32")
    (3, 32, 32)
    """
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8}){1,3}", text.strip().lower()):
        raise typer.BadParameter(
            f"`--input-size` must be channels and one to three sizes, such as 3x32x32; got {text!r}."
        )
    return tuple(int(number) for number in text.strip().lower().split("x"))


def parse_memory(gigabytes: float | None) -> int | None:
    """Return bytes.

    Examples
    --------
    >>> parse_memory(0.5)
    500000000
    """
    if gigabytes is None:
        return None
    if not 0 < gigabytes < float("inf"):
        raise ValueError(f"`--memory-limit` must be a positive number of gigabytes; got {gigabytes}.")
    return int(gigabytes * 1e9)


def read(path: Path, size: tuple[int, ...] | None, layers: Path | None, *, fold_batchnorm: bool = False) -> Model:
    """Read the layers of a file."""
    from spectral_conv.models import read_model

    return read_model(path, input_size=size, layers=layers, fold_batchnorm=fold_batchnorm)
