"""Where a symbol is looked at so that its largest value bounds the norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.embedding import smallest_size
from spectral_conv.spectrum.frequencies import GridAxis
from spectral_conv.spectrum.rounding import UNIT
from spectral_conv.symbols._peaks import TapWaves
from spectral_conv.symbols._sampling import degrees, excess_factor, fewest_points, substitutions
from spectral_conv.symbols._transform import Complex, group_taps, require_symbol

EVERY_SIZE = (
    "every image size; zero padding of any width, circular padding up to 'same' where the stride divides the size"
)
THIS_SIZE = "this image size and smaller ones, zero padding"
THIS_TORUS = "this image size, circular padding"

# Symbols held at one time.
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Frequencies, one of each pair w, -w, and by how much the supremum may exceed the largest value there.

    Attributes
    ----------
    axes : tuple of GridAxis
        Frequencies along each axis.
    factor : float
        1 for the frequencies of a torus.
    """

    axes: tuple[GridAxis, ...]
    factor: float

    @property
    def frequencies(self) -> NDArray[np.floating]:
        """All of them, shape ``(points, axes)``."""
        last = len(self.axes) - 1
        lines = [axis.frequencies(half=i == last) for i, axis in enumerate(self.axes)]
        return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))


def with_symbol(conv: ConvOperator, what: str) -> ConvOperator:
    """Return the operator whose symbol bounds `conv`: itself, or one that has more rows.

    Circular padding of an image that is no multiple of the stride wraps around with another distance than the
    stride. There the rows are some of those of the convolution with stride 1.
    """
    require_symbol(conv.geometry, what)
    geometry = conv.geometry
    odd = [axis.mode == "circular" and axis.inputs % axis.stride > 0 for axis in geometry.axes]
    if not any(odd):
        return conv
    reach = [axis.dilation * (axis.kernel - 1) for axis in geometry.axes]
    dense = dataclasses.replace(
        geometry,
        stride=tuple(1 if o else s for o, s in zip(odd, geometry.stride, strict=True)),
        padding=tuple((0, r) if o else p for o, r, p in zip(odd, reach, geometry.padding, strict=True)),
    )
    return ConvOperator.from_geometry(dense, conv.kernel)


def any_size(conv: ConvOperator) -> str:
    """The scope of a bound from the whole symbol: of this size only, where some weights meet no pixel here."""
    if conv.geometry.read_taps.all():
        return EVERY_SIZE
    return THIS_TORUS if conv.geometry.padding_mode == "circular" else THIS_SIZE


def waves_of(conv: ConvOperator) -> TapWaves:
    """The symbol of an operator with one group."""
    return TapWaves(conv.geometry, group_taps(conv.geometry, conv.plain_kernel, 0))


def torus(conv: ConvOperator) -> Grid:
    """The frequencies of the smallest torus of which the operator is a compression."""
    points = [
        (axis.inputs if axis.mode == "circular" else smallest_size(axis)) // axis.stride
        for axis in conv.geometry.axes
    ]
    return Grid(axes=without_flat_axes(conv, [GridAxis(points=n, period=n) for n in points]), factor=1.0)


def without_flat_axes(conv: ConvOperator, axes: Sequence[GridAxis]) -> tuple[GridAxis, ...]:
    """One frequency stands for all along an axis on which the symbol is constant."""
    one = GridAxis(points=1, period=1)
    return tuple(axis if degree else one for axis, degree in zip(axes, degrees(conv.geometry), strict=True))


def supremum_grid(conv: ConvOperator, excess: float) -> Grid:
    """A grid for all image sizes; sampling may have missed `excess` of the largest value at most."""
    geometry = conv.geometry
    each = (1.0 + excess) ** (1.0 / geometry.ndim) - 1.0
    axes, factor = [], 1.0 + 64.0 * UNIT  # the rounding of the factor itself
    for degree, q in zip(degrees(geometry), substitutions(geometry), strict=True):
        points = fewest_points(degree, each)
        axes.append(GridAxis(points=points, period=points * q))
        factor *= excess_factor(degree, points)
    return Grid(axes=tuple(axes), factor=factor)


def chunks(waves: TapWaves, frequencies: NDArray[np.floating]) -> Iterator[tuple[slice, Complex]]:
    """Transposed symbols ``(n, residues * g, h)``, so many at a time as memory allows."""
    entry = 16 * waves.rows * waves.taps.shape[2]
    step = max(1, _CHUNK_BYTES // entry)
    for start in range(0, len(frequencies), step):
        part = slice(start, start + step)
        yield part, waves.transposed(frequencies[part])


def gradient_over(waves: TapWaves, t: NDArray[np.floating], cotangents: Complex) -> NDArray[np.floating]:
    """Gradient by the taps ``(T, g, h)`` of ``sum_n Re <C_n, F(t_n)>``, both transposed: ``(n, residues * g, h)``."""
    angles = waves.shift @ t.T  # (T, n)
    parts = cotangents.reshape(len(t), waves.residues, -1)
    total = np.empty((len(waves.shift), parts.shape[-1]))
    for p in range(waves.residues):
        own = waves.residue == p
        total[own] = np.cos(angles[own]) @ parts[:, p].real + np.sin(angles[own]) @ parts[:, p].imag
    return total.reshape(waves.taps.shape)


def gradient_at(waves: TapWaves, t: NDArray[np.floating], cotangent: Complex) -> NDArray[np.floating]:
    """The same at one frequency: t (axes,), cotangent (residues * g, h)."""
    return gradient_over(waves, t[None], cotangent[None])
