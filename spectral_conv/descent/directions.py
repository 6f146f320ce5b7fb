"""Directions of a descent.

Gradient -- minus the gradient: the algorithms of the papers
ConjugateGradient -- conjugate gradients, for exact line searches
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spectral_conv.descent.iterate import Iterate


@runtime_checkable
class Direction(Protocol):
    """A rule for directions; it holds no memory, so that a run may be resumed anywhere."""

    def direction(self, at: Iterate) -> NDArray[np.floating]:
        """Return D of ``K + t D``, float64, a direction of descent."""
        ...


@dataclass(frozen=True)
class Gradient:
    """Minus the gradient."""

    def direction(self, at: Iterate) -> NDArray[np.floating]:
        """Return ``-G``."""
        return -at.gradient


@dataclass(frozen=True)
class ConjugateGradient:
    """``-G + beta D`` with the last direction D and ``beta = max(0, <G, G - G'> / <G', G'>)``, G' the last gradient.

    References
    ----------
    E. Polak, G. Ribiere, "Note sur la convergence de methodes de directions conjuguees", RIRO 3 (1969); with the
    restart of J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., Springer 2006, (5.45).
    """

    def direction(self, at: Iterate) -> NDArray[np.floating]:
        """Return the conjugate direction, or ``-G`` where that is no descent."""
        if at.previous is None:
            return -at.gradient
        last = at.previous.gradient
        beta = float(np.vdot(at.gradient, at.gradient - last)) / float(np.vdot(last, last))
        direction = max(0.0, beta) * at.previous.direction - at.gradient
        return direction if float(np.vdot(direction, at.gradient)) < 0.0 else -at.gradient
