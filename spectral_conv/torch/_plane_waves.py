"""Plane waves at which the symbol of a weight is largest: where to look for the singular vectors of its layer."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from spectral_conv.bounds._symbol import Grid, torus
from spectral_conv.geometry import ConvGeometry
from spectral_conv.spectrum.frequencies import GridAxis
from spectral_conv.torch._symbol import Phases, without_weights

# More frequencies per axis are not looked at.
_POINTS = 24
# Steps of the power method at each frequency, at the start.
_FIRST = 12


class PlaneWaves(nn.Module):
    """Power method at each frequency, started from the last vectors.

    Parameters
    ----------
    geometry : ConvGeometry
        Of the layer; where it has no symbol, that of its zero-padded counterpart serves as a guess.
    weight : Tensor
        The weight of now.
    """

    vectors: Tensor

    def __init__(self, geometry: ConvGeometry, weight: Tensor) -> None:
        super().__init__()
        wraps = geometry.padding_mode == "circular"
        wraps = wraps and all(axis.outputs * axis.stride == axis.inputs for axis in geometry.axes)
        self.geometry = geometry if wraps else dataclasses.replace(geometry, padding_mode="zeros")
        table = _table(self.geometry, weight.dtype, weight.device)
        columns = table.phases.residues * weight.shape[1]
        start = torch.randn(
            (len(table.frequencies) * geometry.groups, columns, 2), generator=torch.Generator().manual_seed(0)
        )
        self.register_buffer("vectors", start.to(weight))
        self.keep(self.largest(weight, steps=_FIRST)[1])

    def keep(self, vectors: Tensor) -> None:
        """Remember vectors of `largest` for the next call."""
        self.vectors.copy_(vectors)

    def largest(self, weight: Tensor, *, steps: int = 1) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of the wave that is stretched most, ``(2, *input shape)``, and all vectors."""
        table, groups = _table(self.geometry, weight.dtype, weight.device), self.geometry.groups
        tiny = torch.finfo(weight.dtype).tiny
        real, imaginary = (part.flatten(0, 1) for part in table.phases.parts(weight))  # (points, h, residues * g)
        # In real numbers, (x, y) for x + i y: complex ones are several times slower.
        x = self.vectors.to(weight.dtype)
        for _ in range(steps):
            images = real @ x + _times_i(imaginary @ x)
            pulled = real.mT @ images - _times_i(imaginary.mT @ images)
            norms = pulled.norm(dim=(1, 2), keepdim=True).clamp_min(tiny)
            stretched = (norms / images.norm(dim=(1, 2), keepdim=True).clamp_min(tiny))[:, 0, 0]
            x = pulled / norms
        where = stretched.argmax()
        return self._image(where // groups, where % groups, torch.view_as_complex(x[where]), table), x

    def _image(self, point: Tensor, group: Tensor, vector: Tensor, table: _Table) -> Tensor:
        angle = table.coarse @ table.frequencies[point]  # (pixels,)
        g = self.geometry.plain_channels[0] // self.geometry.groups
        pixels = vector.view(-1, g)[table.residue] * torch.polar(table.window, angle)[:, None]
        image = torch.zeros((len(angle), self.geometry.groups, g), dtype=pixels.dtype, device=pixels.device)
        image[:, group] = pixels
        shape = (-1, *(axis.inputs for axis in self.geometry.axes))
        return torch.view_as_real(image.flatten(1).T.contiguous()).movedim(-1, 0).reshape(2, *shape)


def _times_i(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1], x[..., 0]], dim=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Table:
    """What plane waves of a geometry are made of.

    Attributes
    ----------
    phases : Phases
        Of the symbol.
    frequencies : (frequencies, axes) Tensor
        Of the coarse grid of a strided layer.
    coarse, residue : (pixels, axes) Tensor, (pixels,) int64 Tensor
        Position of each input pixel on that grid, and its polyphase component.
    window : (pixels,) Tensor
        Sine window, or ones where the image wraps around.
    """

    phases: Phases
    frequencies: Tensor
    coarse: Tensor
    residue: Tensor
    window: Tensor


@functools.lru_cache(maxsize=256)
def _table(geometry: ConvGeometry, dtype: torch.dtype, device: torch.device) -> _Table:
    conv = without_weights(geometry, "A plane wave")
    axes = tuple(
        axis if axis.points <= _POINTS else GridAxis(points=_POINTS, period=_POINTS) for axis in torus(conv).axes
    )
    frequencies = Grid(axes=axes, factor=1.0).frequencies
    wraps = geometry.padding_mode == "circular"
    position, residue, window = np.zeros((1, 0)), np.zeros(1, np.int64), np.ones(1)
    for axis in geometry.axes:
        pixel = np.arange(axis.inputs) + axis.before
        own = np.ones(axis.inputs) if wraps else np.sin(math.pi * (np.arange(axis.inputs) + 1) / (axis.inputs + 1))
        count = len(window)
        position = np.column_stack([np.repeat(position, axis.inputs, axis=0), np.tile(pixel // axis.stride, count)])
        residue = (residue[:, None] * axis.stride + pixel % axis.stride).ravel()
        window = np.outer(window, own).ravel()
    return _Table(
        phases=Phases.create(conv, frequencies, geometry.groups, dtype, device),
        frequencies=torch.from_numpy(frequencies).to(device, dtype),
        coarse=torch.from_numpy(position).to(device, dtype),
        residue=torch.from_numpy(residue).to(device),
        window=torch.from_numpy(window).to(device, dtype),
    )
