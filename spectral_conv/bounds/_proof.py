"""Upper bounds of the largest singular value of one matrix, and of many on a grid, that hold in floating point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.frequencies import VerifiedSymbol
from spectral_conv.spectrum.rounding import SLACK, UNIT, above, absolute_norm
from spectral_conv.spectrum.trials import norm_of_parts
from spectral_conv.spectrum.verified import verified_parts
from spectral_conv.symbols._peaks import SymbolPeak, top_values
from spectral_conv.symbols._transform import Complex

# Relative distance of the first trial from the largest value seen, and of values that need not be told apart.
_MARGIN = 1e-10
_SAME = 1e-7


@dataclass(frozen=True, kw_only=True)
class TopPair:
    """The largest singular value of a matrix, nearly, and its singular vectors."""

    value: float
    left: NDArray[np.inexact]
    right: NDArray[np.inexact]


def top_pair(A: NDArray[np.inexact]) -> TopPair:
    """Largest singular value and vectors, ``A v = s u``, by the smaller Gram matrix.

    A vector with half of the digits gives the value to all of them.
    """
    adjoint = np.conj(A.T)
    wide = A.shape[0] <= A.shape[1]
    G = A @ adjoint if wide else adjoint @ A
    n = len(G)
    near = scipy.linalg.eigh(G, subset_by_index=[n - 1, n - 1])[1]
    if not near.size:  # LAPACK finds no single vector where all eigenvalues are nearly equal
        near = np.linalg.eigh(G)[1][:, -1:]
    near = near[:, 0]
    far = adjoint @ near if wide else A @ near
    value = float(np.linalg.norm(far))
    far = far / (value or 1.0)
    return TopPair(value=value, left=near if wide else far, right=far if wide else near)


def proved_norm(A: NDArray[np.floating], estimate: float) -> float:
    """An upper bound of ``||A||`` a little above the estimate; the matrix is a convolution of one pixel."""
    alone = ConvOperator(A.T[None], 1, layout="WIO")
    _, parts = verified_parts(alone, smallest=False)
    proved = norm_of_parts(parts, estimate, 1e-9)
    return absolute_norm(alone) if proved is None else proved


@dataclass(frozen=True, kw_only=True)
class GridMaximum:
    """A bound of ``||F||`` on a grid, where the largest value is, and the singular vectors of the transpose there."""

    value: float
    frequency: NDArray[np.floating]
    pair: TopPair

    @property
    def cotangent(self) -> Complex:
        """The derivative of the value by the transposed symbol."""
        return np.outer(self.pair.left, np.conj(self.pair.right))


def grid_maximum(symbol: VerifiedSymbol, peaks: Sequence[SymbolPeak]) -> GridMaximum:
    """Prove the largest value on a grid, that near the peaks being the first guess.

    A little above the largest value seen Cholesky's factorization runs to completion at every frequency, or names
    frequencies where it does not: they are looked at, and raise the value, at the latest until none is left.
    """
    near = np.concatenate([symbol.nearest(peak.frequency) for peak in peaks])
    where = near[_likely_values(symbol, near, peaks[0]).argmax()]
    pair, margin = top_pair(symbol.waves.transposed(where)), _MARGIN
    while True:
        square = (pair.value * (1.0 + margin)) ** 2
        outliers = symbol.exceptions(-1.0, square + 0.01 * symbol.likely_error(square))
        if not len(outliers):
            bound = math.sqrt(square + SLACK * 1.01 * symbol.likely_error(square))
            return GridMaximum(value=above(bound * (1.0 + 4.0 * UNIT)), frequency=where, pair=pair)
        order = np.argsort(-_likely_values(symbol, outliers, peaks[0]))
        for t in outliers[order]:
            found = top_pair(symbol.waves.transposed(t))
            if found.value > pair.value * (1.0 + _SAME):
                pair, where = found, t
                break
        else:  # they differ by less than what matters
            margin = max(10.0 * margin, 2.0 * _SAME)


def _likely_values(symbol: VerifiedSymbol, t: NDArray[np.floating], peak: SymbolPeak) -> NDArray[np.floating]:
    return top_values(symbol.waves, t, np.broadcast_to(peak.vector, (len(t), *peak.vector.shape)))
