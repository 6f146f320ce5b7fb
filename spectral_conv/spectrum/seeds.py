"""Starting vectors: circulant singular vectors under a sine window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.waves import input_wave, sine_window
from spectral_conv.symbols._peaks import symbol_peaks
from spectral_conv.symbols._transform import group_taps

# Random part of a seed: a start that is orthogonal to the sought vector by symmetry would never find it.
_RANDOM_SHARE = 1e-4
# A second peak of the symbol this close to the first gets seeds of its own.
_CLOSE_PEAKS = 0.99


def right_seeds(conv: ConvOperator, rng: np.random.Generator) -> NDArray[np.floating]:
    r"""Seeds for the largest singular value of an operator with one group.

    The zero-padded operator's largest right singular vectors look like the circulant ones,
    ``exp(i w0.r) v``, times ``prod_j sin(pi (r_j + 1) / (N_j + 1))``, with w0 where the symbol is largest. Real and
    imaginary part are two seeds: w0 and -w0 have nearly equal singular values, and one vector alone may converge to
    the second.

    Returns
    -------
    (b, size) ndarray
        Rows, b = 2 or 4; not orthonormal. Of a transposed operator the vectors belong to its adjoint's input.
    """
    geometry = conv.geometry
    peaks = symbol_peaks(geometry, group_taps(geometry, conv.plain_kernel, 0))
    window = sine_window(conv)
    seeds: list[NDArray[np.floating]] = []
    for peak in peaks:
        if peak.value >= _CLOSE_PEAKS * peaks[0].value:
            wave = window * input_wave(conv, peak.frequency, peak.vector)
            seeds += [wave.real.ravel(), wave.imag.ravel()]
    rows = np.stack(seeds)
    noise = rng.standard_normal(rows.shape)
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    # The imaginary part vanishes where w0 = -w0; noise then takes its place.
    share = np.where(size > 1e-8 * size.max(), _RANDOM_SHARE * size, 1.0)
    return np.asarray(rows + share * noise / np.linalg.norm(noise, axis=1, keepdims=True))
