"""One-sided spectral normalization by the true norm of the layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv.kernel_adjoint import kernel_adjoint
from spectral_conv.operator import ConvOperator
from spectral_conv.orthogonal._checks import checked_cotangent
from spectral_conv.orthogonal._differentiable import Differentiable
from spectral_conv.orthogonal._rko import sample_kernel
from spectral_conv.results import MemoryLimitError
from spectral_conv.spectrum import singular_triplets, spectral_norm
from spectral_conv.spectrum.checks import check_operator

_LAYOUTS = {1: "WIO", 2: "HWIO", 3: "DHWIO"}


def ossn(conv: ConvOperator, *, rtol: float = 1e-9) -> NDArray[np.float64]:
    r"""Divide the kernel by the largest singular value of the layer: ``K / sigma_max(M)``.

    Parameters
    ----------
    conv : ConvOperator
        Its kernel is the free parameter; padding, image size, stride and everything else are those of the layer.
    rtol : float
        Error of the norm, relative.

    Returns
    -------
    float64 ndarray shaped like ``conv.kernel``
        The layer with it, ``conv.with_kernel(...)``, has the norm 1 within `rtol`; with another padding or image size
        it has another one. Kernels of norm 1 are their own images: the map is its right inverse.

    Raises
    ------
    ValueError
        The kernel is zero, or too large for an exact norm in memory.

    Notes
    -----
    1. A few power iterations, as is usual, bound the norm from below, so that layers keep a norm slightly above 1;
       this is the exact norm of the layer.
    2. Gouk et al. leave kernels of norm below 1 as they are; here the norm is always 1.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, Section 4; H. Gouk et al., arXiv:1804.04368.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> from spectral_conv import orthogonal
    >>> conv = spectral_conv.ConvOperator(np.diag([4.0, 1.0])[None, None], (8, 8))
    >>> orthogonal.ossn(conv)[0, 0]
    array([[1.  , 0.  ],
           [0.  , 0.25]])
    """
    layer = _in_float64(conv)
    norm = spectral_norm(layer, rtol=rtol)
    if norm.method == "bracket":
        raise MemoryLimitError(
            "`conv` must be small enough for an exact norm; only "
            f"{norm.lower:.6g} <= sigma_max <= {norm.upper:.6g} is known. Use a smaller `input_shape`."
        )
    return layer.kernel / _positive(norm.value)


def ossn_with_vjp(conv: ConvOperator, *, rtol: float = 1e-10) -> Differentiable[NDArray[np.float64]]:
    r"""Map as `ossn` and keep what the derivative needs.

    ``dL/dK = C / s - <C, K> / s^2 ds/dK`` with the cotangent C and ``ds/dK`` from the exact singular vectors.

    Parameters
    ----------
    conv, rtol
        As in `ossn`.

    Returns
    -------
    Differentiable
        Its `vjp` takes ``dL / dkernel`` and returns ``dL / d(conv.kernel)``. Where the largest singular value is
        multiple, as of orthogonal layers, it rests on one subgradient.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> from spectral_conv import orthogonal
    >>> conv = spectral_conv.ConvOperator(np.array([2.0, 1.0]).reshape(2, 1, 1), 4, layout="WIO")
    >>> derivative = orthogonal.ossn_with_vjp(conv).vjp(np.ones((2, 1, 1)))
    >>> bool(abs(np.vdot(derivative, conv.kernel)) < 1e-9)  # the map does not see the size of the kernel
    True
    """
    layer = _in_float64(conv)
    top = singular_triplets(layer, k=1, rtol=rtol)
    norm = _positive(float(top.values[0]))
    slope = kernel_adjoint(layer, top.left[0], top.right[0])
    kernel = layer.kernel / norm

    def vjp(cotangent: ArrayLike) -> NDArray[np.float64]:
        C = checked_cotangent(cotangent, kernel)
        return (C - float(np.vdot(C, kernel)) * slope) / norm

    return Differentiable(kernel=kernel, vjp=vjp)


def _in_float64(conv: ConvOperator) -> ConvOperator:
    check_operator(conv)
    return conv.with_kernel(conv.kernel.astype(np.float64))


def _positive(norm: float) -> float:
    if norm <= 0.0:
        raise ValueError("`conv` must not be the zero layer, which no factor gives the norm 1. Pass other weights.")
    return norm


def sample_ossn(
    kernel_size: int | Sequence[int],
    in_channels: int,
    out_channels: int,
    *,
    ndim: int = 2,
    rng: Any,
    input_shape: int | Sequence[int] | None = None,
    **layer: Any,
) -> NDArray[np.float64]:
    r"""A random kernel whose layer has the norm 1: `ossn` at standard normal parameters.

    Parameters
    ----------
    kernel_size, in_channels, out_channels, ndim, rng
        As in `sample_bcop`.
    input_shape : int or sequence of int, optional
        Image size of the layer; default: 32 along each axis.
    **layer
        Further parameters of `ConvOperator`, such as `padding_mode` or `stride`; without `groups`.

    Returns
    -------
    (*k, in, out) float64 ndarray
        As of `ossn`.

    Examples
    --------
    >>> import spectral_conv
    >>> from spectral_conv import orthogonal
    >>> K = orthogonal.sample_ossn(3, 2, 4, rng=0, input_shape=(8, 8))
    >>> round(spectral_conv.spectral_norm(spectral_conv.ConvOperator(K, (8, 8))).value, 8)
    1.0
    """
    free = sample_kernel(kernel_size, in_channels, out_channels, ndim, rng)
    axes = free.ndim - 2
    shape = (32,) * axes if input_shape is None else input_shape
    return ossn(ConvOperator(free, shape, layout=_LAYOUTS[axes], **layer))
