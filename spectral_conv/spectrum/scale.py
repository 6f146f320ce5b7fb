"""Scale of an operator: powers of two change no digit, and keep squares in range."""

from __future__ import annotations

import math

import numpy as np

from spectral_conv.operator import ConvOperator


def is_zero(conv: ConvOperator) -> bool:
    """Whether M is zero: no nonzero weight ever meets the input."""
    return not conv.kernel[conv.geometry.read_taps].any()


def normalized(conv: ConvOperator) -> tuple[ConvOperator, float]:
    """Scale the weights by a power of two to below 2: no digit changes, and no square overflows.

    Weights that only meet padding become zero, lest they set the scale.
    """
    read = np.where(conv.geometry.read_taps[..., None, None], conv.kernel.astype(np.float64), 0.0)
    largest = float(np.abs(read).max())
    if largest == 0.0:
        return conv, 1.0
    exponent = int(np.frexp(largest)[1]) - 1
    weights = np.ldexp(read, -exponent)
    return conv.with_kernel(weights), math.ldexp(1.0, exponent)
