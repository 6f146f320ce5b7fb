"""``sigma_max(M)``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers._extremes import ExtremePenalty


class SpectralNorm(ExtremePenalty):
    r"""The largest singular value ``sigma_max(M)`` of the exact operator.

    Its gradient is ``sum_p v(p + a) u(p)^T`` for each tap a, with the exact singular vectors u and v. It is convex in
    the kernel: the gradient of a multiple value is a subgradient.

    References
    ----------
    G. W. Stewart, "Matrix Algorithms, Volume II: Eigensystems", SIAM 2001, doi:10.1137/1.9780898718058.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.diag([3.0, 1.0])[None, None], (4, 4))
    >>> round(spectral_conv.regularizers.SpectralNorm().value(conv), 9)
    3.0
    """

    def value(self, conv: ConvOperator) -> float:
        """Return the largest singular value, within `rtol`."""
        return self._extreme_value(conv, "largest")

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the value and its gradient, shaped like ``conv.kernel``."""
        top = self._extreme(conv, "largest")
        self.multiplicity = top.multiplicity
        return top.value, top.gradient.astype(conv.dtype, copy=False)
