"""The convolution by FFT: for kernels so large that products per tap cost more."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from spectral_conv._kernels import convolution
from spectral_conv.geometry import Axis, ConvGeometry

# Measured on one core: overhead of a call, a point of a transform per doubling, a product at a frequency.
_CALL_SECONDS, _TRANSFORM_SECONDS, _PRODUCT_SECONDS = 6e-5, 0.3e-9, 0.7e-9


class FourierPlan:
    """Apply a convolution and its adjoint through transforms long enough that nothing wraps around.

    Parameters
    ----------
    geometry : ConvGeometry
        Of the layer; a transposed one is planned as the plain convolution whose adjoint it is.
    kernel : (*k, g, h_total) ndarray
        Of the plain convolution.
    """

    def __init__(self, geometry: ConvGeometry, kernel: NDArray[np.floating]) -> None:
        self._axes = geometry.axes
        self._groups = geometry.groups
        self._channels = geometry.plain_channels
        self._size = [transform_length(axis) for axis in self._axes]
        spread = np.zeros(
            tuple(axis.dilation * (axis.kernel - 1) + 1 for axis in self._axes) + kernel.shape[-2:],
            kernel.dtype,
        )
        # Weights that only meet padding would spoil the others' digits.
        read = np.where(geometry.read_taps[..., None, None], kernel, np.zeros((), kernel.dtype))
        spread[tuple(slice(None, None, axis.dilation) for axis in self._axes)] = read
        g, h = kernel.shape[-2], kernel.shape[-1] // self._groups
        spatial = range(len(self._axes))
        hat = scipy.fft.rfftn(spread, self._size, axes=spatial)
        hat = hat.reshape(*hat.shape[:-2], g, self._groups, h)
        self._hat = np.ascontiguousarray(np.moveaxis(hat, -2, 0))  # (groups, *frequencies, g, h)

    def forward(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return ``M x`` for `x` of shape (channels, *inputs)."""
        padded = np.empty((x.shape[0], *(axis.padded for axis in self._axes)), x.dtype)
        convolution.pad(_three(x, 1), *self._sources(), padded.reshape(x.shape[0], -1))
        y = self._filter(padded, self._hat, self._channels[1], conjugate=True)
        return np.ascontiguousarray(y[(slice(None), *self._strided())])

    def adjoint(self, y: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return ``M^T y`` for `y` of shape (channels, *outputs)."""
        spread = np.zeros((y.shape[0], *(axis.padded for axis in self._axes)), y.dtype)
        spread[(slice(None), *self._strided())] = y
        full = self._filter(spread, np.swapaxes(self._hat, -1, -2), self._channels[0], conjugate=False)
        padded = np.ascontiguousarray(full[(slice(None), *(slice(axis.padded) for axis in self._axes))])
        x = np.zeros((self._channels[0], *(axis.inputs for axis in self._axes)), y.dtype)
        convolution.unpad(padded.reshape(x.shape[0], -1), *self._sources(), _three(x, 1))
        return x

    def _filter(
        self, x: NDArray[np.floating], hat: NDArray[np.complexfloating], channels: int, *, conjugate: bool
    ) -> NDArray[np.floating]:
        """Multiply the channels of `x` by `hat`, or by its conjugate, at every frequency."""
        spatial = range(1, x.ndim)
        X = scipy.fft.rfftn(x, self._size, axes=spatial)
        # Conjugating the vectors twice is cheaper than the matrices once.
        X = np.conj(X) if conjugate else X
        rows = np.moveaxis(X.reshape(self._groups, -1, *X.shape[1:]), 1, -1)[..., None, :]
        Y = np.moveaxis((rows @ hat)[..., 0, :], -1, 1).reshape(channels, *X.shape[1:])
        return scipy.fft.irfftn(np.conj(Y) if conjugate else Y, self._size, axes=spatial)

    def _strided(self) -> tuple[slice, ...]:
        return tuple(slice(0, (axis.outputs - 1) * axis.stride + 1, axis.stride) for axis in self._axes)

    def _sources(self) -> list[NDArray[np.int64]]:
        single = [np.zeros((1, 1), np.int64)] * (3 - len(self._axes))
        return single + [axis.source[None, :].astype(np.int64) for axis in self._axes]


def _three(x: NDArray[np.floating], leading: int) -> NDArray[np.floating]:
    """View `x` with three spatial axes after `leading` others."""
    return x.reshape(*x.shape[:leading], *(1,) * (3 + leading - x.ndim), *x.shape[leading:])


def transform_length(axis: Axis) -> int:
    """Return a fast length at which the taps do not wrap around onto valid outputs."""
    return int(scipy.fft.next_fast_len(axis.padded, real=True))


def fourier_seconds(geometry: ConvGeometry) -> float:
    """Estimate the time of one application by FFT."""
    points = math.prod(transform_length(axis) for axis in geometry.axes)
    g, h = geometry.plain_channels
    transforms = (g + h) * points * math.log2(points + 1)
    return _CALL_SECONDS + _TRANSFORM_SECONDS * transforms + _PRODUCT_SECONDS * g * h / geometry.groups * points
