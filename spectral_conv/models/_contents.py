"""What a reader hands over: named tensors that are loaded on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from spectral_conv.graph import Graph
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._model import Skipped


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredTensor:
    """One tensor of a model file.

    Attributes
    ----------
    name : str
        Full name.
    shape : tuple of int
        Shape as stored.
    dtype : str
        Name of the number format, in NumPy's spelling.
    floating : bool
        Whether the numbers are real floating-point numbers that `load` can give.
    load : callable
        Reads the numbers; raises `ModelError` where they are damaged.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    floating: bool
    load: Callable[[], NDArray[Any]]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """All that a reader found in a file.

    Attributes
    ----------
    tensors : mapping of str to StoredTensor
        In the order of the network as far as the file tells it.
    unread : tuple of Skipped
        What the reader left alone (optimizer state, say), with the reason.
    stated : tuple of LayerEntry or None
        The convolutions of a format that says which tensors are kernels and with what geometry, in the order of the
        network; each lists in `assumed` what the file does not say. None for files of weights alone.
    graph : Graph or None
        The network, where the file has it.
    arguments : mapping of str to ndarray
        Small tensors of the network that are shapes, indices and the like, and none of `tensors`.
    """

    tensors: Mapping[str, StoredTensor]
    unread: tuple[Skipped, ...] = ()
    stated: tuple[LayerEntry, ...] | None = None
    graph: Graph | None = None
    arguments: Mapping[str, NDArray[Any]] = field(default_factory=dict)
