"""Channels that do not mix: M falls apart into operators that can be looked at one by one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from spectral_conv.operator import ConvOperator


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of a layer, with the channels of the layer that it reads and writes.

    Attributes
    ----------
    operator : ConvOperator
        The part; it has one group.
    inputs, outputs : int64 ndarrays
        Channels of the whole layer.
    """

    operator: ConvOperator
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]


def group_components(conv: ConvOperator) -> list[Component]:
    """The groups of a layer."""
    parts = conv.split_groups()
    inputs = np.split(np.arange(conv.in_channels), len(parts))
    outputs = np.split(np.arange(conv.out_channels), len(parts))
    return [Component(operator=p, inputs=i, outputs=o) for p, i, o in zip(parts, inputs, outputs, strict=True)]


def mixing_components(part: Component) -> list[Component]:
    """Split a part with one group where zero weights keep channels apart; channels without weights are left out.

    A layer written densely may be depthwise, or pruned: an iteration whose start lies in one part would never see the
    others. What is left out has the singular value 0 only.
    """
    kernel = part.operator.kernel
    joined = csr_array((kernel != 0).any(axis=tuple(range(kernel.ndim - 2))))
    rows, columns = joined.nonzero()
    count, label = connected_components(
        csr_array(
            (np.ones(len(rows)), (rows, joined.shape[0] + columns)), shape=(sum(joined.shape), sum(joined.shape))
        ),
        directed=False,
    )
    first, second = label[: joined.shape[0]], label[joined.shape[0] :]
    members = [(np.flatnonzero(first == i), np.flatnonzero(second == i)) for i in range(count)]
    members = [(i, o) for i, o in members if len(i) and len(o)]
    if len(members) == 1 and (len(members[0][0]), len(members[0][1])) == joined.shape:
        return [part]
    return [
        Component(
            operator=ConvOperator.from_geometry(
                dataclasses.replace(part.operator.geometry, in_channels=len(i), out_channels=len(o)),
                kernel[..., i[:, None], o],
            ),
            inputs=part.inputs[i],
            outputs=part.outputs[o],
        )
        for i, o in members
    ]
