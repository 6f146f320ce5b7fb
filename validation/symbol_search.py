"""The symbol by its definition, and its extremes over all frequencies by a search, without this package."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

GRID = 64
STARTS = 6
_SIMPLEX = 0.02 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def phase_sum(kernel: NDArray[np.floating], w: tuple[float, float]) -> NDArray[np.complexfloating]:
    """``F(w) = sum_a K[a]^T exp(i w.a)``, tap by tap."""
    taps = itertools.product(range(kernel.shape[0]), range(kernel.shape[1]))
    return sum(kernel[a, b].T * np.exp(1j * (w[0] * a + w[1] * b)) for a, b in taps)


def supremum(kernel: NDArray[np.floating]) -> float:
    """``max_w sigma_max(F(w))``, from below by some rounding errors."""
    return -_least(kernel, lambda F: -float(np.linalg.svd(F, compute_uv=False)[0]))


def infimum(kernel: NDArray[np.floating]) -> float:
    """``min_w sigma_min(F(w))``, from above: by some rounding errors if the best points of the grid are near it."""
    return _least(kernel, lambda F: float(np.linalg.svd(F, compute_uv=False)[-1]))


def _least(kernel: NDArray[np.floating], size: Callable[[NDArray[np.complexfloating]], float]) -> float:
    """Least value on a grid, refined by a simplex search from the best few points that lie apart."""
    points = [2.0 * np.pi * np.array(j) / GRID for j in np.ndindex(GRID, GRID)]
    points.sort(key=lambda w: size(phase_sum(kernel, w)))
    chosen: list[NDArray[np.floating]] = []
    for point in points:
        if len(chosen) == STARTS:
            break
        if all(np.abs(point - other).max() > 3.5 * np.pi / GRID for other in chosen):
            chosen.append(point)
    found = [
        minimize(
            lambda w: size(phase_sum(kernel, w)),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-12, "fatol": 1e-15, "initial_simplex": start + _SIMPLEX},
        )
        for start in chosen
    ]
    return min(float(result.fun) for result in found)
