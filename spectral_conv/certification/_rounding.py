"""Arithmetic of nonnegative numbers that never rounds below the exact result."""

from __future__ import annotations

import math
from collections.abc import Iterable

# A few operations with half a unit of rounding each stay far below this.
_MARGIN = 2.0**-49


def above(value: float) -> float:
    """Return a bound of what a handful of correctly rounded operations gave as `value`."""
    return math.nextafter(value * (1.0 + _MARGIN), math.inf)


def product(first: float, second: float) -> float:
    """Return a bound of the product; 1 changes nothing, 0 wins over infinity."""
    if first == 0.0 or second == 0.0:
        return 0.0
    if first == 1.0 or second == 1.0:
        return first * second
    return math.nextafter(first * second, math.inf)


def total(values: Iterable[float]) -> float:
    """Return a bound of the sum."""
    result = 0.0
    for value in values:
        result = value if result == 0.0 else result if value == 0.0 else math.nextafter(result + value, math.inf)
    return result


def root_sum_square(values: Iterable[float]) -> float:
    """Return a bound of the root of the sum of squares."""
    positive = [value for value in values if value > 0.0]
    return positive[0] if len(positive) == 1 else above(math.hypot(*positive)) if positive else 0.0


def root(number: int) -> float:
    """Return a bound of the square root: the root itself where it is an integer.

    Examples
    --------
    >>> root(9), root(2) ** 2 > 2
    (3.0, True)
    """
    whole = math.isqrt(number)
    return float(whole) if whole * whole == number else math.nextafter(math.sqrt(number), math.inf)
