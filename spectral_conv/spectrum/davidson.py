"""Block Davidson with a circulant preconditioner, for the largest triplets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels import convolution
from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import NotApplicableError, SingularTriplets, StopReason
from spectral_conv.spectrum.preconditioner import CirculantPreconditioner
from spectral_conv.spectrum.start import WATCHED, may_be_overtaken, starting_rows
from spectral_conv.spectrum.verify import checked_triplets

# Rows of the basis between restarts, beside those wanted, and rows kept.
_BASIS, _KEPT = 24, 8
# Residuals improved per step.
_BLOCK = 2
_SAFETY, _ROUNDING = 0.4, 2e-15


def davidson_bytes(conv: ConvOperator, k: int) -> int:
    """Memory of the basis and of its image, without the preconditioner."""
    return 8 * max(conv.shape) * 2 * (_BASIS + 2 * k + 8)


@serial_blas()
def davidson_triplets(
    conv: ConvOperator,
    k: int,
    *,
    tolerance: float,
    start: NDArray[np.floating] | None,
    maxiter: int,
    rng: np.random.Generator,
) -> SingularTriplets:
    r"""Find the `k` largest triplets of an operator with one group until each residual is at most `tolerance`.

    On the basis V, Ritz pairs of ``A = M^T M`` (or ``M M^T``, whichever side the preconditioner works on); each step
    adds the preconditioned residuals ``(tau I - C)^{-1} (A x - s^2 x)`` of the pairs that are not yet good, C being
    the circulant on a padded grid. Its number of steps hardly grows with the image.

    References
    ----------
    E. R. Davidson, J. Comput. Phys. 17 (1975), doi:10.1016/0021-9991(75)90065-0; M. Crouzeix, B. Philippe,
    M. Sadkane, "The Davidson method", SIAM J. Sci. Comput. 15 (1994), doi:10.1137/0915004.
    """
    precondition = CirculantPreconditioner(conv)
    on_rows = precondition.on_outputs != conv.geometry.transposed  # whether vectors live on the rows of M
    rows, applications = starting_rows(conv, start, k, to_rows=on_rows, rng=rng)
    most = min(_BASIS + 2 * k, rows.shape[1])
    if most < k + _KEPT + len(rows):
        raise NotApplicableError(
            f"Davidson needs a basis of at least {k + _KEPT + len(rows)} vectors; the operator has {most} singular "
            "values. Use method='dense'."
        )
    basis = _Basis(conv, rows.shape[1], most, on_rows, rng)
    reason = StopReason.MAXITER
    while True:
        applications += basis.extend(rows)
        values, residuals = basis.ritz(k + WATCHED)
        goal, least = _SAFETY * tolerance * values[0], _ROUNDING * values[0]
        bar = max(goal, least)
        poor = [i for i in range(k) if residuals[i] > bar]
        rivals = [k + int(i) for i in np.flatnonzero(may_be_overtaken(values, residuals, k, bar))]
        if not poor and not rivals:
            reason = StopReason.CONVERGED if np.all(residuals[:k] <= goal) else StopReason.STAGNATED
            break
        chosen = (poor + rivals)[:_BLOCK]
        if applications + 2 * len(chosen) > maxiter:
            break
        rows = precondition(basis.defects[chosen])
        if basis.filled + len(chosen) > most:
            basis.restart(k + _KEPT)
    return checked_triplets(
        conv, basis.vectors(k), applications, "davidson", tolerance=tolerance, reason=reason, transposed=on_rows
    )


class _Basis:
    """An orthonormal basis V, its image A V, and the Ritz pairs of A on it."""

    def __init__(self, conv: ConvOperator, size: int, most: int, on_rows: bool, rng: np.random.Generator) -> None:
        first, second = (conv.rmatvec, conv.matvec) if on_rows else (conv.matvec, conv.rmatvec)
        self._apply = lambda x: second(first(x))
        self._rows, self._images = np.empty((most, size)), np.empty((most, size))
        self._state = rng.integers(1, 2**31, size=1)
        self.filled = 0

    def extend(self, rows: NDArray[np.floating]) -> int:
        """Add `rows`, orthonormalized; return the applications used."""
        n, stop = self.filled, self.filled + len(rows)
        block = np.ascontiguousarray(rows)
        coefficients, triangle = np.empty((n, len(rows))), np.empty((len(rows), len(rows)))
        convolution.orthonormalize(self._rows[:n], block, self._state, coefficients, triangle)
        self._rows[n:stop] = block
        self._images[n:stop] = [self._apply(row) for row in block]
        self.filled = stop
        return 2 * len(rows)

    def ritz(self, count: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return the largest Ritz values, as singular values, and the residuals of their triplets."""
        n = self.filled
        projected = self._rows[:n] @ self._images[:n].T
        squares, vectors = np.linalg.eigh((projected + projected.T) / 2)
        self._vectors = vectors.T[::-1]
        squares = squares[::-1][:count]
        values = np.sqrt(np.maximum(squares, 0.0))
        x = self._vectors[:count] @ self._rows[:n]
        self.defects = self._vectors[:count] @ self._images[:n] - squares[:, None] * x
        # With u = M x / s the residual of the triplet is M^T u - s x = (A x - s^2 x) / s.
        return values, np.linalg.norm(self.defects, axis=1) / np.maximum(values, np.finfo(float).tiny)

    def restart(self, keep: int) -> None:
        """Keep the best Ritz vectors only."""
        n = self.filled
        turn = self._vectors[:keep]
        self._rows[:keep], self._images[:keep] = turn @ self._rows[:n], turn @ self._images[:n]
        self.filled = keep

    def vectors(self, k: int) -> NDArray[np.floating]:
        """The `k` best Ritz vectors, as rows."""
        return np.asarray(self._vectors[:k] @ self._rows[: self.filled])
