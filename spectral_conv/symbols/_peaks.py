"""Where the symbol is largest: a coarse grid, then refinement between its points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import ConvGeometry
from spectral_conv.symbols._transform import Complex, half_grid

# So many points per axis and tap see 95 % of the supremum or more; refinement does the rest.
_POINTS_PER_TAP = 4
# Larger symbol matrices are scanned by a few block power steps instead of full decompositions.
_POWER_RANK, _POWER_STEPS, _POWER_BLOCK = 24, 4, 4


@dataclass(frozen=True, kw_only=True)
class SymbolPeak:
    """A local maximum of the largest singular value of the symbol.

    Attributes
    ----------
    frequency : (axes,) ndarray
        On the coarse grid of a strided convolution, radians.
    value : float
        Largest singular value there.
    vector : (residues, g) complex ndarray
        Its right singular vector.
    """

    frequency: NDArray[np.floating]
    value: float
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

    def symbol(self, t: NDArray[np.floating]) -> Complex:
        """Return the symbols ``(..., h, residues * g)`` at the frequencies `t` (..., axes)."""
        wave = np.exp(1j * t @ self.shift.T)
        F = np.empty((*t.shape[:-1], self.residues, *self.taps.shape[1:]), np.complex128)
        for p in range(self.residues):
            own = self.residue == p
            F[..., p, :, :] = np.tensordot(wave[..., own], self.taps[own], axes=1)
        return np.swapaxes(F.reshape(*t.shape[:-1], -1, self.taps.shape[-1]), -1, -2)

    def coefficients(self, u: Complex, v: Complex) -> Complex:
        """Return `c` with ``u^H F(t) v = sum_a c_a exp(i m_a.t)``."""
        blocks = v.reshape(self.residues, -1)[self.residue]
        return np.asarray(np.einsum("ag,agh,h->a", blocks, self.taps, np.conj(u), optimize=True))


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
    values = _largest_values(waves, flat).reshape(grid.shape[:-1])
    peaks: list[SymbolPeak] = []
    for i in _local_maxima(values)[: 2 * count]:
        peak = _refine(waves, flat[i])
        if not any(_same(peak.frequency / spread, other.frequency / spread) for other in peaks):
            peaks.append(peak)
    return sorted(peaks, key=lambda peak: -peak.value)[:count]


def _same(t: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    """Whether two frequencies agree up to sign and full turns: the symbol is conjugate there."""
    return any(bool(np.all(np.abs(np.exp(1j * (t - sign * other)) - 1) < 1e-3)) for sign in (1, -1))


def _largest_values(waves: TapWaves, frequencies: NDArray[np.floating]) -> NDArray[np.floating]:
    matrices = waves.symbol(frequencies)
    if min(matrices.shape[1:]) <= _POWER_RANK:
        return np.asarray(np.linalg.svd(matrices, compute_uv=False)[:, 0])
    adjoint = np.conj(np.swapaxes(matrices, -1, -2))
    block = np.random.default_rng(0).standard_normal((matrices.shape[2], _POWER_BLOCK))
    X = np.broadcast_to(block.astype(np.complex128), (len(matrices), *block.shape))
    for _ in range(_POWER_STEPS):
        X, _ = np.linalg.qr(adjoint @ (matrices @ X))
    return np.asarray(np.linalg.svd(matrices @ X, compute_uv=False)[:, 0])


def _local_maxima(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Flat indices of the grid points above all their neighbours, best first; the best point at least."""
    # The last axis covers half a period: repeat its border instead of wrapping around.
    wrapped = np.pad(values, [(1, 1)] * (values.ndim - 1) + [(0, 0)], mode="wrap")
    padded = np.pad(wrapped, [(0, 0)] * (values.ndim - 1) + [(1, 1)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3,) * values.ndim)
    highest = windows.max(axis=tuple(range(values.ndim, 2 * values.ndim)))
    candidates = np.flatnonzero((values >= highest * (1 - 1e-12)).ravel())
    return np.asarray(candidates[np.argsort(-values.ravel()[candidates], kind="stable")])


def _refine(waves: TapWaves, t: NDArray[np.floating], rounds: int = 8) -> SymbolPeak:
    """Alternate between the best vectors at a frequency and the best frequency for these vectors."""
    F = waves.symbol(t)
    u, s, vh = np.linalg.svd(F, full_matrices=False)
    left, right, value = u[:, 0], np.conj(vh[0]), float(s[0])
    for _ in range(rounds):
        t = t + _newton_step(waves.shift, waves.coefficients(left, right), t)
        F = waves.symbol(t)
        for _ in range(2):
            left = F @ right
            left = left / max(np.linalg.norm(left), np.finfo(float).tiny)
            right = np.conj(F.T) @ left
            new = float(np.linalg.norm(right))
            right = right / max(new, np.finfo(float).tiny)
        if new <= value * (1 + 1e-10):
            break
        value = new
    return SymbolPeak(frequency=t, value=value, vector=right.reshape(waves.residues, -1))


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
