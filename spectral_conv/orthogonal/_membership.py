"""Whether a layer is orthogonal."""

from __future__ import annotations

import math

import numpy as np

from spectral_conv.operator import ConvOperator
from spectral_conv.orthogonal._checks import checked_tolerance
from spectral_conv.results import MemoryLimitError
from spectral_conv.spectrum import smallest_singular_value, spectral_norm
from spectral_conv.spectrum.bracket import frobenius_norm
from spectral_conv.spectrum.checks import check_operator
from spectral_conv.spectrum.circulant import is_circulant
from spectral_conv.symbols import circulant_singular_values

# Errors of searched values below this are not asked for.
_LEAST_RTOL = 1e-11


def is_orthogonal(conv: ConvOperator, atol: float = 1e-8) -> bool:
    r"""Whether all min(rows, columns) singular values of the layer lie in ``[1 - atol, 1 + atol]``.

    Of the layer as it is: its padding, image size, stride. Then M or its transpose is an isometry within `atol`.

    Parameters
    ----------
    conv : ConvOperator
        The layer.
    atol : float
        Between 0 and 1; below some 1e-13 rounding decides.

    Returns
    -------
    bool
        By the exact spectrum: with circular padding all values, right to about 1e-14, else both ends, searched to
        ``max(atol / 8, 1e-11)`` (closer to the limit than that either answer may come). Most layers that are
        not orthogonal are refused by their Frobenius norm alone. float32 weights are taken as exact.

    Raises
    ------
    MemoryLimitError
        The ends of the spectrum do not fit in memory and the bounds known do not decide.

    Examples
    --------
    >>> import spectral_conv
    >>> from spectral_conv import orthogonal
    >>> K = orthogonal.sample_bcop(3, 4, 4, rng=0)
    >>> orthogonal.is_orthogonal(spectral_conv.ConvOperator(K, (8, 8), padding_mode="circular"))
    True
    >>> orthogonal.is_orthogonal(spectral_conv.ConvOperator(K, (8, 8)))  # zero padding
    False
    """
    check_operator(conv)
    atol = checked_tolerance("atol", atol)
    layer = conv.with_kernel(conv.kernel.astype(np.float64))
    if not _right_size(layer, atol):
        return False
    if is_circulant(layer):
        values = circulant_singular_values(layer)
        return bool(np.abs(values - 1.0).max() <= atol)
    rtol = max(atol / 8.0, _LEAST_RTOL)
    top = spectral_norm(layer, rtol=rtol)
    if top.method == "bracket" and top.lower <= 1.0 + atol < top.upper:
        raise _undecided("largest", top.lower, top.upper)
    if top.value > 1.0 + atol:
        return False
    bottom = smallest_singular_value(layer, rtol=rtol)
    if bottom.method == "bracket" and bottom.lower < 1.0 - atol <= bottom.upper:
        raise _undecided("smallest", bottom.lower, bottom.upper)
    return bottom.value >= 1.0 - atol


def _right_size(conv: ConvOperator, atol: float) -> bool:
    """Whether ``||M||_F`` is that of a matrix whose singular values are all 1 within `atol`."""
    root = math.sqrt(min(conv.shape))
    size = frobenius_norm(conv)
    slack = 1e-13
    if size < root * (1.0 - atol - slack):
        return False
    # Where padding repeats pixels, the norm is only bounded above.
    return conv.geometry.padding_mode != "zeros" or size <= root * (1.0 + atol + slack)


def _undecided(which: str, lower: float, upper: float) -> MemoryLimitError:
    return MemoryLimitError(
        f"`conv` must be small enough for an exact {which} singular value; only {lower:.6g} to {upper:.6g} is known. "
        "Use a smaller `input_shape`: an orthogonal layer with zero padding is orthogonal at every size."
    )
