"""Orthogonal convolutions as products of convolutions with two taps, ``[P, I - P]``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.orthogonal._checks import checked_array, checked_size

# How far a matrix may be from orthonormal, or a projector from its square, to be taken for one.
_TOLERANCE = 1e-8


@dataclass(frozen=True, kw_only=True)
class ProjectorFactors:
    r"""Factors of an orthogonal convolution: a matrix and symmetric projectors.

    Attributes
    ----------
    kernel_size : tuple of int
        One entry per axis; an int stands for one axis.
    matrix : (in, out) ndarray
        Orthonormal columns (rows where out > in): the convolution with one tap.
    projectors : (sum(k - 1), c, c) ndarray
        Symmetric projectors on c = max(in, out) channels, from the one next to the matrix outward; the axes take
        turns, first to last, those with fewer taps drop out (`factor_axes`).
    """

    kernel_size: tuple[int, ...]
    matrix: NDArray[np.float64]
    projectors: NDArray[np.float64]

    def __post_init__(self) -> None:
        size = checked_size(self.kernel_size, 1)
        matrix, projectors = checked_array("matrix", self.matrix, 2), checked_array("projectors", self.projectors, 3)
        c, count = max(matrix.shape), len(factor_axes(size))
        if projectors.shape != (count, c, c):
            raise ValueError(
                f"`projectors` must have the shape {(count, c, c)}, one projector of size max(in, out) per tap "
                f"beyond the first of each axis; got {projectors.shape}."
            )
        small = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        off = float(np.abs(small.T @ small - np.eye(small.shape[1])).max(initial=0.0))
        if off > _TOLERANCE:
            raise ValueError(
                "`matrix` must have orthonormal columns, or rows if it is wide; its Gram matrix is off by "
                f"{off:.1e}. Use `bjorck`."
            )
        off = float(np.abs(projectors @ projectors - projectors).max(initial=0.0))
        off = max(off, float(np.abs(projectors - projectors.swapaxes(1, 2)).max(initial=0.0)))
        if off > _TOLERANCE:
            raise ValueError(
                f"`projectors` must be symmetric and equal to their squares; they are off by {off:.1e}. "
                "Use `projector` or `nearest_projector`."
            )
        object.__setattr__(self, "kernel_size", size)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "projectors", projectors)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the projectors."""
        return tuple(round(float(trace)) for trace in np.trace(self.projectors, axis1=1, axis2=2))


def factor_axes(kernel_size: Sequence[int]) -> list[int]:
    """Axis of each projector, from the matrix outward."""
    turns = range(max(kernel_size) - 1)
    return [axis for turn in turns for axis, k in enumerate(kernel_size) if turn < k - 1]


def compose(factors: ProjectorFactors) -> NDArray[np.float64]:
    r"""Kernel of the orthogonal convolution with the given factors.

    ``W = H □ [P_1, I - P_1] □ [P_2, I - P_2] □ ...``; in several dimensions the axes take turns. In one dimension
    every orthogonal convolution with as many inputs as outputs is of this form, in several dimensions not.

    Parameters
    ----------
    factors : ProjectorFactors
        Matrix and projectors.

    Returns
    -------
    (*k, in, out) float64 ndarray
        HWIO kernel. All singular values of its circular convolution are 1 to rounding, for every image size.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, (4) and (5); J. Kautsky, R. Turcajová, "A matrix approach to discrete wavelets",
    Wavelet Analysis and Its Applications 5 (1994) 117-135.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> P = np.diag([1.0, 0.0])[None]  # keeps one channel, shifts the other
    >>> factors = orthogonal.ProjectorFactors(kernel_size=(2,), matrix=np.eye(2), projectors=P)
    >>> orthogonal.compose(factors)
    array([[[1., 0.],
            [0., 0.]],
    <BLANKLINE>
           [[0., 0.],
            [0., 1.]]])
    """
    return composed(factors.kernel_size, factors.matrix, factors.projectors)


def composed(
    kernel_size: Sequence[int],
    matrix: NDArray[np.float64],
    projectors: NDArray[np.float64],
    steps: list[NDArray[np.float64]] | None = None,
) -> NDArray[np.float64]:
    """`compose` without checks; the kernels before each step are appended to `steps`."""
    # 1. The paper asks for in >= out. Otherwise the projectors act on the outputs: the same on transposed taps.
    wide = matrix.shape[0] < matrix.shape[1]
    start = matrix.T if wide else matrix
    result = np.empty((*kernel_size, *start.shape))
    result[(0,) * len(kernel_size)] = start
    products = np.empty((math.prod(kernel_size), *start.shape))
    taps = [1] * len(kernel_size)
    with serial_blas():
        for P, axis in zip(projectors, factor_axes(kernel_size), strict=True):
            X = result[tuple(slice(0, n) for n in taps)]
            if steps is not None:
                steps.append(X.copy())
            PX = np.matmul(P, X, out=products[: math.prod(taps)].reshape(X.shape))
            taps[axis] += 1
            _extend(result[tuple(slice(0, n) for n in taps)], PX, axis)
    return np.ascontiguousarray(result.swapaxes(-1, -2) if wide else result)


def _extend(X: NDArray[np.float64], PX: NDArray[np.float64], axis: int) -> None:
    """Replace X, all but its last tap along `axis`, by ``[P, I - P] □ X``.

    Half of the products of a block convolution are enough, as ``(I - P) X = X - P X``.
    """
    n = PX.shape[axis]
    X[_at(axis, slice(0, n))] -= PX
    X[_at(axis, slice(n, n + 1))] = X[_at(axis, slice(n - 1, n))]
    for tap in range(n - 1, 0, -1):
        before, here = _at(axis, slice(tap - 1, tap)), _at(axis, slice(tap, tap + 1))
        np.add(X[before], PX[here], out=X[here])
    X[_at(axis, slice(0, 1))] = PX[_at(axis, slice(0, 1))]


def _at(axis: int, window: slice) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, window)


def composed_vjp(
    kernel_size: Sequence[int],
    projectors: NDArray[np.float64],
    steps: Sequence[NDArray[np.float64]],
    cotangent: NDArray[np.float64],
    *,
    wide: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivatives of ``<cotangent, composed(...)>`` by the matrix and by the projectors as free matrices."""
    Y = cotangent.swapaxes(-1, -2) if wide else cotangent
    by_projectors = np.empty(projectors.shape)
    axes = factor_axes(kernel_size)
    with serial_blas():
        for i in range(len(axes) - 1, -1, -1):
            n = Y.shape[axes[i]] - 1
            before, after = Y[_at(axes[i], slice(0, n))], Y[_at(axes[i], slice(1, n + 1))]
            D = before - after
            by_projectors[i] = (D @ steps[i].swapaxes(-1, -2)).sum(axis=tuple(range(Y.ndim - 2)))
            Y = projectors[i] @ D + after
    by_matrix = Y.reshape(Y.shape[-2:])
    return (by_matrix.T if wide else by_matrix), by_projectors


def with_auxiliary_channels(factors: ProjectorFactors) -> ProjectorFactors:
    r"""The same convolution inside one with twice the channels, all of whose projectors have half of the full rank.

    ``H' = diag(H, I)``, ``P' = diag(P, D)`` with D the projector onto the first ``n - rank(P)`` of n channels. So one
    connected component of convolutions on 2n channels holds all those on n channels.

    Parameters
    ----------
    factors : ProjectorFactors
        On n channels in and out.

    Returns
    -------
    ProjectorFactors
        On 2n channels, its projectors of rank n; the first n outputs of the composed convolution are those of the
        given one on the first n inputs, the others do not mix with them.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, Theorem 3.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> factors = orthogonal.ProjectorFactors(kernel_size=(2,), matrix=np.eye(3), projectors=np.zeros((1, 3, 3)))
    >>> orthogonal.with_auxiliary_channels(factors).ranks
    (3,)
    """
    n, out = factors.matrix.shape
    if n != out:
        raise ValueError(f"`factors` must have as many inputs as outputs; got a matrix of shape {(n, out)}.")
    matrix = np.eye(2 * n)
    matrix[:n, :n] = factors.matrix
    projectors = np.zeros((len(factors.projectors), 2 * n, 2 * n))
    projectors[:, :n, :n] = factors.projectors
    for P, rank in zip(projectors, factors.ranks, strict=True):
        rest = np.arange(n, 2 * n - rank)
        P[rest, rest] = 1.0
    return ProjectorFactors(kernel_size=factors.kernel_size, matrix=matrix, projectors=projectors)
