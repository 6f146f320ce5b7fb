"""LipBound: the largest rows of the symbol."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds._method import Evaluation, bound_method
from spectral_conv.bounds._symbol import any_size, chunks, gradient_at, supremum_grid, waves_of, with_symbol
from spectral_conv.geometry import checked_word
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.frequencies import symbol_error
from spectral_conv.spectrum.rounding import gamma
from spectral_conv.symbols._peaks import TapWaves

# By this much at most sampling enlarges the bound, all axes together.
_EXCESS = 0.02
# What is summed at each frequency before the maximum is taken: axes of the transposed symbol.
_SUMMED = {"outputs": (1,), "inputs": (2,), "frobenius": (1, 2)}


@bound_method(
    source="A. Araujo, B. Negrevergne, Y. Chevaleyre, J. Atif, 'On Lipschitz regularization of convolutional layers "
    "using Toeplitz matrix theory', AAAI 2021, arXiv:2006.08391"
)
def lipbound(conv: ConvOperator, *, version: str = "outputs") -> Evaluation:
    r"""Upper bound ``sqrt(sum_i max_w sum_j |F_ij(w)|^2)`` over the outputs i, times what sampling may have missed.

    The maxima are taken over S_j equispaced frequencies per axis, so many that the factor
    ``prod_j min(1 / cos(pi D_j / (2 S_j)), (1 - D_j / S_j)^(-1/2))``, D_j being the degree of the symbol, is at most
    1.02. Of a strided layer the sum runs over the residues too. Groups count by the largest.

    Parameters
    ----------
    conv : ConvOperator
        Any layer with zero padding, or circular padding up to "same".
    version : {"outputs", "inputs", "frobenius"}
        "inputs" has the roles of i and j swapped; "frobenius" is ``max_w ||F(w)||_F``, which is never larger.

    Returns
    -------
    Bound
        An upper bound for every size of the image, in floating point too; dimensionless.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    References
    ----------
    A. Araujo, B. Negrevergne, Y. Chevaleyre, J. Atif, "On Lipschitz regularization of convolutional layers using
    Toeplitz matrix theory", AAAI 2021, arXiv:2006.08391. The factor is ours: there it is ``1 / (1 - D / S)`` in two
    dimensions, and missing in the authors' default code.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.full((1, 1, 1, 4), 0.5), (8, 8))
    >>> round(spectral_conv.bounds.lipbound(conv).value, 12)
    1.0
    """
    summed = _SUMMED[checked_word("version", version, tuple(_SUMMED))]
    conv = with_symbol(conv, "LipBound")
    waves, grid = waves_of(conv), supremum_grid(conv, _EXCESS)
    frequencies = grid.frequencies
    largest, where = _largest(waves, frequencies, summed)
    root = math.sqrt(float(largest.sum()))
    terms = waves.rows * waves.taps.shape[2]

    def gradient() -> NDArray[np.floating]:
        total = np.zeros(waves.taps.shape)
        for frequency in np.unique(where):
            rows = where == frequency
            cotangent = waves.transposed(frequencies[frequency][None])[0]
            if summed == (1,):
                cotangent = np.where(rows, cotangent, 0.0)
            elif summed == (2,):
                cotangent = np.where(rows[:, None], cotangent, 0.0)
            total += gradient_at(waves, frequencies[frequency], cotangent)
        return (total * (grid.factor / root)).reshape(conv.plain_kernel.shape)

    return Evaluation(
        value=grid.factor * (root * (1.0 + gamma(2 * terms + 40)) + symbol_error(waves)),
        kind="upper",
        scope=any_size(conv),
        gradient=gradient,
        notes=f"times {grid.factor:.4f} for {len(frequencies)} frequencies",
    )


def _largest(
    waves: TapWaves, frequencies: NDArray[np.floating], summed: tuple[int, ...]
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """The largest sums of squares over the frequencies, and where they are attained."""
    largest = where = None
    for part, F in chunks(waves, frequencies):
        sums = (F.real**2 + F.imag**2).sum(axis=summed).reshape(len(F), -1)
        top = sums.argmax(axis=0)
        found = sums[top, np.arange(sums.shape[1])]
        if largest is None or where is None:
            largest, where = found, top
        else:
            better = found > largest
            largest[better], where[better] = found[better], top[better] + part.start
    assert largest is not None
    assert where is not None
    return largest, where
