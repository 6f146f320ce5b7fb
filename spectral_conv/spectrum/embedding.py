r"""Upper bounds of the norm from the symbol: circulant embedding, and the supremum over all frequencies.

Let `P` be a plain convolution with zero padding. For every multiple n' of the stride with
``n' >= N + min(max(before, after), d (k - 1))`` per axis, P is a compression of the block circulant matrix of size n'
with the same kernel: the wrapped taps only ever meet zeros. For the same reason one may wrap around with any sign:
the twisted circulant's frequencies are ``(2 pi j + phi) / n'``. So ``||P|| <= max_j ||F((2 pi j + phi) / n')||`` for
every n' and phi; best where the symbol's peak lies midway between frequencies. ``sup_w ||F(w)||`` bounds them all:

    ``sup ||F|| <= max_grid ||F|| prod_j min(1 / cos(pi D_j / (2 S_j)), (1 - D_j / S_j)^(-1/2))``

for S_j equispaced points and a trigonometric polynomial of degree D_j < S_j along axis j, at a cost free of N.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spectral_conv.geometry import Axis, ConvGeometry
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.frequencies import GridAxis, VerifiedSymbol
from spectral_conv.spectrum.rounding import SLACK, UNIT
from spectral_conv.symbols._peaks import SymbolPeak, symbol_peaks, top_values
from spectral_conv.symbols._sampling import degrees, excess_factor, fewest_points, substitutions
from spectral_conv.symbols._transform import Complex, group_taps

# Sizes tried beyond the smallest admissible one, and grids whose value near the peaks is looked at.
_SIZES, _CANDIDATES = 6, 4
# A grid that takes more operations than this (a minute) is left alone where any bound will do.
_MOST_FLOPS = 4e12
# Bounds from the symbol are hardly ever closer than this.
LEAST_RTOL = 1e-6
# A bound is tested so far above the largest value seen, as shares of what is left to the target.
_MARGINS = (0.02, 0.2, 0.5)


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A grid of frequencies whose largest ``||F||``, times `factor`, bounds the norm.

    Attributes
    ----------
    symbol : VerifiedSymbol
        The grid.
    factor : float
        1 for a circulant.
    seen : float
        The largest value times `factor`, from below: that near the symbol's peaks.
    theorem : str
        What the bound rests on.
    """

    symbol: VerifiedSymbol
    factor: float
    seen: float
    theorem: str

    def prove(self, target: float, start: Complex, *, least: float) -> float | None:
        """Prove an upper bound of the norm, `target` at most; None where it does not hold on this grid.

        The first trial is a little above the largest value seen; frequencies that stand out raise it. Vectors `start`
        of the symbol's peak serve to look at them. The norm is known to be `least` or more.
        """
        seen = max(self.seen, least)
        for margin in _MARGINS:
            if not seen < target:
                return None
            bound = seen + margin * (target - seen)
            t = (bound / self.factor) ** 2
            outliers = self.symbol.exceptions(-1.0, t)
            if not len(outliers):
                return self._norm(t)
            seen = max(seen, self.factor * float(top_values(self.symbol.waves, outliers[:1], start[None])[0]))
        t = (target / self.factor) ** 2 - self.symbol.likely_error((target / self.factor) ** 2)
        return None if self.symbol.exceptions(-1.0, t).size else self._norm(t)

    def _norm(self, t: float) -> float:
        square = t + SLACK * self.symbol.likely_error(t)
        return math.sqrt(square) * self.factor * (1.0 + 16.0 * UNIT)


def embeddings(conv: ConvOperator, peaks: Sequence[SymbolPeak], target: float) -> Iterator[Embedding]:
    """Grids that may prove a bound of `target` for an operator with one group, the cheapest first.

    None for padding that is not zero: there the rows at the border are no compression.
    """
    geometry = conv.geometry
    if any(axis.mode != "zeros" for axis in geometry.axes):
        return
    grids = [VerifiedSymbol(conv, grid) for grid in best_grids(geometry, peaks[0])]
    found = [_circulant(symbol, geometry, peaks, target) for symbol in grids]
    found.append(_supremum(conv, peaks, target))
    promising = sorted((e for e in found if e is not None), key=lambda e: (e.factor > 1.0, e.seen))
    fewest = min((e.symbol.points for e in promising), default=0)
    # Grids of about as many points stand in the order of their values, much larger ones behind.
    yield from sorted(promising, key=lambda e: e.symbol.points > 2 * fewest)


def tightest_embedding(conv: ConvOperator, lower: float, widths: Sequence[float]) -> tuple[float, str] | None:
    """Prove an upper bound of the norm within the first of the relative `widths` of `lower` that any grid allows.

    Returns the bound and the theorem.
    """
    peaks = symbol_peaks(conv.geometry, group_taps(conv.geometry, conv.plain_kernel, 0))
    for width in widths:
        target = lower * (1.0 + width)
        for embedding in embeddings(conv, peaks, target):
            if embedding.symbol.flops > _MOST_FLOPS:
                continue
            bound = embedding.prove(target, peaks[0].vector, least=lower)
            if bound is not None:
                return bound, embedding.theorem
    return None


def smallest_size(axis: Axis) -> int:
    """Smallest n' of which the axis is a compression."""
    after = (axis.outputs - 1) * axis.stride + axis.dilation * (axis.kernel - 1) - axis.before - (axis.inputs - 1)
    size = axis.inputs + min(max(axis.before, after), axis.dilation * (axis.kernel - 1))
    return -(-size // axis.stride) * axis.stride


def best_grids(geometry: ConvGeometry, peak: SymbolPeak) -> list[tuple[GridAxis, ...]]:
    """Per axis the sizes and twists whose frequencies keep farthest from the peak; a few combinations."""
    per_axis = []
    for axis, t in zip(geometry.axes, peak.frequency, strict=True):
        first = smallest_size(axis) // axis.stride
        choices = [GridAxis(points=n, period=n, twist=w) for n in range(first, first + _SIZES) for w in (0, 1)]
        choices.sort(key=lambda grid: -_distance(grid, float(t)))
        per_axis.append(choices[:2])
    return list(itertools.islice(itertools.product(*per_axis), _CANDIDATES))


def near_peaks(symbol: VerifiedSymbol, peaks: Sequence[SymbolPeak]) -> float:
    """Largest value of the grid near the peaks, from below."""
    points = [symbol.nearest(peak.frequency) for peak in peaks]
    starts = [
        np.broadcast_to(peak.vector, (len(near), *peak.vector.shape))
        for peak, near in zip(peaks, points, strict=True)
    ]
    return float(top_values(symbol.waves, np.concatenate(points), np.concatenate(starts)).max())


def _distance(grid: GridAxis, t: float) -> float:
    position = t * grid.period / (2.0 * np.pi) - grid.twist / 2.0
    return abs(position - round(position)) / grid.period


def _circulant(
    symbol: VerifiedSymbol, geometry: ConvGeometry, peaks: Sequence[SymbolPeak], target: float
) -> Embedding | None:
    """The embedding on a grid, if no value near the peaks exceeds the target."""
    seen = near_peaks(symbol, peaks)
    if seen >= target:
        return None
    sizes = zip(symbol.grid, geometry.stride, strict=True)
    size = " x ".join(f"{axis.points * s}{' twisted' if axis.twist else ''}" for axis, s in sizes)
    return Embedding(
        symbol=symbol, factor=1.0, seen=seen, theorem=f"compression of a block circulant matrix ({size})"
    )


def _supremum(conv: ConvOperator, peaks: Sequence[SymbolPeak], target: float) -> Embedding | None:
    """The grid for the supremum, where the target lies above it: as few points as its factor allows."""
    slack = target / peaks[0].value - 1.0
    if slack <= 0.0:
        return None
    geometry = conv.geometry
    grid, factor = [], 1.0
    for degree, q in zip(degrees(geometry), substitutions(geometry), strict=True):
        points = fewest_points(degree, 0.8 * slack / geometry.ndim)
        grid.append(GridAxis(points=points, period=points * q))
        factor *= excess_factor(degree, points)
    symbol = VerifiedSymbol(conv, grid)
    factor *= 1.0 + 64.0 * UNIT  # its own rounding
    return Embedding(symbol=symbol, factor=factor, seen=peaks[0].value * factor, theorem="supremum of the symbol")
