"""Block convolution orthogonal parameterization: free parameters to orthogonal kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.geometry import as_integer
from spectral_conv.orthogonal._checks import (
    checked_array,
    checked_cotangent,
    checked_kernel,
    checked_size,
    checked_tolerance,
)
from spectral_conv.orthogonal._differentiable import Differentiable
from spectral_conv.orthogonal._factorization import factor_bases
from spectral_conv.orthogonal._polar import polar
from spectral_conv.orthogonal._projectors import ranges
from spectral_conv.orthogonal._representation import composed, composed_vjp, factor_axes


@dataclass(frozen=True, kw_only=True)
class BcopParameters:
    """Free parameters of `bcop`; derivatives by them have the same form.

    Attributes
    ----------
    kernel_size : tuple of int
        One entry per axis; an int stands for one axis.
    matrix : (in, out) ndarray
        Its nearest orthonormal matrix is the factor with one tap (O of the paper, transposed).
    projectors : (sum(k - 1), c, floor(c / 2)) ndarray
        Each spans the range of a projector on c = max(in, out) channels (the paper's M and N), from the one next to
        the matrix outward; the axes take turns.
    """

    kernel_size: tuple[int, ...]
    matrix: NDArray[np.float64]
    projectors: NDArray[np.float64]

    def __post_init__(self) -> None:
        size = checked_size(self.kernel_size, 1)
        matrix, projectors = checked_array("matrix", self.matrix, 2), checked_array("projectors", self.projectors, 3)
        c = max(matrix.shape)
        wanted = (len(factor_axes(size)), c, c // 2)
        if projectors.shape != wanted or matrix.size == 0:
            raise ValueError(
                f"`projectors` must have the shape {wanted}, (sum(k - 1), c, floor(c / 2)) for c = max(in, out) > 0; "
                f"got {projectors.shape}."
            )
        object.__setattr__(self, "kernel_size", size)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "projectors", projectors)

    @classmethod
    def sample(
        cls, kernel_size: int | Sequence[int], in_channels: int, out_channels: int, *, ndim: int = 2, rng: Any
    ) -> BcopParameters:
        """Standard normal parameters; `kernel_size`, `ndim` and `rng` as in `sample_bcop`."""
        size = checked_size(kernel_size, ndim)
        g, h = as_integer("in_channels", in_channels, minimum=1), as_integer("out_channels", out_channels, minimum=1)
        generator, c = np.random.default_rng(rng), max(g, h)
        matrix = generator.standard_normal((g, h))
        projectors = generator.standard_normal((len(factor_axes(size)), c, c // 2))
        return cls(kernel_size=size, matrix=matrix, projectors=projectors)

    @property
    def size(self) -> int:
        """Number of free parameters."""
        return self.matrix.size + self.projectors.size


def bcop(parameters: BcopParameters) -> NDArray[np.float64]:
    r"""Map free parameters to the kernel of an orthogonal convolution.

    ``W = H □ [P_1; I - P_1] □ [Q_1, I - Q_1] □ ...`` with H the polar factor of `matrix` and P, Q the projectors onto
    the ranges of `projectors`; in one dimension the representation (4) with half ranks, in three the axes take turns.

    Parameters
    ----------
    parameters : BcopParameters
        Free; see there.

    Returns
    -------
    (*k, in, out) float64 ndarray
        HWIO kernel. With circular padding all min(rows, columns) singular values are 1 to rounding, for every image
        size; with zero padding the largest is at most 1 and the smallest less, for k > 1.

    Notes
    -----
    1. Orthonormalization is by direct decompositions, the limits of the paper's iteration.
    2. For more outputs than inputs, which the paper leaves open, the projectors act on the outputs, after H.

    References
    ----------
    Q. Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks", NeurIPS 2019,
    arXiv:1911.00937, Algorithm 1.

    Examples
    --------
    >>> import spectral_conv
    >>> from spectral_conv import orthogonal
    >>> K = orthogonal.bcop(orthogonal.BcopParameters.sample(3, 4, 8, rng=0))
    >>> K.shape
    (3, 3, 4, 8)
    >>> orthogonal.is_orthogonal(spectral_conv.ConvOperator(K, (8, 8), padding_mode="circular"))
    True
    """
    with serial_blas():
        matrix, projectors = polar(parameters.matrix).factor, ranges(parameters.projectors).projectors
        return composed(parameters.kernel_size, matrix, projectors)


def bcop_with_vjp(parameters: BcopParameters) -> Differentiable[BcopParameters]:
    r"""Map as `bcop` and keep what the derivative needs.

    Parameters
    ----------
    parameters : BcopParameters
        Of full rank.

    Returns
    -------
    Differentiable
        Its `vjp` takes ``dL / dkernel``, shaped like the kernel, and returns ``dL / dparameters``. Exact up to
        rounding. Raises ValueError at parameters without full rank, where the map has no derivative.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> mapped = orthogonal.bcop_with_vjp(orthogonal.BcopParameters.sample(2, 2, 2, rng=0))
    >>> mapped.vjp(np.ones((2, 2, 2, 2))).projectors.shape
    (2, 2, 1)
    """
    matrix, projectors = polar(parameters.matrix), ranges(parameters.projectors)
    size, steps = parameters.kernel_size, list[NDArray[np.float64]]()
    kernel = composed(size, matrix.factor, projectors.projectors, steps)

    def vjp(cotangent: ArrayLike) -> BcopParameters:
        wide = kernel.shape[-2] < kernel.shape[-1]
        by_matrix, by_projectors = composed_vjp(
            size, projectors.projectors, steps, checked_cotangent(cotangent, kernel), wide=wide
        )
        return BcopParameters(
            kernel_size=size,
            matrix=matrix.vjp(by_matrix, "matrix"),
            projectors=projectors.vjp(by_projectors, "projectors"),
        )

    return Differentiable(kernel=kernel, vjp=vjp)


def bcop_parameters(kernel: ArrayLike, *, atol: float = 1e-10) -> BcopParameters:
    r"""Parameters that `bcop` maps to a given kernel: a right inverse on its kernels.

    Parameters
    ----------
    kernel : (*k, in, out) array_like
        A kernel that `bcop` made.
    atol : float
        As in `factorize`.

    Returns
    -------
    BcopParameters
        Orthonormal ones, ``bcop(bcop_parameters(K)) = K`` within ``atol sqrt(channels)``. Not unique.

    Raises
    ------
    ValueError
        No such parameters were found: the kernel is not orthogonal, or has other ranks (`component`, `factorize`);
        or, in several dimensions with far more channels on one side, the peeling met a choice and took a wrong one.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> K = orthogonal.sample_bcop(3, 4, 4, rng=0)
    >>> bool(np.allclose(orthogonal.bcop(orthogonal.bcop_parameters(K)), K))
    True
    """
    W = checked_kernel("kernel", kernel)
    rank = max(W.shape[-2:]) // 2
    matrix, bases = factor_bases(W, rank, checked_tolerance("atol", atol))
    projectors = np.stack(bases) if bases else np.zeros((0, max(matrix.shape), rank))
    return BcopParameters(kernel_size=W.shape[:-2], matrix=matrix, projectors=projectors)


def sample_bcop(
    kernel_size: int | Sequence[int], in_channels: int, out_channels: int, *, ndim: int = 2, rng: Any
) -> NDArray[np.float64]:
    r"""A random orthogonal kernel: `bcop` at standard normal parameters.

    H and the ranges of the projectors are uniformly distributed.

    Parameters
    ----------
    kernel_size : int or sequence of int
        One entry per axis; an int stands for `ndim` equal ones.
    in_channels, out_channels : int
        Channels.
    ndim : int
        Number of axes, 1 to 3.
    rng : numpy.random.Generator or int
        Generator or seed.

    Returns
    -------
    (*k, in, out) float64 ndarray
        As of `bcop`.

    Examples
    --------
    >>> from spectral_conv import orthogonal
    >>> orthogonal.sample_bcop(3, 4, 8, ndim=3, rng=0).shape
    (3, 3, 3, 4, 8)
    """
    return bcop(BcopParameters.sample(kernel_size, in_channels, out_channels, ndim=ndim, rng=rng))
