"""``-sigma_min(M)``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers._extremes import ExtremePenalty


class SmallestSingularValue(ExtremePenalty):
    r"""Minus the least of the ``min(rows, columns)`` singular values, ``-sigma_min(M)``: descent raises it.

    The gradient is ``-sum_p v(p + a) u(p)^T`` for each tap a (the paper's (3.3) with its sign), with the exact
    vectors u and v of the zero-padded operator. Parameters as in `SpectralNorm`. Where the value is 0 or nearly
    multiple there is no gradient; see `multiplicity` and `average`.

    References
    ----------
    P.-C. Guo, "Regularization for convolutional kernel tensors to avoid unstable gradient problem in convolutional
    neural networks", arXiv:2102.04294, Theorem 3.2, (3.3), Algorithm 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.diag([3.0, 1.0])[None, None], (4, 4))
    >>> round(spectral_conv.regularizers.SmallestSingularValue().value(conv), 9)
    -1.0
    """

    def value(self, conv: ConvOperator) -> float:
        """Return minus the smallest singular value, within `rtol` times the largest."""
        return -self._extreme_value(conv, "smallest")

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the value and its gradient, shaped like ``conv.kernel``."""
        least = self._extreme(conv, "smallest")
        self.multiplicity = least.multiplicity
        return -least.value, -least.gradient.astype(conv.dtype, copy=False)
