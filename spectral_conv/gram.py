"""``M^T M`` and ``M M^T`` from products of kernel taps, at a cost that does not depend on the image size.

Between pixels p and q the Gram matrix is ``sum K[a] K[b]^T`` over the tap pairs (a, b) through which some output
reads p and q. Along an axis only O(k) different sets of tap pairs occur, whatever the size of the image: near each
border some are missing. So all different blocks of the Gram matrix are a small table.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
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
    diagonal : (sets,) bool ndarray
        Whether a set is that of pairs of a pixel with itself.
    pixels : int
        Number of pixels along the axis.
    """

    first: Indices
    second: Indices
    kind: Indices
    sets: tuple[Indices, ...]
    diagonal: NDArray[np.bool_]
    pixels: int

    @property
    def counts(self) -> Indices:
        """Number of pixel pairs of each set."""
        return np.bincount(self.kind, minlength=len(self.sets))

    @property
    def reach(self) -> int:
        """Largest distance between two pixels of a pair."""
        return int(np.abs(self.second - self.first).max(initial=0))


# The reads at a shared pixel (own pixel relative to the first, tap), and which of them is looked at: pixel and tap.
_Meeting = tuple[tuple[tuple[int, int], ...], int, int]


def axis_pairs(axis: Axis, *, outer: bool) -> AxisPairs:
    """Group the pixel pairs of one axis: input pixels for ``M^T M``, output pixels for ``M M^T`` (`outer`)."""
    row, tap = np.nonzero(axis.reads != NOTHING)
    pixel = axis.reads[row, tap]
    # Two reads pair up when they share the output (M^T M) or the input pixel (M M^T).
    own, shared = (row, pixel) if outer else (pixel, row)
    # Kinds of shared pixels by the reads that meet there, relative to the first; then kinds of own pixels by the
    # kinds of shared pixels that they meet and which of the reads there is theirs: only O(k) of either occur.
    meeting = _lists(shared, np.stack([own, tap], axis=1))
    first = {y: reads[0][0] for y, reads in meeting.items()}
    relative = {y: tuple((x - first[y], a) for x, a in reads) for y, reads in meeting.items()}
    kinds: dict[tuple[_Meeting, ...], list[int]] = {}
    for x, reads in _lists(own, np.stack([shared, tap], axis=1)).items():
        kinds.setdefault(tuple((relative[y], x - first[y], a) for y, a in reads), []).append(x)
    known: dict[tuple[bool, tuple[tuple[int, int], ...]], int] = {}
    ends: list[Indices] = []
    kind: list[Indices] = []
    for signature, pixels in kinds.items():
        partners: dict[int, list[tuple[int, int]]] = {}
        for met, position, a in signature:
            for x, b in met:
                partners.setdefault(x - position, []).append((a, b))
        own_pixels = np.array(pixels)
        for distance, taps in partners.items():
            ends.append(np.stack([own_pixels, own_pixels + distance]))
            kind.append(np.full(len(pixels), known.setdefault((distance == 0, tuple(sorted(taps))), len(known))))
    pairs = np.concatenate(ends, axis=1) if ends else np.empty((2, 0), np.int64)
    return AxisPairs(
        first=np.ascontiguousarray(pairs[0]),
        second=np.ascontiguousarray(pairs[1]),
        kind=np.concatenate(kind) if kind else np.empty(0, np.int64),
        sets=tuple(np.array(taps, dtype=np.int64) for _, taps in known),
        diagonal=np.array([own for own, _ in known], dtype=np.bool_),
        pixels=axis.outputs if outer else axis.inputs,
    )


def _lists(keys: Indices, items: Indices) -> dict[int, list[tuple[int, int]]]:
    """Rows of `items` (n, 2) by key, sorted."""
    order = np.lexsort((items[:, 1], items[:, 0], keys))
    lists: dict[int, list[tuple[int, int]]] = {}
    for key, (x, a) in zip(keys[order].tolist(), items[order].tolist(), strict=True):
        lists.setdefault(key, []).append((x, a))
    return lists


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
    def unread(self) -> bool:
        """Whether some pixel meets no tap, so that its rows are zero."""
        return any(pairs.counts[pairs.diagonal].sum() < pairs.pixels for pairs in self.pairs)

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
        table = (stacked @ stacked.T).reshape(*sizes, self.channels, *sizes, self.channels)
        # Axis by axis, replace the taps (a, b) of the two factors by sums over the sets of tap pairs.
        for i, pairs in enumerate(self.pairs):
            k = sizes[i]
            lengths = [len(taps_of_set) for taps_of_set in pairs.sets]
            pair = np.concatenate([taps_of_set @ [k, 1] for taps_of_set in pairs.sets] or [np.empty(0, np.int64)])
            # Sparse: long strided kernels have as many sets as taps squared.
            member = scipy.sparse.csr_array(
                (np.ones(len(pair)), (np.repeat(np.arange(len(lengths)), lengths), pair)), shape=(len(lengths), k * k)
            )
            front = np.moveaxis(table, (i, ndim + 1), (0, 1))
            table = (member @ front.reshape(k * k, -1)).reshape(len(lengths), *front.shape[2:])
        return np.ascontiguousarray(table.transpose(*range(ndim)[::-1], ndim, ndim + 1))


@functools.lru_cache(maxsize=32)  # the groups of a layer share one geometry, and cost estimates ask for it again
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
