"""A network as plain data: what a file says about which layer feeds which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation.

    Attributes
    ----------
    name : str
        Unique in the graph.
    op : str
        ONNX's name of the operator ("Conv", "Relu", "Add", "BatchNormalization", "Gemm", ...), whatever the format.
    inputs, outputs : tuple of str
        Names of the values that it reads and writes, weights not included.
    weights : tuple of str
        Names of the tensors of the file that it applies, in the order of the operator.
    attributes : mapping
        Plain data: numbers, text, tuples of them.
    operands : tuple of str
        Everything that it reads, weights included, in the order of the operator; "" for what is left out. Empty where
        that is `inputs` followed by `weights`.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    operands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A network.

    Attributes
    ----------
    nodes : tuple of Node
        In an order in which they can be computed.
    inputs, outputs : tuple of str
        Values that come from outside, and that are the result.
    shapes : mapping of str to tuple
        Shape of each value as far as it is known, channels first, without the batch axis; None for an unknown size.
    fronts : mapping of str to int
        Size of the first axis, which `shapes` leaves out, of the values of which the file states it: of the batch, or
        of what the network makes the first axis.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    fronts: Mapping[str, int] = field(default_factory=dict)
