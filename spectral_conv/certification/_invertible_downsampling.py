"""Invertible downsampling: pixels become channels, no entry is lost or repeated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv.geometry import as_integer, per_axis
from spectral_conv.operator import ConvOperator


def invertible_downsampling(x: ArrayLike, factor: int | Sequence[int], *, ndim: int = 2) -> NDArray[Any]:
    r"""Move each block of pixels into channels of its own (space to depth, pixel unshuffle).

    ``y[c F + a, p] = x[c, p f + a]`` with `a` the place in a block of ``F = prod(f)`` pixels, row by row.

    Parameters
    ----------
    x : (..., channels, *spatial) array_like
        One sample or a batch.
    factor : int or sequence of int
        Sides f of the blocks, one per spatial axis; an int stands for `ndim` equal ones. They divide the sizes.
    ndim : int
        Number of spatial axes, 1 to 3, where `factor` is an int.

    Returns
    -------
    (..., channels * F, *(spatial / f)) ndarray
        The same entries in another order: the map is a permutation, its norm 1 and all its singular values too.

    Raises
    ------
    ValueError
        `factor` does not divide the sizes, or `x` has too few axes.

    References
    ----------
    J.-H. Jacobsen, A. Smeulders, E. Oyallon, "i-RevNet: Deep Invertible Networks", ICLR 2018, arXiv:1802.07088.
    Q. Li et al., NeurIPS 2019, arXiv:1911.00937, who use it instead of strides.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import certification
    >>> x = np.arange(16.0).reshape(1, 4, 4)
    >>> y = certification.invertible_downsampling(x, 2)
    >>> y.shape, y[:, 0, 0]
    ((4, 2, 2), array([0., 1., 4., 5.]))
    """
    array = np.asarray(x)
    factors = _checked_factors(factor, ndim)
    count = len(factors)
    _check_axes("x", array, count)
    front, channels, sizes = array.shape[: -count - 1], array.shape[-count - 1], array.shape[-count:]
    _check_sizes("x", sizes, factors)
    small = tuple(n // f for n, f in zip(sizes, factors, strict=True))
    split = array.reshape(*front, channels, *_interleaved(small, factors))
    first = len(front) + 1
    blocks, places = range(first, first + 2 * count, 2), range(first + 1, first + 2 * count, 2)
    moved = split.transpose(*range(first), *places, *blocks)
    return np.ascontiguousarray(moved.reshape(*front, channels * math.prod(factors), *small))


def invertible_upsampling(y: ArrayLike, factor: int | Sequence[int], *, ndim: int = 2) -> NDArray[Any]:
    r"""Put channels back into blocks of pixels: the inverse of `invertible_downsampling`, and its transpose.

    Parameters
    ----------
    y : (..., channels * F, *spatial) array_like
        One sample or a batch, ``F = prod(f)``.
    factor : int or sequence of int
        Sides f of the blocks, one per spatial axis; an int stands for `ndim` equal ones.
    ndim : int
        Number of spatial axes, 1 to 3, where `factor` is an int.

    Returns
    -------
    (..., channels, *(spatial * f)) ndarray
        The same entries in another order; a permutation, of norm 1.

    Raises
    ------
    ValueError
        The number of channels is no multiple of F, or `y` has too few axes.

    References
    ----------
    J.-H. Jacobsen, A. Smeulders, E. Oyallon, ICLR 2018, arXiv:1802.07088.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import certification
    >>> certification.invertible_upsampling(np.arange(4.0).reshape(4, 1, 1), 2)
    array([[[0., 1.],
            [2., 3.]]])
    """
    array = np.asarray(y)
    factors = _checked_factors(factor, ndim)
    count, block = len(factors), math.prod(factors)
    _check_axes("y", array, count)
    front, channels, sizes = array.shape[: -count - 1], array.shape[-count - 1], array.shape[-count:]
    if channels % block:
        raise ValueError(
            f"`y` must have a multiple of {block} channels, the pixels of a block of {factors}; got {channels}. "
            "The channels lie before the spatial axes."
        )
    split = array.reshape(*front, channels // block, *factors, *sizes)
    first = len(front) + 1
    order = [axis for i in range(count) for axis in (first + count + i, first + i)]
    large = (n * f for n, f in zip(sizes, factors, strict=True))
    return np.ascontiguousarray(split.transpose(*range(first), *order).reshape(*front, channels // block, *large))


def downsampling_operator(
    channels: int, input_shape: int | Sequence[int], factor: int | Sequence[int]
) -> ConvOperator:
    r"""Return `invertible_downsampling` as a convolution: blocks as kernels and strides, one output per pixel.

    Parameters
    ----------
    channels : int
        Of the input.
    input_shape : int or sequence of int
        Spatial input size; an int stands for one axis.
    factor : int or sequence of int
        Sides f of the blocks; they divide the sizes.

    Returns
    -------
    ConvOperator
        A permutation matrix of ``channels * prod(input_shape)`` rows, grouped by input channels: every singular
        value is 1, and its adjoint ``.H`` is its inverse. It may stand in a sequence for `network_lipschitz`.

    Raises
    ------
    ValueError
        `factor` does not divide the sizes, or there are more than three axes.

    References
    ----------
    Q. Li et al., NeurIPS 2019, arXiv:1911.00937.

    Examples
    --------
    >>> import spectral_conv
    >>> from spectral_conv import certification
    >>> conv = certification.downsampling_operator(3, (8, 8), 2)
    >>> conv.out_channels, conv.output_shape, spectral_conv.spectral_norm(conv).value
    (12, (4, 4), 1.0)
    """
    count = as_integer("channels", channels, minimum=1)
    wanted = tuple(input_shape) if isinstance(input_shape, Iterable) else (input_shape,)
    _check_count("input_shape", len(wanted))
    sizes = per_axis("input_shape", wanted, len(wanted), minimum=1)
    factors = per_axis("factor", factor, len(sizes), minimum=1)
    _check_sizes("input_shape", sizes, factors)
    block = math.prod(factors)
    kernel = np.tile(np.eye(block).reshape(*factors, 1, block), count)
    layout = ("WIO", "HWIO", "DHWIO")[len(sizes) - 1]
    return ConvOperator(kernel, sizes, layout=layout, stride=factors, padding=0, groups=count)


def _interleaved(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(entry for pair in zip(first, second, strict=True) for entry in pair)


def _checked_factors(factor: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    if isinstance(factor, Iterable):
        entries = tuple(factor)
        _check_count("factor", len(entries))
        return per_axis("factor", entries, len(entries), minimum=1)
    _check_count("ndim", as_integer("ndim", ndim, minimum=1))
    return per_axis("factor", factor, ndim, minimum=1)


def _check_count(name: str, count: int) -> None:
    if not 1 <= count <= 3:
        raise ValueError(f"`{name}` must stand for 1 to 3 spatial axes; got {count}. The default is two axes.")


def _check_axes(name: str, array: NDArray[Any], count: int) -> None:
    if array.ndim <= count:
        raise ValueError(
            f"`{name}` must have channels before its {count} spatial axes; got shape {array.shape}. Add an axis, or "
            "state a factor for each spatial axis."
        )


def _check_sizes(name: str, sizes: Sequence[int], factors: Sequence[int]) -> None:
    for n, f in zip(sizes, factors, strict=True):
        if n % f:
            raise ValueError(
                f"`factor` must divide the spatial sizes {tuple(sizes)} that `{name}` states; got {tuple(factors)}. "
                "Pad or crop the image to a multiple."
            )
