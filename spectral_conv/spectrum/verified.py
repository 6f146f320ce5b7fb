r"""Verified bounds of the eigenvalues of a Gram matrix: S. M. Rump's check by Cholesky factorization.

Let A be the smaller of ``M^T M`` and ``M M^T`` and B the matrix that is stored for ``t I - A`` (or ``A - t I``),
banded with b diagonals below the main one. If the floating-point Cholesky factorization of B runs to completion,
its factor satisfies [1, Theorem 10.3], with at most b products per inner product,

    ``|B - L L^T| <= gamma_(b+2) |L| |L|^T``,    hence    ``lambda_min(B) >= -gamma_(b+2) || |L| |L|^T ||``.

That proves ``A <= t + c`` (``A >= t - c``), where c is the sum of

- ``gamma_(b+10) || |L| |L|^T ||``: eight more for BLAS that multiplies by reciprocals instead of dividing, and slack.
  The norm of a nonnegative matrix is at most ``max_i (|L| |L|^T x)_i / x_i`` for any positive x (Collatz, Wielandt);
- ``u max_i |b_ii|``, the rounding of the shifted diagonal (the other entries are copied, exactly);
- ``gamma_t ||N||^2``, the error of forming A from the kernel: an entry is a sum over a channel index by BLAS, then
  along each axis a sum over tap pairs with small integers as factors, so that t is the number of channels plus, per
  axis, that of tap pairs plus one. N is the operator with absolute weights.

Rump [2] subtracts a bound of c before the factorization, ``(b + 2) (2 b + 1) u max_i a_ii``, say; computed from the
factor afterwards it is several times smaller, and no trial is lost to it.

References
----------
.. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. (2002), doi:10.1137/1.9780898718027
.. [2] S. M. Rump, "Verification of positive definiteness", BIT 46 (2006) 433-452, doi:10.1007/s10543-006-0056-1
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spectral_conv._kernels import banded
from spectral_conv.geometry import ConvGeometry
from spectral_conv.gram import AxisPairs, GramTable, gram_table
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.circulant import is_circulant
from spectral_conv.spectrum.factorized import assemble_band
from spectral_conv.spectrum.frequencies import GridAxis, VerifiedSymbol
from spectral_conv.spectrum.rounding import SLACK, UNDERFLOW, UNIT, absolute_norm, gamma

# Steps of the power method for the norm of |L| |L|^T: the first gives the largest row sum, more halve it or so.
_POWER_STEPS = 4
# What b products of an inner product, a square root or a product with a reciprocal may add to b.
_EXTRA = 10


class Verified(Protocol):
    """A part of a Gram matrix whose eigenvalues can be checked."""

    @property
    def nbytes(self) -> int: ...  # noqa: D102

    @property
    def flops(self) -> float: ...  # noqa: D102

    def likely_error(self, diagonal: float) -> float: ...  # noqa: D102

    def at_most(self, t: float) -> float | None: ...  # noqa: D102

    def at_least(self, t: float) -> float | None: ...  # noqa: D102


class VerifiedGram:
    """A part of the Gram matrix A of one group, and the check of its eigenvalues.

    Parameters
    ----------
    table : GramTable
        The part.
    conv : ConvOperator
        The group, scaled so that its weights neither overflow nor underflow when squared.
    """

    def __init__(self, table: GramTable, conv: ConvOperator) -> None:
        self._table = table
        self._kernel = conv.plain_kernel.astype(np.float64, copy=False)
        self._products = min(table.bandwidth, table.size - 1) + _EXTRA
        channels = self._kernel.shape[-1 if not table.outer else -2]
        terms = channels + sum(1 + max(map(len, pairs.sets), default=0) for pairs in table.pairs)
        self._error = gamma(terms + _EXTRA) * absolute_norm(conv) ** 2 + UNDERFLOW

    @property
    def nbytes(self) -> int:
        """Memory of a trial."""
        taps = math.prod(self._kernel.shape[:-2])
        sets = math.prod(len(pairs.sets) for pairs in self._table.pairs)
        return 8 * (
            self._table.size * (self._table.bandwidth + 1 + 4) + self._table.channels**2 * (taps**2 + 2 * sets)
        )

    @property
    def flops(self) -> float:
        """Operations of a trial."""
        return float(self._table.size) * float(self._table.bandwidth + 1) ** 2

    def likely_error(self, diagonal: float) -> float:
        """Estimate c for a B whose diagonal has this size: neither a bound nor needed for one."""
        return gamma(self._products) * min(2 * self._table.bandwidth + 1, self._table.size) * diagonal + self._error

    def at_most(self, t: float) -> float | None:
        """Return ``t + c``, an upper bound of the largest eigenvalue, or None where the check fails."""
        band = assemble_band(self._table, self._kernel)
        np.negative(band, out=band)
        band[:, 0] += t
        error = self._error_of_factor(band)
        return None if error is None else math.nextafter(t + error, math.inf)

    def at_least(self, t: float) -> float | None:
        """Return ``t - c``, a lower bound of the smallest eigenvalue, or None where the check fails."""
        band = assemble_band(self._table, self._kernel)
        band[:, 0] -= t
        error = self._error_of_factor(band)
        return None if error is None else math.nextafter(t - error, -math.inf)

    def _error_of_factor(self, band: NDArray[np.floating]) -> float | None:
        """Factor B in place; return c, or None where B is not found positive definite."""
        largest = float(band[:, 0].max())
        if not (band[:, 0].min() > 0.0 and largest < math.inf) or banded.factor(band) != 0:
            return None
        x, z = np.ones(len(band)), np.empty(len(band))
        norm = math.inf
        for _ in range(_POWER_STEPS):
            banded.absolute_product(band, x, z)
            if not np.isfinite(z).all():  # LAPACK lets NaN pass
                return None
            norm = min(norm, float((z / x).max()))
            x = np.maximum(z / z.max(), 1e-3)
        # SLACK covers gamma_(2 b + 3) of the products with |L| and |L|^T.
        return SLACK * (gamma(self._products) * norm * SLACK + UNIT * largest + self._error)


def verified_parts(conv: ConvOperator, *, smallest: bool) -> tuple[bool, list[Verified]]:
    """Take the Gram matrix of one group apart into different parts; say whether it is that of the rows of P.

    Where the smallest value is sought the side is the shorter one; else the cheaper one. Every eigenvalue of A is one
    of a part. A circulant falls apart into one small matrix per frequency; other circular padding closes the band to
    a full matrix.
    """
    rows, columns = conv.shape[::-1] if conv.geometry.transposed else conv.shape
    if is_circulant(conv):
        sizes = [axis.outputs for axis in conv.geometry.axes]
        return rows < columns, [VerifiedSymbol(conv, [GridAxis(points=n, period=n) for n in sizes])]
    sides = [rows < columns] if smallest and rows != columns else [False, True]
    choices: list[list[Verified]] = [
        [VerifiedGram(table, conv) for table in _parts(conv.geometry, outer)] for outer in sides
    ]
    costs = [sum(part.flops for part in parts) for parts in choices]
    cheapest = int(np.argmin(costs))
    return sides[cheapest], choices[cheapest]


@functools.lru_cache(maxsize=32)  # for the groups of a layer
def _parts(geometry: ConvGeometry, outer: bool) -> list[GramTable]:
    """Split where no tap pair joins pixels: size-1 kernels, strides as large as the kernel, dilation."""
    table = gram_table(geometry, outer=outer)
    per_axis = [_axis_parts(pairs) for pairs in table.pairs]
    return [dataclasses.replace(table, pairs=pairs) for pairs in itertools.product(*per_axis)]


def _axis_parts(pairs: AxisPairs) -> list[AxisPairs]:
    """Connected sets of pixels of one axis, each kind of them once."""
    graph = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(pairs.pixels, pairs.pixels))
    count, label = connected_components(graph, directed=False)
    position = np.empty(pairs.pixels, np.int64)
    parts: dict[tuple[bytes, ...], AxisPairs] = {}
    owner = label[pairs.first]
    for i in range(count):
        members = np.flatnonzero(label == i)
        position[members] = np.arange(len(members))
        own = owner == i
        first, second, kind = position[pairs.first[own]], position[pairs.second[own]], pairs.kind[own]
        order = np.lexsort((second, first))
        ends = [np.ascontiguousarray(a[order]) for a in (first, second, kind)]
        key = (len(members).to_bytes(8, "little"), *(a.tobytes() for a in ends))
        parts.setdefault(
            key, dataclasses.replace(pairs, first=ends[0], second=ends[1], kind=ends[2], pixels=len(members))
        )
    return list(parts.values())
