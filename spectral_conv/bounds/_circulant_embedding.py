"""Circulant embedding: the norm on a larger torus, where the taps that wrap around meet zeros only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds._method import Evaluation, bound_method
from spectral_conv.bounds._proof import grid_maximum
from spectral_conv.bounds._symbol import THIS_SIZE, THIS_TORUS, gradient_at, torus, with_symbol, without_flat_axes
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.circulant import is_circulant
from spectral_conv.spectrum.embedding import best_grids, near_peaks
from spectral_conv.spectrum.frequencies import VerifiedSymbol
from spectral_conv.symbols._peaks import symbol_peaks
from spectral_conv.symbols._transform import group_taps

# Peaks of the symbol that grids are chosen by, and the share of the bound for which a second grid is proved.
_PEAKS, _GAIN = 4, 1e-3


@bound_method(
    source="compression of a block circulant matrix; H. Sedghi, V. Gupta, P. M. Long, 'The singular values of "
    "convolutional layers', ICLR 2019, arXiv:1805.10408 for its norm"
)
def circulant_embedding(conv: ConvOperator) -> Evaluation:
    r"""Upper bound ``max_j ||F((2 pi j + phi) / n')||`` with the best of several sizes n' and twists phi.

    With zero padding the layer is a compression of the block circulant matrix of every size
    ``n' >= N + min(max(before, after), d (k - 1))`` that is a multiple of the stride, and of the one that changes the
    sign (phi = pi) with every turn around the torus. Size and twist are chosen so that the frequency where the symbol
    is largest lies midway between two frequencies of the torus; the maximum itself is proved by Cholesky's
    factorization of ``t I - F^H F`` at all of them.

    Parameters
    ----------
    conv : ConvOperator
        Any layer with zero padding, or circular padding up to "same": there n' is the size of the image.

    Returns
    -------
    Bound
        An upper bound for this image size and smaller ones, in floating point too; for circular padding
        "exact" where the layer is block circulant. Dimensionless.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 1, 1)), 8, layout="WIO")
    >>> round(spectral_conv.bounds.circulant_embedding(conv).value, 6), round(float(1 + 2 * np.cos(np.pi / 9)), 6)
    (2.879385, 2.879385)
    """
    kind = "exact" if is_circulant(conv) else "upper"
    conv = with_symbol(conv, "Circulant embedding")
    geometry = conv.geometry
    peaks = symbol_peaks(geometry, group_taps(geometry, conv.plain_kernel, 0), count=_PEAKS)
    circular = geometry.padding_mode == "circular"
    grids = [torus(conv).axes] if circular else [without_flat_axes(conv, g) for g in best_grids(geometry, peaks[0])]
    candidates = [(near_peaks(symbol, peaks), symbol) for symbol in (VerifiedSymbol(conv, grid) for grid in grids)]
    candidates.sort(key=lambda pair: pair[0])
    used = candidates[0][1]
    proved = grid_maximum(used, peaks)
    if len(candidates) > 1 and candidates[1][0] < proved.value * (1.0 - _GAIN):
        # The best grid has a higher value away from the peaks that were looked at: give the next one a chance.
        second = grid_maximum(candidates[1][1], peaks)
        proved, used = min((proved, used), (second, candidates[1][1]), key=lambda pair: pair[0].value)
    sizes = " x ".join(
        "any" if axis.points == 1 else f"{axis.points * s}{' twisted' if axis.twist else ''}"
        for axis, s in zip(used.grid, geometry.stride, strict=True)
    )

    def gradient() -> NDArray[np.floating]:
        return gradient_at(used.waves, proved.frequency, proved.cotangent).reshape(conv.plain_kernel.shape)

    return Evaluation(
        value=proved.value,
        kind=kind,
        scope=THIS_TORUS if circular else THIS_SIZE,
        gradient=gradient,
        notes=f"torus of {sizes}",
    )
