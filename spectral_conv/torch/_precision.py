"""Half precision, whoever asks for it, ends where singular values begin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def full(weight: Tensor) -> Tensor:
    """The weight in single precision at least."""
    return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight


def full_precision(function: F) -> F:
    """Run a function of a weight without autocast, the weight in single precision at least."""

    @functools.wraps(function)
    def run(weight: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            raise TypeError(
                f"`weight` must be a Tensor of real numbers; got {getattr(weight, 'dtype', type(weight).__name__)}. "
                "Pass layer.weight."
            )
        with torch.autocast(weight.device.type, enabled=False):
            return function(full(weight), *args, **kwargs)

    return run  # type: ignore[return-value]
