r"""Gram iteration: norms of ``(F^H F)^(2^(t-1))`` by repeated squaring, over frequencies or over pixels.

Over frequencies ``||F|| <= || (F^H F)^(2^(t-1)) ||_F^(2^-t)``, the Schatten norm with exponent ``2^(t+1)``: at most
``rank^(2^-(t+1))`` too large. Over pixels the same power of the convolution is a convolution again, whose norm is at
most the largest sum of absolute weights of an output: no frequency is singled out, and no eigenvalue.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds._method import Evaluation, bound_method
from spectral_conv.bounds._symbol import (
    THIS_SIZE,
    THIS_TORUS,
    Grid,
    chunks,
    gradient_at,
    gradient_over,
    torus,
    waves_of,
    with_symbol,
)
from spectral_conv.geometry import as_integer, checked_word
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.frequencies import GridAxis, symbol_error
from spectral_conv.spectrum.rounding import SLACK, UNIT, gamma
from spectral_conv.symbols._peaks import TapWaves
from spectral_conv.symbols._sampling import degrees, substitutions
from spectral_conv.symbols._transform import Complex

# More squarings gain nothing: 2^-11 of the logarithm of the rank is lost by now.
_MOST_STEPS = 12
# What squaring may take: operations, and bytes that are held over pixels.
_MOST_FLOPS, _MOST_BYTES = 3e11, 1 << 30


@bound_method(
    source="B. Delattre, Q. Barthelemy, A. Araujo, A. Allauzen, 'Efficient bound of Lipschitz constant for "
    "convolutional layers by Gram iteration', ICML 2023, arXiv:2305.16173"
)
def gram(conv: ConvOperator, *, steps: int = 5, domain: str | None = None) -> Evaluation:
    r"""Upper bound by Gram iteration: ``G_1 = F^H F``, ``G_(t+1) = G_t^H G_t``, ``||G_t||^(2^-t)``.

    ``domain="frequencies"``: Frobenius norms, the largest over the frequencies of the smallest torus of which the
    layer is a compression. ``domain="pixels"``: the convolution with the self-convolved kernel,
    ``max_i (sum_(j,e) |G_t(e)_ij|)^(2^-t)``. (Its Frobenius norm is no bound.) The kernels of all steps are held on
    the same torus, so that they never grow beyond it.

    Parameters
    ----------
    conv : ConvOperator
        Any layer with zero padding, or circular padding up to "same".
    steps : int
        Number t of Gram matrices, 1 to 12. Fewer are taken where they would need more than 3e11 operations (some
        20 seconds on one core) or, over pixels, 1 GB; the notes say so.
    domain : {"frequencies", "pixels"}, optional
        Default: "frequencies" for circular padding, "pixels" for zero padding, as in the paper.

    Returns
    -------
    Bound
        An upper bound for this image size, in floating point too; dimensionless.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    References
    ----------
    B. Delattre, Q. Barthelemy, A. Araujo, A. Allauzen, "Efficient bound of Lipschitz constant for convolutional
    layers by Gram iteration", ICML 2023, arXiv:2305.16173; B. Delattre, Q. Barthelemy, A. Allauzen, "Spectral norm
    of convolutional layers with circular and zero paddings", 2024, arXiv:2402.00240. The torus for zero padding is
    ours.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 3, 1, 1)), (8, 8))
    >>> round(spectral_conv.bounds.gram(conv, domain="frequencies").value, 6)
    9.0
    """
    steps = as_integer("steps", steps, minimum=1)
    if steps > _MOST_STEPS:
        raise ValueError(f"`steps` must be at most {_MOST_STEPS}, which gain no digit any more; got {steps}.")
    default = "frequencies" if conv.geometry.padding_mode == "circular" else "pixels"
    chosen = default if domain is None else checked_word("domain", domain, ("frequencies", "pixels"))
    conv = with_symbol(conv, "Gram iteration")
    waves, grid = waves_of(conv), torus(conv)
    scope = THIS_TORUS if conv.geometry.padding_mode == "circular" else THIS_SIZE
    by = _over_frequencies if chosen == "frequencies" else _over_pixels
    return by(conv, waves, grid, steps, scope)


def _over_frequencies(conv: ConvOperator, waves: TapWaves, grid: Grid, steps: int, scope: str) -> Evaluation:
    frequencies, wanted = grid.frequencies, steps
    rank = min(waves.rows, waves.taps.shape[2])
    while steps > 1 and _flops(len(frequencies), rank, steps) > _MOST_FLOPS:
        steps -= 1
    first = np.concatenate([_schatten(F, 1, 0.0) for _, F in chunks(waves, frequencies)])
    order = np.argsort(-first)
    value, where = 0.0, int(order[0])
    step = max(1, (8 << 20) // (16 * waves.rows * waves.taps.shape[2]))
    for start in range(0, len(order), step):
        part = order[start : start + step]
        found = _schatten(waves.transposed(frequencies[part]), steps, value)
        if found.max() > value:
            value, where = float(found.max()), int(part[found.argmax()])
    rows = max(waves.rows, waves.taps.shape[2])

    def gradient() -> NDArray[np.floating]:
        u, s, vh = np.linalg.svd(waves.transposed(frequencies[where][None])[0], full_matrices=False)
        exponent = 2.0 ** (steps + 1)
        s = np.maximum(s, sys.float_info.min)  # zero on the whole torus
        top = s[0] * float(((s / s[0]) ** exponent).sum() ** (1.0 / exponent))
        cotangent = (u * (s / top) ** (exponent - 1.0)) @ vh
        return gradient_at(waves, frequencies[where], cotangent).reshape(conv.plain_kernel.shape)

    return Evaluation(
        value=value * (1.0 + _rounding(rows, rank)) + symbol_error(waves),
        kind="upper",
        scope=scope,
        gradient=gradient,
        notes=f"{steps} steps over {len(frequencies)} frequencies{_fewer(steps, wanted)}",
    )


def _schatten(F: Complex, steps: int, least: float) -> NDArray[np.floating]:
    """``||G_t||_F^(2^-t)`` of each matrix; it falls with t, so that one that fell to `least` is left there."""
    G, left = _first_gram(F), np.arange(len(F))
    logarithm = np.zeros(len(G))
    for t in range(1, steps + 1):
        if t > 1:
            G = G @ G
        size = np.maximum(np.sqrt((G.real**2 + G.imag**2).sum(axis=(1, 2))), 2.0**-1000)
        logarithm[left] += np.log(size) * 2.0**-t
        # G is scaled to norm 1 at every step: log ||G_t|| = log size + 2 log ||G_(t-1)||.
        counts = np.exp(logarithm[left]) > least
        G, left = G[counts] / size[counts, None, None], left[counts]
    return np.exp(logarithm)


def _first_gram(F: Complex) -> Complex:
    adjoint = np.conj(np.swapaxes(F, -1, -2))
    return np.asarray(F @ adjoint if F.shape[-2] <= F.shape[-1] else adjoint @ F)


def _rounding(rows: int, rank: int) -> float:
    """Relative error of the Schatten norm.

    A product G G is off by ``gamma_(4 c) ||G||_F^2 <= gamma_(4 c) sqrt(c) ||G G||_F``, and each step halves the
    relative error of those before it. The logarithms, of numbers between 2^-1000 and 2^1000, add a few hundred units.
    """
    return 4.0 * math.sqrt(rank) * gamma(4 * rows + 40) + 4096 * UNIT


def _over_pixels(conv: ConvOperator, waves: TapWaves, grid: Grid, steps: int, scope: str) -> Evaluation:
    wanted, rank = steps, min(waves.rows, waves.taps.shape[2])
    while steps > 1 and _too_much(_pixel_grid(conv, grid, steps), rank, steps):
        steps -= 1
    sizes = _pixel_grid(conv, grid, steps)
    lines = [axis.frequencies(half=i == len(sizes) - 1) for i, axis in enumerate(sizes)]
    frequencies = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))
    points = tuple(axis.points for axis in sizes)
    power = np.empty((len(frequencies), rank, rank), np.complex128)
    for part, F in chunks(waves, frequencies):
        power[part] = _first_gram(F)
    scales = []
    for t in range(1, steps + 1):
        scales.append(float(np.sqrt((power.real**2 + power.imag**2).sum(axis=(1, 2)).max())) or 1.0)
        power /= scales[-1]
        if t < steps:
            for start in range(0, len(power), 256):
                power[start : start + 256] = power[start : start + 256] @ power[start : start + 256]
    kernel = np.fft.irfftn(
        power.reshape(*map(len, lines), rank, rank), s=points, axes=tuple(range(len(points)))
    ).reshape(-1, rank, rank)
    sums = np.abs(kernel).sum(axis=(0, 2))
    row = int(sums.argmax())
    # A symbol that vanishes on the torus is the symbol of zero.
    logarithm = math.log(float(sums[row]) or sys.float_info.min) * 2.0**-steps
    logarithm += sum(math.log(scale) * 2.0 ** -(t + 1) for t, scale in enumerate(scales))
    value = math.exp(logarithm)
    signs = np.sign(kernel[:, row])  # (offsets, rank)
    del power, kernel
    # Each entry of the scaled kernel, whose frequencies have norms of at most 1, is off by the rounding of the powers
    # and of the FFT; the norm is at most the sum, so that the sum of these errors counts relative to it.
    rows = max(waves.rows, waves.taps.shape[2])
    entries = math.prod(points) * rank
    fourier = 40.0 * UNIT * math.log2(2.0 * math.prod(points))
    excess = entries * (_rounding(rows, rank) + fourier * 2.0**-steps)

    def gradient() -> NDArray[np.floating]:
        return _pixel_gradient(conv, waves, frequencies, points, steps, scales, row, signs, value)

    return Evaluation(
        value=value * (1.0 + SLACK * excess) + symbol_error(waves),
        kind="upper",
        scope=scope,
        gradient=gradient,
        notes=f"{steps} steps over {' x '.join(map(str, points))} pixels{_fewer(steps, wanted)}",
    )


def _pixel_grid(conv: ConvOperator, grid: Grid, steps: int) -> tuple[GridAxis, ...]:
    """The self-convolved kernel has ``2^t D + 1`` offsets per axis, if the torus does not wrap them around before."""
    axes = []
    for axis, degree, q in zip(grid.axes, degrees(conv.geometry), substitutions(conv.geometry), strict=True):
        whole = 2**steps * degree + 1
        axes.append(GridAxis(points=whole, period=whole * q) if whole < axis.points else axis)
    return tuple(axes)


def _too_much(sizes: tuple[GridAxis, ...], rank: int, steps: int) -> bool:
    points = math.prod(axis.points for axis in sizes) // 2 + 1
    return _flops(points, rank, steps) > _MOST_FLOPS or 40.0 * points * rank**2 > _MOST_BYTES


def _flops(points: int, rank: int, steps: int) -> float:
    return 8.0 * points * rank**3 * steps


def _fewer(steps: int, wanted: int) -> str:
    return f"; {wanted} would take too long" if steps < wanted else ""


def _pixel_gradient(
    conv: ConvOperator,
    waves: TapWaves,
    frequencies: NDArray[np.floating],
    points: tuple[int, ...],
    steps: int,
    scales: list[float],
    row: int,
    signs: NDArray[np.floating],
    value: float,
) -> NDArray[np.floating]:
    """Back through the inverse transform, the squarings and the first Gram matrix, frequency by frequency."""
    axes = tuple(range(len(points)))
    # <signs, irfftn(G)> = sum_w Re <S(w), G(w)> / points over all w; the half grid counts inner frequencies twice.
    transform = np.fft.rfftn(signs.reshape(*points, -1), axes=axes)
    weight = np.full(transform.shape[: len(points)], 2.0)
    weight[..., 0] = 1.0
    if points[-1] % 2 == 0:
        weight[..., -1] = 1.0
    transform = transform.reshape(len(frequencies), -1) * (weight.reshape(-1, 1) / math.prod(points))
    total = np.zeros(waves.taps.shape)
    tall = waves.rows > waves.taps.shape[2]
    rows_sum = 0.0
    for part, F in chunks(waves, frequencies):
        powers: list[NDArray[Any]] = [_first_gram(F) / scales[0]]
        for scale in scales[1:]:
            powers.append(powers[-1] @ powers[-1] / scale)
        C = np.zeros_like(powers[0])
        C[:, row] = transform[part]
        rows_sum += float((np.conj(C) * powers[-1]).real.sum())
        for G, scale in zip(powers[-2::-1], scales[:0:-1], strict=True):  # G is Hermitian
            C = (C @ G + G @ C) / scale
        C = (C + np.conj(np.swapaxes(C, -1, -2))) / scales[0]
        cotangents = F @ C if tall else C @ F
        total += gradient_over(waves, frequencies[part], cotangents)
    # value = exp(sum of logarithms): its derivative by the row sum, all steps being homogeneous.
    return (total * (value * 2.0**-steps / (rows_sum or 1.0))).reshape(conv.plain_kernel.shape)
