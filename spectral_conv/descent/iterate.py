"""Where a descent stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers import Penalty


def length(x: NDArray[np.floating]) -> float:
    """Frobenius norm, without overflow of the squares."""
    largest = float(np.abs(x).max(initial=0.0))
    return largest * float(np.linalg.norm(x / largest)) if 0.0 < largest < np.inf else largest


@dataclass(frozen=True, kw_only=True)
class Previous:
    """The step before: where it started, the gradient there, its direction and its size."""

    kernel: NDArray[np.floating]
    gradient: NDArray[np.floating]
    direction: NDArray[np.floating]
    size: float


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """What a direction and a step size are chosen from.

    Attributes
    ----------
    iteration : int
        Number of the step to come, from 1.
    conv : ConvOperator
        The layer with its present kernel.
    penalty : Penalty
        What is minimized.
    value : float
        The penalty there.
    gradient : ndarray
        Its gradient, float64, shaped like the kernel.
    direction : ndarray
        Where to go; minus the gradient until a direction is chosen.
    previous : Previous or None
        The step before, if there was one.
    """

    iteration: int
    conv: ConvOperator
    penalty: Penalty
    value: float
    gradient: NDArray[np.floating]
    direction: NDArray[np.floating]
    previous: Previous | None

    def kernel_after(self, size: float) -> NDArray[np.floating]:
        """Return the kernel after a step of this size, in the layer's dtype; infinite where that overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (self.conv.kernel.astype(np.float64) + size * self.direction).astype(self.conv.dtype)
