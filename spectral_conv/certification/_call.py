"""One operation of a graph as the rules see it, and what a rule says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from spectral_conv.certification._norms import LayerNorms
from spectral_conv.graph import Node
from spectral_conv.results import NotApplicableError

Shape = tuple[int | None, ...]

_ONE_SIZE = "Where the graph does not state the sizes, operands are taken to have one size."


@dataclass(frozen=True, kw_only=True, eq=False)
class Operand:
    """A value that an operation reads.

    Attributes
    ----------
    name : str
        Of the value.
    reach : float
        Its Lipschitz constant as a function of the inputs of the network; 0 for a constant.
    array : ndarray or None
        The numbers of a constant, where they are known.
    shape : tuple or None
        Without the first axis, as `Graph.shapes` has it.
    front : int or None
        Size of the first axis, for one sample where the file leaves the batch open; None where it is not known.
    """

    name: str
    reach: float
    array: NDArray[Any] | None
    shape: Shape | None
    front: int | None = None

    @property
    def full(self) -> Shape | None:
        """Its shape with the first axis."""
        return None if self.shape is None else (self.front, *self.shape)

    @property
    def varies(self) -> bool:
        """Whether it depends on the inputs."""
        return self.reach > 0.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """What an operation does to distances.

    Attributes
    ----------
    factors : tuple of float
        One per operand.
    kind, theorem : str
        As in `Link`.
    added : bool
        Whether the distances of several operands add, rather than their squares.
    """

    factors: tuple[float, ...]
    kind: str
    theorem: str
    added: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """An operation with what it reads.

    Attributes
    ----------
    node : Node
        The operation.
    operands : tuple of Operand or None
        What it reads, None for what is left out.
    written : tuple or None
        Shape of its first result, without the first axis.
    front : int or None
        Size of the first axis of its first result, as in `Operand`.
    producers : mapping of str to Node
        The operation behind every value.
    norms : LayerNorms
        Norms of layers, and which node applies which.
    note : callable
        Takes down what is taken for granted, which makes the link an estimate.
    """

    node: Node
    operands: tuple[Operand | None, ...]
    written: Shape | None
    front: int | None
    producers: Mapping[str, Node]
    norms: LayerNorms
    note: Callable[[str], None]

    def refuse(self, reason: str) -> NoReturn:
        """Say why no constant is known."""
        raise NotApplicableError(
            f"The node {self.node.name!r} ({self.node.op}) has no known Lipschitz constant: {reason}. Or cut the "
            "network there and pass the operators of a part, such as `[layer.operator for layer in model.layers]`."
        )

    @property
    def first(self) -> Operand:
        """The first operand."""
        operand = self.operands[0] if self.operands else None
        if operand is None:
            self.refuse("it reads nothing")
        return operand

    def scaled(self, constant: float, kind: str, theorem: str, *, at: int = 0) -> Step:
        """Return the step of an operation with one operand that varies."""
        for i, operand in enumerate(self.operands):
            if operand is not None and operand.varies and i != at:
                self.refuse(f"its operand {operand.name!r} depends on the input of the network, too")
        return Step(
            factors=tuple(constant if i == at else 0.0 for i in range(len(self.operands))), kind=kind, theorem=theorem
        )

    def numbers(self, i: int) -> NDArray[np.float64] | None:
        """Return the numbers of a constant operand, None where they are not known or not finite."""
        operand = self.operands[i] if i < len(self.operands) else None
        if operand is None or operand.array is None or operand.varies:
            return None
        array = operand.array.astype(np.float64)
        return array if array.size and np.isfinite(array).all() else None

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number, the default where it is not stated."""
        value = self.node.attributes.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.refuse(f"its attribute {name!r} is {value!r}")
        return float(value)

    def integers(self, name: str, count: int, default: int) -> tuple[int, ...]:
        """Return an attribute that is a list of integers."""
        value = self.node.attributes.get(name)
        entries = (default,) * count if value is None else tuple(value) if isinstance(value, Sequence) else ()
        if len(entries) != count or not all(type(entry) is int for entry in entries):
            self.refuse(f"its attribute {name!r} is {value!r}")
        return entries

    def sizes(self, ndim: int) -> tuple[int | None, ...]:
        """Return the spatial sizes of the first operand."""
        shape = self.first.shape
        return (None,) * ndim if shape is None or len(shape) <= ndim else shape[-ndim:]

    def copies(self, i: int) -> int:
        """Return how often each entry of an operand is repeated so that it fits the others."""
        operand = self.operands[i]
        assert operand is not None
        others = [other for other in self.operands if other is not None and other.name != operand.name]
        own, written = operand.full, None if self.written is None else (self.front, *self.written)
        entries, result = size(own), size(written)
        if entries and result:
            return max(-(-result // entries), 1)
        if all(size(other.full) == 1 for other in others):
            return 1
        if own is None or written is None:
            self.note(_ONE_SIZE)
            return 1
        if len(own) != len(written):
            self.refuse(f"the sizes of {operand.name!r} are not known")
        count = 1
        for axis, (a, b) in enumerate(zip(own, written, strict=True)):
            if a == b is not None or (a or 1) > 1:
                continue
            if b is not None:
                count *= b  # an unknown size is this one, or 1
            elif a == 1:
                self.refuse(f"how often {operand.name!r} is repeated depends on a size that is not known")
            elif any(_along(other.full, axis - len(own)) != 1 for other in others):
                self.note(_ONE_SIZE)
        return max(count, 1)


def _along(shape: Shape | None, axis: int) -> int | None:
    """Return the size along an axis that is counted from the last one, 1 in front of the first."""
    return None if shape is None else shape[axis] if -axis <= len(shape) else 1


def _size(shape: Shape) -> int:
    return math.prod(size or 1 for size in shape)


def size(shape: Shape | None) -> int | None:
    """Return the number of entries, None where it is not known."""
    return None if shape is None or None in shape else _size(shape)


Rule = Callable[[Call], Step]
