"""The inverse of ``tau I - A`` for the circulant that resembles A: one small matrix per frequency."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from spectral_conv._threads import run_parallel
from spectral_conv.geometry import ConvGeometry
from spectral_conv.operator import ConvOperator
from spectral_conv.symbols._transform import Complex, SymbolBox, boxes, evaluate_box, group_taps, half_grid

# The padded grid is larger than the image, so that waves need not fit it exactly; tau lies just above the symbol.
_STRETCH, _ABOVE = 1.2, 1.001
# Squares below this share of the largest have no vectors worth keeping.
_VANISHING = 1e-10
# Frequencies that a thread decomposes at one time.
_CHUNK_BYTES = 2 << 20
# Measured time of a Hermitian decomposition of order c: a call, and per c^3.
_CALL_SECONDS, _CUBE_SECONDS = 1.5e-5, 2e-9
_VECTOR_SECONDS = 1.2e-9  # an entry of a vector at a frequency, both ways


class CirculantPreconditioner:
    r"""Apply ``(tau I - G(w))^{-1}`` at every frequency of a padded grid.

    ``G = F F^H`` on the outputs of a strided convolution, else on the side with fewer channels; `tau` is a little
    above the largest ``||F||^2``, so that the operator is positive and largest where the sought vectors live.

    Attributes
    ----------
    on_outputs : bool
        Whether vectors live on the outputs of the plain convolution.
    """

    def __init__(self, conv: ConvOperator) -> None:
        geometry = conv.geometry
        self.on_outputs = lives_on_outputs(geometry)
        self._image = _image(geometry)
        self._grid = _grid(geometry)
        self._channels = geometry.plain_channels[1 if self.on_outputs else 0]
        half = half_grid(self._grid)
        rank = min(geometry.plain_channels[1], geometry.plain_channels[0] * math.prod(geometry.stride))
        self._vectors = np.empty((*half, self._channels, rank), np.complex128)
        squares = np.empty((*half, rank))
        taps = group_taps(geometry, conv.plain_kernel, 0)

        def decompose(box: SymbolBox) -> None:
            symbols = evaluate_box(geometry, taps, self._grid, box.slices)  # transposed: (..., inputs, outputs)
            near = np.swapaxes(symbols, -1, -2) if self.on_outputs else np.conj(symbols)
            squares[box.slices], self._vectors[box.slices] = _decomposition(near)

        run_parallel(decompose, boxes(geometry, half, 16 * self._channels * rank, _CHUNK_BYTES))
        tau = _ABOVE * float(squares.max())
        # Directions without a vector have the value 0.
        self._base = 1.0 / tau
        self._gains = (1.0 / (tau - squares) - self._base)[..., None]

    def __call__(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the preconditioned rows."""
        result = np.empty_like(rows)
        spatial = range(1, 1 + len(self._image))
        crop = tuple(slice(0, n) for n in self._image)
        for i, row in enumerate(rows):
            waves = scipy.fft.rfftn(row.reshape(self._channels, *self._image), self._grid, axes=spatial)
            columns = np.moveaxis(waves, 0, -1)[..., None]
            # conj(conj(c)^T V) = V^H c without a second copy of V.
            inner = np.conj(np.swapaxes(np.conj(columns), -1, -2) @ self._vectors).swapaxes(-1, -2)
            columns = self._base * columns + self._vectors @ (self._gains * inner)
            full = scipy.fft.irfftn(np.moveaxis(columns[..., 0], -1, 0), self._grid, axes=spatial)
            result[i] = full[(slice(None), *crop)].reshape(-1)
        return result


def lives_on_outputs(geometry: ConvGeometry) -> bool:
    """Whether the outputs of the plain convolution are the side to work on."""
    channels_in, channels_out = geometry.plain_channels
    return channels_out < channels_in or geometry.stride != (1,) * geometry.ndim


def preconditioner_bytes(geometry: ConvGeometry) -> int:
    """Memory of the vectors at all frequencies, and of one application."""
    order, channels, points = _sizes(geometry)
    return 16 * points * (order * channels + 8 * channels)


def preconditioner_seconds(geometry: ConvGeometry) -> tuple[float, float]:
    """Estimate the time to set up, on one thread, and the time of one application."""
    order, channels, points = _sizes(geometry)
    return points * (_CALL_SECONDS + _CUBE_SECONDS * order**3), _VECTOR_SECONDS * points * channels * (order + 20)


def _decomposition(near: Complex) -> tuple[NDArray[np.floating], Complex]:
    """Eigenvalues and vectors of ``near near^H`` other than zero, by the smaller of the two Gram matrices."""
    adjoint = np.conj(np.swapaxes(near, -1, -2))
    if near.shape[-2] <= near.shape[-1]:
        squares, vectors = np.linalg.eigh(near @ adjoint)
        return squares, vectors
    squares, far = np.linalg.eigh(adjoint @ near)
    # A vanishing value has no vector of its own here, and needs none: its gain is nearly zero.
    norms = np.sqrt(np.maximum(squares, max(_VANISHING * float(squares.max()), np.finfo(float).tiny)))
    return squares, near @ far / norms[..., None, :]


def _image(geometry: ConvGeometry) -> tuple[int, ...]:
    side = "outputs" if lives_on_outputs(geometry) else "inputs"
    return tuple(getattr(axis, side) for axis in geometry.axes)


def _grid(geometry: ConvGeometry) -> tuple[int, ...]:
    return tuple(scipy.fft.next_fast_len(math.ceil(_STRETCH * n) + 1, real=True) for n in _image(geometry))


def _sizes(geometry: ConvGeometry) -> tuple[int, int, int]:
    channels_in, channels_out = geometry.plain_channels
    order = min(channels_out, channels_in * math.prod(geometry.stride))
    points: Sequence[int] = half_grid(_grid(geometry))
    return order, geometry.plain_channels[1 if lives_on_outputs(geometry) else 0], math.prod(points)
