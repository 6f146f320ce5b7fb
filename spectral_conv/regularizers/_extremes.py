"""Derivative of an extreme singular value, alone or averaged over values too close to tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.kernel_adjoint import kernel_adjoint
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.checks import checked_positive
from spectral_conv.spectrum.tracker import ExtremeTracker
from spectral_conv.spectrum.triplets import Which

# Values closer than this, relative to the largest, count as one.
CLUSTER_RTOL = 1e-8


@dataclass(frozen=True, kw_only=True)
class ExtremeValue:
    """An extreme singular value, its gradient ``ds / dK`` in float64, and how many values are as good as equal."""

    value: float
    gradient: NDArray[np.floating]
    multiplicity: int


class ExtremePenalty:
    """What penalties on extreme singular values share: warm starts, and care for values that are nearly multiple.

    Parameters
    ----------
    average : bool
        Of nearly multiple values: the mean of their gradients instead of the gradient of one of them. Either is a
        subgradient of the norm; the mean does not depend on the basis that the solver happened to find.
    cluster_rtol : float
        Values closer than this times the largest count as multiple.
    rtol : float
        Error of the singular values, relative to the largest.

    Attributes
    ----------
    multiplicity : int or None
        Of the extreme value at the last evaluation, 16 standing for as many or more; above 1 the penalty has no
        gradient there, only subgradients.
    tracker : ExtremeTracker
        Where searches start. Its memory makes a penalty an object of one thread.
    """

    def __init__(self, *, average: bool = False, cluster_rtol: float = CLUSTER_RTOL, rtol: float = 1e-10) -> None:
        self.average = bool(average)
        self.cluster_rtol = checked_positive("cluster_rtol", cluster_rtol)
        self.tracker = ExtremeTracker(rtol=rtol)
        self.multiplicity: int | None = None

    def __repr__(self) -> str:
        parameters = {name: value for name, value in vars(self).items() if name not in ("tracker", "multiplicity")}
        described = ", ".join(
            f"{name}={value!r}" for name, value in {**parameters, "rtol": self.tracker.rtol}.items()
        )
        return f"{type(self).__name__}({described})"

    def _extreme_value(self, conv: ConvOperator, which: Which) -> float:
        return float(self.tracker.triplets(conv, which).values[0])

    def _extreme(self, conv: ConvOperator, which: Which) -> ExtremeValue:
        found, count = self.tracker.cluster(conv, which, self.cluster_rtol)
        taken = range(count if self.average else 1)
        gradients = [kernel_adjoint(conv, found.left[i], found.right[i]) for i in taken]
        return ExtremeValue(value=float(found.values[0]), gradient=np.mean(gradients, axis=0), multiplicity=count)
