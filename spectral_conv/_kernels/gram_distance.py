"""Sums over all different blocks of a Gram matrix, from the products of kernel taps.

A block belongs to one set of tap pairs per axis. For the axes i = 1, 2, 3 (missing ones have one pair, (0, 0)),
`starts_i` ``(sets + 1,)`` and `taps_i` ``(pairs, 2)`` hold the sets, `counts_i` their pixel pairs, and `own_i` says
whether these are of a pixel with itself; `sizes` ``(3,)`` is the kernel size.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _add_block(products, channels, sizes, starts1, taps1, starts2, taps2, starts3, taps3, j1, j2, j3, row, block):
    """Add row `row` of the block ``sum products[a, b]`` over the tap pairs (a, b) of the sets j1, j2, j3."""
    for m1 in range(starts1[j1], starts1[j1 + 1]):
        for m2 in range(starts2[j2], starts2[j2 + 1]):
            a2 = (taps1[m1, 0] * sizes[1] + taps2[m2, 0]) * sizes[2]
            b2 = (taps1[m1, 1] * sizes[1] + taps2[m2, 1]) * sizes[2]
            for m3 in range(starts3[j3], starts3[j3 + 1]):
                line = products[(a2 + taps3[m3, 0]) * channels + row]
                first = (b2 + taps3[m3, 1]) * channels
                for c in range(channels):
                    block[c] += line[first + c]


@njit(cache=True, nogil=True)
def distance(
    products, channels, sizes, alpha,
    starts1, taps1, counts1, own1, starts2, taps2, counts2, own2, starts3, taps3, counts3, own3,
    gradient,
):  # fmt: skip
    """``sum count ||B - alpha [own] I||_F^2``, and into `gradient` (unless empty) its derivative by `products`.

    `products` ``(T channels, T channels)`` holds ``K[a] K[b]^T``.
    """
    total = 0.0
    block = np.empty(channels, products.dtype)
    wanted = gradient.size > 0
    for row in range(channels):
        for j1 in range(counts1.size):
            for j2 in range(counts2.size):
                for j3 in range(counts3.size):
                    weight = counts1[j1] * counts2[j2] * counts3[j3]
                    block[:] = 0.0
                    _add_block(
                        products, channels, sizes, starts1, taps1, starts2, taps2, starts3, taps3, j1, j2, j3,
                        row, block,
                    )  # fmt: skip
                    if own1[j1] and own2[j2] and own3[j3]:
                        block[row] -= alpha
                    part = 0.0
                    for c in range(channels):
                        part += np.float64(block[c]) * np.float64(block[c])
                    total += weight * part
                    if not wanted:
                        continue
                    for c in range(channels):
                        block[c] *= 2.0 * weight
                    for m1 in range(starts1[j1], starts1[j1 + 1]):
                        for m2 in range(starts2[j2], starts2[j2 + 1]):
                            a2 = (taps1[m1, 0] * sizes[1] + taps2[m2, 0]) * sizes[2]
                            b2 = (taps1[m1, 1] * sizes[1] + taps2[m2, 1]) * sizes[2]
                            for m3 in range(starts3[j3], starts3[j3 + 1]):
                                line = gradient[(a2 + taps3[m3, 0]) * channels + row]
                                first = (b2 + taps3[m3, 1]) * channels
                                for c in range(channels):
                                    line[first + c] += block[c]
    return total


@njit(cache=True, nogil=True)
def distance_along(
    constant, linear, quadratic, channels, sizes, alpha,
    starts1, taps1, counts1, own1, starts2, taps2, counts2, own2, starts3, taps3, counts3, own3,
    coefficients,
):  # fmt: skip
    """Coefficients of `distance` at ``products = constant + t linear + t^2 quadratic``, a quartic in t."""
    b0, b1, b2 = np.empty(channels), np.empty(channels), np.empty(channels)
    sets = (starts1, taps1, starts2, taps2, starts3, taps3)
    coefficients[:] = 0.0
    for row in range(channels):
        for j1 in range(counts1.size):
            for j2 in range(counts2.size):
                for j3 in range(counts3.size):
                    weight = counts1[j1] * counts2[j2] * counts3[j3]
                    b0[:] = 0.0
                    b1[:] = 0.0
                    b2[:] = 0.0
                    _add_block(constant, channels, sizes, *sets, j1, j2, j3, row, b0)
                    _add_block(linear, channels, sizes, *sets, j1, j2, j3, row, b1)
                    _add_block(quadratic, channels, sizes, *sets, j1, j2, j3, row, b2)
                    if own1[j1] and own2[j2] and own3[j3]:
                        b0[row] -= alpha
                    for c in range(channels):
                        coefficients[0] += weight * b0[c] * b0[c]
                        coefficients[1] += weight * 2.0 * b0[c] * b1[c]
                        coefficients[2] += weight * (b1[c] * b1[c] + 2.0 * b0[c] * b2[c])
                        coefficients[3] += weight * 2.0 * b1[c] * b2[c]
                        coefficients[4] += weight * b2[c] * b2[c]
