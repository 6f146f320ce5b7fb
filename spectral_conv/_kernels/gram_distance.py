"""Sums over all different blocks of a Gram matrix, from the products of kernel taps."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _add_block(products, channels, taps, start, stop, row, block):
    """Add row `row` of the block ``sum products[a, b]`` over the tap pairs (a, b) from `start` to `stop`."""
    for m in range(start, stop):
        line = products[taps[m, 0] * channels + row]
        first = taps[m, 1] * channels
        for j in range(channels):
            block[j] += line[first + j]


@njit(cache=True, nogil=True)
def distance(products, channels, starts, taps, weight, target, gradient):
    """``sum_c weight[c] ||B_c - target[c] I||_F^2``, and into `gradient` (unless empty) its derivative by `products`.

    `products` ``(T channels, T channels)`` holds ``K[a] K[b]^T``; class c has the tap pairs
    ``taps[starts[c] : starts[c + 1]]``.
    """
    total = 0.0
    block = np.empty(channels, products.dtype)
    wanted = gradient.size > 0
    for row in range(channels):
        for c in range(weight.size):
            block[:] = 0.0
            _add_block(products, channels, taps, starts[c], starts[c + 1], row, block)
            block[row] -= target[c]
            part = 0.0
            for j in range(channels):
                part += np.float64(block[j]) * np.float64(block[j])
            total += weight[c] * part
            if wanted:
                for j in range(channels):
                    block[j] *= 2.0 * weight[c]
                for m in range(starts[c], starts[c + 1]):
                    line = gradient[taps[m, 0] * channels + row]
                    first = taps[m, 1] * channels
                    for j in range(channels):
                        line[first + j] += block[j]
    return total


@njit(cache=True, nogil=True)
def distance_along(constant, linear, quadratic, channels, starts, taps, weight, target, coefficients):
    """Coefficients of `distance` at ``products = constant + t linear + t^2 quadratic``, a quartic in t."""
    b0, b1, b2 = np.empty(channels), np.empty(channels), np.empty(channels)
    coefficients[:] = 0.0
    for row in range(channels):
        for c in range(weight.size):
            b0[:] = 0.0
            b1[:] = 0.0
            b2[:] = 0.0
            _add_block(constant, channels, taps, starts[c], starts[c + 1], row, b0)
            _add_block(linear, channels, taps, starts[c], starts[c + 1], row, b1)
            _add_block(quadratic, channels, taps, starts[c], starts[c + 1], row, b2)
            b0[row] -= target[c]
            for j in range(channels):
                coefficients[0] += weight[c] * b0[j] * b0[j]
                coefficients[1] += weight[c] * 2.0 * b0[j] * b1[j]
                coefficients[2] += weight[c] * (b1[j] * b1[j] + 2.0 * b0[j] * b2[j])
                coefficients[3] += weight[c] * 2.0 * b1[j] * b2[j]
                coefficients[4] += weight[c] * b2[j] * b2[j]
