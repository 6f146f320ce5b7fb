"""The adjoint of the map from kernels to matrices: what a change of each weight does to ``<left, M right>``."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import NOTHING
from spectral_conv.operator import ConvOperator


def kernel_adjoint(
    conv: ConvOperator, left: NDArray[np.floating], right: NDArray[np.floating]
) -> NDArray[np.floating]:
    r"""Gradient of ``<left, M right>`` with respect to the kernel: ``sum_p right(p + a) left(p)^T`` for each tap a.

    Parameters
    ----------
    left : (out_channels, *output_shape) ndarray
        On the rows of M.
    right : (in_channels, *input_shape) ndarray
        On the columns of M.

    Returns
    -------
    ndarray shaped like ``conv.kernel``
        In float64. For unit singular vectors of a simple value s it is ``ds / dK``, and ``<K, ds / dK> = s``.

    References
    ----------
    G. W. Stewart, "Matrix Algorithms, Volume II: Eigensystems", SIAM 2001 (derivative of a simple singular value).
    """
    geometry = conv.geometry
    read, written = (left, right) if geometry.transposed else (right, left)
    groups = geometry.groups
    padded = np.asarray(read, dtype=np.float64)
    for number, axis in enumerate(geometry.axes, start=1):
        padded = np.take(padded, axis.source, axis=number)
        at = [1] * padded.ndim
        at[number] = axis.padded
        padded = padded * (axis.source != NOTHING).reshape(at)
    weights = np.ascontiguousarray(written, dtype=np.float64).reshape(groups, written.shape[0] // groups, -1)
    gradient = np.empty(conv.plain_kernel.shape)
    for tap in itertools.product(*(range(axis.kernel) for axis in geometry.axes)):
        window = tuple(
            slice(a * axis.dilation, a * axis.dilation + (axis.outputs - 1) * axis.stride + 1, axis.stride)
            for a, axis in zip(tap, geometry.axes, strict=True)
        )
        pixels = padded[(slice(None), *window)].reshape(groups, -1, weights.shape[2])
        products = pixels @ weights.swapaxes(1, 2)  # (groups, in / groups, out / groups)
        gradient[tap] = np.moveaxis(products, 0, 1).reshape(products.shape[1], -1)
    return gradient.swapaxes(-1, -2) if geometry.transposed else gradient
