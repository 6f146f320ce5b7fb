"""The largest singular value of the symbol over all frequencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds._method import Evaluation, bound_method
from spectral_conv.bounds._proof import grid_maximum
from spectral_conv.bounds._symbol import any_size, gradient_at, supremum_grid, with_symbol
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.frequencies import VerifiedSymbol
from spectral_conv.symbols._peaks import symbol_peaks
from spectral_conv.symbols._transform import group_taps

# What sampling may have missed: the first of these whose proof takes fewer operations and frequencies (about half a
# second), or the last.
_EXCESSES, _MOST_FLOPS, _MOST_POINTS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1), 6e9, 50_000


@bound_method(
    source="Toeplitz operators are bounded by their symbols; A. Boettcher, B. Silbermann, 'Introduction to large "
    "truncated Toeplitz matrices' (1999), doi:10.1007/978-1-4612-1426-7"
)
def supremum(conv: ConvOperator) -> Evaluation:
    r"""Upper bound ``sup_w ||F(w)||``, proved on a grid of frequencies: the norm for an infinite image.

    ``sup ||F|| <= max_grid ||F|| prod_j min(1 / cos(pi D_j / (2 S_j)), (1 - D_j / S_j)^(-1/2))`` for S_j
    equispaced frequencies and degree D_j < S_j along axis j. The grid is as fine as half a second allows; the notes
    give the factor.

    Parameters
    ----------
    conv : ConvOperator
        Any layer with zero padding, or circular padding up to "same".

    Returns
    -------
    Bound
        An upper bound for every size of the image, in floating point too; for large images close to the
        exact value. Dimensionless.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 3, 1, 1)), (8, 8))
    >>> 9.0 <= spectral_conv.bounds.supremum(conv).value < 9.001
    True
    """
    conv = with_symbol(conv, "The supremum of the symbol")
    geometry = conv.geometry
    peaks = symbol_peaks(geometry, group_taps(geometry, conv.plain_kernel, 0))
    for excess in _EXCESSES:
        grid = supremum_grid(conv, excess)
        symbol = VerifiedSymbol(conv, grid.axes)
        if symbol.flops <= _MOST_FLOPS and symbol.points <= _MOST_POINTS:
            break
    found = grid_maximum(symbol, peaks)
    factor = grid.factor

    def gradient() -> NDArray[np.floating]:
        by_taps = gradient_at(symbol.waves, found.frequency, factor * found.cotangent)
        return by_taps.reshape(conv.plain_kernel.shape)

    return Evaluation(
        value=found.value * factor,
        kind="upper",
        scope=any_size(conv),
        gradient=gradient,
        notes=f"times {factor:.6f} for {symbol.points} frequencies",
    )
