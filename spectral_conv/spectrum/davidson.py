"""Davidson's method for either end of the spectrum, with any preconditioner."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels import convolution
from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import NotApplicableError, SingularTriplets, StopReason
from spectral_conv.spectrum.start import WATCHED, may_be_overtaken
from spectral_conv.spectrum.verify import checked_triplets

Rows = NDArray[np.floating]

# Rows of the basis between restarts, beside those wanted, and rows kept.
_BASIS, _KEPT = 40, 12
# The residual of the basis is that of the result, up to rounding.
_SAFETY, _ROUNDING = 0.9, 2e-15
# An iteration to this tolerance finds even what its start held only as noise (measured): the largest value is then
# sure without another look.
SURE = 5e-7


def davidson_bytes(conv: ConvOperator, k: int) -> int:
    """Memory of the basis and of its image, without the preconditioner."""
    return 8 * min(conv.shape) * 2 * (_BASIS + 2 * k + 8)


@serial_blas()
def davidson_triplets(
    conv: ConvOperator,
    k: int,
    *,
    smallest: bool,
    start: Rows,
    applications: int,
    precondition: Callable[[Rows], Rows],
    tolerance: float,
    largest: float | None,
    enough: float,
    maxiter: int,
    rng: np.random.Generator,
) -> SingularTriplets:
    r"""Find the `k` largest or smallest triplets of an operator with one group.

    On the basis V, Ritz pairs of the smaller of ``A = M^T M`` and ``M M^T``; each step adds the preconditioned
    residual ``P (A x - s^2 x)`` of a pair that is not yet good.

    Parameters
    ----------
    start : (b, min(rows, columns)) ndarray
        Where to start, on the smaller side of M.
    applications : int
        Applications that the start took.
    precondition : callable
        Rows to rows: an approximation of ``(tau I - A)^{-1}`` with tau above the spectrum for the largest, of
        ``(A + mu I)^{-1}`` for the smallest.
    tolerance : float
        On each residual, relative to the largest value.
    largest : float, optional
        The largest value, to a few per cent; default: the largest Ritz value (for the largest triplets).
    enough : float
        A largest value that reaches this ends the iteration: an upper bound is then close enough.

    References
    ----------
    E. R. Davidson, J. Comput. Phys. 17 (1975), doi:10.1016/0021-9991(75)90065-0; M. Crouzeix, B. Philippe,
    M. Sadkane, "The Davidson method", SIAM J. Sci. Comput. 15 (1994), doi:10.1137/0915004.
    """
    search = Davidson(conv, k, start, smallest=smallest, precondition=precondition, rng=rng)
    reason = search.run(tolerance, largest=largest, enough=enough, most=maxiter - applications)
    return search.triplets(reason, tolerance, largest=largest, applications=applications)


class Davidson:
    """The iteration behind `davidson_triplets`, for those who want to start again from its basis.

    Parameters as there.
    """

    def __init__(
        self,
        conv: ConvOperator,
        k: int,
        start: Rows,
        *,
        smallest: bool,
        precondition: Callable[[Rows], Rows],
        rng: np.random.Generator,
    ) -> None:
        self._conv, self._k, self._smallest, self._precondition = conv, k, smallest, precondition
        self._most = min(_BASIS + 2 * k, start.shape[1])
        if self._most < k + _KEPT + len(start):
            raise NotApplicableError(
                f"Davidson needs a basis of at least {k + _KEPT + len(start)} vectors; the operator has {self._most} "
                "singular values. Use method='dense'."
            )
        self._start, self._rng = start, rng
        self._basis = _Basis(conv, start.shape[1], self._most, rng, smallest=smallest)
        self.applications = 0

    def run(self, tolerance: float, *, largest: float | None, enough: float, most: int) -> StopReason:
        """Iterate until the `k` residuals are within `tolerance`; `most` applications at most, about."""
        k, basis, rows = self._k, self._basis, self._start
        # What every row so far missed (channels that do not mix, copies of a value) is looked for in random rows
        # drawn to this end of the spectrum; a tight tolerance leaves the rows' own noise time to find it.
        sure = k == 1 and not self._smallest and tolerance <= SURE
        before: Rows | None = None
        while True:
            self.applications += basis.extend(rows)
            values, residuals = basis.ritz(k + WATCHED)
            scale = values[0] if largest is None else largest
            goal, bar = _SAFETY * tolerance * scale, max(_SAFETY * tolerance, _ROUNDING) * scale
            if not self._smallest and k == 1 and values[0] >= enough:
                return StopReason.ENCLOSED
            poor = [i for i in range(k) if residuals[i] > bar]
            overtaking = may_be_overtaken(values, residuals, k, bar, smallest=self._smallest)
            rivals = [k + int(i) for i in np.flatnonzero(overtaking)]
            if not poor and not rivals:
                if sure or (before is not None and np.all(np.abs(values[:k] - before) <= bar)):
                    return StopReason.CONVERGED if np.all(residuals[:k] <= goal) else StopReason.STAGNATED
                before = values[:k].copy()
            if self.applications + 2 > most:
                return StopReason.MAXITER
            if poor or rivals:
                rows = self._precondition(basis.defect((poor + rivals)[0])[None])
            else:
                outsiders = self._rng.standard_normal((k, self._start.shape[1]))
                rows = self._precondition(self._precondition(outsiders))
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            if basis.filled + len(rows) > self._most:
                basis.restart(k + _KEPT)

    def triplets(
        self, reason: StopReason, tolerance: float, *, largest: float | None, applications: int
    ) -> SingularTriplets:
        """Form the triplets and measure their residuals; `applications` are those that came before."""
        vectors, grams = self._basis.vectors(self._k)
        return checked_triplets(
            self._conv,
            vectors,
            applications + self.applications,
            "davidson",
            tolerance=tolerance,
            reason=reason,
            transposed=self._basis.on_rows,
            largest=largest,
            grams=grams,
        )

    def subspace(self, count: int) -> Rows:
        """The `count` best Ritz vectors, as rows: where to start for an operator that differs little."""
        return self._basis.vectors(min(count, self._basis.filled))[0]


class _Basis:
    """An orthonormal basis V of rows, its image A V, and the Ritz pairs of A on it."""

    def __init__(self, conv: ConvOperator, size: int, most: int, rng: np.random.Generator, *, smallest: bool) -> None:
        self.on_rows = conv.shape[0] < conv.shape[1]
        first, second = (conv.rmatvec, conv.matvec) if self.on_rows else (conv.matvec, conv.rmatvec)
        self._apply = lambda x: second(first(x))
        self._smallest = smallest
        self._rows, self._images = np.empty((most, size)), np.empty((most, size))
        # V A V^T, and (A V)(A V)^T, from which residuals follow to half of the digits.
        self._projected, self._squared = np.zeros((most, most)), np.zeros((most, most))
        self._state = rng.integers(1, 2**31, size=1)
        self.filled = 0

    def extend(self, rows: Rows) -> int:
        """Add `rows`, orthonormalized; return the applications used."""
        n, stop = self.filled, self.filled + len(rows)
        block = np.ascontiguousarray(rows)
        coefficients, triangle = np.empty((n, len(rows))), np.empty((len(rows), len(rows)))
        convolution.orthonormalize(self._rows[:n], block, self._state, coefficients, triangle)
        self._rows[n:stop] = block
        self._images[n:stop] = [self._apply(row) for row in block]
        new = self._images[n:stop]
        for matrix, against in ((self._projected, self._rows), (self._squared, self._images)):
            part = against[:stop] @ new.T
            matrix[:stop, n:stop], matrix[n:stop, :stop] = part, part.T
        self.filled = stop
        return 2 * len(rows)

    def ritz(self, count: int) -> tuple[Rows, Rows]:
        """Return the wanted Ritz values, as singular values, the next few, and the residuals of their triplets."""
        n = self.filled
        squares, vectors = np.linalg.eigh(self._projected[:n, :n])
        order = slice(None) if self._smallest else slice(None, None, -1)
        self._squares, self._vectors = squares[order], vectors.T[order]
        turn, theta = self._vectors[:count], self._squares[:count]
        values = np.sqrt(np.maximum(theta, 0.0))
        # ||A x - theta x||^2 = ||A x||^2 - theta^2; with u = M x / s the residual of the triplet is that over s.
        images = np.einsum("ij,ij->i", turn @ self._squared[:n, :n], turn)
        defects = np.sqrt(np.maximum(images - theta**2, 0.0))
        # Where cancellation leaves no digits, the residual is formed.
        for i in np.flatnonzero(defects <= 1e-6 * math.sqrt(float(np.diag(self._squared)[:n].max()))):
            defects[i] = np.linalg.norm(self.defect(int(i)))
        # A value that is zero to rounding has no left vector of its own.
        return values, defects / np.maximum(values, 1e-150 * max(1.0, float(values.max(initial=0.0))))

    def defect(self, i: int) -> Rows:
        """``A x - theta x`` of a Ritz pair."""
        n, turn = self.filled, self._vectors[i]
        return np.asarray(turn @ self._images[:n] - self._squares[i] * (turn @ self._rows[:n]))

    def restart(self, keep: int) -> None:
        """Keep the best Ritz vectors only."""
        n = self.filled
        turn = self._vectors[:keep]
        self._rows[:keep], self._images[:keep] = turn @ self._rows[:n], turn @ self._images[:n]
        self._projected[:keep, :keep] = np.diag(self._squares[:keep])
        self._squared[:keep, :keep] = turn @ self._squared[:n, :n] @ turn.T
        self.filled = keep

    def vectors(self, k: int) -> tuple[Rows, Rows]:
        """The `k` best Ritz vectors, as rows, and A applied to them."""
        n, turn = self.filled, self._vectors[:k]
        return turn @ self._rows[:n], turn @ self._images[:n]
