"""Block Golub-Kahan-Lanczos with full reorthogonalization and thick restart, for the largest triplets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels import convolution
from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import MemoryLimitError, NotApplicableError, SingularTriplets, StopReason
from spectral_conv.spectrum.request import too_much
from spectral_conv.spectrum.start import may_be_overtaken
from spectral_conv.spectrum.verify import checked_triplets

# Rows of each basis between restarts, and blocks of rows: fewer of either leave polynomials of too low a degree.
_BASIS, _BLOCKS = 32, 10
# Block steps between two looks at the Ritz values.
_STEPS = 4
# The iteration aims below the tolerance, because the residuals are computed afresh at the end.
_SAFETY = 0.4
# Residuals this small, relative to the largest value, are rounding.
_ROUNDING = 1e-15


def lanczos_bytes(conv: ConvOperator, k: int) -> int:
    """Least memory of the two bases, blocks of four or more assumed."""
    return 8 * sum(conv.shape) * (k + 4 * max(4, k))


@serial_blas()
def largest_triplets(
    conv: ConvOperator,
    k: int,
    *,
    start: NDArray[np.floating],
    applications: int,
    tolerance: float,
    enough: float,
    maxiter: int,
    rng: np.random.Generator,
    memory_limit: float,
) -> SingularTriplets:
    """Find the `k` largest triplets of an operator with one group until each residual is at most `tolerance`.

    The bases hold the smaller side of M on the right, so that the iteration works with M^T where M is wide.

    Parameters
    ----------
    start : (b, min(rows, columns)) ndarray
        Where to start, on the smaller side of M.
    applications : int
        Applications that the start took.
    tolerance : float
        On each residual, relative to the largest value.
    enough : float
        A largest value that reaches this ends the iteration: an upper bound is then close enough.

    References
    ----------
    J. Baglama, L. Reichel, "Restarted block Lanczos bidiagonalization methods", Numer. Algorithms 43 (2006).
    """
    flip = conv.shape[0] < conv.shape[1]
    basis = _Basis(conv, k, start, flip, rng, memory_limit)
    reason = StopReason.MAXITER
    while True:
        applications += basis.extend(maxiter - applications)
        values, residuals = basis.ritz()
        goal, least = _SAFETY * tolerance * values[0], _ROUNDING * values[0]
        if k == 1 and values[0] >= enough:
            reason = StopReason.ENCLOSED
            break
        if (
            len(values) >= k
            and np.all(residuals[:k] <= max(goal, least))
            and not may_be_overtaken(values, residuals, k, max(goal, least)).any()
        ):
            reason = StopReason.CONVERGED if np.all(residuals[:k] <= goal) else StopReason.STAGNATED
            break
        if applications + 2 * basis.block > maxiter and len(values) >= k:
            break
        basis.restart(k)
    return checked_triplets(
        conv, basis.vectors(k), applications, "lanczos", tolerance=tolerance, reason=reason, transposed=flip
    )


class _Basis:
    """The two orthonormal bases, the projected operator, and what thick restart keeps of them."""

    def __init__(
        self,
        conv: ConvOperator,
        k: int,
        seeds: NDArray[np.floating],
        flip: bool,
        rng: np.random.Generator,
        memory_limit: float,
    ) -> None:
        small, large = sorted(conv.shape)
        self.block = b = len(seeds)
        affordable = int(memory_limit / (8 * (small + large)))
        room = min(max(_BASIS, _BLOCKS * b), small - b) // b * b
        size = min(room, (affordable - b) // b * b)
        if room < k + 2 * b:
            raise NotApplicableError(
                f"Lanczos needs a basis of at least {k + 3 * b} vectors; the operator has {small} singular values. "
                "Use method='dense'."
            )
        if size < k + 2 * b:
            needed = 8 * (small + large) * (k + 4 * b)
            raise MemoryLimitError(too_much("a Lanczos basis", needed, memory_limit))
        self._size = size
        self._right, self._left = np.zeros((size + b, small)), np.zeros((size, large))
        self._projected, self._coupling = np.zeros((size, size)), np.zeros((b, b))
        self._state = rng.integers(1, 2**31, size=1)
        plan = conv.plan(np.float64)
        shapes: tuple[tuple[int, ...], ...] = (plan.input_shape, plan.output_shape)
        # The kernels know the plain convolution; its adjoint stands for M where exactly one of the two holds.
        backwards = flip != conv.geometry.transposed
        self._plan = (plan.taps, plan.row, plan.shift, *plan.sources, plan.loop, backwards, *shapes)
        self._filled = 0
        self._right[:b] = seeds
        empty = self._right[:0]
        convolution.orthonormalize(empty, self._right[:b], self._state, np.zeros((0, b)), np.zeros((b, b)))

    def extend(self, applications: int) -> int:
        """Extend the bases by a few block steps, one at least, within `applications`; return those used."""
        allowed = max(1, applications // (2 * self.block))
        steps = min(_STEPS, (self._size - self._filled) // self.block, allowed)
        stop = self._filled + steps * self.block
        convolution.extend_bidiagonalization(
            *self._plan, self._right, self._left, self._projected, self._coupling,
            self._state, self._filled, stop,
        )  # fmt: skip
        used = 2 * (stop - self._filled)
        self._filled = stop
        return used

    def ritz(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Ritz values, descending, and the residuals of their triplets."""
        n = self._filled
        left, values, right = np.linalg.svd(self._projected[:n, :n])
        self._ritz: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] = (left, values, right.T)
        # M^T u - s v lies in the next block only, with the coupling to the last block of u.
        return values, np.linalg.norm(self._coupling @ left[n - self.block :], axis=0)

    def restart(self, k: int) -> None:
        """Where the bases are full, keep the best Ritz vectors and the next block, and forget the rest."""
        n, b = self._filled, self.block
        if n + b <= self._size:
            return
        left, values, right = self._ritz
        keep = min(k + 2 * b + (n - k) // 4, n - b) // b * b
        self._right[:keep], self._left[:keep] = (
            right[:, :keep].T @ self._right[:n],
            left[:, :keep].T @ self._left[:n],
        )
        self._right[keep : keep + b] = self._right[n : n + b].copy()
        self._projected[:] = 0
        self._projected[range(keep), range(keep)] = values[:keep]
        self._filled = keep

    def vectors(self, k: int) -> NDArray[np.floating]:
        """The `k` best right Ritz vectors, as rows."""
        return np.asarray(self._ritz[2][:, :k].T @ self._right[: self._filled])
