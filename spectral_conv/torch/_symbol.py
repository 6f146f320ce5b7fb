"""The symbol of a weight at given frequencies: two small products with the phases of the taps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectral_conv.bounds._method import without_idle_mode
from spectral_conv.bounds._symbol import waves_of, with_symbol
from spectral_conv.geometry import ConvGeometry
from spectral_conv.operator import ConvOperator

# Symbols held at one time.
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Cosines and sines of the taps at frequencies.

    Attributes
    ----------
    cosines, sines : (frequencies, taps) Tensors
        Real and imaginary part of the phases.
    residue : (taps,) int64 Tensor
        Which polyphase component each tap belongs to, of a strided layer.
    residues, groups : int
        How many there are.
    """

    cosines: Tensor
    sines: Tensor
    residue: Tensor
    residues: int
    groups: int

    @classmethod
    def create(
        cls,
        conv: ConvOperator,
        frequencies: NDArray[np.floating],
        groups: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Phases:
        """Phases at frequencies ``(n, axes)``, for a layer of `groups` with the geometry of `conv`."""
        waves = waves_of(conv)
        angles = torch.from_numpy(np.asarray(frequencies, np.float64) @ waves.shift.T)
        return cls(
            cosines=angles.cos().to(device, dtype),
            sines=angles.sin().to(device, dtype),
            residue=torch.from_numpy(np.asarray(waves.residue, np.int64)).to(device),
            residues=waves.residues,
            groups=groups,
        )

    def at(self, chosen: Tensor | slice) -> Phases:
        """The phases at some of the frequencies."""
        return Phases(
            cosines=self.cosines[chosen],
            sines=self.sines[chosen],
            residue=self.residue,
            residues=self.residues,
            groups=self.groups,
        )

    def parts(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of the symbols ``(frequencies, groups, h, residues * g)`` of PyTorch's weight."""
        taps = weight.flatten(2).movedim(2, 0)  # (taps, groups * h, g)
        h, g = taps.shape[1] // self.groups, taps.shape[2]
        real, imaginary = [], []
        for p in range(self.residues):
            own = torch.nonzero(self.residue == p)[:, 0] if self.residues > 1 else slice(None)
            flat = taps[own].flatten(1)
            real.append((self.cosines[:, own] @ flat).reshape(-1, self.groups, h, g))
            imaginary.append((self.sines[:, own] @ flat).reshape(-1, self.groups, h, g))
        return torch.cat(real, dim=-1), torch.cat(imaginary, dim=-1)

    def symbols(self, weight: Tensor) -> Tensor:
        """The same as complex numbers."""
        taps = weight.flatten(2).movedim(2, 0)
        h, g = taps.shape[1] // self.groups, taps.shape[2]
        # Complex products with real weights cost less than the assembly of two large real parts.
        waves = torch.complex(self.cosines, self.sines)
        flat = taps.flatten(1).to(waves.dtype)
        if self.residues == 1:
            return (waves @ flat).reshape(-1, self.groups, h, g)
        own = [torch.nonzero(self.residue == p)[:, 0] for p in range(self.residues)]
        return torch.cat([(waves[:, o] @ flat[o]).reshape(-1, self.groups, h, g) for o in own], dim=-1)

    def chunks(self, weight: Tensor) -> Iterator[tuple[slice, Phases]]:
        """So many frequencies at a time as memory allows."""
        entry = 2 * self.residues * weight.shape[0] * weight.shape[1] * weight.element_size()
        step = max(1, _CHUNK_BYTES // entry)
        for start in range(0, len(self.cosines), step):
            part = slice(start, start + step)
            yield part, self.at(part)


def without_weights(geometry: ConvGeometry, what: str) -> ConvOperator:
    """An operator of one channel whose symbol is read at the same frequencies; what it is for, for the error."""
    one = dataclasses.replace(geometry, in_channels=1, out_channels=1, groups=1)
    conv = ConvOperator.from_geometry(one, np.zeros((*geometry.kernel_size, 1, 1)))
    return with_symbol(without_idle_mode(conv), what)


def read_part(weight: Tensor, geometry: ConvGeometry) -> Tensor:
    """The weight without the taps that only ever meet zeros."""
    if geometry.read_taps.all():
        return weight
    return weight * torch.from_numpy(geometry.read_taps).to(weight)
