"""What can be said without the exact engines: rigorous brackets from cheap operations."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from spectral_conv.geometry import NOTHING, Axis
from spectral_conv.operator import ConvOperator
from spectral_conv.results import Enclosure, StopReason
from spectral_conv.spectrum.factorized import factorized_bytes, factorized_flops, smallest_triplets
from spectral_conv.spectrum.scale import is_zero, normalized
from spectral_conv.spectrum.seeds import right_seeds
from spectral_conv.spectrum.verify import EPS

# Corners tried for an upper bound of the smallest value, largest first, and what one may cost.
_CORNERS = (16, 12, 8, 6, 4, 2)
_MOST_FLOPS = 2e10
_POWER_STEPS = 4


def bracket_largest(conv: ConvOperator, rng: np.random.Generator) -> Enclosure:
    r"""Bracket the norm of an operator with one group by a few power steps and the triangle inequality.

    ``||Mx|| / ||x|| <= sigma_max <= sum_a ||S_a|| ||K[a]||``, where ``M = sum_a S_a (x) K[a]^T`` and the selection
    ``S_a`` has norm 1, or the root of the number of times that padding reads a pixel through one tap.
    """
    x = right_seeds(conv, rng).rows[0]
    forward, backward = (conv.rmatvec, conv.matvec) if conv.geometry.transposed else (conv.matvec, conv.rmatvec)
    value = 0.0
    for _ in range(_POWER_STEPS):
        image = forward(x / np.linalg.norm(x))
        value = float(np.linalg.norm(image))
        if value == 0.0:
            break
        x = backward(image)
    kernel = conv.plain_kernel.astype(np.float64, copy=False).reshape(-1, *conv.plain_kernel.shape[-2:])
    reads = math.prod(_selection_norm(axis) for axis in conv.geometry.axes)
    upper = reads * float(np.linalg.svd(kernel, compute_uv=False)[:, 0].sum())
    rounding = sum(kernel.shape) * EPS
    return Enclosure(
        lower=value * (1 - rounding),
        value=value,
        upper=max(upper * (1 + rounding), value),
        basis="theorem: Rayleigh quotient below, triangle inequality over the taps above",
        method="bracket",
        applications=2 * _POWER_STEPS,
        stop_reason=StopReason.LIMIT,
    )


def bracket_smallest(conv: ConvOperator, rng: np.random.Generator, memory_limit: float) -> Enclosure:
    r"""Bracket the smallest singular value of an operator with one group from above; below stands 0.

    Fewer columns of a tall matrix (rows of a wide one) cannot have a smaller least singular value: M restricted to
    the pixels of one corner of the image is a convolution on a small image, which can be factored. With same padding
    the least singular vectors do sit at the border, so this is often close. Otherwise the least value is at most the
    root mean square, ``||M||_F / sqrt(min(rows, columns))``.
    """
    upper = frobenius_norm(conv) / math.sqrt(min(conv.shape))
    for size in _CORNERS:
        corner = _corner(conv, size)
        if corner is None:
            break
        if factorized_bytes(corner) > memory_limit or factorized_flops(corner) > _MOST_FLOPS:
            continue
        if is_zero(corner):
            return _least(0.0, size, 0)
        scaled, scale = normalized(corner)
        found = smallest_triplets(scaled, 1, tolerance=1e-6, largest=frobenius_norm(scaled), maxiter=400, rng=rng)
        # ||Mx|| / ||x|| is an upper bound however well the iteration converged.
        bound = float(found.values[0] + found.residuals[0]) * scale
        return _least(min(bound, upper), size if bound < upper else 0, found.applications)
    return _least(upper, 0, 0)


def _least(upper: float, corner: int, applications: int) -> Enclosure:
    basis = f"restriction to a corner of {corner} pixels per axis" if corner else "least <= root mean square"
    return Enclosure(
        lower=0.0,
        value=upper,
        upper=upper * (1 + 100 * EPS),
        basis=f"theorem: {basis}",
        method="bracket",
        applications=applications,
        stop_reason=StopReason.LIMIT,
    )


def frobenius_norm(conv: ConvOperator) -> float:
    """``||M||_F``: each tap counts as often as it meets the input (twice-read pixels make this an upper bound)."""
    counts = np.ones(())
    for axis in conv.geometry.axes:
        counts = np.multiply.outer(counts, (axis.reads != NOTHING).sum(axis=0))
    squares = (conv.plain_kernel.astype(np.float64) ** 2).sum(axis=(-2, -1))
    repeats = math.prod(int(_repeats(axis)) for axis in conv.geometry.axes)
    return math.sqrt(float((counts * squares).sum()) * repeats)


def _repeats(axis: Axis) -> int:
    """Most taps of one output that read the same pixel (more than one only with reflect or replicate padding)."""
    return max(int(np.unique(row[row != NOTHING], return_counts=True)[1].max(initial=1)) for row in axis.reads)


def _selection_norm(axis: Axis) -> float:
    """Largest norm of a selection ``S_a``: the root of how often a pixel is read through one tap."""
    most = 1
    for taps in axis.reads.T:
        most = max(most, int(np.unique(taps[taps != NOTHING], return_counts=True)[1].max(initial=1)))
    return math.sqrt(most)


def _corner(conv: ConvOperator, size: int) -> ConvOperator | None:
    """M restricted to the first `size` pixels per axis of its smaller side, zero padding only."""
    geometry = conv.geometry
    if geometry.padding_mode != "zeros":
        return None
    outer = (conv.shape[0] < conv.shape[1]) != geometry.transposed  # restrict outputs of the plain convolution
    inputs, padding = [], []
    for axis in geometry.axes:
        if outer:
            outputs = min(size, axis.outputs)
            needed = (outputs - 1) * axis.stride + axis.dilation * (axis.kernel - 1) + 1 - axis.before
            inputs.append(max(1, min(axis.inputs, needed)))
        else:
            inputs.append(min(size, axis.inputs))
            outputs = min(axis.outputs, (inputs[-1] - 1 + axis.before) // axis.stride + 1)
        reach = (outputs - 1) * axis.stride + axis.dilation * (axis.kernel - 1) + 1
        padding.append((axis.before, max(0, reach - inputs[-1] - axis.before)))
    plain = dataclasses.replace(
        geometry,
        input_shape=tuple(inputs),
        padding=tuple(padding),
        transposed=False,
        output_padding=(0,) * geometry.ndim,
        in_channels=geometry.plain_channels[0],
        out_channels=geometry.plain_channels[1],
    )
    return ConvOperator.from_geometry(plain, np.ascontiguousarray(conv.plain_kernel))
