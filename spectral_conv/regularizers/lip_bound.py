"""The bound of Araujo and others as a penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds import lipbound
from spectral_conv.operator import ConvOperator


@dataclass(frozen=True)
class LipBound:
    r"""The logarithm of LipBound, or LipBound itself: an **upper bound** of the largest singular value.

    ``sqrt(sum_i max_w sum_j |F_ij(w)|^2)``, with the factor of its frequency grid (at most 2 %), so that it holds for
    every image size. Products of layers bound a network: logarithms add up.

    Parameters
    ----------
    log : bool
        Whether to take the logarithm, as the authors do in training.

    References
    ----------
    A. Araujo, B. Negrevergne, Y. Chevaleyre, J. Atif, "On Lipschitz regularization of convolutional layers using
    Toeplitz matrix theory", AAAI 2021, arXiv:2006.08391.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.full((1, 1, 1, 4), 0.5), (8, 8))
    >>> round(spectral_conv.regularizers.LipBound(log=False).value(conv), 12)
    1.0
    """

    log: bool = True

    def value(self, conv: ConvOperator) -> float:
        """Return the (logarithm of the) bound; minus infinity for the logarithm of a zero kernel's."""
        return self.value_and_grad(conv)[0]

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the value and its gradient, shaped like ``conv.kernel``."""
        value, gradient = lipbound.value_and_grad(conv)
        if self.log:
            return (math.log(value), gradient / value) if value > 0.0 else (-math.inf, gradient)
        return value, gradient
