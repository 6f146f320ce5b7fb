"""LipBound: the largest rows of the symbol."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.symbols._peaks import TapWaves
from spectral_conv.symbols._sampling import degrees, excess_factor, fewest_points, substitutions
from spectral_conv.symbols._transform import group_taps, require_symbol

# By this much at most sampling enlarges the bound, all axes together.
_EXCESS = 0.02
# Symbols held at one time.
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class LipBound:
    """An upper bound of the largest singular value and its gradient by the kernel, float64."""

    value: float
    gradient: NDArray[np.floating]


def lipbound_and_grad(conv: ConvOperator) -> LipBound:
    r"""``sqrt(sum_i max_w sum_j |F_ij(w)|^2)`` over the outputs i, times what sampling may have missed.

    Of a strided layer the sum runs over the residues too. Groups bound the norm one by one: the largest counts. Where
    a maximum is attained twice the gradient is that at one of the frequencies.

    Guarantee: an upper bound of the norm for every size of the image, with zero padding of any width and circular
    padding up to "same", in exact arithmetic.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    References
    ----------
    A. Araujo, B. Negrevergne, Y. Chevaleyre, J. Atif, "On Lipschitz regularization of convolutional layers using
    Toeplitz matrix theory", AAAI 2021, arXiv:2006.08391.
    """
    geometry = conv.geometry
    require_symbol(geometry, "LipBound")
    excess = (1.0 + _EXCESS) ** (1.0 / geometry.ndim) - 1.0
    lines, factor = [], 1.0
    for degree, q in zip(degrees(geometry), substitutions(geometry), strict=True):
        points = fewest_points(degree, excess)
        factor *= excess_factor(degree, points)
        lines.append(2.0 * np.pi * np.arange(points) / (points * q))
    frequencies = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, geometry.ndim)
    parts = [
        _largest_rows(TapWaves(geometry, group_taps(geometry, conv.plain_kernel, group)), frequencies)
        for group in range(geometry.groups)
    ]
    best = max(range(len(parts)), key=lambda group: parts[group].value)
    h = geometry.plain_channels[1] // geometry.groups
    gradient = np.zeros(conv.plain_kernel.shape)
    gradient[..., best * h : (best + 1) * h] = parts[best].gradient.reshape(*geometry.kernel_size, -1, h) * factor
    return LipBound(
        value=parts[best].value * factor,
        gradient=gradient.swapaxes(-1, -2) if geometry.transposed else gradient,
    )


def _largest_rows(waves: TapWaves, frequencies: NDArray[np.floating]) -> LipBound:
    """``sqrt(sum_i max_w ||F_i(w)||^2)`` on a grid, and its gradient by the taps ``(T, g, h)``."""
    g, h = waves.taps.shape[1:]
    largest, where = np.full(h, -1.0), np.zeros(h, np.int64)
    step = max(1, _CHUNK_BYTES // (16 * waves.residues * g * h))
    for start in range(0, len(frequencies), step):
        rows = (np.abs(waves.transposed(frequencies[start : start + step])) ** 2).sum(axis=1)  # (points, h)
        top = rows.argmax(axis=0)
        found = rows[top, np.arange(h)]
        better = found > largest
        largest[better], where[better] = found[better], top[better] + start
    value = math.sqrt(float(largest.sum()))
    at, inverse = np.unique(where, return_inverse=True)
    symbols = waves.transposed(frequencies[at]).reshape(len(at), waves.residues, g, h)
    chosen = symbols[inverse, :, :, np.arange(h)]  # (h, residues, g)
    phases = np.exp(-1j * (frequencies[at] @ waves.shift.T))[inverse]  # (h, T)
    products = phases[:, :, None] * chosen[:, waves.residue]  # (h, T, g)
    return LipBound(value=value, gradient=np.moveaxis(products.real, 0, -1) / (value or 1.0))
