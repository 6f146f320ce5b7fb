"""Axes along which a kernel has one tap: the layer does the same at every position, so one position tells all.

With stride 1 and no padding along such an axis, ``M = M_1 x I``: every value comes as often as there are positions.
Copies that many keep iterations from converging; leaving them out also leaves less work.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.results import SingularTriplets


def at_one_position(conv: ConvOperator) -> ConvOperator:
    """Return the layer on an image of one pixel along every such axis; `conv` itself where there is none."""
    flat = _flat_axes(conv)
    if not flat or len(flat) == conv.geometry.ndim:  # 1x1 layers fall apart by themselves
        return conv
    sizes = tuple(1 if i in flat else n for i, n in enumerate(conv.input_shape))
    return ConvOperator.from_geometry(dataclasses.replace(conv.geometry, input_shape=sizes), conv.kernel)


def copies(conv: ConvOperator, single: ConvOperator) -> int:
    """How often each value of `single` comes in `conv`."""
    return math.prod(conv.input_shape) // math.prod(single.input_shape)


def at_all_positions(found: SingularTriplets, conv: ConvOperator, k: int) -> SingularTriplets:
    """Return the first `k` triplets of `conv` from those at one position: each vector at position after position."""
    flat = _flat_axes(conv)
    positions = list(itertools.product(*(range(conv.input_shape[i]) for i in flat)))
    index = [(i, position) for i in range(len(found.values)) for position in positions][:k]
    which = [i for i, _ in index]

    def spread(vectors: NDArray[np.floating], channels: int, sizes: tuple[int, ...]) -> NDArray[np.floating]:
        result = np.zeros((len(index), channels, *sizes))
        for row, (i, position) in zip(result, index, strict=True):
            place: list[int | slice] = [slice(None)] * row.ndim
            for axis, pixel in zip(flat, position, strict=True):
                place[1 + axis] = slice(pixel, pixel + 1)
            row[tuple(place)] = vectors[i]
        return result

    return dataclasses.replace(
        found,
        values=found.values[which],
        left=spread(found.left, conv.out_channels, conv.output_shape),
        right=spread(found.right, conv.in_channels, conv.input_shape),
        residuals=found.residuals[which],
        lower=found.lower[which],
        upper=found.upper[which],
    )


def _flat_axes(conv: ConvOperator) -> tuple[int, ...]:
    g = conv.geometry
    return tuple(
        i
        for i in range(g.ndim)
        if g.kernel_size[i] == 1
        and g.stride[i] == 1
        and g.padding[i] == (0, 0)
        and g.output_padding[i] == 0
        and g.input_shape[i] > 1
    )
