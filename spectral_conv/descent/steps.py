"""Step sizes: how far to go along a direction.

Fixed -- the same step size always
Schedule -- step sizes by iteration, as in the papers
ExactLineSearch -- the best step size for a penalty that is a polynomial along a line
Armijo -- backtracking until the penalty decreases enough
BarzilaiBorwein -- from the change of the gradient over the last step
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spectral_conv.descent.iterate import Iterate, length
from spectral_conv.geometry import as_integer
from spectral_conv.regularizers import PolynomialPenalty
from spectral_conv.results import NotApplicableError

# Of a backtracking search.
_TRIALS = 60


@runtime_checkable
class StepRule(Protocol):
    """A rule for step sizes; it holds no memory, so that a run may be resumed anywhere."""

    def size(self, at: Iterate) -> float:
        """Return t > 0 of ``K + t D``, or 0 where no step decreases the penalty."""
        ...


def checked_size(name: str, value: float) -> float:
    """Return `value` if it is a finite number above 0."""
    number = float(value)
    if not 0.0 < number < math.inf:
        raise ValueError(f"`{name}` must be a finite number above 0; got {value!r}.")
    return number


@dataclass(frozen=True)
class Fixed:
    """The same step size `t` in every iteration.

    Examples
    --------
    >>> from spectral_conv import steps
    >>> steps.Fixed(1e-5).t
    1e-05
    """

    t: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "t", checked_size("t", self.t))

    def size(self, at: Iterate) -> float:
        """Return `t`."""
        return self.t


@dataclass(frozen=True)
class Schedule:
    """Step sizes by iteration: each from its number on, ``{1: 1e-5, 10: 1e-4, 20: 1e-3}`` as in the paper.

    Examples
    --------
    >>> from spectral_conv import steps
    >>> steps.Schedule({1: 1e-5, 10: 1e-4}).sizes
    {1: 1e-05, 10: 0.0001}
    """

    sizes: Mapping[int, float]

    def __post_init__(self) -> None:
        sizes = {as_integer("sizes", n, minimum=1): checked_size("sizes", t) for n, t in dict(self.sizes).items()}
        if 1 not in sizes:
            raise ValueError(f"`sizes` must say what to do from iteration 1 on; got {sorted(sizes)}.")
        object.__setattr__(self, "sizes", dict(sorted(sizes.items())))

    def size(self, at: Iterate) -> float:
        """Return the size of the latest entry."""
        return self.sizes[max(n for n in self.sizes if n <= at.iteration)]


@dataclass(frozen=True)
class ExactLineSearch:
    """The least penalty along ``K + t D``, t > 0, where that is a polynomial in t (`line_polynomial`).

    Of several minima the lowest is taken; one may lie behind, at t < 0, and is left alone. `descend` goes along
    conjugate gradients with it, which rely on exact minima, unless another direction is asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator, descend, regularizers, steps
    >>> conv = ConvOperator(2 * np.eye(2)[None, None], (4, 4))
    >>> gap = regularizers.OrthogonalityGap()
    >>> descend(conv, gap, steps.ExactLineSearch(), maxiter=3, track=()).kernel.ravel().round(12)
    array([1., 0., 0., 1.])
    """

    def size(self, at: Iterate) -> float:
        """Return the minimizer, 0 where the penalty does not decrease along the line."""
        if not isinstance(at.penalty, PolynomialPenalty):
            raise NotApplicableError(
                f"`step=ExactLineSearch()` needs a penalty with `line_polynomial`; {type(at.penalty).__name__} has "
                "none. Use steps.Armijo() or steps.BarzilaiBorwein()."
            )
        coefficients = np.asarray(at.penalty.line_polynomial(at.conv, at.direction), dtype=np.float64)
        return _least(coefficients)


def _least(coefficients: NDArray[np.floating]) -> float:
    """The t > 0 of the lowest value of a polynomial among its stationary points, or 0; NaN beyond the range."""
    # In the unit of the first Newton step the coefficients are of one size.
    slope, curvature = (abs(float(c)) for c in (*coefficients[1:3], 0.0, 0.0)[:2])
    unit = slope / curvature if slope > 0.0 and curvature > 0.0 else 1.0
    scaled = coefficients * unit ** np.arange(len(coefficients))
    if not np.isfinite(scaled).all():
        return math.nan
    scaled = scaled / (np.abs(scaled[1:]).max(initial=0.0) or 1.0)
    derivative = np.polynomial.polynomial.polyder(scaled)
    roots = np.polynomial.polynomial.polyroots(np.trim_zeros(derivative, "b")) if derivative.any() else np.empty(0)
    real = roots.real[(np.abs(roots.imag) <= 1e-6 * np.abs(roots)) & (roots.real > 0.0)]
    if not real.size:
        return 0.0
    values = np.polynomial.polynomial.polyval(real, np.concatenate([[0.0], scaled[1:]]))
    return float(real[values.argmin()]) * unit if values.min() < 0.0 else 0.0


@dataclass(frozen=True)
class Armijo:
    """Backtracking: halve t until the penalty falls by at least ``decrease * t |<G, D>|``.

    The first trial is `first` (default: a step that changes the kernel by 1 %), later ones twice the last step.

    References
    ----------
    J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., Springer 2006, (3.4).

    Examples
    --------
    >>> from spectral_conv import steps
    >>> steps.Armijo().decrease
    0.0001
    """

    first: float | None = None
    decrease: float = 1e-4
    factor: float = 0.5

    def __post_init__(self) -> None:
        if self.first is not None:
            checked_size("first", self.first)
        for name in ("decrease", "factor"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must be a number between 0 and 1; got {getattr(self, name)!r}.")

    def size(self, at: Iterate) -> float:
        """Return the step size; 0 where none of 60 trials decreases the penalty enough."""
        size = _first_size(at) if self.first is None else self.first
        if at.previous is not None and at.previous.size > 0.0:
            size = at.previous.size / self.factor
        slope = float(np.vdot(at.gradient, at.direction))
        for _ in range(_TRIALS):
            kernel = at.kernel_after(size)
            if np.isfinite(kernel).all():
                value = at.penalty.value(at.conv.with_kernel(kernel))
                if value <= at.value + self.decrease * size * slope:
                    return size
            size *= self.factor
        return 0.0


@dataclass(frozen=True)
class BarzilaiBorwein:
    """``t = <s, s> / <s, y>`` with the last changes s of the kernel and y of the gradient; not monotone.

    Made for the negative gradient as the direction. Where the curvature ``<s, y>`` is not positive the last step size
    is kept.

    Parameters
    ----------
    first : float, optional
        The first step size; default: a step that changes the kernel by 1 %.
    short : bool
        Take ``<s, y> / <y, y>`` instead, which is never longer.

    References
    ----------
    J. Barzilai, J. M. Borwein, "Two-point step size gradient methods", IMA J. Numer. Anal. 8 (1988),
    doi:10.1093/imanum/8.1.141, (5) and (6).

    Examples
    --------
    >>> from spectral_conv import steps
    >>> steps.BarzilaiBorwein().short
    False
    """

    first: float | None = None
    short: bool = False

    def __post_init__(self) -> None:
        if self.first is not None:
            checked_size("first", self.first)

    def size(self, at: Iterate) -> float:
        """Return the step size."""
        if at.previous is None:
            return _first_size(at) if self.first is None else self.first
        s = at.conv.kernel.astype(np.float64) - at.previous.kernel
        y = at.gradient - at.previous.gradient
        curvature = float(np.vdot(s, y))
        if curvature <= 0.0:
            return at.previous.size
        return curvature / float(np.vdot(y, y)) if self.short else float(np.vdot(s, s)) / curvature


def _first_size(at: Iterate) -> float:
    """A step that changes the kernel by 1 %."""
    size, distance = length(at.conv.kernel), length(at.direction)
    return 1e-2 * (size or 1.0) / distance if distance > 0.0 else 1.0
