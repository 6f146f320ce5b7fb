"""What is asked of an engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Request:
    """Checked parameters of a search."""

    k: int
    smallest: bool
    rtol: float
    method: str
    maxiter: int | None
    memory: float
    rng: np.random.Generator
    enclose: bool = False  # look for an upper bound of the largest value that makes its enclosure a theorem


def too_much(what: str, needed: float, limit: float) -> str:
    """Say that `needed` bytes exceed the limit."""
    digits = 2 if limit >= 1e8 else 6
    return (
        f"`memory_limit` must be at least {needed / 1e9:.{digits}f} GB for {what} of this layer; it is "
        f"{limit / 1e9:.{digits}f} GB. "
        "Raise it, or use a smaller `input_shape`."
    )
