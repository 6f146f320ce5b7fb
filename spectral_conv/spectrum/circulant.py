"""Exact triplets of layers with circular padding: one small decomposition per frequency."""

from __future__ import annotations

import math

import numpy as np

from spectral_conv.operator import ConvOperator
from spectral_conv.results import SingularTriplets
from spectral_conv.spectrum.verify import EPS, direct_triplets
from spectral_conv.spectrum.waves import input_wave, output_wave
from spectral_conv.symbols import circulant_singular_values
from spectral_conv.symbols._peaks import TapWaves
from spectral_conv.symbols._transform import group_taps

THEOREM = "block circulant matrices are diagonalized by the Fourier matrix, Weyl's inequality"


def is_circulant(conv: ConvOperator) -> bool:
    """Whether M is exactly block circulant: circular padding and ``outputs * stride == inputs`` on every axis."""
    axes = conv.geometry.axes
    return all(axis.mode == "circular" and axis.outputs * axis.stride == axis.inputs for axis in axes)


def circulant_margin(conv: ConvOperator, largest: float) -> float:
    """Bound the error of the values: rounding of the symbol and of the decomposition."""
    rows, columns = conv.geometry.plain_channels
    return (
        4 * (rows * math.prod(conv.geometry.stride) + columns + math.prod(conv.geometry.kernel_size)) * EPS * largest
    )


def circulant_triplets(conv: ConvOperator, k: int, *, smallest: bool) -> SingularTriplets:
    """The `k` largest or smallest triplets of an operator with one group that `is_circulant`."""
    geometry = conv.geometry
    values = circulant_singular_values(conv)
    sizes, rank = values.shape[:-1], values.shape[-1]
    order = np.argsort(values.ravel(), kind="stable")
    order = order[:k] if smallest else order[::-1][:k]
    waves = TapWaves(geometry, group_taps(geometry, conv.plain_kernel, 0))
    left, right, chosen = [], [], []
    for flat in order:
        *j, index = (int(i) for i in np.unravel_index(flat, (*sizes, rank)))
        mirror = [(-i) % n for i, n in zip(j, sizes, strict=True)]
        # A frequency and its mirror share two real triplets: the real part stands at one, the imaginary at the other.
        t = 2 * np.pi * np.asarray(min(j, mirror)) / sizes
        F = waves.symbol(t)
        u, s, vh = np.linalg.svd(F.real if j == mirror else F, full_matrices=False)
        part = np.real if j <= mirror else np.imag
        size = 1.0 if j == mirror else math.sqrt(2.0)
        right.append(size * part(input_wave(conv, t, np.conj(vh[index]))))
        left.append(size * part(output_wave(conv, t, u[:, index])))
        chosen.append(s[index])
    u_rows, v_rows = np.stack(left), np.stack(right)
    if geometry.transposed:
        u_rows, v_rows = v_rows, u_rows
    margin = circulant_margin(conv, float(values.max()))
    return direct_triplets(conv, np.array(chosen), u_rows, v_rows, margin, "symbol", THEOREM)
