"""Certified bounds where no factorization fits: wide, cheap, and rigorous all the same."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.bracket import _CORNERS, _MOST_FLOPS, _corner, frobenius_norm
from spectral_conv.spectrum.factorized import factorized_bytes, factorized_flops
from spectral_conv.spectrum.rounding import SLACK, UNDERFLOW, absolute_norm, readers, stretch
from spectral_conv.spectrum.scale import is_zero
from spectral_conv.spectrum.seeds import right_seeds
from spectral_conv.spectrum.trials import norm_of_parts
from spectral_conv.spectrum.triplets import singular_triplets
from spectral_conv.spectrum.verified import verified_parts

POWER_STEPS = 4


def crude_norm(conv: ConvOperator) -> float:
    """Bound the norm of an operator with one group by ``sum_a ||S_a|| ||K[a]||`` or by `absolute_norm`.

    S_a selects the pixels that tap a reads; ``||S_a||^2`` is how often it reads the same one.
    """
    taps = conv.plain_kernel.reshape(-1, *conv.plain_kernel.shape[-2:])
    total = 0.0
    for count, tap in zip(readers(conv).ravel(), taps, strict=True):
        if count and tap.any():
            alone = ConvOperator(tap[None], 1, layout="WIO")
            _, parts = verified_parts(alone, smallest=False)
            proved = norm_of_parts(parts, float(np.linalg.norm(tap, 2)), 1e-6)
            total += math.sqrt(float(count)) * (absolute_norm(alone) if proved is None else proved)
    return min(SLACK * total, absolute_norm(conv))


def power_vector(conv: ConvOperator) -> NDArray[np.floating]:
    """Return a vector on the plain convolution's input that M stretches nearly as much as it can."""
    x = right_seeds(conv, np.random.default_rng(0)).rows[0]
    forward, backward = (conv.rmatvec, conv.matvec) if conv.geometry.transposed else (conv.matvec, conv.rmatvec)
    for _ in range(POWER_STEPS):
        image = backward(forward(x))
        size = np.linalg.norm(image)
        if size == 0.0:
            break
        x = image / size
    return np.asarray(x)


def mean_square(conv: ConvOperator) -> float:
    """Bound the smallest singular value of an operator with one group by the root mean square of all."""
    return SLACK * frobenius_norm(conv) / math.sqrt(min(conv.shape))


def corner_quotient(conv: ConvOperator, memory: float) -> float | None:
    """Quotient of a vector that vanishes outside a corner: then M x is that of the convolution on the corner."""
    outer = (conv.shape[0] < conv.shape[1]) != conv.geometry.transposed
    for size in _CORNERS:
        corner = _corner(conv, size)
        if corner is None:
            return None
        if factorized_bytes(corner) > memory or factorized_flops(corner) > _MOST_FLOPS:
            continue
        if is_zero(corner):
            return UNDERFLOW
        found = singular_triplets(corner, 1, "smallest", rtol=1e-6, on_failure="return")
        near = found.left[0] if outer else found.right[0]
        return stretch(corner, near, adjoint=outer)[1]
    return None
