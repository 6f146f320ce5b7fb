"""Björck's iteration to the nearest orthonormal matrix."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.geometry import as_integer, checked_word
from spectral_conv.orthogonal._checks import checked_array, checked_tolerance
from spectral_conv.orthogonal._iteration_limit import IterationLimitError

# Coefficients of (1 - q)^(-1/2); the order is the number of them beyond the first.
_SERIES = (1.0, 1.0 / 2.0, 3.0 / 8.0, 5.0 / 16.0)


def bjorck(
    A: ArrayLike,
    *,
    order: int = 3,
    scale: bool = True,
    atol: float = 1e-12,
    maxiter: int = 100,
    on_failure: str = "raise",
) -> NDArray[np.float64]:
    r"""Iterate to the nearest matrix with orthonormal columns (of a wide matrix: rows).

    ``X <- X (I + 1/2 Q + 3/8 Q^2 + 5/16 Q^3)`` with ``Q = I - X^T X``, cut off after the power `order`.

    Parameters
    ----------
    A : (..., m, n) array_like
        Matrices of full rank; a stack is iterated together.
    order : {1, 2, 3}
        Errors shrink to their power ``order + 1``.
    scale : bool
        Start from A divided by ``sqrt(||A||_1 ||A||_inf)``, which is at least its largest singular value. Without,
        all singular values must lie below ``sqrt(2)``.
    atol : float
        Stop at ``||I - X^T X||_F <= atol sqrt(n)``.
    maxiter : int
        Small singular values grow by a factor of 1.5, 1.88 or 2.19 a step: a condition number of 1e6 takes some 40,
        30 or 25.
    on_failure : {"raise", "return"}
        What to do at `maxiter`.

    Returns
    -------
    (..., m, n) float64 ndarray
        The polar factor of A: the nearest orthonormal matrix in the Frobenius norm. Orthonormal within `atol`; its
        distance to the factor grows with the condition number of A, about ``1e-16 cond(A)``.

    Raises
    ------
    IterationLimitError
        Not converged: A has no full rank, or nearly so.
    ValueError
        Singular values beyond ``sqrt(2)`` with ``scale=False``.

    References
    ----------
    Å. Björck, C. Bowie, "An iterative algorithm for computing the best estimate of an orthogonal matrix", SIAM J.
    Numer. Anal. 8 (1971) 358-364, doi:10.1137/0708036.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> orthogonal.bjorck(np.array([[3.0, 0.0], [0.0, -0.1], [0.0, 0.0]])).round(6) + 0.0
    array([[ 1.,  0.],
           [ 0., -1.],
           [ 0.,  0.]])
    """
    matrix = np.atleast_2d(checked_array("A", A, range(1, 9)))
    if as_integer("order", order, minimum=1) > 3:
        raise ValueError(f"`order` must be 1, 2 or 3; got {order!r}.")
    checked_word("on_failure", on_failure, ("raise", "return"))
    tolerance = checked_tolerance("atol", atol) * math.sqrt(max(1, min(matrix.shape[-2:])))
    wide = matrix.shape[-2] < matrix.shape[-1]
    X = matrix.swapaxes(-1, -2) if wide else matrix
    with serial_blas():
        X, distance = _iterated(_scaled(X, scale), order, tolerance, as_integer("maxiter", maxiter, minimum=0))
    result = np.ascontiguousarray(X.swapaxes(-1, -2) if wide else X)
    if distance > tolerance and on_failure == "raise":
        raise IterationLimitError(
            f"`maxiter`={maxiter} steps left ||I - X^T X||_F = {distance:.1e}, more than {tolerance:.1e}: `A` has a "
            "singular value of 0 or nearly so. Raise `maxiter`, perturb `A`, or pass on_failure='return'.",
            result,
        )
    return result


def _scaled(X: NDArray[np.float64], scale: bool) -> NDArray[np.float64]:
    if not scale:
        norm = float(np.linalg.norm(X, 2, axis=(-2, -1)).max(initial=0.0)) if X.size else 0.0
        if norm >= math.sqrt(2.0):
            raise ValueError(
                f"`A` must have singular values below sqrt(2) with scale=False; got {norm:.6g}. Pass scale=True."
            )
        return X
    absolute = np.abs(X)
    largest = absolute.max(axis=(-2, -1), initial=0.0, keepdims=True)
    absolute = absolute / np.where(largest > 0.0, largest, 1.0)  # products of norms stay in range
    bound = np.sqrt(
        absolute.sum(axis=-1, keepdims=True).max(axis=-2, initial=0.0, keepdims=True)
        * absolute.sum(axis=-2, keepdims=True).max(axis=-1, initial=0.0, keepdims=True)
    )
    return X / np.where(largest > 0.0, largest, 1.0) / np.where(bound > 0.0, bound, 1.0)


def _iterated(
    X: NDArray[np.float64], order: int, tolerance: float, maxiter: int
) -> tuple[NDArray[np.float64], float]:
    """Iterate on matrices of at least as many rows as columns; the last iterate and its distance."""
    identity = np.eye(X.shape[-1])
    for step in range(maxiter + 1):
        Q = identity - X.swapaxes(-1, -2) @ X
        distance = float(np.linalg.norm(Q, axis=(-2, -1)).max(initial=0.0))
        if distance <= tolerance or step == maxiter:
            break
        series = _SERIES[order] * Q
        for coefficient in _SERIES[order - 1 : 0 : -1]:
            series = (series + coefficient * identity) @ Q
        X = X + X @ series
    return X, distance
