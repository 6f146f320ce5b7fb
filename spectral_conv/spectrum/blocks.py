"""Exact triplets where M falls apart into small blocks: no input pixel is read twice.

Kernels of size 1, and strides at least as large as the kernel: every output pixel then reads pixels of its own, and M
is, up to the order of rows and columns, the direct sum of one matrix per output pixel, ``[K[a]^T]_a`` over the taps
that meet the input. At the border some taps miss it; only a few different matrices occur.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import NOTHING, ConvGeometry
from spectral_conv.operator import ConvOperator
from spectral_conv.results import SingularTriplets
from spectral_conv.spectrum.verify import EPS, direct_triplets

THEOREM = "direct sum of blocks, Weyl's inequality"


def falls_apart(conv: ConvOperator, k: int, *, smallest: bool) -> bool:
    """Whether M is a direct sum of blocks, one per output pixel, that hold the `k` largest or smallest values."""
    geometry = conv.geometry
    for axis in geometry.axes:
        read = axis.reads[axis.reads != NOTHING]
        if len(np.unique(read)) != len(read):
            return False
    held = sum(p.rank * p.count for p in _patterns(conv))
    # With zeros beyond those of the blocks the null vectors are spread out: leave that to the other engines.
    return held == min(conv.shape) if smallest else held >= k


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    """Output pixels whose windows meet the input in the same taps."""

    taps: tuple[NDArray[np.int64], ...]  # per axis
    pixels: tuple[NDArray[np.int64], ...]  # per axis
    rank: int

    @property
    def count(self) -> int:
        return int(np.prod([len(p) for p in self.pixels]))


def _patterns(conv: ConvOperator) -> list[_Pattern]:
    geometry = conv.geometry
    g, h = geometry.plain_channels
    per_axis = []
    for axis in geometry.axes:
        meets = axis.reads != NOTHING
        kinds, index = np.unique(meets, axis=0, return_inverse=True)
        per_axis.append([(np.flatnonzero(k), np.flatnonzero(index.ravel() == i)) for i, k in enumerate(kinds)])
    patterns = []
    for parts in itertools.product(*per_axis):
        taps, pixels = tuple(p[0] for p in parts), tuple(p[1] for p in parts)
        patterns.append(_Pattern(taps=taps, pixels=pixels, rank=min(h, g * int(np.prod([len(t) for t in taps])))))
    return [p for p in patterns if p.rank]


def block_triplets(conv: ConvOperator, k: int, *, smallest: bool) -> SingularTriplets:
    """The `k` largest or smallest triplets of an operator with one group that `falls_apart`."""
    patterns = _patterns(conv)
    decompositions = [np.linalg.svd(_matrix(conv, p), full_matrices=False) for p in patterns]
    entries = [
        (float(value), i, j) for i, (_, values, _) in enumerate(decompositions) for j, value in enumerate(values)
    ]
    entries.sort(key=lambda entry: entry[0] if smallest else -entry[0])
    # Each value occurs once per output pixel of its pattern.
    chosen = list(itertools.islice(((e, n) for e in entries for n in range(patterns[e[1]].count)), k))
    left = np.zeros((k, conv.geometry.plain_channels[1], *(a.outputs for a in conv.geometry.axes)))
    right = np.zeros((k, conv.geometry.plain_channels[0], *(a.inputs for a in conv.geometry.axes)))
    for row, ((_, i, j), n) in enumerate(chosen):
        _place_pixel(patterns[i], n, decompositions[i][0][:, j], left[row])
        _place_window(conv.geometry, patterns[i], n, decompositions[i][2][j], right[row])
    values = np.array([entry[0] for entry, _ in chosen])
    if conv.geometry.transposed:
        left, right = right, left
    margin = block_margin(conv, max(entry[0] for entry in entries))
    return direct_triplets(conv, values, left, right, margin, "blocks", THEOREM)


def block_margin(conv: ConvOperator, largest: float) -> float:
    """Bound the error of the blocks' singular values, as for a dense matrix of the size of a block."""
    g, h = conv.geometry.plain_channels
    return (max(h, g * int(np.prod(conv.geometry.kernel_size))) + 10) * EPS * largest


def _matrix(conv: ConvOperator, pattern: _Pattern) -> NDArray[np.floating]:
    """``[K[a]^T]_a`` over the taps of the pattern, shape ``(h, taps * g)``."""
    kernel = conv.plain_kernel.astype(np.float64, copy=False)[np.ix_(*pattern.taps)]
    return np.asarray(kernel.reshape(-1, kernel.shape[-1]).T)


def _place_pixel(pattern: _Pattern, n: int, vector: NDArray[np.floating], target: NDArray[np.floating]) -> None:
    """Write `vector` (h,) at the n-th output pixel of the pattern."""
    pixel = np.unravel_index(n, [len(p) for p in pattern.pixels])
    target[(slice(None), *(p[i] for p, i in zip(pattern.pixels, pixel, strict=True)))] = vector


def _place_window(
    geometry: ConvGeometry,
    pattern: _Pattern,
    n: int,
    vector: NDArray[np.floating],
    target: NDArray[np.floating],
) -> None:
    """Write `vector` (taps * g,) at the input pixels that the n-th output pixel of the pattern reads."""
    pixel = np.unravel_index(n, [len(p) for p in pattern.pixels])
    reads = [
        axis.reads[p[i]][taps]
        for axis, p, i, taps in zip(geometry.axes, pattern.pixels, pixel, pattern.taps, strict=True)
    ]
    window = vector.reshape(*(len(taps) for taps in pattern.taps), -1)
    target[(slice(None), *np.ix_(*reads))] = np.moveaxis(window, -1, 0)
