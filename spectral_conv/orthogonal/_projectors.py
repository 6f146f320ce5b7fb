"""Symmetric projectors ``P = P^2 = P^T``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.geometry import as_integer
from spectral_conv.orthogonal._checks import checked_array


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Projectors onto the ranges of a stack of matrices ``A = basis @ triangle``.

    Attributes
    ----------
    projectors : (..., c, c) ndarray
        ``basis basis^T``.
    basis, triangle : (..., c, r), (..., r, r) ndarrays
        QR decompositions.
    """

    projectors: NDArray[np.float64]
    basis: NDArray[np.float64]
    triangle: NDArray[np.float64]

    def vjp(self, cotangent: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        """Derivative of ``<cotangent, projectors>`` by A: ``(I - P) (C + C^T) (A^+)^T``."""
        diagonal = np.abs(np.diagonal(self.triangle, axis1=-2, axis2=-1))
        if diagonal.size and not (diagonal.min(axis=-1) > 1e-14 * diagonal.max(axis=-1)).all():
            raise ValueError(
                f"`{name}` must have full rank for a derivative; got a matrix whose columns depend on each other. "
                "Its range jumps there: start from random parameters."
            )
        if not diagonal.size:
            return np.zeros(self.basis.shape)
        with serial_blas():
            along = (cotangent + cotangent.swapaxes(-1, -2)) @ self.basis
            across = along - self.basis @ (self.basis.swapaxes(-1, -2) @ along)
            solved = np.linalg.solve(self.triangle, across.swapaxes(-1, -2)).swapaxes(-1, -2)
            return np.ascontiguousarray(solved, dtype=np.float64)


def ranges(A: NDArray[np.float64]) -> Ranges:
    """Projectors onto the ranges of matrices ``(..., c, r)``, r <= c."""
    # 1. The paper forms R R^T with R = Björck(A), the polar factor; any orthonormal basis of the range of A gives the
    # same projector, and a QR decomposition is the cheapest one.
    with serial_blas():
        basis, triangle = np.linalg.qr(A)
        return Ranges(projectors=basis @ basis.swapaxes(-1, -2), basis=basis, triangle=triangle)


def projector(A: ArrayLike) -> NDArray[np.float64]:
    r"""Symmetric projectors from free matrices: ``P = R R^T`` with R orthonormal, its range that of A.

    Parameters
    ----------
    A : (..., c, r) array_like
        With r <= c; r = 0 gives the projector 0.

    Returns
    -------
    (..., c, c) float64 ndarray
        Of rank r; ``P = P^2 = P^T`` to rounding. A right inverse: `projector` of an orthonormal basis of the range.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, Section 3.1 and Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> orthogonal.projector(np.array([[2.0], [0.0]])).round(12)
    array([[1., 0.],
           [0., 0.]])
    """
    matrix = checked_array("A", A, range(2, 9))
    c, r = matrix.shape[-2:]
    if r > c:
        raise ValueError(f"`A` must have at most as many columns as rows, which are the channels; got {c} x {r}.")
    return ranges(matrix).projectors


def nearest_projector(S: ArrayLike, rank: int | None = None) -> NDArray[np.float64]:
    r"""The nearest symmetric projector, in the Frobenius norm.

    ``sum u u^T`` over the eigenvectors of ``(S + S^T) / 2`` with the largest eigenvalues.

    Parameters
    ----------
    S : (c, c) array_like
        Any square matrix.
    rank : int, optional
        Of the projector; default: the number of eigenvalues above 1/2, which is the nearest of all.

    Returns
    -------
    (c, c) float64 ndarray
        Unique where the eigenvalues on both sides of the cut differ.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> orthogonal.nearest_projector(np.diag([0.9, 0.6, -3.0])).round(12)
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 0.]])
    """
    matrix = checked_array("S", S, 2)
    c = matrix.shape[0]
    if matrix.shape != (c, c):
        raise ValueError(f"`S` must be square; got shape {matrix.shape}.")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2.0)
    count = int((values > 0.5).sum()) if rank is None else as_integer("rank", rank, minimum=0)
    if count > c:
        raise ValueError(f"`rank` must be at most the {c} channels; got {rank!r}.")
    basis = vectors[:, c - count :]
    return basis @ basis.T


def sample_projector(channels: int, rank: int, *, rng: Any) -> NDArray[np.float64]:
    """A random symmetric projector, its range uniformly distributed.

    Parameters
    ----------
    channels, rank : int
        Size and rank.
    rng : numpy.random.Generator or int
        Generator or seed.

    Returns
    -------
    (channels, channels) float64 ndarray
        The projector.

    Examples
    --------
    >>> from spectral_conv import orthogonal
    >>> orthogonal.sample_projector(5, 2, rng=0).trace().round(12)
    np.float64(2.0)
    """
    c, r = as_integer("channels", channels, minimum=1), as_integer("rank", rank, minimum=0)
    return projector(np.random.default_rng(rng).standard_normal((c, r)))
