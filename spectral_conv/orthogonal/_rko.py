"""Reshaped kernel orthogonalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv.geometry import as_integer, per_axis
from spectral_conv.orthogonal._checks import checked_cotangent, checked_kernel, checked_size
from spectral_conv.orthogonal._differentiable import Differentiable
from spectral_conv.orthogonal._polar import Polar, polar


def rko(parameters: ArrayLike, *, stride: int | Sequence[int] = 1) -> NDArray[np.float64]:
    r"""Map a free kernel to one whose layer stretches nothing: orthogonalize the reshaped kernel, divide.

    ``K = polar(A) / sqrt(prod ceil(k_i / s_i))`` with A the ``(k_1 ... k_d in) x out`` matrix of the weights: an
    input pixel is read through at most that many taps.

    Parameters
    ----------
    parameters : (*k, in, out) array_like
        Free HWIO kernel.
    stride : int or sequence of int
        Of the layer; the paper has 1, whose kernel suits every stride. Dilation must be 1 where this is not.

    Returns
    -------
    (*k, in, out) float64 ndarray
        With zero padding, or circular padding of an image whose size the stride divides, the largest singular value
        is at most 1. It is usually less, and the layer is not orthogonal, unless windows do not overlap (stride k,
        no padding). Of all kernels of this form it is the nearest to `parameters`, and its own image: the map is its
        right inverse.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, Section 4; the bound: Y. Tsuzuku, I. Sato, M. Sugiyama, arXiv:1802.04034.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> orthogonal.rko(np.full((2, 2, 1, 1), 7.0)).ravel()
    array([0.25, 0.25, 0.25, 0.25])
    """
    return _mapped(parameters, stride)[0]


def rko_with_vjp(parameters: ArrayLike, *, stride: int | Sequence[int] = 1) -> Differentiable[NDArray[np.float64]]:
    r"""Map as `rko` and keep what the derivative needs.

    Parameters
    ----------
    parameters, stride
        As in `rko`; the reshaped kernel has full rank.

    Returns
    -------
    Differentiable
        Its `vjp` takes ``dL / dkernel`` and returns ``dL / dparameters``, of the same shape. Exact up to rounding.
        Raises ValueError at parameters without full rank, where the map has no derivative.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> mapped = orthogonal.rko_with_vjp(np.ones((2, 1, 1)))
    >>> mapped.vjp(np.array([1.0, 0.0]).reshape(2, 1, 1)).ravel().round(12)  # at right angles to the parameters
    array([ 0.25, -0.25])
    """
    kernel, factor, root = _mapped(parameters, stride)

    def vjp(cotangent: ArrayLike) -> NDArray[np.float64]:
        flat = checked_cotangent(cotangent, kernel).reshape(factor.factor.shape)
        return factor.vjp(flat / root, "parameters").reshape(kernel.shape)

    return Differentiable(kernel=kernel, vjp=vjp)


def _mapped(parameters: ArrayLike, stride: int | Sequence[int]) -> tuple[NDArray[np.float64], Polar, float]:
    free = checked_kernel("parameters", parameters)
    *size, _, out = free.shape
    steps = per_axis("stride", stride, len(size), minimum=1)
    factor = polar(free.reshape(-1, out))
    root = math.sqrt(math.prod(-(-k // s) for k, s in zip(size, steps, strict=True)))
    return factor.factor.reshape(free.shape) / root, factor, root


def sample_rko(
    kernel_size: int | Sequence[int],
    in_channels: int,
    out_channels: int,
    *,
    ndim: int = 2,
    rng: Any,
    stride: int | Sequence[int] = 1,
) -> NDArray[np.float64]:
    r"""A random kernel of norm at most 1: `rko` at standard normal parameters.

    Parameters
    ----------
    kernel_size, in_channels, out_channels, ndim, rng
        As in `sample_bcop`.
    stride : int or sequence of int
        As in `rko`.

    Returns
    -------
    (*k, in, out) float64 ndarray
        As of `rko`; the reshaped kernel is uniformly distributed.

    Examples
    --------
    >>> from spectral_conv import orthogonal
    >>> orthogonal.sample_rko(3, 4, 8, rng=0).shape
    (3, 3, 4, 8)
    """
    return rko(sample_kernel(kernel_size, in_channels, out_channels, ndim, rng), stride=stride)


def sample_kernel(
    kernel_size: int | Sequence[int], in_channels: int, out_channels: int, ndim: int, rng: Any
) -> NDArray[np.float64]:
    """Standard normal HWIO kernel."""
    g, h = as_integer("in_channels", in_channels, minimum=1), as_integer("out_channels", out_channels, minimum=1)
    return np.random.default_rng(rng).standard_normal((*checked_size(kernel_size, ndim), g, h))
