"""When a descent ends, and how to say so."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spectral_conv.results import DescentStop, Enclosure

# A penalty above its start that grew in so many steps on end, or by so many times its size, has diverged.
_GROWING, _FACTOR = 5, 1e3


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The criteria of `descend`; they depend on the record alone, so that a resumed run ends where the other would.

    Attributes
    ----------
    maxiter : int
        Iterations at most.
    rtol : float
        Relative change of the penalty; 0 for never.
    gtol : float
        Norm of the gradient.
    target : (float, float) or None
        Interval for all singular values.
    """

    maxiter: int
    rtol: float
    gtol: float
    target: tuple[float, float] | None

    def reason(
        self, penalties: Sequence[float], gradient_norm: float, extremes: Mapping[str, Enclosure]
    ) -> DescentStop | None:
        """Why to stop after these penalties, if at all."""
        if self.target is not None:
            low, high = self.target
            if extremes["sigma_min"].lower >= low and extremes["sigma_max"].upper <= high:
                return DescentStop.TARGET
        if gradient_norm <= self.gtol:
            return DescentStop.GRADIENT
        if _diverged(penalties):
            return DescentStop.DIVERGED
        if self.rtol > 0.0 and len(penalties) > 1:
            before, now = penalties[-2:]
            if abs(now - before) <= self.rtol * abs(now):
                return DescentStop.CHANGE
        return DescentStop.MAXITER if len(penalties) > self.maxiter else None


def _diverged(penalties: Sequence[float]) -> bool:
    first, last = penalties[0], penalties[-1]
    recent = penalties[-1 - _GROWING :]
    growing = len(recent) > _GROWING and all(b > a for a, b in itertools.pairwise(recent))
    return last > first and (growing or last - first > _FACTOR * abs(first))


def message(stop: DescentStop, penalties: Sequence[float], gradient_norm: float, size: float) -> str:
    """Say why a run ended, with numbers and, where it failed, what to do; `size` is that of the last step tried."""
    where = f"after {len(penalties) - 1} iterations"
    if stop is DescentStop.DIVERGED:
        smaller = f"steps.Fixed({size / 10:.1g})" if 0.0 < size < math.inf else "a tenth of it"
        return (
            f"{stop.value} It was {penalties[0]:.4g} at the start and {penalties[-1]:.4g} {where}; the step size was "
            f"{size:.3g}. Take a smaller one, such as {smaller}, or steps.Armijo()."
        )
    return f"{stop.value} The penalty is {penalties[-1]:.6g} {where}, the norm of its gradient {gradient_norm:.3g}."
