"""Spectra that are known in closed form.

Second differences, averages and separable kernels with zero padding have products of cosines for singular values;
the identity and orthogonal 1 x 1 kernels change no norm, whatever the padding. The certified intervals must hold the
values that are known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, singular_values, smallest_singular_value, spectral_norm
from validation.checks.check import Check, at_most, none_of
from validation.checks.papers import BOTTCHER_GRUDSKY, ELEMENTARY
from validation.checks.picture import LINES, Picture

Real = NDArray[np.floating]
TRIDIAGONAL = BOTTCHER_GRUDSKY.at("tridiagonal Toeplitz matrices")
PRODUCTS = BOTTCHER_GRUDSKY.at("tridiagonal Toeplitz matrices; Kronecker products of them")
TOLERANCE = 1e-12
DRAWN = 24
CERTIFIED = (8, 24, 40)


def cosines(middle: float, beside: float, count: int) -> Real:
    """Eigenvalues ``middle + 2 beside cos(k pi / (N + 1))`` of a symmetric tridiagonal Toeplitz matrix."""
    return middle + 2.0 * beside * np.cos(np.pi * np.arange(1, count + 1) / (count + 1))


def run() -> list[Check]:
    """Compare all values, then both ends by the iterative solvers at sizes no dense matrix has."""
    picture = Picture(
        title=f"Second difference and average of {DRAWN} pixels",
        text="All singular values in falling order: computed (marks) and in closed form (lines), with zero padding.",
        draw=_draw,
    )
    second = [_second(n) for n in (1, 2, 5, 24, 100)]
    average = [_average(n) for n in (3, 8, 24)]
    rng = np.random.default_rng(0)
    return [
        at_most(
            "Second difference [-1, 2, -1] in 1-D: all values are 2 - 2 cos(k π / (N + 1)); largest error, N to 100",
            TRIDIAGONAL,
            max(second),
            4 * TOLERANCE,
            picture=picture,
        ),
        at_most(
            "Average of three pixels in 1-D: all values are |1 + 2 cos(k π / (N + 1))| / 3; largest error, N to 24",
            TRIDIAGONAL,
            max(average),
            TOLERANCE,
            picture=picture,
        ),
        at_most(
            "Five-point Laplacian on a rectangle: all values are sums of two 1-D values; largest error",
            PRODUCTS,
            max(_laplacian(5, 9), _laplacian(12, 12)),
            8 * TOLERANCE,
        ),
        at_most(
            "3 x 3 averaging: all values are products of two 1-D values; largest error",
            PRODUCTS,
            max(_separable(_third, _third, 6, 6), _separable(_third, _third, 9, 14)),
            TOLERANCE,
        ),
        at_most(
            "Separable random kernels: all values are products of those of the factors; largest error, relative",
            PRODUCTS,
            max(_separable(lambda: rng.standard_normal(3), lambda: rng.standard_normal(5), 8, 11) for _ in range(5)),
            TOLERANCE,
        ),
        at_most(
            "Five-point Laplacian, 96 x 96, iterative solvers: error of both ends, relative to the largest",
            PRODUCTS,
            _laplacian_ends(96),
            2e-9,
        ),
        none_of(
            f"Five-point Laplacian, N = {', '.join(map(str, CERTIFIED))}: certified intervals that do not hold the "
            "value, or are wider than 1e-8 of the largest",
            PRODUCTS,
            sum(_certified_wrongly(size) for size in CERTIFIED),
        ),
        at_most(
            "Identity kernels of every odd size: all values are 1; largest error",
            ELEMENTARY,
            max(_distance_from_one(_identity(k, c), 7) for k, c in itertools.product((1, 3, 5), (1, 4))),
            TOLERANCE,
        ),
        at_most(
            "Orthogonal 1 x 1 kernels, any padding and image: all values are 1; largest error",
            ELEMENTARY,
            max(_distance_from_one(np.linalg.qr(rng.standard_normal((c, c)))[0][None, None], 6) for c in (2, 5, 16)),
            TOLERANCE,
        ),
    ]


def _second(count: int) -> float:
    conv = ConvOperator(np.array([-1.0, 2.0, -1.0]).reshape(3, 1, 1), count, layout="WIO")
    return _difference(conv, cosines(2.0, -1.0, count))


def _average(count: int) -> float:
    return _difference(ConvOperator(np.full((3, 1, 1), 1 / 3), count, layout="WIO"), cosines(1 / 3, 1 / 3, count))


def _laplacian_kernel() -> Real:
    return np.array([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])[..., None, None]


def _laplacian(rows: int, columns: int) -> float:
    sums = np.add.outer(cosines(2.0, -1.0, rows), cosines(2.0, -1.0, columns))
    return _difference(ConvOperator(_laplacian_kernel(), (rows, columns)), sums)


def _laplacian_ends(size: int) -> float:
    conv, values = ConvOperator(_laplacian_kernel(), (size, size)), 2.0 * cosines(2.0, -1.0, size)
    found = (spectral_norm(conv, rtol=1e-9).value, smallest_singular_value(conv).value)
    return max(abs(found[0] - values.max()), abs(found[1] - values.min())) / values.max()


def _certified_wrongly(size: int) -> int:
    conv, values = ConvOperator(_laplacian_kernel(), (size, size)), 2.0 * cosines(2.0, -1.0, size)
    found = (spectral_norm(conv, certify=True), smallest_singular_value(conv, certify=True))
    rounding = 1e-15 * values.max()  # of the closed form itself
    ends = zip(found, (values.max(), values.min()), strict=True)
    return sum(
        not one.lower - rounding <= value <= one.upper + rounding or one.upper - one.lower > 1e-8 * values.max()
        for one, value in ends
    )


def _third() -> Real:
    return np.full(3, 1 / 3)


def _separable(down: Callable[[], Real], across: Callable[[], Real], rows: int, columns: int) -> float:
    a, b = down(), across()
    factors = [np.linalg.svd(_toeplitz(taps, count), compute_uv=False) for taps, count in ((a, rows), (b, columns))]
    products = np.multiply.outer(*factors)
    conv = ConvOperator(np.multiply.outer(a, b)[..., None, None], (rows, columns))
    return _difference(conv, products) / products.max()


def _toeplitz(taps: Real, count: int) -> Real:
    """Return the 1-D matrix by its definition: entry (r, p) is the tap p - r + (k - 1) // 2."""
    shift = (len(taps) - 1) // 2
    return sum(np.eye(count, k=offset - shift) * tap for offset, tap in enumerate(taps))


def _identity(k: int, channels: int) -> Real:
    kernel = np.zeros((k, k, channels, channels))
    kernel[k // 2, k // 2] = np.eye(channels)
    return kernel


def _distance_from_one(kernel: Real, size: int) -> float:
    modes = ("zeros", "circular", "reflect", "replicate") if kernel.shape[0] == 1 else ("zeros", "circular")
    found = [singular_values(ConvOperator(kernel, (size, size + 1), padding_mode=mode)) for mode in modes]
    return max(float(np.abs(values - 1.0).max()) for values in found)


def _difference(conv: ConvOperator, values: Real) -> float:
    return float(np.abs(singular_values(conv) - np.sort(np.abs(values), axis=None)[::-1]).max())


def _draw(figure: Figure) -> None:
    ax = figure.add_subplot()
    ranks = np.arange(1, DRAWN + 1)
    for colour, name, taps in zip(
        LINES, ("[-1, 2, -1]", "[1, 1, 1] / 3"), ((2.0, -1.0), (1 / 3, 1 / 3)), strict=False
    ):
        kernel = np.array([taps[1], taps[0], taps[1]]).reshape(3, 1, 1)
        ax.plot(ranks, np.sort(np.abs(cosines(*taps, DRAWN)))[::-1], color=colour, label=f"{name}, closed form")
        found = singular_values(ConvOperator(kernel, DRAWN, layout="WIO"))
        ax.plot(ranks, found, "o", color=colour, markersize=4, label=f"{name}, computed")
    ax.set(xlabel="rank", ylabel="singular value (dimensionless)")
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")
