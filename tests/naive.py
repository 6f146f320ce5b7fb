"""Slow, obvious references: nothing here shares code with the package."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def source_pixel(position: int, before: int, size: int, mode: str) -> int | None:
    """Input pixel at a padded position, one step at a time."""
    pixel = position - before
    if mode == "zeros":
        return pixel if 0 <= pixel < size else None
    if mode == "replicate":
        return min(max(pixel, 0), size - 1)
    while not 0 <= pixel < size:
        if mode == "circular":
            pixel += size if pixel < 0 else -size
        else:
            pixel = -pixel if pixel < 0 else 2 * (size - 1) - pixel
    return pixel


def dense_convolution(
    kernel: NDArray[np.floating],
    inputs: Sequence[int],
    outputs: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    mode: str,
) -> NDArray[np.floating]:
    """Matrix of a plain convolution with HWIO `kernel` (*k, in / groups, out), entry by entry."""
    *size, g, out = kernel.shape
    h = out // groups
    M = np.zeros((out, *outputs, g * groups, *inputs))
    for r in itertools.product(*map(range, outputs)):
        for a in itertools.product(*map(range, size)):
            pixel = tuple(
                source_pixel(ri * s + ai * d, p, n, mode)
                for ri, ai, s, d, p, n in zip(r, a, stride, dilation, before, inputs, strict=True)
            )
            if None in pixel:
                continue
            for group, c, o in itertools.product(range(groups), range(g), range(h)):
                M[(group * h + o, *r, group * g + c, *pixel)] += kernel[(*a, c, group * h + o)]
    return M.reshape(out * int(np.prod(outputs)), -1)


def dense_transposed(
    kernel: NDArray[np.floating],
    inputs: Sequence[int],
    outputs: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> NDArray[np.floating]:
    """Matrix of a transposed convolution with kernel (*k, in, out / groups): every input pixel is stamped."""
    *size, channels, out = kernel.shape
    g = channels // groups
    M = np.zeros((out * groups, *outputs, channels, *inputs))
    for n in itertools.product(*map(range, inputs)):
        for a in itertools.product(*map(range, size)):
            r = tuple(ni * s + ai * d - p for ni, ai, s, d, p in zip(n, a, stride, dilation, before, strict=True))
            if not all(0 <= ri < m for ri, m in zip(r, outputs, strict=True)):
                continue
            for c, o in itertools.product(range(channels), range(out)):
                M[(c // g * out + o, *r, c, *n)] += kernel[(*a, c, o)]
    return M.reshape(out * groups * int(np.prod(outputs)), -1)


def dense_circulant(
    kernel: NDArray[np.floating], grid: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int
) -> NDArray[np.floating]:
    """Matrix of the convolution on the torus `grid`."""
    outputs = [n // s for n, s in zip(grid, stride, strict=True)]
    return dense_convolution(kernel, grid, outputs, stride, (0,) * len(grid), dilation, groups, "circular")
