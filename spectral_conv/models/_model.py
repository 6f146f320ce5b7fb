"""What reading a model file gives: its convolution layers, and every tensor that is none with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spectral_conv.models._graph import Graph
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
    """

    path: Path
    format: str
    layers: tuple[ConvLayer, ...]
    skipped: tuple[Skipped, ...]
    graph: Graph | None = None

    @property
    def name(self) -> str:
        """Name of the file, without its folder."""
        return self.path.name
