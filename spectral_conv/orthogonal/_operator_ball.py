"""The norm ball of the layer itself, for layers small enough for dense matrices."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.orthogonal._admm import Array, Ball


def operator_ball(conv: ConvOperator) -> Ball:
    """The ball of an operator with one group: T x is the matrix of the plain convolution with the kernel x."""
    geometry = conv.geometry
    row, column, tap = conv.pixel_pairs()
    outputs, inputs = (math.prod(getattr(axis, side) for axis in geometry.axes) for side in ("outputs", "inputs"))
    taps = math.prod(geometry.kernel_size)
    ones = np.ones(len(tap))
    select = scipy.sparse.csr_array((ones, (row * inputs + column, tap)), shape=(outputs * inputs, taps))
    spread = np.asarray((select.T @ select).toarray())  # diagonal, unless padding mirrors pixels
    shape = conv.plain_kernel.shape
    g, h = shape[-2:]
    values, vectors = np.linalg.eigh(spread)
    scale = math.sqrt(float(values.max()) or 1.0)

    def forward(x: NDArray[np.float64]) -> Array:
        entries = (select @ x.reshape(taps, g * h)) / scale
        return np.ascontiguousarray(entries.reshape(outputs, inputs, g, h).transpose(3, 0, 2, 1)).reshape(
            h * outputs, g * inputs
        )

    def adjoint(image: Array) -> NDArray[np.float64]:
        entries = image.reshape(h, outputs, g, inputs).transpose(1, 3, 2, 0).reshape(outputs * inputs, g * h)
        return np.asarray((select.T @ entries) / scale, np.float64).reshape(shape)

    def solve(r: NDArray[np.float64], rho: float) -> NDArray[np.float64]:
        turned = vectors.T @ r.reshape(taps, g * h)
        return np.asarray(vectors @ (turned / (1.0 + rho / scale**2 * values)[:, None])).reshape(shape)

    def clip(image: Array, c: float) -> Array:
        # By the eigenvectors of the smaller Gram matrix: half of the digits are enough for an iteration.
        wide = image.shape[0] <= image.shape[1]
        squares, vectors = np.linalg.eigh(image @ image.T if wide else image.T @ image)
        over = squares > (c / scale) ** 2
        near = vectors[:, over] * (1.0 - c / scale / np.sqrt(squares[over]))
        excess = near @ (vectors[:, over].T @ image) if wide else (image @ near) @ vectors[:, over].T
        return np.asarray(image - excess)

    def support(dual: Array, c: float) -> float:
        return c / scale * float(np.linalg.svd(dual, compute_uv=False).sum())

    return Ball(forward=forward, adjoint=adjoint, solve=solve, clip=clip, support=support, window=np.ones(()))
