"""How vectors on the smaller side of M are laid out as channels over a coarse grid, for transforms per frequency."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from spectral_conv.geometry import ConvGeometry


class Packing:
    """Where vectors live, and how they are laid out as channels over the coarse grid of a strided convolution.

    Attributes
    ----------
    on_outputs : bool
        Whether vectors live on the outputs of the plain convolution.
    order : int
        Channels of the packed vector: residues times channels.
    grid : tuple of int
        A fast size for transforms, a pixel or more larger than the coarse grid.
    """

    def __init__(self, geometry: ConvGeometry) -> None:
        self.on_outputs = lives_on_outputs(geometry)
        axes = geometry.axes
        self._channels = geometry.plain_channels[1 if self.on_outputs else 0]
        self._image = tuple(axis.outputs if self.on_outputs else axis.inputs for axis in axes)
        self._stride = (1,) * len(axes) if self.on_outputs else geometry.stride
        # The residue of a pixel is that of its padded position.
        offset = tuple(axis.before % s for axis, s in zip(axes, self._stride, strict=True))
        self._coarse = tuple(-(-(n + o) // s) for n, o, s in zip(self._image, offset, self._stride, strict=True))
        ndim, pairs = len(axes), tuple(zip(self._coarse, self._stride, strict=True))
        self._padded = tuple(m * s for m, s in pairs)
        self._pairs = tuple(k for pair in pairs for k in pair)
        self._residues_first = (*range(2, 2 + 2 * ndim, 2), 0, *range(1, 1 + 2 * ndim, 2))
        self._window = (slice(None), *(slice(o, o + n) for o, n in zip(offset, self._image, strict=True)))
        self.order = self._channels * math.prod(self._stride)
        self.grid = tuple(scipy.fft.next_fast_len(n + 1, real=True) for n in self._coarse)

    def pack(self, row: NDArray[np.floating]) -> NDArray[np.floating]:
        """Turn a vector into ``(order, *coarse)``, residues before channels."""
        image = row.reshape(self._channels, *self._image)
        if math.prod(self._stride) == 1:
            return image
        padded = np.zeros((self._channels, *self._padded), row.dtype)
        padded[self._window] = image
        split = padded.reshape(self._channels, *self._pairs)
        return np.ascontiguousarray(split.transpose(self._residues_first)).reshape(self.order, *self._coarse)

    def unpack(self, full: NDArray[np.floating]) -> NDArray[np.floating]:
        """Adjoint of `pack`, from an array on the whole grid."""
        part = full[(slice(None), *(slice(0, n) for n in self._coarse))]
        if math.prod(self._stride) == 1:
            return part.reshape(-1)
        split = part.reshape(*self._stride, self._channels, *self._coarse)
        padded = split.transpose(np.argsort(self._residues_first)).reshape(self._channels, *self._padded)
        return padded[self._window].reshape(-1)


def lives_on_outputs(geometry: ConvGeometry) -> bool:
    """Whether the smaller side of M, on which to work, is that of the outputs of the plain convolution."""
    inputs, outputs = geometry.plain_channels
    return outputs * math.prod(a.outputs for a in geometry.axes) < inputs * math.prod(a.inputs for a in geometry.axes)
