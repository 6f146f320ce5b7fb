"""A kernel laid out on a torus, by residues of the stride, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import ConvGeometry
from spectral_conv.results import NotApplicableError
from spectral_conv.symbols._circulant import checked_grid
from spectral_conv.symbols._transform import coarse_grid, require_symbol


@dataclass(frozen=True, kw_only=True)
class TorusTaps:
    """Where the taps stand on the torus, sorted by residues of the stride.

    Attributes
    ----------
    sizes : tuple of int
        Coarse grid, grid / stride.
    places : tuple of ndarrays
        Per axis the coarse pixel of each tap, then per axis its residue, shaped to be broadcast against each other.
    stride : tuple of int
        Residues per axis.
    groups : int
        Of the layer.
    """

    sizes: tuple[int, ...]
    places: tuple[NDArray[np.int64], ...]
    stride: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, geometry: ConvGeometry, grid: int | Sequence[int] | None) -> TorusTaps:
        require_symbol(geometry, "Clipping the circulant spectrum")
        full = checked_grid(geometry, grid)
        extent = tuple(axis.dilation * (axis.kernel - 1) + 1 for axis in geometry.axes)
        if any(n < e for n, e in zip(full, extent, strict=True)):
            raise NotApplicableError(
                f"`grid` must be at least the extent {extent} of the kernel, so that taps do not fall onto one "
                f"another; got {full}. Use a larger `grid`."
            )
        positions = [np.divmod(np.arange(a.kernel) * a.dilation, a.stride) for a in geometry.axes]
        places = (*np.ix_(*(m for m, _ in positions)), *np.ix_(*(p for _, p in positions)))
        return cls(sizes=coarse_grid(geometry, full), places=places, stride=geometry.stride, groups=geometry.groups)

    def spread(self, plain: NDArray[np.float64]) -> NDArray[np.float64]:
        """Kernel ``(*k, g, groups * h)`` to ``(*sizes, groups, residues * g, h)``."""
        g, h = plain.shape[-2], plain.shape[-1] // self.groups
        torus = np.zeros((*self.sizes, *self.stride, g, self.groups, h))
        torus[self.places] = plain.reshape(*plain.shape[:-1], self.groups, h)
        torus = np.moveaxis(torus, -2, len(self.sizes))
        return torus.reshape(*self.sizes, self.groups, -1, h)

    def gathered(self, torus: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mask: the taps of ``(*sizes, groups, residues * g, h)``, as a kernel."""
        h = torus.shape[-1]
        torus = torus.reshape(*self.sizes, self.groups, *self.stride, -1, h)
        taps = np.moveaxis(torus, len(self.sizes), -2)[self.places]
        return taps.reshape(*taps.shape[:-2], -1)
