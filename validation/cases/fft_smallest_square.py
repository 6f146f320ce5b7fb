"""The smallest singular value of square layers falls exponentially with N, unseen by the FFT.

A zero-padded layer with as many outputs as inputs typically has modes at its border whose singular values shrink by
a constant factor with every pixel. The values of the FFT do not: in one dimension they may stay above a constant,
in two they fall about as 1/N where the symbol has a zero. Typically, not always: some kernels have no such modes.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, circulant_singular_values, singular_values, smallest_singular_value
from validation.checks.check import Check, at_least, at_most, between, near
from validation.checks.papers import BOTTCHER_SILBERMANN, INDEPENDENT, REFUSED
from validation.checks.picture import LINES, MARKERS, Picture
from validation.symbol_search import infimum

DECAY = BOTTCHER_SILBERMANN.at("finite sections whose symbol winds around zero")
SIZES = tuple(range(8, 37, 4))
SEEDS = {"decays, seed 5": 5, "decays, seed 4": 4, "stays, seed 2": 2}
# `default_rng(5).standard_normal((3, 3, 1, 1))`, computed densely without this package: exact values, the unit of
# their last digit, and circ(N).
STATED = {8: (5.4e-2, 1e-3, 0.30), 12: (9.3e-3, 1e-4, 0.37), 16: (1.5e-3, 1e-4, 0.23), 20: (2.3e-4, 1e-5, 0.25)}
CLOSED = (8, 10, 12, 14, 16)
COUNTED, BETWEEN = 60, (8, 20)  # random kernels, and the sizes between which their decay is counted


def run() -> list[Check]:
    """Fit the decay, repeat stated values, and a 1-D case with a limit in closed form."""
    picture = Picture(
        title="Smallest singular value over N, square layers",
        text="Exact values of the zero-padded layer (filled, the dashed line is the fit) and what the FFT says "
        "(hollow), 3 x 3 Gaussian kernels of one channel.",
        draw=_draw,
    )
    exact, circular = smallest(5)
    slope, fit = decay(exact)
    checks = [
        at_most("Seed 5: factor per pixel, fitted", REFUSED, np.exp(slope), 0.7, picture=picture),
        at_least(
            "Seed 5: share of the logarithm's variance that a straight line explains",
            REFUSED,
            fit,
            0.99,
            picture=picture,
        ),
        at_least(
            "Seed 5, N = 36: factor by which circ(N) is above the exact value",
            REFUSED,
            circular[-1] / exact[-1],
            1e4,
            picture=picture,
        ),
        at_most("Seed 5: infimum of the symbol, a zero between all grids", REFUSED, infimum(_kernel(5)), 1e-9),
        at_least("Seed 2: infimum of the symbol, which has no zero", REFUSED, infimum(_kernel(2)), 0.48),
        at_least(
            "Seed 2 does not decay: its value at N = 36 over that at 8", REFUSED, _ratio(2), 0.5, picture=picture
        ),
    ]
    checks.append(
        between(
            f"Typically, not always: share of {COUNTED} kernels whose value at N = {BETWEEN[1]} is below a tenth "
            f"of that at {BETWEEN[0]}",
            REFUSED,
            np.mean([_falls(seed) for seed in range(COUNTED)]),
            0.7,
            0.99,
            note="kernels as they come, seeds 0 to 59",
        )
    )
    for size, (value, unit, estimate) in STATED.items():
        found = smallest_singular_value(_layer(5, size)).value
        checks.append(
            near(f"Seed 5, N = {size}: the exact value, to two digits", INDEPENDENT, found, value, unit / 2)
        )
        estimated = float(circulant_singular_values(_layer(5, size)).min())
        checks.append(near(f"Seed 5, N = {size}: circ(N), to two digits", INDEPENDENT, estimated, estimate, 5e-3))
    text = "1-D kernel [2, 1]: the smallest value is (3/2) 2^-N (1 + O(N 4^-N)); largest relative error"
    errors = {n: abs(_bidiagonal(n) / (1.5 * 2.0**-n) - 1.0) for n in (*CLOSED, 24)}
    worst = max(errors[n] * 4.0**n / n for n in CLOSED)
    checks.append(at_most(f"{text} times 4^N / N, N = 8 to 16", DECAY, worst, 1.0))
    checks.append(at_most(f"{text}, N = 24", DECAY, errors[24], 1e-7))
    return checks


def smallest(seed: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Exact and circular smallest values over `SIZES`."""
    layers = [_layer(seed, size) for size in SIZES]
    exact = np.array([smallest_singular_value(conv).value for conv in layers])
    return exact, np.array([circulant_singular_values(conv).min() for conv in layers])


def decay(values: NDArray[np.floating]) -> tuple[float, float]:
    """Slope of the logarithm over N, and the share of its variance that the line explains."""
    logs = np.log(values)
    line = np.polyfit(SIZES, logs, 1)
    return float(line[0]), float(1.0 - np.var(logs - np.polyval(line, SIZES)) / np.var(logs))


def _layer(seed: int, size: int) -> ConvOperator:
    return ConvOperator(_kernel(seed), (size, size))


def _kernel(seed: int) -> NDArray[np.floating]:
    return np.random.default_rng(seed).standard_normal((3, 3, 1, 1))


def _ratio(seed: int) -> float:
    exact, _ = smallest(seed)
    return float(exact[-1] / exact[0])


def _falls(seed: int) -> bool:
    small, large = (smallest_singular_value(_layer(seed, size)).value for size in BETWEEN)
    return large < small / 10.0


def _bidiagonal(count: int) -> float:
    """1 on the diagonal, 2 below it: the symbol 1 + 2 exp(iw) never is below 1, and winds around zero."""
    return float(singular_values(ConvOperator(np.array([2.0, 1.0, 0.0]).reshape(3, 1, 1), count, layout="WIO"))[-1])


def _draw(figure: Figure) -> None:
    ax = figure.add_subplot()
    for colour, marker, (name, seed) in zip(LINES, MARKERS, SEEDS.items(), strict=False):
        exact, circular = smallest(seed)
        ax.plot(SIZES, exact, marker, color=colour, markersize=5, label=f"{name}: exact")
        ax.plot(SIZES, circular, marker, color=colour, markersize=5, markerfacecolor="none", label=f"{name}: circ(N)")
        if name.startswith("decays"):
            line = np.polyfit(SIZES, np.log(exact), 1)
            factor = np.exp(line[0])
            ax.plot(
                SIZES, np.exp(np.polyval(line, SIZES)), "--", color=colour, linewidth=0.9, label=f"{factor:.2f}^N"
            )
    ax.set(yscale="log", xlabel="N (pixels per axis)", ylabel="smallest singular value (dimensionless)")
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="x-small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
