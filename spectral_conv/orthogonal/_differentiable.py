"""A kernel together with the derivative of the map that made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

P = TypeVar("P")


@dataclass(frozen=True, kw_only=True)
class Differentiable(Generic[P]):
    """The value of a map at its parameters, and its vector-Jacobian product there.

    Attributes
    ----------
    kernel : (*k, in, out) ndarray
        The HWIO kernel.
    vjp : callable
        From a derivative by the kernel to the derivative by the parameters, of the type of the parameters. It can be
        called as often as wanted.
    """

    kernel: NDArray[np.float64]
    vjp: Callable[[ArrayLike], P]
