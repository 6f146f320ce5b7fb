"""The tables that turn a convolution into products of kernel taps with shifted views of a padded copy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import NOTHING, Axis, ConvGeometry

Indices = NDArray[np.int64]

# Measured on one core: a padded copy moves about 1.5 elements per ns, BLAS makes about 50 flops per ns.
_COPY_SECONDS, _FLOP_SECONDS, _LOOP_FLOP_SECONDS = 0.7e-9, 2e-11, 5e-11
# With so few products per tap a jitted loop beats the call of BLAS (measured: 12 against 6 GFLOP/s at 1 x 1).
_LOOP_CHANNELS = 4
# OpenBLAS runs smaller products (m n k) in one thread by itself.
_BLAS_THREADS_FROM = 65536 * 4


@dataclass(frozen=True, kw_only=True)
class TapPlan:
    """Tables for the kernels of `_kernels.convolution`; axes are padded with leading ones to three.

    Attributes
    ----------
    sources : three (planes, positions) int64 ndarrays
        Input pixel at each place of the padded copy, `NOTHING` for none.
    row, shift : (T,) int64 ndarrays
        First row and constant shift of each tap in the padded copy.
    taps : (groups, T, m, h) ndarray
        Kernel entries of each tap; ``m = g``, or ``k3 g`` where the taps of the last axis are folded into rows.
    loop : bool
        Whether loops replace BLAS products.
    threaded : bool
        Whether BLAS would split a product over threads: on a busy machine a loss, so that the caller forbids it.
    input_shape, output_shape : (channels, N1, N2, N3)
        Shapes of the arrays that the plain convolution reads and writes.
    """

    sources: tuple[Indices, Indices, Indices]
    row: Indices
    shift: Indices
    taps: NDArray[np.floating]
    loop: bool
    threaded: bool
    input_shape: tuple[int, int, int, int]
    output_shape: tuple[int, int, int, int]


def plan_taps(geometry: ConvGeometry, kernel: NDArray[np.floating]) -> TapPlan:
    """Lay out the padded copy so that the estimated time of one application is least.

    Parameters
    ----------
    geometry : ConvGeometry
        Of the layer; a transposed one is planned as the plain convolution whose adjoint it is.
    kernel : (*k, g, h_total) ndarray
        Of the plain convolution, per group `g` input channels.
    """
    axes = _three_axes(geometry)
    g, h = kernel.shape[-2], kernel.shape[-1] // geometry.groups
    layout, loop = _best_layout(geometry)
    taps = kernel.reshape(*(axis.kernel for axis in axes), g, geometry.groups, h)
    taps = np.moveaxis(taps, -2, 0)
    taps = taps.reshape(geometry.groups, len(layout.shift), -1, h)
    channels_in, channels_out = geometry.plain_channels
    return TapPlan(
        sources=layout.sources,
        row=layout.plane * g,
        shift=layout.shift,
        taps=np.ascontiguousarray(taps),
        loop=loop,
        threaded=not loop and layout.length * taps.shape[2] * h > _BLAS_THREADS_FROM,
        input_shape=(channels_in, axes[0].inputs, axes[1].inputs, axes[2].inputs),
        output_shape=(channels_out, axes[0].outputs, axes[1].outputs, axes[2].outputs),
    )


def tap_seconds(geometry: ConvGeometry) -> float:
    """Estimate the time of one application by products per tap."""
    g, h = (channels // geometry.groups for channels in geometry.plain_channels)
    return geometry.groups * _best_layout(geometry)[0].seconds(g, h)


def _three_axes(geometry: ConvGeometry) -> tuple[Axis, Axis, Axis]:
    unit = Axis(kernel=1, stride=1, dilation=1, before=0, inputs=1, outputs=1, mode="zeros")
    first, second, third = (unit,) * (3 - geometry.ndim) + geometry.axes
    return first, second, third


def _best_layout(geometry: ConvGeometry) -> tuple[_Layout, bool]:
    g, h = (channels // geometry.groups for channels in geometry.plain_channels)
    axes = _three_axes(geometry)
    unfolded = _Layout(axes, fold=False)
    if g * h <= _LOOP_CHANNELS:
        return unfolded, True
    # Folding the last axis' taps into rows costs more copies and saves the products with the padding.
    folded = _Layout(axes, fold=True)
    return min(folded, unfolded, key=lambda layout: layout.seconds(g, h)), False


class _Layout:
    """Planes and positions of the padded copy, and where each tap finds its view.

    A strided axis is split into `stride` planes, one per residue of the padded position, so that neighbouring
    outputs read neighbouring positions. With `fold` the last axis has one plane per tap instead.
    """

    def __init__(self, axes: tuple[Axis, Axis, Axis], *, fold: bool) -> None:
        split = [_residues(axis) for axis in axes]
        if fold:
            split[2] = (axes[2].reads.T.copy(), np.zeros(1, np.int64), np.zeros(1, np.int64))
        self.sources = (split[0][0], split[1][0], split[2][0])
        planes3 = self.sources[2].shape[0]
        Q2, Q3 = self.sources[1].shape[1], self.sources[2].shape[1]
        plane1, plane2, plane3 = (s[1] for s in split)
        shift1, shift2, shift3 = (s[2] for s in split)
        plane = (plane1[:, None, None] * self.sources[1].shape[0] + plane2[:, None]) * planes3 + plane3
        shift = (shift1[:, None, None] * Q2 + shift2[:, None]) * Q3 + shift3
        self.plane, self.shift = plane.ravel(), shift.ravel()
        outputs = [axis.outputs for axis in axes]
        self.length = ((outputs[0] - 1) * Q2 + outputs[1] - 1) * Q3 + outputs[2]
        self._products = math.prod(axis.kernel for axis in axes) * self.length
        self._extra = 0 if self.length == math.prod(outputs) else self.length

    def seconds(self, g: int, h: int) -> float:
        """Estimate the time of one application per group."""
        copied = g * math.prod(source.size for source in self.sources) + h * self._extra
        flop = _LOOP_FLOP_SECONDS if g * h <= _LOOP_CHANNELS else _FLOP_SECONDS
        return _COPY_SECONDS * copied + flop * 2 * g * h * self._products


def _residues(axis: Axis) -> tuple[Indices, Indices, Indices]:
    """Split the padded positions by residue modulo the stride; plane and shift of each tap."""
    positions = -(-axis.padded // axis.stride)
    source = np.full(positions * axis.stride, NOTHING)
    source[: axis.padded] = axis.source
    tap = np.arange(axis.kernel) * axis.dilation
    return (
        np.ascontiguousarray(source.reshape(positions, axis.stride).T),
        tap % axis.stride,
        tap // axis.stride,
    )
