"""What reading a model file gives: its convolution layers, and every tensor that is none with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spectral_conv.graph import Graph
from spectral_conv.operator import ConvOperator


class ModelError(ValueError):
    """A model file or a layers document cannot be used; the message says what is wrong and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A tensor that was not taken as a convolution.

    Attributes
    ----------
    name : str
        Full name in the file.
    reason : str
        Why it was not taken, and the remedy where there is one.
    spoiled : bool
        Whether it is a convolution, one that cannot be analysed.
    """

    name: str
    reason: str
    spoiled: bool = False


# Operators compare by identity, so comparing layers or models by value would only look as if it worked.
@dataclass(frozen=True, kw_only=True, eq=False)
class ConvLayer:
    """One convolution layer of a model.

    Attributes
    ----------
    name : str
        Full name of the weight tensor in the file, never shortened.
    operator : ConvOperator
        The layer as a linear operator, in float64.
    assumed : tuple of str
        The fields of a layers document that nobody stated ("stride", "input_size", ...).
    kernel_shape : tuple of int
        Shape of the weight tensor as stored.
    layout : str
        Meaning of the axes of the stored tensor: "OIHW", "HWIO", "HWCM", ...
    folded : tuple of str
        The batch norms that scale the kernel, on request.
    """

    name: str
    operator: ConvOperator
    assumed: tuple[str, ...]
    kernel_shape: tuple[int, ...]
    layout: str
    folded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """The convolution layers of one model file.

    Attributes
    ----------
    path : Path
        The file that was read.
    format : str
        Name of its format.
    layers : tuple of ConvLayer
        In the order of the layers document, or else of the file.
    skipped : tuple of Skipped
        Every other tensor, with the reason.
    graph : Graph or None
        The network as plain data, where the file has it.
    constants : mapping of str to ndarray
        The other tensors that nodes of the graph apply, as far as they are small (65536 entries) and can be read.
    """

    path: Path
    format: str
    layers: tuple[ConvLayer, ...]
    skipped: tuple[Skipped, ...]
    graph: Graph | None = None
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the file, without its folder."""
        return self.path.name
