r"""The norm ball of the symbol on a grid of frequencies: nearly that of the layer, at a cost that is free of N.

``||F(w)|| <= c`` on the frequencies of a torus that contains the image is enough for ``||M|| <= c``; on a coarse grid
nearly so. Necessary is the same with a window: let y and x be waves ``u q_out(r) exp(i w.r)``,
``v q_in(r) exp(i w.r)`` whose windows have unit norm (that of x on the pixels of every residue of the stride, per
axis). Then ``<y, M x> = u^H F_omega(w) v``, where the taps of F_omega are ``omega_a K[a]``,
``omega_a = sum_r q_out(r) q_in(pixel that r reads through a)``, close to 1 for sine windows on large images; so
``||F_omega(w)|| <= ||M||`` for every w.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import NOTHING, Axis
from spectral_conv.operator import ConvOperator
from spectral_conv.orthogonal._admm import Array, Ball
from spectral_conv.orthogonal._torus_taps import TorusTaps
from spectral_conv.spectrum.circulant import is_circulant
from spectral_conv.spectrum.embedding import smallest_size

# Frequencies per axis and tap, unless the torus of the image has fewer.
_POINTS_PER_TAP = 6


def symbol_ball(conv: ConvOperator) -> Ball:
    """All groups at once; of a layer with circular padding on its own torus."""
    geometry, circular = conv.geometry, is_circulant(conv)
    grid = [axis.inputs if circular else _grid_size(axis) for axis in geometry.axes]
    # Where padding mirrors pixels the symbol is that of the interior.
    taps = TorusTaps.of(dataclasses.replace(geometry, padding_mode="zeros"), grid)
    axes = tuple(range(geometry.ndim))
    root = math.sqrt(math.prod(taps.sizes))
    weight = np.full(taps.sizes[-1] // 2 + 1, 2.0)  # the half grid stands for the conjugate half, too
    weight[0] = 1.0
    if taps.sizes[-1] % 2 == 0:
        weight[-1] = 1.0

    def forward(x: NDArray[np.float64]) -> Array:
        return np.asarray(np.fft.rfftn(taps.spread(x), axes=axes) / root)

    def adjoint(image: Array) -> NDArray[np.float64]:
        return taps.gathered(np.fft.irfftn(image, s=taps.sizes, axes=axes) * root)

    def solve(r: NDArray[np.float64], rho: float) -> NDArray[np.float64]:
        return r / (1.0 + rho)  # the taps do not fall onto one another: T is an isometry

    def clip(image: Array, c: float) -> Array:
        shape = image.shape
        flat = image.reshape(-1, *shape[-2:])
        adjoint_ = np.conj(np.swapaxes(flat, 1, 2))
        wide = shape[-2] <= shape[-1]
        squares, vectors = np.linalg.eigh(flat @ adjoint_ if wide else adjoint_ @ flat)
        values = np.sqrt(np.maximum(squares, 0.0))
        excess = 1.0 - np.minimum(1.0, (c / root) / np.maximum(values, c / root))
        projector = (vectors * excess[:, None, :]) @ np.conj(np.swapaxes(vectors, 1, 2))
        return np.asarray(flat - (projector @ flat if wide else flat @ projector)).reshape(shape)

    def support(dual: Array, c: float) -> float:
        sums = np.linalg.svd(dual, compute_uv=False).sum(axis=(-2, -1))  # (*half grid)
        return c / root * float((sums * weight).sum())

    window = np.ones(())
    for axis in geometry.axes:
        window = np.multiply.outer(window, np.ones(axis.kernel) if circular else axis_window(axis))
    return Ball(
        forward=forward, adjoint=adjoint, solve=solve, clip=clip, support=support, window=window[..., None, None]
    )


def _grid_size(axis: Axis) -> int:
    extent = axis.dilation * (axis.kernel - 1) + 1
    coarse = _POINTS_PER_TAP * (-(-extent // axis.stride)) * axis.stride
    enough = smallest_size(axis) if axis.mode == "zeros" else coarse
    return max(min(coarse, enough), -(-extent // axis.stride) * axis.stride)


def axis_window(axis: Axis) -> NDArray[np.float64]:
    """Weights omega of the taps of one axis, from sine windows; outputs that read mirrored pixels are left out."""
    inside = axis.reads == np.arange(axis.outputs)[:, None] * axis.stride + (
        np.arange(axis.kernel)[None, :] * axis.dilation - axis.before
    )
    used = np.ones(axis.outputs, np.bool_) if axis.mode == "zeros" else inside.all(axis=1)
    places = np.flatnonzero(used)
    if not len(places):
        return np.zeros(axis.kernel)
    first, count = places[0], len(places)
    out = np.where(used, np.sin(np.pi * (np.arange(axis.outputs) - first + 1.0) / (count + 1.0)), 0.0)
    centre = (np.arange(axis.inputs) + axis.before - axis.dilation * (axis.kernel - 1) / 2.0) / axis.stride
    into = np.sin(np.pi * np.clip((centre - first + 1.0) / (count + 1.0), 0.0, 1.0))
    residue = (np.arange(axis.inputs) + axis.before) % axis.stride
    for p in range(axis.stride):
        size = np.linalg.norm(into[residue == p])
        into[residue == p] /= size if size > 0.0 else 1.0
    out /= np.linalg.norm(out)
    known = (axis.reads != NOTHING) & inside & used[:, None]
    return np.asarray((np.where(known, into[axis.reads], 0.0) * out[:, None]).sum(axis=0))
