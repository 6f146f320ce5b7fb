"""A weighted sum of penalties."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers._penalty import Penalty, PolynomialPenalty
from spectral_conv.results import NotApplicableError
from spectral_conv.spectrum.tracker import ExtremeTracker


class PenaltySum:
    """``sum_i weight_i penalty_i``, whose terms a run records one by one.

    Parameters
    ----------
    terms : mapping from str to (float, Penalty)
        Weight and penalty by name. Terms on singular values share one `tracker` from now on, so that each value is
        searched for once.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> from spectral_conv.regularizers import Frobenius, OrthogonalityGap, PenaltySum
    >>> conv = spectral_conv.ConvOperator(np.eye(2)[None, None], (4, 4))
    >>> PenaltySum({"size": (0.5, Frobenius()), "gap": (1.0, OrthogonalityGap(4.0))}).value(conv)
    296.0
    """

    def __init__(self, terms: Mapping[str, tuple[float, Penalty]]) -> None:
        if not terms:
            raise ValueError("`terms` must name at least one penalty; got none.")
        self._terms = {str(name): (float(weight), penalty) for name, (weight, penalty) in terms.items()}
        trackers = [penalty.tracker for _, penalty in self._terms.values() if hasattr(penalty, "tracker")]
        self.tracker = ExtremeTracker(rtol=min((tracker.rtol for tracker in trackers), default=1e-10))
        for _, penalty in self._terms.values():
            if hasattr(penalty, "tracker"):
                penalty.tracker = self.tracker

    def __repr__(self) -> str:
        return f"PenaltySum({self._terms!r})"

    def terms(self, conv: ConvOperator) -> dict[str, float]:
        """Return the weighted terms by name."""
        return {name: weight * penalty.value(conv) for name, (weight, penalty) in self._terms.items()}

    def value(self, conv: ConvOperator) -> float:
        """Return the sum."""
        return sum(self.terms(conv).values())

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the sum and its gradient, shaped like ``conv.kernel``."""
        total, gradient = 0.0, np.zeros(conv.kernel.shape)
        for weight, penalty in self._terms.values():
            value, part = penalty.value_and_grad(conv)
            total, gradient = total + weight * value, gradient + weight * part
        return total, gradient.astype(conv.dtype, copy=False)

    def line_polynomial(self, conv: ConvOperator, direction: NDArray[np.floating]) -> NDArray[np.floating]:
        """Coefficients of ``t -> value(K + t direction)``, where every term is a polynomial."""
        total = np.zeros(1)
        for name, (weight, penalty) in self._terms.items():
            if not isinstance(penalty, PolynomialPenalty):
                raise NotApplicableError(
                    f"`line_polynomial` needs a polynomial in every term; {name!r}, a {type(penalty).__name__}, is "
                    "none. Use another step rule, such as steps.Armijo()."
                )
            total = np.polynomial.polynomial.polyadd(total, weight * penalty.line_polynomial(conv, direction))
        return total
