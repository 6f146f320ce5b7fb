"""All singular values of the block circulant matrix that shares the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels import singular_values as kernels
from spectral_conv._threads import run_parallel
from spectral_conv.geometry import ConvGeometry, per_axis
from spectral_conv.operator import ConvOperator
from spectral_conv.symbols._transform import (
    SymbolBox,
    boxes,
    coarse_grid,
    evaluate_box,
    group_taps,
    half_grid,
    require_symbol,
)

# Symbols held at one time per thread; enough boxes that threads finish together, none too small to be worth it.
_MOST_BYTES, _LEAST_BYTES, _BOXES = 8 << 20, 64 << 10, 8
# Up to this many entries the interleaved bidiagonalization beats LAPACK (measured: 10.8 against 20.4 us at
# 16 x 16, 53 against 71 at 32 x 32, 322 against 295 at 64 x 64).
_INTERLEAVED_ENTRIES = 2048


@dataclass(frozen=True, kw_only=True)
class CirculantVectors:
    """Singular value decompositions of the symbol on a frequency grid.

    Attributes
    ----------
    values : (*half, groups, r) ndarray
        Singular values on half of the frequencies (the others are conjugates).
    output_vectors : (*half, groups, out / groups, r) ndarray
        Left singular vectors of the symbol.
    input_vectors : (*half, groups, residues * in / groups, r) ndarray
        Right singular vectors; residues of the stride before channels.
    """

    values: NDArray[np.floating]
    output_vectors: NDArray[np.complexfloating]
    input_vectors: NDArray[np.complexfloating]


def checked_grid(geometry: ConvGeometry, grid: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the frequency grid: `grid`, or the input size rounded up to multiples of the stride."""
    if grid is None:
        return tuple(-(-axis.inputs // axis.stride) * axis.stride for axis in geometry.axes)
    sizes = per_axis("grid", grid, geometry.ndim, minimum=1)
    if any(n % s for n, s in zip(sizes, geometry.stride, strict=True)):
        raise ValueError(f"`grid` must have multiples of the stride {geometry.stride}; got {grid!r}.")
    return sizes


def symbol(conv: ConvOperator, grid: int | Sequence[int] | None = None) -> NDArray[np.complexfloating]:
    r"""Symbol of the convolution on a frequency grid.

    ``F(w) = sum_a K[a]^T exp(i w.(a d))`` at ``w = 2 pi j / grid``; padding only shifts the phase, and the stride
    is not part of it (`circulant_singular_values` takes it in).

    Parameters
    ----------
    conv : ConvOperator
        Of a transposed layer the symbol of the adjoint is returned.
    grid : int or tuple of int, optional
        Frequencies per axis; default: the input size rounded up to multiples of the stride.

    Returns
    -------
    (*grid, out, in) complex ndarray
        Block diagonal for groups; dimensionless. Exact up to rounding.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    References
    ----------
    H. Sedghi, V. Gupta, P. M. Long, "The singular values of convolutional layers", ICLR 2019, Theorem 6.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 1, 1)), input_shape=4, layout="WIO")
    >>> spectral_conv.symbol(conv).ravel().round(6).real + 0.0
    array([3., 0., 1., 0.])
    """
    geometry = conv.geometry
    require_symbol(geometry)
    sizes = checked_grid(geometry, grid)
    channels_in, channels_out = geometry.plain_channels
    result = np.zeros((*sizes, channels_out, channels_in), np.complex128)
    kernel = conv.plain_kernel.reshape(*geometry.kernel_size, -1, channels_out)
    partial: NDArray[Any] = kernel.astype(np.float64)
    for axis, n in zip(geometry.axes, sizes, strict=True):
        wave = np.exp(2j * np.pi / n * np.outer(np.arange(n), np.arange(axis.kernel) * axis.dilation))
        # The transformed axis goes last among the spatial ones: after all of them the order is right again.
        partial = np.moveaxis(np.tensordot(wave, partial, axes=(1, 0)), 0, geometry.ndim - 1)
    g, h = channels_in // geometry.groups, channels_out // geometry.groups
    for group in range(geometry.groups):
        rows, columns = slice(group * h, (group + 1) * h), slice(group * g, (group + 1) * g)
        result[..., rows, columns] = np.swapaxes(partial[..., rows], -1, -2)
    return result


def circulant_singular_values(conv: ConvOperator, grid: int | Sequence[int] | None = None) -> NDArray[np.floating]:
    r"""All singular values of the block circulant matrix with the same kernel.

    They are those of the matrices ``F(2 pi j / n)``, or, with stride `s`, of the polyphase rows
    ``[F_p(t)]_p``. For circular padding with ``output = input / stride`` they are the exact singular values of
    the layer; for zero padding they are an **estimate**, neither an upper nor a lower bound.

    Parameters
    ----------
    conv : ConvOperator
        The layer; of a transposed one the values of the adjoint are returned, which are the same.
    grid : int or tuple of int, optional
        Size of the circulant per axis, multiples of the stride; default: the input size, rounded up.

    Returns
    -------
    (*(grid / stride), r) ndarray
        Descending along `r` = min(out, in * prod(stride)), all groups merged; dimensionless. Each is right to
        about ``1e-15 * largest``.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    References
    ----------
    H. Sedghi, V. Gupta, P. M. Long, "The singular values of convolutional layers", ICLR 2019, Theorem 6.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 1, 1)), 4, layout="WIO", padding_mode="circular")
    >>> spectral_conv.circulant_singular_values(conv).ravel().round(6) + 0.0
    array([3., 1., 1., 1.])
    """
    geometry = conv.geometry
    require_symbol(geometry, "A circulant spectrum")
    sizes = coarse_grid(geometry, checked_grid(geometry, grid))
    g, h = (channels // geometry.groups for channels in geometry.plain_channels)
    rows = g * math.prod(geometry.stride)
    rank = min(rows, h)
    # A power of two keeps squares of entries in range and changes no digit.
    scale = 2.0 ** (np.frexp(np.abs(conv.kernel).max(initial=0.0))[1] - 1)
    taps = [group_taps(geometry, conv.plain_kernel / scale, group) for group in range(geometry.groups)]
    half = np.empty((geometry.groups, *half_grid(sizes), rank))
    few = rows * h <= _INTERLEAVED_ENTRIES
    kernel = kernels.interleaved_values if few else kernels.lapack_values

    def analyze(box: SymbolBox) -> None:
        matrices = evaluate_box(geometry, taps[box.group], sizes, box.slices)
        index = np.flatnonzero(_canonical(sizes, box.slices))
        values = np.empty((index.size, rank))
        failures = kernel(matrices.reshape(-1, rows, h), index, values)
        if failures:
            raise np.linalg.LinAlgError(f"LAPACK's SVD did not converge at {failures} frequencies.")
        part = np.zeros((math.prod(matrices.shape[:-2]), rank))
        part[index] = values
        half[box.group][box.slices] = part.reshape(*matrices.shape[:-2], rank)

    entry = 16 * rows * h
    limit = min(_MOST_BYTES, max(_LEAST_BYTES, entry * math.prod(half_grid(sizes)) // _BOXES))
    run_parallel(analyze, boxes(geometry, half_grid(sizes), entry, limit))
    return _unfold(half, sizes) * scale


def circulant_svd(conv: ConvOperator, grid: int | Sequence[int] | None = None) -> CirculantVectors:
    """Singular vectors of the symbol on half of the frequency grid.

    Parameters and errors as in `circulant_singular_values`; all the matrices are held in memory at one time.

    Returns
    -------
    CirculantVectors
        With ``F_p = output_vectors @ diag(values) @ input_vectors^H`` at every frequency.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 3, 2, 4)), (8, 8))
    >>> spectral_conv.circulant_svd(conv).input_vectors.shape
    (8, 5, 1, 2, 2)
    """
    geometry = conv.geometry
    require_symbol(geometry, "A circulant spectrum")
    sizes = coarse_grid(geometry, checked_grid(geometry, grid))
    whole = tuple(slice(0, n) for n in half_grid(sizes))
    matrices = np.stack(
        [
            evaluate_box(geometry, group_taps(geometry, conv.plain_kernel, group), sizes, whole)
            for group in range(geometry.groups)
        ],
        axis=geometry.ndim,
    )
    left, values, right = np.linalg.svd(np.swapaxes(matrices, -1, -2), full_matrices=False)
    return CirculantVectors(values=values, output_vectors=left, input_vectors=np.conj(np.swapaxes(right, -1, -2)))


def _canonical(sizes: Sequence[int], slices: Sequence[slice]) -> NDArray[np.bool_]:
    """Mark one of each pair of frequencies j, -j; in the half grid only the planes 0 and n/2 hold both."""
    leading = np.meshgrid(*(np.arange(n)[cut] for n, cut in zip(sizes[:-1], slices[:-1], strict=True)), indexing="ij")
    rank = mirrored = np.zeros((1,) * (len(sizes) - 1), np.int64)
    for j, n in zip(leading, sizes, strict=False):
        rank, mirrored = rank * n + j, mirrored * n + (-j) % n
    last = np.arange(sizes[-1] // 2 + 1)[slices[-1]]
    own_mirror = (2 * last) % sizes[-1] == 0
    return np.asarray((~own_mirror | (rank <= mirrored)[..., None]).ravel())


def _unfold(half: NDArray[np.floating], sizes: Sequence[int]) -> NDArray[np.floating]:
    """Fill in the mirrored frequencies, merge the groups and sort."""
    groups, *_, rank = half.shape
    last, computed = sizes[-1], half.shape[-2]
    flipped = half[np.ix_(np.arange(groups), *(-np.arange(n) % n for n in sizes[:-1]))]
    # Planes 0 and n/2 mirror onto themselves: their unmarked half was left at zero, below every mirrored value.
    own = 2 * np.arange(computed) % last == 0
    full = np.empty((groups, *sizes, rank))
    full[..., :computed, :] = np.where(own[:, None], np.maximum(half, flipped), half)
    full[..., computed:, :] = flipped[..., last - np.arange(computed, last), :]
    merged = np.moveaxis(full, 0, -2).reshape(*sizes, groups * rank)
    return merged if groups == 1 else np.ascontiguousarray(-np.sort(-merged, axis=-1))
