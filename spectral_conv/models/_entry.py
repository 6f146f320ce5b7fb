"""The geometry of one layer as somebody states it: the form that documents and assumptions share."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_INTEGER = 10_000_000  # beyond any real size; keeps a typing error from allocating index tables


@dataclass(frozen=True, kw_only=True)
class LayerEntry:
    """Everything about a convolution layer but its weights.

    Attributes
    ----------
    weight : str
        Name of the weight tensor.
    where : str
        How messages name this entry.
    layout : str or None
        None: PyTorch's layout for the number of axes.
    transposed : bool
        Whether the layer is a transposed convolution.
    stride, dilation, output_padding, padding, padding_mode, groups
        As `ConvOperator` takes them.
    input_size : int or tuple of int
        Spatial input size; an int is the same size along every axis.
    shape, output_size : tuple of int or None
        Checked where present.
    assumed : tuple of str
        The fields that nobody stated.
    """

    weight: str
    where: str
    layout: str | None = None
    transposed: bool = False
    stride: int | tuple[int, ...] = 1
    padding: str | int | tuple[int | tuple[int, int], ...] = "same"
    padding_mode: str = "zeros"
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    output_padding: int | tuple[int, ...] = 0
    input_size: int | tuple[int, ...] = 32
    shape: tuple[int, ...] | None = None
    output_size: int | tuple[int, ...] | None = None
    assumed: tuple[str, ...] = ()


def short(value: object, limit: int = 80) -> str:
    """Return `repr(value)`, cut to `limit` characters so that a message stays readable."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
