r"""From kernel to symbol: ``F(w) = sum_a K[a]^T exp(i w.(a d))``.

A strided convolution mixes the `s` residues of the input positions; its symbol at the frequency t of the coarse
grid is the row ``[F_p(t)]_p`` of polyphase components, ``F_p(t) = sum_m K[s m + p]^T exp(i t m)`` (for dilation,
the taps `a` with ``a d = s m + p``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import Axis, ConvGeometry
from spectral_conv.results import NotApplicableError

Complex = NDArray[np.complexfloating]

# From this many taps on an FFT along the last axis beats the product with the phases (measured).
_FFT_TAPS = 64


def require_symbol(geometry: ConvGeometry, what: str = "A symbol") -> None:
    """Raise `NotApplicableError` where no block circulant matrix resembles the operator."""
    mode = geometry.padding_mode
    if mode in ("reflect", "replicate"):
        raise NotApplicableError(
            f"{what} does not apply to padding_mode={mode!r}: the rows at the border are no shifts of the "
            "others. Use singular_triplets, which works on the operator itself."
        )
    if mode == "circular" and any((a.outputs - 1) * a.stride >= a.inputs for a in geometry.axes):
        raise NotApplicableError(
            f"{what} does not apply to circular padding wider than 'same': {geometry.padding} repeats rows of the "
            "circulant matrix. Use singular_triplets, which works on the operator itself."
        )


@dataclass(frozen=True, kw_only=True)
class SymbolBox:
    """Part of the frequency grid of one group: which frequencies, and the symbol there.

    Attributes
    ----------
    group : int
        The group.
    slices : tuple of slice
        Frequencies along each axis.
    """

    group: int
    slices: tuple[slice, ...]


def coarse_grid(geometry: ConvGeometry, grid: Sequence[int]) -> tuple[int, ...]:
    """Sizes of the frequency grid of a strided convolution: grid / stride."""
    return tuple(n // s for n, s in zip(grid, geometry.stride, strict=True))


def half_grid(sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes of the part that conjugate symmetry, ``F(-w) = conj F(w)``, leaves to compute."""
    return (*sizes[:-1], sizes[-1] // 2 + 1)


def phases(axis: Axis, frequencies: NDArray[np.floating]) -> Complex:
    """Return ``exp(i t m_a)`` where tap `a` belongs to residue `p`, else 0; shape (stride, frequencies, kernel)."""
    m, p = np.divmod(np.arange(axis.kernel) * axis.dilation, axis.stride)
    wave = np.exp(1j * np.asarray(frequencies)[:, None] * m)
    return wave[None] * (np.arange(axis.stride)[:, None, None] == p)


def boxes(geometry: ConvGeometry, sizes: Sequence[int], entry_bytes: int, limit: int) -> Iterator[SymbolBox]:
    """Cut the frequency grid into boxes whose symbols take about `limit` bytes each."""
    steps, rest = [], max(1, limit // entry_bytes)
    for n in reversed(sizes):
        step = max(1, min(n, rest))
        rest //= step
        steps.append(step)
    cuts = [
        [slice(i, min(i + step, n)) for i in range(0, n, step)]
        for n, step in zip(sizes, reversed(steps), strict=True)
    ]
    for group in range(geometry.groups):
        for slices in itertools.product(*cuts):
            yield SymbolBox(group=group, slices=slices)


def group_taps(geometry: ConvGeometry, kernel: NDArray[np.floating], group: int) -> NDArray[np.floating]:
    """Kernel ``(*k, g, h)`` of one group of the plain convolution, in float64."""
    h = kernel.shape[-1] // geometry.groups
    return np.ascontiguousarray(kernel[..., group * h : (group + 1) * h], dtype=np.float64)


def evaluate_box(
    geometry: ConvGeometry, taps: NDArray[np.floating], sizes: Sequence[int], slices: Sequence[slice]
) -> Complex:
    """Symbol on a box of the coarse frequency grid, shape ``(*box, residues * g, h)`` (transposed symbol)."""
    factors = []
    for axis, n, cut in zip(geometry.axes, sizes, slices, strict=True):
        factors.append(phases(axis, 2 * np.pi / n * np.arange(n)[cut]))
    last, whole = geometry.axes[-1], sizes[-1]
    cut = slices[-1]
    if last.kernel >= _FFT_TAPS and cut.stop - cut.start > whole // 4:
        return _contract(taps, factors[:-1], lambda partial: _last_axis_by_fft(last, partial, whole, cut))
    return _contract(taps, factors[:-1], lambda partial: _last_axis_by_phases(factors[-1], partial))


def _contract(
    taps: NDArray[np.floating], factors: list[Complex], last_axis: Callable[[NDArray[Any]], Complex]
) -> Complex:
    """Multiply the taps by the phases axis by axis, keep residues before channels."""
    g, h = taps.shape[-2:]
    partial: NDArray[Any] = taps.reshape(1, 1, *taps.shape)  # (residues, frequencies, *k, g, h)
    lengths = []
    for wave in factors:
        residues, points, k = wave.shape
        flat = wave.reshape(residues * points, k) @ partial.reshape(*partial.shape[:2], k, -1)
        flat = flat.reshape(*partial.shape[:2], residues, points, -1)
        flat = np.moveaxis(flat, 2, 1)
        partial = flat.reshape(partial.shape[0] * residues, partial.shape[1] * points, *partial.shape[3:])
        lengths.append(points)
    residues, points, k = partial.shape[:3]
    result = last_axis(partial.reshape(residues, points, k, g * h))  # (residues, points, q, n, g * h)
    lengths.append(result.shape[3])
    if residues * result.shape[2] == 1:
        return np.asarray(result.reshape(*lengths, g, h))
    result = result.reshape(residues, points, result.shape[2], -1, g, h)
    return np.ascontiguousarray(result.transpose(1, 3, 0, 2, 4, 5)).reshape(*lengths, -1, h)


def _last_axis_by_phases(wave: Complex, partial: NDArray[Any]) -> Complex:
    residues, points, k = wave.shape
    product = wave.reshape(residues * points, k) @ partial
    return np.asarray(product.reshape(*partial.shape[:2], residues, points, -1))


def _last_axis_by_fft(axis: Axis, partial: NDArray[Any], n: int, cut: slice) -> Complex:
    import pyfftw

    m, p = np.divmod(np.arange(axis.kernel) * axis.dilation, axis.stride)
    spread = np.zeros((*partial.shape[:2], axis.stride, n, partial.shape[-1]), np.complex128)
    for a in range(axis.kernel):  # taps further apart than the grid fall onto one another
        spread[:, :, p[a], m[a] % n] += partial[:, :, a]
    transform = pyfftw.builders.ifft(spread, axis=3, overwrite_input=True, planner_effort="FFTW_ESTIMATE")
    return np.asarray(transform(normalise_idft=False)[:, :, :, cut])
