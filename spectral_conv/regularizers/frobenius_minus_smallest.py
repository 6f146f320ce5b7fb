"""``1/2 ||M||_F^2 - n sigma_min(M)``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers._extremes import ExtremePenalty
from spectral_conv.regularizers.frobenius import Frobenius


class FrobeniusMinusSmallest(ExtremePenalty):
    r"""Neither large nor small values: ``1/2 ||M||_F^2 - n sigma_min(M)``, n the number of singular values.

    ``n = min(rows, columns)``: for "same" padding and stride 1 that is the paper's ``min(g, h) N^2``. With all
    values equal to 1 it is least. Parameters as in `SpectralNorm`.

    References
    ----------
    P.-C. Guo, "Regularization for convolutional kernel tensors to avoid unstable gradient problem in convolutional
    neural networks", arXiv:2102.04294, Theorem 2.3, Algorithm 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.eye(2)[None, None], (4, 4))  # 32 ones
    >>> round(spectral_conv.regularizers.FrobeniusMinusSmallest().value(conv), 9)
    -16.0
    """

    def value(self, conv: ConvOperator) -> float:
        """Return the penalty."""
        return sum(self.terms(conv).values())

    def terms(self, conv: ConvOperator) -> dict[str, float]:
        """Return the two terms by name."""
        return {
            "frobenius": Frobenius().value(conv),
            "smallest": -min(conv.shape) * self._extreme_value(conv, "smallest"),
        }

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the value and its gradient, shaped like ``conv.kernel``."""
        size, gradient = Frobenius().value_and_grad(conv)
        least = self._extreme(conv, "smallest")
        self.multiplicity = least.multiplicity
        count = min(conv.shape)
        total = gradient - count * least.gradient
        return size - count * least.value, total.astype(conv.dtype, copy=False)
