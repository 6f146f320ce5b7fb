"""Layouts of stored kernels, and their way into the layouts that `ConvOperator` takes."""

from __future__ import annotations

import difflib
from typing import Any

from numpy.typing import NDArray

from spectral_conv.models._model import ModelError

PLAIN = ("OIW", "OIHW", "OIDHW")
TRANSPOSED = ("IOW", "IOHW", "IODHW")
CHANNELS_LAST = ("WIO", "HWIO", "DHWIO")
DEPTHWISE = ("WCM", "HWCM", "DHWCM")


def default_layout(ndim: int, transposed: bool) -> str:
    """Return PyTorch's layout for `ndim` spatial axes."""
    return (TRANSPOSED if transposed else PLAIN)[ndim - 1]


def known_layouts(ndim: int, transposed: bool) -> tuple[str, ...]:
    """Return the layouts that a kernel with `ndim` spatial axes may have."""
    families = (TRANSPOSED, CHANNELS_LAST) if transposed else (PLAIN, CHANNELS_LAST, DEPTHWISE)
    return tuple(family[ndim - 1] for family in families)


def check_layout(where: str, layout: str, ndim: int, transposed: bool) -> str:
    """Return `layout`, or refuse one that does not fit the number of axes or the kind of layer."""
    known = known_layouts(ndim, transposed)
    if layout in known:
        return layout
    close = difflib.get_close_matches(layout.upper(), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    kind = "transposed convolution" if transposed else "convolution"
    raise ModelError(
        f"{where}: `layout` of a {kind} whose weight has {ndim + 2} axes must be one of {', '.join(known)}; "
        f"got {layout!r}.{hint}"
    )


def spatial_sizes(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Return the kernel sizes along the spatial axes of a stored kernel."""
    return tuple(size for size, letter in zip(shape, layout, strict=True) if letter in "DHW")


def channel_counts(shape: tuple[int, ...], layout: str, transposed: bool, groups: int) -> tuple[int, int]:
    """Return how many channels the layer reads and writes, for `groups` that need not divide anything."""
    axis = dict(zip(layout, shape, strict=True))
    if "C" in axis:
        return axis["C"], axis["C"] * axis["M"]
    if transposed:
        return axis["I"], axis["O"] * groups
    return axis["I"] * groups, axis["O"]


def for_operator(kernel: NDArray[Any], layout: str) -> tuple[NDArray[Any], str]:
    """Return the kernel and the layout under which `ConvOperator` takes it.

    A depthwise kernel ``(*k, channels, multiplier)`` becomes the grouped HWIO kernel
    ``(*k, 1, channels * multiplier)`` with as many groups as channels: output channel ``c * multiplier + m``
    reads channel `c` alone, which is Keras' order.
    """
    if layout not in DEPTHWISE:
        return kernel, layout
    *sizes, channels, multiplier = kernel.shape
    return kernel.reshape(*sizes, 1, channels * multiplier), CHANNELS_LAST[len(sizes) - 1]


def as_stored(kernel: NDArray[Any], layout: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the HWIO kernel of a `ConvOperator` in the layout and shape of the file: the way back.

    Examples
    --------
    >>> import numpy as np
    >>> as_stored(np.zeros((3, 5, 2, 4)), "OIHW", (4, 2, 3, 5)).shape
    (4, 2, 3, 5)
    """
    if layout in DEPTHWISE:
        return kernel.reshape(shape)
    ours = CHANNELS_LAST[len(shape) - 3]
    return kernel.transpose([ours.index(letter) for letter in layout])
