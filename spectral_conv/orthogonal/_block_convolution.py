"""Block convolution: the kernel of one convolution after another."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.orthogonal._checks import checked_kernel


def block_convolution(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    r"""Kernel of the convolution `second` after the convolution `first`: ``Z[c] = sum_a first[a] second[c - a]``.

    Parameters
    ----------
    first : (*k, g, m) array_like
        HWIO kernel with 1 to 3 spatial axes, applied first.
    second : (*l, m, h) array_like
        HWIO kernel, applied to the result.

    Returns
    -------
    (*(k + l - 1), g, h) float64 ndarray
        Exact up to rounding. Layers with circular padding of one size, or without padding, compose in this way
        (offsets add up); zero padding between the two layers does not.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, below (4). Their kernels are ``(out, in)`` matrices, so that ``X □ Y`` there is
    ``block_convolution(Y, X)`` here.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import orthogonal
    >>> difference = np.array([1.0, -1.0]).reshape(2, 1, 1)
    >>> orthogonal.block_convolution(difference, difference).ravel()
    array([ 1., -2.,  1.])
    """
    A, B = checked_kernel("first", first), checked_kernel("second", second)
    if A.ndim != B.ndim or A.shape[-1] != B.shape[-2]:
        raise ValueError(
            "`second` must have the spatial axes of `first` and read the channels that it writes; got shapes "
            f"{A.shape} and {B.shape}. The layout is HWIO, (*k, in, out)."
        )
    (*k, g, m), (*taps, _, h) = A.shape, B.shape
    with serial_blas():
        products = A.reshape(-1, m) @ np.moveaxis(B, -2, 0).reshape(m, -1)
    products = products.reshape(*k, g, *taps, h)
    result = np.zeros((*(a + b - 1 for a, b in zip(k, taps, strict=True)), g, h))
    for b in itertools.product(*map(range, taps)):
        window: tuple[Any, ...] = tuple(slice(j, j + n) for j, n in zip(b, k, strict=True))
        chosen: tuple[Any, ...] = (..., *b, slice(None))
        result[window] += products[chosen]
    return result
