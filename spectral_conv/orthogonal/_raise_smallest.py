"""A local heuristic that lifts the smallest singular values of a layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spectral_conv.kernel_adjoint import kernel_adjoint
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum import singular_triplets

# Rounds at most, values lifted at one time, and the least share of the gap that a round has to gain.
_ROUNDS, _VALUES, _LEAST_GAIN = 30, 6, 0.02


def raised(
    conv: ConvOperator,
    kernel: NDArray[np.float64],
    minimum: float,
    project: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Lift the values below `minimum` along their gradients and `project` back, as long as that gains something.

    The step is the shortest change of the kernel that brings the lowest values to `minimum` in first order.
    """
    best, least = kernel, _lowest(conv, kernel)
    for _ in range(_ROUNDS):
        if least[0][0] >= minimum * (1.0 - 1e-9):
            break
        low = [(value, gradient) for value, gradient in least if value < minimum]
        A = np.stack([gradient.ravel() for _, gradient in low])
        wanted = np.array([minimum - value for value, _ in low])
        weights = np.linalg.lstsq(A @ A.T, wanted, rcond=1e-10)[0]
        kernel = project(best + (A.T @ weights).reshape(best.shape))
        found = _lowest(conv, kernel)
        if found[0][0] < least[0][0] + _LEAST_GAIN * (minimum - least[0][0]):
            break
        best, least = kernel, found
    return best


def _lowest(conv: ConvOperator, kernel: NDArray[np.float64]) -> list[tuple[float, NDArray[np.float64]]]:
    """The lowest singular values and their gradients by the kernel."""
    layer = conv.with_kernel(kernel)
    count = min(_VALUES, *layer.shape)
    found = singular_triplets(layer, count, "smallest", rtol=1e-7, on_failure="return")
    return [
        (float(value), np.asarray(kernel_adjoint(layer, left, right), np.float64))
        for value, left, right in zip(found.values, found.left, found.right, strict=True)
    ]
