"""Checks of parameters that the functions of this folder share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import psutil

from spectral_conv.operator import ConvOperator


def check_operator(conv: Any) -> None:
    """Refuse what is no ConvOperator."""
    if not isinstance(conv, ConvOperator):
        raise ValueError(
            f"`conv` must be a ConvOperator; got {type(conv).__name__}. Wrap the weights: "
            "ConvOperator(kernel, input_shape=..., layout=...)."
        )


def checked_positive(name: str, value: Any) -> float:
    """Return `value` as a positive finite float, or raise a ValueError that names it."""
    if not isinstance(value, int | float | np.integer | np.floating) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be a positive number; got {value!r}.")
    return float(value)


def memory_or_half(limit: float | None) -> float:
    """Return the memory limit in bytes; by default half of what is free."""
    return psutil.virtual_memory().available / 2 if limit is None else checked_positive("memory_limit", limit)
