"""Where the symbol is largest: a coarse grid, then refinement between its points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import ConvGeometry
from spectral_conv.symbols._transform import Complex, half_grid

# So many points per axis and tap see 95 % of the supremum or more; refinement does the rest.
_POINTS_PER_TAP = 4
# Lanczos steps at every point of the coarse grid, at the best of them, and while these move; they move until they
# gain less than this share.
_SCAN_STEPS, _LANCZOS_STEPS, _REFINE_STEPS, _ROUNDS, _GAIN = 8, 8, 5, 4, 1e-4
# Local maxima of the scan that are looked at more closely.
_CANDIDATES = 8
# Symbols held at one time.
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class SymbolPeak:
    """A local maximum of the largest singular value of the symbol.

    Attributes
    ----------
    frequency : (axes,) ndarray
        On the coarse grid of a strided convolution, radians.
    value : float
        Largest singular value there.
    left : (h,) complex ndarray
        Its left singular vector.
    vector : (residues, g) complex ndarray
        Its right singular vector.
    """

    frequency: NDArray[np.floating]
    value: float
    left: Complex
    vector: Complex


class TapWaves:
    """The symbol of one group at any frequency, tap by tap."""

    def __init__(self, geometry: ConvGeometry, taps: NDArray[np.floating]) -> None:
        grids = np.meshgrid(*(np.arange(k) for k in geometry.kernel_size), indexing="ij")
        steps = np.stack([a.ravel() * d for a, d in zip(grids, geometry.dilation, strict=True)], axis=1)
        self.shift, residue = np.divmod(steps, geometry.stride)
        self.residue = np.ravel_multi_index(tuple(residue.T), geometry.stride)
        self.residues = int(np.prod(geometry.stride))
        self.taps = taps.reshape(len(self.shift), *taps.shape[-2:])

    @property
    def rows(self) -> int:
        """Rows of the transposed symbol: residues of the stride times input channels."""
        return self.residues * self.taps.shape[1]

    def transposed(self, t: NDArray[np.floating], dtype: type = np.complex128) -> Complex:
        """Return the transposed symbols ``(..., residues * g, h)`` at the frequencies `t` (..., axes)."""
        angles = t @ self.shift.T
        real = np.stack([np.cos(angles), np.sin(angles)]).astype(np.finfo(dtype).dtype)
        taps = self.taps.reshape(len(self.taps), -1).astype(real.dtype, copy=False)
        F = np.empty((*t.shape[:-1], self.residues, *self.taps.shape[1:]), dtype)
        for p in range(self.residues):
            own = self.residue == p
            part = (real[..., own] @ taps[own]).reshape(2, *t.shape[:-1], *self.taps.shape[1:])
            F[..., p, :, :].real, F[..., p, :, :].imag = part
        return F.reshape(*t.shape[:-1], -1, self.taps.shape[-1])

    def symbol(self, t: NDArray[np.floating]) -> Complex:
        """Return the symbols ``(..., h, residues * g)`` at the frequencies `t` (..., axes)."""
        return np.swapaxes(self.transposed(t), -1, -2)

    def coefficients(self, u: Complex, v: Complex) -> Complex:
        """Return `c` with ``u^H F(t) v = sum_a c_a exp(i m_a.t)``."""
        parts = self.taps.reshape(-1, self.taps.shape[-1]) @ np.stack([u.real, -u.imag], axis=1)
        products = (parts[:, 0] + 1j * parts[:, 1]).reshape(self.taps.shape[:2])
        return np.asarray((products * v.reshape(self.residues, -1)[self.residue]).sum(axis=1))


def symbol_peaks(geometry: ConvGeometry, taps: NDArray[np.floating], count: int = 2) -> list[SymbolPeak]:
    """Return up to `count` refined local maxima, best first (one of each pair w, -w)."""
    if geometry.stride == (1,) * geometry.ndim:
        sizes = [_POINTS_PER_TAP * k for k in geometry.kernel_size]  # of the undilated symbol
        spread = 1.0 / np.asarray(geometry.dilation)
    else:
        reach = [axis.dilation * (axis.kernel - 1) // axis.stride + 1 for axis in geometry.axes]
        sizes = [_POINTS_PER_TAP * r for r in reach]
        spread = np.ones(geometry.ndim)
    waves = TapWaves(geometry, taps)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in half_grid(sizes)), indexing="ij"), axis=-1)
    frequencies = 2 * np.pi * grid / sizes * spread
    flat = frequencies.reshape(-1, geometry.ndim)
    values, vectors = _scan(waves, flat)
    best = _local_maxima(values.reshape(grid.shape[:-1]))[:_CANDIDATES]
    found = _at(waves, flat[best], vectors[best], _LANCZOS_STEPS)
    peaks: list[SymbolPeak] = []
    for start in sorted(found, key=lambda peak: -peak.value)[: 1 + count]:
        peak = _refine(waves, start)
        if not any(_same(peak.frequency / spread, other.frequency / spread) for other in peaks):
            peaks.append(peak)
    return sorted(peaks, key=lambda peak: -peak.value)[:count]


def _same(t: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    """Whether two frequencies agree up to sign and full turns: the symbol is conjugate there."""
    return any(bool(np.all(np.abs(np.exp(1j * (t - sign * other)) - 1) < 1e-3)) for sign in (1, -1))


def _scan(waves: TapWaves, frequencies: NDArray[np.floating]) -> tuple[NDArray[np.floating], Complex]:
    """Largest singular values, nearly, and right singular vectors."""
    rows = waves.rows
    values, vectors = np.empty(len(frequencies)), np.empty((len(frequencies), rows), np.complex64)
    chunk = max(1, _CHUNK_BYTES // (8 * rows * waves.taps.shape[2]))
    start = np.random.default_rng(0).standard_normal(rows).astype(np.complex64)
    for i in range(0, len(frequencies), chunk):
        F = waves.transposed(frequencies[i : i + chunk], np.complex64)
        _, values[i : i + chunk], vectors[i : i + chunk] = _top_pairs(
            F, np.broadcast_to(start, (len(F), rows)), _SCAN_STEPS
        )
    return values, vectors


def _top_pairs(F: Complex, start: Complex, steps: int) -> tuple[Complex, NDArray[np.floating], Complex]:
    """Largest singular values, from below, of the symbols whose transposes are ``F (n, m, h)``, by Lanczos steps.

    Returns left vectors (n, h), values (n,) and right vectors (n, m).
    """
    count, m, h = F.shape
    steps = min(steps, m, h)
    basis, images = np.zeros((count, steps, m), F.dtype), np.zeros((count, steps, h), F.dtype)
    tiny = np.finfo(F.real.dtype).tiny
    # One step of the power method first: the part of the start that F does not see is no use.
    v = np.conj((F @ np.conj(start[:, None, :] @ F)[:, 0, :, None])[..., 0])
    for i in range(steps):
        for _ in range(2 if i else 0):
            known = basis[:, :i]
            v = v - (np.swapaxes(known, 1, 2) @ (np.conj(known) @ v[:, :, None]))[..., 0]
        norms = np.linalg.norm(v, axis=1, keepdims=True)
        # What an invariant subspace leaves is rounding: no further vector.
        v = np.where(norms > (1e-5 if i else 0.0), v / np.maximum(norms, tiny), 0.0).astype(F.dtype, copy=False)
        basis[:, i], images[:, i] = v, (v[:, None, :] @ F)[:, 0]
        v = np.conj((F @ np.conj(images[:, i, :, None]))[..., 0])
        v = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), tiny)
    squares, turn = np.linalg.eigh(np.conj(images) @ np.swapaxes(images, 1, 2))
    values = np.sqrt(np.maximum(squares[:, -1], 0.0))
    best = turn[:, None, :, -1]
    return (best @ images)[:, 0] / np.maximum(values, tiny)[:, None], values, (best @ basis)[:, 0]


def _local_maxima(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Flat indices of the grid points above all their neighbours, best first; the best point at least."""
    # The last axis covers half a period: repeat its border instead of wrapping around.
    wrapped = np.pad(values, [(1, 1)] * (values.ndim - 1) + [(0, 0)], mode="wrap")
    padded = np.pad(wrapped, [(0, 0)] * (values.ndim - 1) + [(1, 1)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3,) * values.ndim)
    highest = windows.max(axis=tuple(range(values.ndim, 2 * values.ndim)))
    candidates = np.flatnonzero((values >= highest * (1 - 1e-12)).ravel())
    return np.asarray(candidates[np.argsort(-values.ravel()[candidates], kind="stable")])


def top_values(waves: TapWaves, t: NDArray[np.floating], start: Complex) -> NDArray[np.floating]:
    """Largest singular values at the frequencies (n, axes), from below, by a few Lanczos steps from the vectors."""
    return _top_pairs(waves.transposed(t), start.reshape(len(t), -1).astype(np.complex128), _LANCZOS_STEPS)[1]


def _at(waves: TapWaves, t: NDArray[np.floating], start: Complex, steps: int) -> list[SymbolPeak]:
    """Look at the frequencies `t` (n, axes), from the vectors `start` (n, ...)."""
    found = _top_pairs(waves.transposed(t), start.reshape(len(t), -1).astype(np.complex128), steps)
    return [
        SymbolPeak(frequency=x, value=float(value), left=left, vector=right.reshape(waves.residues, -1))
        for x, left, value, right in zip(t, *found, strict=True)
    ]


def _refine(waves: TapWaves, peak: SymbolPeak) -> SymbolPeak:
    """Alternate between the best vectors at a frequency and the best frequency for these vectors."""
    damping = 1.0
    for _ in range(_ROUNDS):
        coefficients = waves.coefficients(peak.left, peak.vector.ravel())
        step = damping * _newton_step(waves.shift, coefficients, peak.frequency)
        new = _at(waves, (peak.frequency + step)[None], peak.vector[None], _REFINE_STEPS)[0]
        if new.value <= peak.value:
            # The vectors turn with the frequency, which Newton's step does not see.
            damping /= 4.0
            continue
        gained, peak = new.value - peak.value, new
        if gained <= _GAIN * peak.value:
            break
    return peak


def _newton_step(shift: NDArray[np.int64], c: Complex, t: NDArray[np.floating]) -> NDArray[np.floating]:
    """Newton step for the maximum of ``|sum_a c_a exp(i m_a.t)|^2``; zero where the function is not concave."""
    terms = c * np.exp(1j * shift @ t)
    p, dp = terms.sum(), 1j * shift.T @ terms
    ddp = -(shift.T * terms) @ shift
    gradient = 2 * np.real(np.conj(p) * dp)
    hessian = 2 * np.real(np.outer(np.conj(dp), dp) + np.conj(p) * ddp)
    values, vectors = np.linalg.eigh(hessian)
    if values[-1] >= -1e-12 * abs(values[0]):
        return np.zeros_like(t)
    return np.asarray(-vectors @ ((vectors.T @ gradient) / values))
