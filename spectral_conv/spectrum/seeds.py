"""Starting vectors: circulant singular vectors under a sine window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.waves import input_wave, sine_window
from spectral_conv.symbols._peaks import SymbolPeak, symbol_peaks
from spectral_conv.symbols._transform import group_taps

# Random part of a seed: a start that is orthogonal to the sought vector by symmetry would never find it. What of it
# is of no use is gone after one preconditioned step.
_RANDOM_SHARE = 1e-2
# A second peak of the symbol this close to the first gets seeds of its own.
_CLOSE_PEAKS = 0.99


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Starting vectors, and the largest value of the symbol that was seen.

    Attributes
    ----------
    rows : (b, size) ndarray
        Unit vectors, not orthogonal: for each peak the real and the imaginary part, the best peak first. Of a
        transposed operator they belong to its adjoint's input.
    peaks : tuple of SymbolPeak
        Local maxima of ``||F(w)||``, from below, best first.
    """

    rows: NDArray[np.floating]
    peaks: tuple[SymbolPeak, ...]


def right_seeds(conv: ConvOperator, rng: np.random.Generator) -> Seeds:
    r"""Seeds for the largest singular value of an operator with one group.

    The zero-padded operator's largest right singular vectors look like the circulant ones,
    ``exp(i w0.r) v``, times ``prod_j sin(pi (r_j + 1) / (N_j + 1))``, with w0 where the symbol is largest. Real and
    imaginary part are two seeds: w0 and -w0 have nearly equal singular values, and one vector alone may converge to
    the second.
    """
    geometry = conv.geometry
    peaks = symbol_peaks(geometry, group_taps(geometry, conv.plain_kernel, 0))
    window = sine_window(conv)
    seeds: list[NDArray[np.floating]] = []
    for peak in peaks:
        if peak.value >= _CLOSE_PEAKS * peaks[0].value:
            wave = window * input_wave(conv, peak.frequency, peak.vector)
            # The two values that w0 and -w0 stand for may belong to the even and to the odd part of the wave about
            # the centre of the image, exactly so for one channel: with this phase either seed holds as much of both.
            phase = np.angle((wave * np.flip(wave, axis=tuple(range(1, wave.ndim)))).sum()) / 2.0
            wave = wave * np.exp(1j * (np.pi / 4.0 - phase))
            seeds += [wave.real.ravel(), wave.imag.ravel()]
    rows = np.stack(seeds)
    noise = rng.standard_normal(rows.shape)
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    # The imaginary part vanishes where w0 = -w0; noise then takes its place.
    share = np.where(size > 1e-8 * size.max(), _RANDOM_SHARE * size, 1.0)
    rows = rows + share * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return Seeds(rows=rows / np.linalg.norm(rows, axis=1, keepdims=True), peaks=tuple(peaks))
