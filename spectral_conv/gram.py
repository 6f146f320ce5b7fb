"""``M^T M`` and ``M M^T`` from products of kernel taps, at a cost that does not depend on the image size.

Between pixels p and q the Gram matrix is ``sum K[a] K[b]^T`` over the tap pairs (a, b) through which some output
reads p and q. Along an axis only O(k) different sets of tap pairs occur, whatever the size of the image: near each
border some are missing. So all different blocks of the Gram matrix are a small table.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import NOTHING, Axis, ConvGeometry

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class AxisPairs:
    """Pairs of pixels along one axis that share tap pairs, grouped by which ones.

    Attributes
    ----------
    first, second, kind : (pairs,) int64 ndarrays
        The two pixels and the index of their set of tap pairs.
    sets : tuple of (tap pairs, 2) int64 ndarrays
        The different sets of tap pairs, with repetitions where padding reads a pixel twice.
    pixels : int
        Number of pixels along the axis.
    """

    first: Indices
    second: Indices
    kind: Indices
    sets: tuple[Indices, ...]
    pixels: int

    @property
    def reach(self) -> int:
        """Largest distance between two pixels of a pair."""
        return int(np.abs(self.second - self.first).max(initial=0))


def axis_pairs(axis: Axis, *, outer: bool) -> AxisPairs:
    """Group the pixel pairs of one axis: input pixels for ``M^T M``, output pixels for ``M M^T`` (`outer`)."""
    row, tap = np.nonzero(axis.reads != NOTHING)
    pixel = axis.reads[row, tap]
    # Two reads pair up when they share the output (M^T M) or the input pixel (M M^T).
    shared, own = (pixel, row) if outer else (row, pixel)
    order = np.argsort(shared, kind="stable")
    shared, own, tap = shared[order], own[order], tap[order]
    bounds = np.flatnonzero(np.diff(shared, prepend=-1, append=-1))
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for start, stop in itertools.pairwise(bounds.tolist()):
        reads = list(zip(own[start:stop].tolist(), tap[start:stop].tolist(), strict=True))
        for (p, a), (q, b) in itertools.product(reads, reads):
            pairs.setdefault((p, q), []).append((a, b))
    known: dict[tuple[tuple[int, int], ...], int] = {}
    kind = [known.setdefault(tuple(sorted(taps)), len(known)) for taps in pairs.values()]
    ends = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    return AxisPairs(
        first=np.ascontiguousarray(ends[:, 0]),
        second=np.ascontiguousarray(ends[:, 1]),
        kind=np.array(kind, dtype=np.int64),
        sets=tuple(np.array(taps, dtype=np.int64) for taps in known),
        pixels=axis.outputs if outer else axis.inputs,
    )


@dataclass(frozen=True, kw_only=True)
class GramTable:
    """All different blocks of a Gram matrix and where they stand.

    Attributes
    ----------
    pairs : tuple of AxisPairs
        One per axis, in the order `order` of the axes.
    order : tuple of int
        Axes from the slowest to the fastest, chosen for the narrowest band.
    channels : int
        Size of a block.
    outer : bool
        Whether this is ``M M^T`` of the plain convolution.
    """

    pairs: tuple[AxisPairs, ...]
    order: tuple[int, ...]
    channels: int
    outer: bool

    @property
    def size(self) -> int:
        """Order of the Gram matrix."""
        return self.channels * math.prod(pairs.pixels for pairs in self.pairs)

    @property
    def bandwidth(self) -> int:
        """Number of diagonals below the main one, pixels slowest, channels fastest."""
        return _bandwidth([(pairs.reach, pairs.pixels) for pairs in self.pairs], self.channels)

    def blocks(self, kernel: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return every different block, shape ``(*sets per axis, channels, channels)``.

        `kernel` is that of the plain convolution, ``(*k, g, h)``, of one group.
        """
        ndim = len(self.order)
        taps = np.transpose(kernel, (*self.order, ndim, ndim + 1))
        sizes = taps.shape[:ndim]
        flat = taps.reshape(math.prod(sizes), *taps.shape[ndim:])
        rows = flat.swapaxes(1, 2) if self.outer else flat  # (T, channels, other)
        count, other = len(rows), rows.shape[2]
        stacked = rows.reshape(count * self.channels, other)
        products = (stacked @ stacked.T).reshape(count, self.channels, count, self.channels)
        table = np.empty((*(len(pairs.sets) for pairs in self.pairs), self.channels, self.channels))
        for kinds in np.ndindex(*table.shape[:-2]):
            sets = [pairs.sets[kind] for pairs, kind in zip(self.pairs, kinds, strict=True)]
            table[kinds] = self._block(products, sets, sizes)
        return table

    def _block(
        self, products: NDArray[np.floating], sets: list[Indices], sizes: tuple[int, ...]
    ) -> NDArray[np.floating]:
        first = second = np.zeros(1, np.int64)
        for taps, k in zip(sets, sizes, strict=True):
            first = (first[:, None] * k + taps[:, 0]).ravel()
            second = (second[:, None] * k + taps[:, 1]).ravel()
        return np.asarray(products[first, :, second, :].sum(axis=0))


def gram_table(geometry: ConvGeometry, *, outer: bool) -> GramTable:
    """Prepare the Gram matrix of the plain convolution of one group; `outer` for ``M M^T``."""
    pairs = [axis_pairs(axis, outer=outer) for axis in geometry.axes]
    channels = geometry.plain_channels[1 if outer else 0] // geometry.groups
    shapes = [(p.reach, p.pixels) for p in pairs]
    orders = itertools.permutations(range(len(pairs)))
    best = min(orders, key=lambda order: _bandwidth([shapes[i] for i in order], channels))
    return GramTable(pairs=tuple(pairs[i] for i in best), order=best, channels=channels, outer=outer)


def _bandwidth(axes: list[tuple[int, int]], channels: int) -> int:
    distance = 0
    for reach, pixels in axes:
        distance = distance * pixels + reach
    return min(distance, math.prod(pixels for _, pixels in axes) - 1) * channels + channels - 1
