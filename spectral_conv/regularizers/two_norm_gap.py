"""``||M^T M - alpha I||_2``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import checked_word
from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers._extremes import CLUSTER_RTOL, ExtremePenalty
from spectral_conv.regularizers._penalty import checked_alpha

_SIDES = ("input", "smaller")


class TwoNormGap(ExtremePenalty):
    r"""The largest distance of a squared singular value from `alpha`: ``||M^T M - alpha I||_2``.

    That is ``max(|sigma_max^2 - alpha|, |sigma_min^2 - alpha|)``. Where M has more columns than rows, ``M^T M`` has
    the eigenvalue 0, whatever the kernel, and the penalty is never below ``|alpha|`` (its gradient is 0 where that is
    the largest distance): ``side="smaller"`` takes ``M M^T`` instead.

    Parameters
    ----------
    alpha : float
        The wanted square of all singular values.
    side : {"input", "smaller"}
        ``M^T M``, as in the paper, or the smaller of ``M^T M`` and ``M M^T``.
    average, cluster_rtol, rtol
        As in `SpectralNorm`. `multiplicity` counts the values at the largest distance, at both ends together.

    References
    ----------
    P.-C. Guo, Q. Ye, "On the regularization of convolutional kernel tensors in neural networks", Linear and
    Multilinear Algebra (2020), arXiv:1906.04866.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.diag([3.0, 1.0])[None, None], (4, 4))
    >>> round(spectral_conv.regularizers.TwoNormGap(alpha=1.0).value(conv), 9)
    8.0
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        side: str = "input",
        average: bool = False,
        cluster_rtol: float = CLUSTER_RTOL,
        rtol: float = 1e-10,
    ) -> None:
        super().__init__(average=average, cluster_rtol=cluster_rtol, rtol=rtol)
        self.alpha = checked_alpha(alpha)
        self.side = checked_word("side", side, _SIDES)

    def value(self, conv: ConvOperator) -> float:
        """Return the penalty."""
        top, bottom = self._extreme_value(conv, "largest"), self._least(conv)
        return max(abs(top**2 - self.alpha), abs(bottom**2 - self.alpha))

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the value and its gradient, shaped like ``conv.kernel``."""
        ends = [self._extreme(conv, "largest")]
        if not self._has_kernel(conv):
            bottom = self._extreme(conv, "smallest")
            # All values may be as good as one.
            if ends[0].value - bottom.value > self.cluster_rtol * ends[0].value:
                ends.append(bottom)
        gaps = [abs(end.value**2 - self.alpha) for end in ends]
        value = max(*gaps, abs(self.alpha) if self._has_kernel(conv) else 0.0)
        scale = max(value, ends[0].value ** 2)
        # An end as far from alpha as the other belongs to the same cluster.
        worst = [end for end, gap in zip(ends, gaps, strict=True) if gap >= value - self.cluster_rtol * scale]
        self.multiplicity = sum(end.multiplicity for end in worst) or None
        gradients = [2.0 * end.value * np.sign(end.value**2 - self.alpha) * end.gradient for end in worst]
        weights = [float(end.multiplicity) for end in worst]
        if not worst:
            total = np.zeros(conv.kernel.shape)
        else:
            total = np.average(gradients, axis=0, weights=weights) if self.average else gradients[0]
        return value, total.astype(conv.dtype, copy=False)

    def _has_kernel(self, conv: ConvOperator) -> bool:
        return self.side == "input" and conv.shape[1] > conv.shape[0]

    def _least(self, conv: ConvOperator) -> float:
        return 0.0 if self._has_kernel(conv) else self._extreme_value(conv, "smallest")
