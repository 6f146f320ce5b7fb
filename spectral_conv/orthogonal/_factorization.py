"""From a kernel back to its projectors, and to its connected component."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.orthogonal._checks import checked_kernel, checked_tolerance
from spectral_conv.orthogonal._representation import ProjectorFactors, composed, factor_axes


@dataclass(frozen=True, kw_only=True)
class Component:
    """Where an orthogonal 1-D convolution lies among the ``2 (k - 1) n + 2`` connected components.

    Attributes
    ----------
    ranks : tuple of int
        Ranks of the projectors of one factorization, from the one next to the matrix outward. Another factorization
        may have others; their sum is always the same.
    rank : int
        Their sum, 0 to (k - 1) n.
    determinant : int
        1 or -1: that of the sum of the taps, which is the matrix H. With `rank` it names the component.
    """

    ranks: tuple[int, ...]
    rank: int
    determinant: int


def factorize(kernel: ArrayLike, *, rank: int | None = None, atol: float = 1e-10) -> ProjectorFactors:
    r"""Factors of an orthogonal convolution, the inverse of `compose`.

    The last projector Q is peeled off first: its range holds that of the first taps along its axis and is orthogonal
    to that of the last ones. What remains, ``(Q + (I - Q) shift) □ W``, has a tap less.

    Parameters
    ----------
    kernel : (*k, in, out) array_like
        HWIO kernel of an orthogonal convolution.
    rank : int, optional
        Of every projector; default: the least possible in each step, which is always possible in one dimension.
    atol : float
        Directions in which the taps are smaller count as free; the factors must give the kernel within
        ``sqrt(channels)`` times this.

    Returns
    -------
    ProjectorFactors
        Their `compose` is the kernel. They are not unique: not for special kernels, nor where in and out differ.

    Raises
    ------
    ValueError
        No factors of this form were found. In one dimension the kernel is then not orthogonal, or `rank` does not
        fit; in several, orthogonal kernels without such factors exist.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, Section 3.1; J. Kautsky, R. Turcajová, "A matrix approach to discrete wavelets",
    Wavelet Analysis and Its Applications 5 (1994) 117-135.

    Examples
    --------
    >>> from spectral_conv import orthogonal
    >>> K = orthogonal.sample_bcop((3, 2), 4, 4, rng=0)
    >>> orthogonal.factorize(K).ranks
    (2, 2, 2)
    """
    W = checked_kernel("kernel", kernel)
    matrix, bases = factor_bases(W, rank, checked_tolerance("atol", atol))
    return ProjectorFactors(kernel_size=W.shape[:-2], matrix=matrix, projectors=bases_to_projectors(bases, matrix))


def factor_bases(
    W: NDArray[np.float64], rank: int | None, atol: float
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Matrix, and orthonormal bases of the ranges of the projectors; checked against the kernel."""
    matrix, bases = _peeled(W, rank, atol)
    off = float(np.abs(composed(W.shape[:-2], matrix, bases_to_projectors(bases, matrix)) - W).max())
    small = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    off = max(off, float(np.abs(small.T @ small - np.eye(small.shape[1])).max()))
    if off > atol * np.sqrt(max(matrix.shape)):
        raise ValueError(
            f"`kernel` must be a product of convolutions [P, I - P]{_of_rank(rank)}; the nearest found is off by "
            f"{off:.1e}. Is it orthogonal (is_orthogonal, circular padding), the axes in the order of `compose`?"
        )
    return matrix, bases


def bases_to_projectors(bases: list[NDArray[np.float64]], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stack the projectors onto the ranges of orthonormal bases."""
    c = max(matrix.shape)
    return np.stack([B @ B.T for B in bases]) if bases else np.zeros((0, c, c))


def _of_rank(rank: int | None) -> str:
    return "" if rank is None else f" of rank {rank}"


def _peeled(
    W: NDArray[np.float64], rank: int | None, atol: float
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """`factor_bases` without the check: wrong where W is no such product."""
    wide = W.shape[-2] < W.shape[-1]
    X = W.swapaxes(-1, -2) if wide else W
    c = X.shape[-2]
    bases = []
    with serial_blas():
        for axis in reversed(factor_axes(W.shape[:-2])):
            X = np.moveaxis(X, axis, 0)
            first, last = (np.moveaxis(taps, -2, 0).reshape(c, -1) for taps in (X[0], X[-1]))
            basis = _separated(first, last, rank, atol)
            difference = X[:-1] - X[1:]
            X = np.moveaxis(X[1:] + basis @ (basis.T @ difference), 0, axis)
            bases.append(basis)
    matrix = X.reshape(X.shape[-2:])
    return (matrix.T if wide else matrix), bases[::-1]


def _separated(
    first: NDArray[np.float64], last: NDArray[np.float64], rank: int | None, atol: float
) -> NDArray[np.float64]:
    """Orthonormal basis of a space that holds the range of `first` and is orthogonal to that of `last`."""
    c = first.shape[0]
    # Columns in the order of their size, whichever side they come from: small ones are then orthogonal to large ones
    # of the other side too, so that an error of direction is never larger than what lies in that direction.
    Q, R, order = scipy.linalg.qr(
        np.hstack([first, last]), mode="full" if first.shape[1] * 2 < c else "economic", pivoting=True
    )
    size = np.abs(np.diagonal(R))
    size = np.concatenate([size, np.zeros(c - len(size))])
    source = np.concatenate([order < first.shape[1], np.zeros(c, bool)])[:c]
    inside = Q[:, source & (size > atol)]
    free = Q[:, size <= atol]
    if rank is None:
        return inside
    missing = rank - inside.shape[1]
    if not 0 <= missing <= free.shape[1]:
        raise ValueError(
            f"`kernel` must be a product of convolutions [P, I - P]{_of_rank(rank)}; a projector of it has a rank of "
            f"{inside.shape[1]} to {inside.shape[1] + free.shape[1]}. Use `factorize` without `rank`."
        )
    return np.hstack([inside, free[:, :missing]])


def component(kernel: ArrayLike, *, atol: float = 1e-10) -> Component:
    r"""Find the connected component of an orthogonal 1-D convolution, and the ranks of its projectors.

    ``det K(z) = det(H) z^((k - 1) n - rank)`` along the unit circle: the winding number is ``sum_a a ||K[a]||_F^2``.

    Parameters
    ----------
    kernel : (k, n, n) array_like
        WIO kernel of an orthogonal convolution.
    atol : float
        As in `factorize`.

    Returns
    -------
    Component
        Two kernels can be joined by a path of orthogonal convolutions where `rank` and `determinant` agree, and only
        there.

    Raises
    ------
    ValueError
        Not a 1-D kernel with as many inputs as outputs, or not orthogonal.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, Theorem 1.

    Examples
    --------
    >>> from spectral_conv import orthogonal
    >>> orthogonal.component(orthogonal.sample_bcop(3, 4, 4, ndim=1, rng=0)).ranks
    (2, 2)
    """
    W = checked_kernel("kernel", kernel)
    if W.ndim != 3 or W.shape[1] != W.shape[2]:
        raise ValueError(
            "`kernel` must be one-dimensional with as many inputs as outputs, (k, n, n); got shape "
            f"{W.shape}. The components of other orthogonal convolutions are not known."
        )
    factors = factorize(W, atol=atol)
    k, n = W.shape[:2]
    winding = round(float((np.arange(k) * (W**2).sum(axis=(1, 2))).sum()))
    sign = np.linalg.slogdet(W.sum(axis=0))[0]
    return Component(ranks=factors.ranks, rank=(k - 1) * n - winding, determinant=round(float(sign)))
