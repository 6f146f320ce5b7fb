"""Plane waves with the vectors of a symbol: the singular vectors of circulant operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.symbols._transform import Complex


def input_wave(conv: ConvOperator, t: NDArray[np.floating], v: Complex) -> Complex:
    """Return ``exp(i t.m) v[p]``, where input pixel n stands at padded position ``n + before = s m + p``.

    Shape ``(g, *inputs)`` of the plain convolution; a unit vector if `v` is one and the stride divides the input.
    """
    axes = conv.geometry.axes
    result = np.moveaxis(v.reshape(*(axis.stride for axis in axes), -1), -1, 0)
    for i, axis in enumerate(axes):
        m, p = np.divmod(np.arange(axis.inputs) + axis.before, axis.stride)
        result = np.take(result, p, axis=1 + i) * _along(i, len(axes), np.exp(1j * t[i] * m))
    return np.asarray(result / math.sqrt(math.prod(axis.outputs for axis in axes)))


def output_wave(conv: ConvOperator, t: NDArray[np.floating], u: Complex) -> Complex:
    """Return ``exp(i t.r) u`` over the output pixels r, shape ``(h, *outputs)``; a unit vector if `u` is one."""
    axes = conv.geometry.axes
    result = u.reshape(-1, *(1,) * len(axes))
    for i, axis in enumerate(axes):
        result = result * _along(i, len(axes), np.exp(1j * t[i] * np.arange(axis.outputs)))
    return np.asarray(result / math.sqrt(math.prod(axis.outputs for axis in axes)))


def sine_window(conv: ConvOperator) -> NDArray[np.floating]:
    """Return ``prod_j sin(pi (n_j + 1) / (N_j + 1))`` over the input pixels of the plain convolution."""
    axes = conv.geometry.axes
    window: NDArray[np.floating] = np.ones(())
    for i, axis in enumerate(axes):
        line = np.sin(np.pi * (np.arange(axis.inputs) + 1) / (axis.inputs + 1))
        window = window * _along(i, len(axes), line)
    return window


def _along(i: int, ndim: int, line: NDArray[Any]) -> NDArray[Any]:
    """View a line along axis `i` of `ndim`."""
    return line.reshape(-1, *(1,) * (ndim - 1 - i))
