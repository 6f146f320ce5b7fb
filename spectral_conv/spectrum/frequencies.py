r"""Verified bounds of the symbol on a grid of frequencies: Rump's check for many small Hermitian matrices.

Let G be the smaller of ``F^H F`` and ``F F^H`` at a frequency, of order c, and B what is stored for ``t I - G`` (or
``G - t I``). If the floating-point Cholesky factorization of B runs to completion at every frequency, then
``G <= t + e`` (``G >= t - e``) at all of them, where e is the sum of

- ``gamma_(4 c + 40) trace(B)``: Cholesky's error is at most ``gamma_(c+2) || |L| |L|^H ||`` [1, Theorem 10.3], that
  norm is at most ``||L||_F^2``, about ``trace(B)``; four times as many terms cover complex arithmetic;
- ``gamma_(4 m + 40) ||F||_F^2``, the error of forming G by sums of m products;
- what the rounded symbol may differ from the true one: angles are right to ``60 u`` times the largest shift.

``||F||_F`` is at most ``S = sum_a ||K[a]||_F``.

References
----------
.. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. (2002), doi:10.1137/1.9780898718027
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels import hermitian
from spectral_conv._threads import run_parallel
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.rounding import SLACK, UNDERFLOW, UNIT, gamma
from spectral_conv.symbols._peaks import TapWaves
from spectral_conv.symbols._transform import group_taps

# Symbols that a thread holds at one time, and that are worth another thread.
_CHUNK_BYTES, _LEAST_BYTES = 4 << 20, 1 << 18


@dataclass(frozen=True, kw_only=True)
class GridAxis:
    """Frequencies ``step (j + twist / 2)``, j < points, with ``step = 2 pi / period`` and `twist` 0 or 1.

    A period is covered where `points` equals `period`; more of it repeats for a dilated symbol.
    """

    points: int
    period: int
    twist: int = 0

    def frequencies(self, *, half: bool) -> NDArray[np.float64]:
        """All of them, or the half that conjugate symmetry leaves."""
        count = (self.points + self.twist) // 2 + 1 - self.twist if half else self.points
        return np.asarray(2.0 * np.pi / self.period * (np.arange(count) + self.twist / 2.0), np.float64)


def taps_norm(waves: TapWaves) -> float:
    """``S = sum_a ||K[a]||_F``, a bound of ``||F||_F`` at every frequency."""
    return SLACK * float(np.sqrt((waves.taps**2).sum(axis=(1, 2))).sum())


def symbol_error(waves: TapWaves) -> float:
    """Bound ``||dF||_F``, what rounding of angles, cosines and sums does to the symbol."""
    shift = int(waves.shift.max(initial=0))
    angle = SLACK * UNIT * (60 * (shift + 1) * waves.shift.shape[1] + len(waves.taps) + 20)
    return angle * taps_norm(waves)


class VerifiedSymbol:
    """The check of one group's symbol on a grid; see `VerifiedGram` for the same of a banded matrix."""

    def __init__(self, conv: ConvOperator, grid: Sequence[GridAxis]) -> None:
        geometry = conv.geometry
        self.grid = tuple(grid)
        self.waves = TapWaves(geometry, group_taps(geometry, conv.plain_kernel, 0))
        last = len(grid) - 1
        self._lines = [axis.frequencies(half=i == last) for i, axis in enumerate(grid)]
        self._rows = self.waves.rows
        self._columns = self.waves.taps.shape[2]
        self.order, other = sorted((self._rows, self._columns))
        self.frobenius = taps_norm(self.waves)
        # ||F_true^H F_true - F^H F|| <= 2 ||F|| ||dF|| + ||dF||^2.
        self._error = (gamma(4 * other + 40) * self.frobenius + 3.0 * symbol_error(self.waves)) * self.frobenius
        self._error += UNDERFLOW

    @property
    def points(self) -> int:
        """Frequencies to look at."""
        return math.prod(len(line) for line in self._lines)

    @property
    def flops(self) -> float:
        """Operations of a trial."""
        return self.points * self.order**2 * (4.0 * max(self._rows, self._columns) + 4.0 / 3.0 * self.order)

    @property
    def nbytes(self) -> int:
        """Memory of a trial, about."""
        return 8 * _CHUNK_BYTES + 64 * self._rows * self._columns

    def likely_error(self, diagonal: float) -> float:
        """The error e for a B with this diagonal, or nearly."""
        return gamma(4 * self.order + 40) * self.order * diagonal + self._error

    def at_most(self, t: float) -> float | None:
        """Return ``t + e``, an upper bound of ``||F||^2`` on the grid, or None where the check fails."""
        if self.exceptions(-1.0, t).size:
            return None
        return math.nextafter(t + SLACK * self.likely_error(t), math.inf)

    def at_least(self, t: float) -> float | None:
        """Return ``t - e``, a lower bound of the smallest squares on the grid, or None where the check fails."""
        if self.exceptions(1.0, -t).size:
            return None
        error = gamma(4 * self.order + 40) * self.frobenius**2 + self._error
        return math.nextafter(t - SLACK * error, -math.inf)

    def exceptions(self, sign: float, shift: float) -> NDArray[np.floating]:
        """Return some frequencies ``(n, axes)`` where ``sign G + shift I`` is not found positive definite, if any."""
        found: list[NDArray[np.floating]] = []

        def check(part: NDArray[np.floating]) -> None:
            if found:
                return
            F = self.waves.transposed(part)
            near = F if self._rows <= self._columns else np.ascontiguousarray(np.swapaxes(F, -1, -2))
            flags = np.empty(len(near), np.bool_)
            hermitian.definite(sign, near, shift, flags)
            if not flags.all():
                found.append(part[~flags])

        run_parallel(check, self._chunks())
        return np.concatenate(found) if found else np.empty((0, len(self._lines)))

    def _chunks(self) -> list[NDArray[np.floating]]:
        """Frequencies ``(n, axes)``, so many at a time as memory allows and threads need."""
        entry = 16 * self._rows * self._columns
        every = np.stack(np.meshgrid(*self._lines, indexing="ij"), axis=-1).reshape(-1, len(self._lines))
        step = max(1, min(_CHUNK_BYTES // entry, max(_LEAST_BYTES // entry, -(-len(every) // 8))))
        return [every[i : i + step] for i in range(0, len(every), step)]

    def nearest(self, t: NDArray[np.floating]) -> NDArray[np.floating]:
        """The grid points around a frequency, whole grid taken into account, shape (2^axes, axes)."""
        around = []
        for line, x in zip(self._lines, t, strict=True):
            step, first = (line[1] - line[0] if len(line) > 1 else 2.0 * np.pi), line[0]
            j = math.floor((x - first) / step)
            around.append([first + j * step, first + (j + 1) * step])
        return np.array(list(itertools.product(*around)))
