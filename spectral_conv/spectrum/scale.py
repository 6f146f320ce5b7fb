"""Scale of an operator: powers of two change no digit, and keep squares in range."""

from __future__ import annotations

import math

import numpy as np

from spectral_conv.geometry import NOTHING
from spectral_conv.operator import ConvOperator


def is_zero(conv: ConvOperator) -> bool:
    """Whether M is zero: no nonzero weight ever meets the input."""
    meets = np.ones((), dtype=bool)
    for axis in conv.geometry.axes:
        meets = np.logical_and.outer(meets, (axis.reads != NOTHING).any(axis=0))
    return not conv.plain_kernel[meets].any()


def normalized(conv: ConvOperator) -> tuple[ConvOperator, float]:
    """Scale the weights by a power of two to below 2: no digit changes, and no square overflows."""
    largest = float(np.abs(conv.kernel).max())
    if largest == 0.0:
        return conv, 1.0
    exponent = int(np.frexp(largest)[1]) - 1
    weights = np.ldexp(conv.kernel.astype(np.float64), -exponent)
    return conv.with_kernel(weights), math.ldexp(1.0, exponent)
