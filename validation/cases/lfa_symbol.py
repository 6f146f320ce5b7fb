"""Local Fourier analysis: the symbol is a sum of phases, no FFT needed.

A plane wave passes a convolution far from the border as a plane wave of the same frequency, its channels mixed by
the symbol F(w) = sum_a K[a]^T exp(i w.a); at the frequencies of the grid that is what the FFT of the padded kernel
holds.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from spectral_conv import ConvOperator, circulant_singular_values, symbol
from validation.checks.check import Check, at_most
from validation.checks.papers import LFA
from validation.symbol_search import phase_sum

SYMBOL = LFA.at("the symbol of a convolution")
TOLERANCE = 1e-12
LAYERS = (((3, 3, 2, 3), (8, 8)), ((5, 5, 3, 2), (9, 12)), ((3, 3, 4, 4), (16, 16)), ((4, 2, 1, 2), (10, 7)))
WAVES = 20


def run() -> list[Check]:
    """Compare phases, FFT and the operator itself."""
    layers = [(np.random.default_rng(i).standard_normal(shape), size) for i, (shape, size) in enumerate(LAYERS)]
    return [
        at_most(
            "The symbol equals the sum of phases, written as loops; largest difference, relative",
            SYMBOL,
            max(_against_loops(*layer) for layer in layers),
            TOLERANCE,
        ),
        at_most(
            "Its values equal those of the FFT of the padded kernel; largest difference, relative",
            SYMBOL,
            max(_against_fft(*layer) for layer in layers),
            TOLERANCE,
        ),
        at_most(
            f"The layer maps {WAVES} plane waves of any frequency to F(w) times the wave, away from the border; "
            "largest residual, relative",
            SYMBOL,
            max(_against_waves(*layer) for layer in layers),
            TOLERANCE,
        ),
    ]


def _against_loops(kernel: NDArray[np.floating], size: tuple[int, int]) -> float:
    found = symbol(ConvOperator(kernel, size))
    frequencies = itertools.product(*(2.0 * np.pi * np.arange(n) / n for n in size))
    expected = np.stack([phase_sum(kernel, w) for w in frequencies]).reshape(found.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _against_fft(kernel: NDArray[np.floating], size: tuple[int, int]) -> float:
    expected = np.linalg.svd(np.fft.fft2(kernel, size, axes=(0, 1)), compute_uv=False)
    found = circulant_singular_values(ConvOperator(kernel, size, padding_mode="circular"))
    return float(np.abs(np.sort(found, axis=None) - np.sort(expected, axis=None)).max() / expected.max())


def _against_waves(kernel: NDArray[np.floating], size: tuple[int, int]) -> float:
    conv = ConvOperator(kernel, size, padding="valid")
    rng = np.random.default_rng(0)
    rows, columns = np.meshgrid(*map(np.arange, size), indexing="ij")
    worst = 0.0
    for w in rng.uniform(-np.pi, np.pi, (WAVES, 2)):
        wave = np.exp(1j * (w[0] * rows + w[1] * columns))
        v = rng.standard_normal(kernel.shape[2]) + 1j * rng.standard_normal(kernel.shape[2])
        x = (v[:, None, None] * wave).ravel()
        found = (conv.matvec(x.real) + 1j * conv.matvec(x.imag)).reshape(-1, *conv.output_shape)
        inside = wave[: conv.output_shape[0], : conv.output_shape[1]]
        expected = (phase_sum(kernel, tuple(w)) @ v)[:, None, None] * inside
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst
