"""Checks of parameters that the functions of this folder share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv.geometry import as_integer, per_axis


def checked_array(name: str, value: ArrayLike, ndim: int | Sequence[int]) -> NDArray[np.float64]:
    """Return a finite float64 array with one of the given numbers of axes, or raise a ValueError that names it."""
    wanted = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.ndim not in wanted:
        axes = " or ".join(map(str, wanted))
        raise ValueError(
            f"`{name}` must be a real array with {axes} axes; got shape {array.shape} and dtype {array.dtype}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite; got {int((~np.isfinite(array)).sum())} NaN or infinite entries.")
    return array


def checked_kernel(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Return an HWIO kernel with 1 to 3 spatial axes in float64."""
    kernel = checked_array(name, value, (3, 4, 5))
    if kernel.size == 0:
        raise ValueError(f"`{name}` must not be empty; got shape {kernel.shape}. The layout is HWIO, (*k, in, out).")
    return kernel


def checked_cotangent(cotangent: ArrayLike, kernel: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a derivative by the kernel, shaped like it."""
    array = checked_array("cotangent", cotangent, kernel.ndim)
    if array.shape != kernel.shape:
        raise ValueError(f"`cotangent` must have the shape {kernel.shape} of the kernel; got {array.shape}.")
    return array


def checked_size(kernel_size: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return one kernel size per axis; an int stands for `ndim` equal ones."""
    if isinstance(kernel_size, Iterable):
        sizes: tuple[Any, ...] = tuple(kernel_size)
        if not 1 <= len(sizes) <= 3:
            raise ValueError(f"`kernel_size` must be an int or have 1 to 3 entries; got {kernel_size!r}.")
        return per_axis("kernel_size", sizes, len(sizes), minimum=1)
    if not 1 <= as_integer("ndim", ndim, minimum=1) <= 3:
        raise ValueError(f"`ndim` must be 1, 2 or 3; got {ndim!r}.")
    return per_axis("kernel_size", kernel_size, ndim, minimum=1)


def checked_tolerance(name: str, value: Any) -> float:
    """Return `value` as a number between 0 and 1, both excluded."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 < value < 1:
        raise ValueError(f"`{name}` must lie between 0 and 1; got {value!r}.")
    return float(value)
