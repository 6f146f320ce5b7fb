r"""Bounds on rounding errors: what the certified enclosures stand on.

The model is IEEE 754 double precision, rounding to nearest, with ``u = 2^-53``. A sum of n products, in any order and
grouping (blocked BLAS too, as long as it forms sums of products: no Strassen), with or without fused operations, is
off by at most ``gamma_n = n u / (1 - n u)`` times the sum of the absolute values of the products; terms that are
exactly zero do not count [1, section 3.1]. |K| stands for the absolute weights, ``N`` for the operator with these
weights; then ``|M| <= N`` entry by entry, and an entry of ``M x`` or ``M^T M`` is off by at most gamma times that of
``N |x|`` or ``N^T N`` (padding may read a pixel twice: then an entry of M is a sum, and N counts its terms).

Weights are scaled by a power of two so that the largest lies in [1, 2). Whatever underflows, in that scaling or
later, flushed to zero or not, is off by less than 2^-1022 at each of fewer than 2^60 operations, and no later factor
exceeds 2^60: `UNDERFLOW` is larger than all of it together.

References
----------
.. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. (2002), doi:10.1137/1.9780898718027
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels import convolution
from spectral_conv.geometry import NOTHING, Axis
from spectral_conv.operator import ConvOperator

UNIT = 2.0**-53
UNDERFLOW = 2.0**-900
# Covers the rounding of the bounds themselves: sums of fewer than 2^30 positive numbers and a few operations more.
SLACK = 1.0001


def gamma(n: int) -> float:
    """Bound the relative error of a sum of `n` products."""
    return SLACK * n * UNIT / (1.0 - n * UNIT)


def above(x: float) -> float:
    """Next float: an upper bound of what was rounded to `x`."""
    return math.nextafter(x, math.inf)


def below(x: float) -> float:
    """Return a lower bound, not negative, of the nonnegative number that was rounded to `x`."""
    return max(0.0, math.nextafter(x, -math.inf))


def times_scale(lower: float, upper: float, scale: float) -> tuple[float, float]:
    """Bounds times a power of two, rounded outward: the product may overflow or lose digits near zero."""
    # A lower bound this small may be all underflow; no other one is touched by it.
    lower = lower if lower > 2.0**-400 else 0.0
    return below(lower * scale), above((upper + UNDERFLOW) * scale)


def absolute_norm(conv: ConvOperator) -> float:
    """Bound ``||N|| >= ||M||`` of an operator with one group: root of largest row sum times largest column sum."""
    weights = np.abs(conv.plain_kernel.astype(np.float64, copy=False))
    axes = tuple(range(weights.ndim - 2))
    # An output reads at most one pixel through each tap.
    row_sum = weights.sum(axis=(*axes, -2)).max()
    column_sums = weights.sum(axis=-1)
    for axis in conv.geometry.axes:  # contracts the first axis, appends one for the kinds of pixels
        column_sums = np.tensordot(column_sums, _reads_of_pixels(axis), axes=(0, 1))
    return SLACK * math.sqrt(float(row_sum)) * math.sqrt(float(column_sums.max())) + UNDERFLOW


def readers(conv: ConvOperator) -> NDArray[np.float64]:
    """Per tap, shape ``(*k,)``: the most outputs that read one pixel through it (0: it never meets the input)."""
    counts = np.ones(())
    for axis in conv.geometry.axes:
        counts = np.multiply.outer(counts, _reads_of_pixels(axis).max(axis=0))
    return counts


def _reads_of_pixels(axis: Axis) -> NDArray[np.float64]:
    """How many outputs read a pixel through each tap, shape ``(kinds of pixels, k)``."""
    counts = np.zeros((axis.inputs, axis.kernel))
    row, tap = np.nonzero(axis.reads != NOTHING)
    np.add.at(counts, (axis.reads[row, tap], tap), 1.0)
    return np.unique(counts, axis=0)


def stretch(conv: ConvOperator, x: NDArray[np.floating], *, adjoint: bool) -> tuple[float, float]:
    r"""Enclose ``||P x|| / ||x||``, where P is the plain convolution of an operator with one group (`adjoint`: P^T).

    The product is formed tap by tap (`ConvOperator.matvec` may take FFTs, whose errors are others). An entry of it is
    a sum of n products, so that it is off by ``gamma_n ||N|| ||x||`` in norm.
    """
    plan = conv.plan(np.float64)
    source, target = (plan.input_shape, plan.output_shape)[:: -1 if adjoint else 1]
    x = np.ascontiguousarray(x, np.float64).ravel()
    x = x / np.abs(x).max()
    x = x / np.linalg.norm(x)  # whatever this x is, it is taken as exact from here on
    y = np.empty(target)
    apply = convolution.adjoint if adjoint else convolution.forward
    apply(x.reshape(source), plan.taps, plan.row, plan.shift, *plan.sources, plan.loop, y)
    reads = [_reads_of_pixels(axis).sum(axis=1).max() if adjoint else axis.kernel for axis in conv.geometry.axes]
    products = int(math.prod(reads)) * conv.geometry.plain_channels[1 if adjoint else 0]
    error = gamma(products + 10) * absolute_norm(conv) + UNDERFLOW
    # Two norms of relative error 2 u each (squares, exact sum, root) and a quotient: less than 8 u.
    ratio = _norm(y) / _norm(x)
    return max(0.0, ratio * (1.0 - 16.0 * UNIT) - SLACK * error), ratio * (1.0 + 16.0 * UNIT) + SLACK * error


def _norm(x: NDArray[np.floating]) -> float:
    """Euclidean norm; the sum of the squares is rounded once, and a power of two keeps the squares in range."""
    exponent = int(np.frexp(np.abs(x).max())[1])
    return math.ldexp(math.sqrt(math.fsum(np.square(np.ldexp(x, -exponent)).ravel().tolist())), exponent)
