"""What a penalty is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator


@runtime_checkable
class Penalty(Protocol):
    """A function of the operator, differentiable (almost everywhere) in its kernel."""

    def value(self, conv: ConvOperator) -> float:
        """Return the penalty; dimensionless."""
        ...

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the penalty and its gradient, shaped like ``conv.kernel``."""
        ...


@runtime_checkable
class PolynomialPenalty(Penalty, Protocol):
    """A penalty that is a polynomial along every line of kernels, so that a line can be searched exactly."""

    def line_polynomial(self, conv: ConvOperator, direction: NDArray[np.floating]) -> NDArray[np.floating]:
        """Coefficients, the constant first, of ``t -> value(K + t direction)``."""
        ...


def checked_direction(conv: ConvOperator, direction: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return `direction` in float64 if it is shaped like the kernel and finite."""
    array = np.asarray(direction, dtype=np.float64)
    if array.shape != conv.kernel.shape or not np.isfinite(array).all():
        raise ValueError(
            f"`direction` must be finite and have the shape {conv.kernel.shape} of the kernel; got shape "
            f"{array.shape}."
        )
    return array


def checked_alpha(alpha: float) -> float:
    """Return `alpha` as a finite float."""
    number = float(alpha)
    if not np.isfinite(number):
        raise ValueError(f"`alpha` must be a finite number; got {alpha!r}.")
    return number
