"""Szegő: the distribution of the exact singular values approaches that of the symbol.

All but a vanishing share of the zero-padded layer's values are spread as the symbol's over all frequencies (for
singular values and matrix-valued symbols: Tyrtyshnikov, Tilli). It says nothing of the few at the ends.
"""

from __future__ import annotations

import functools

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, circulant_singular_values, singular_values
from validation.checks.check import Check, at_most, between
from validation.checks.papers import BOTTCHER_SILBERMANN
from validation.checks.picture import LINES, MARKERS, Picture

Real = NDArray[np.floating]
THEOREM = BOTTCHER_SILBERMANN.at("Szegő's limit theorem for singular values (Avram, Parter)")
SIZES, LARGE_SIZES = (4, 6, 8, 12, 16, 24), (32, 40)
DRAWN = (4, 8, 24)
SHAPES = {"1 channel": (3, 3, 1, 1), "2 to 3 channels": (3, 3, 2, 3)}
FINE = 240
NO_RATE = "the theorem states no rate; that of the border's share of the pixels, 1/N, is our expectation"


def run(full: bool = False) -> list[Check]:
    """Follow the mean distance of the quantiles over N."""
    sizes = SIZES + (LARGE_SIZES if full else ())
    distances = Picture(
        title="Distance of the two distributions over N",
        text="Mean distance of the quantiles of the exact values and of the symbol's, relative to the symbol's "
        "supremum; the dashed line falls as 1/N.",
        draw=lambda figure: _draw_distances(figure, sizes),
    )
    checks = []
    for name in SHAPES:
        quantiles = Picture(
            title=f"Quantiles of all singular values, {name}",
            text="Lines: the zero-padded layer at several image sizes. Dashed: the symbol over all frequencies.",
            draw=lambda figure, name=name: _draw_quantiles(figure, name),
        )
        found = np.array([distance(name, size) for size in sizes])
        rise = float(np.diff(found).max())
        slope = float(np.polyfit(np.log(sizes), np.log(found), 1)[0])
        checks += [
            at_most(
                f"{name}: the distance falls from each N to the next; largest change",
                THEOREM,
                rise,
                0.0,
                picture=distances,
            ),
            between(
                f"{name}: power of N by which it falls, fitted",
                THEOREM,
                slope,
                -1.15,
                -0.85,
                note=NO_RATE,
                picture=distances,
            ),
            at_most(
                f"{name}: the distance at N = 24",
                THEOREM,
                found[SIZES.index(24)],
                0.02,
                note=NO_RATE,
                picture=quantiles,
            ),
        ]
    return checks


@functools.cache
def exact(name: str, size: int) -> Real:
    """All values of the zero-padded layer, rising."""
    return np.sort(singular_values(ConvOperator(_kernel(name), (size, size))))


@functools.cache
def of_symbol(name: str) -> Real:
    """The symbol's values over a fine grid, rising."""
    return np.sort(circulant_singular_values(ConvOperator(_kernel(name), (FINE, FINE))), axis=None)


def distance(name: str, size: int) -> float:
    """Mean distance of the quantiles, relative to the symbol's largest value."""
    values, symbols = exact(name, size), of_symbol(name)
    places = (np.arange(values.size) + 0.5) / values.size
    return float(np.abs(values - np.quantile(symbols, places)).mean() / symbols[-1])


def _kernel(name: str) -> Real:
    return np.random.default_rng(1).standard_normal(SHAPES[name])


def _draw_distances(figure: Figure, sizes: tuple[int, ...]) -> None:
    ax = figure.add_subplot()
    for colour, marker, name in zip(LINES, MARKERS, SHAPES, strict=False):
        ax.plot(sizes, [distance(name, size) for size in sizes], f"{marker}-", color=colour, markersize=4, label=name)
    ax.plot(sizes, 0.45 / np.array(sizes), "--", color="black", linewidth=0.9, label="0.45 / N")
    ax.set(xscale="log", yscale="log", xlabel="N (pixels per axis)", ylabel="mean quantile distance (dimensionless)")
    ax.set_xticks(sizes, map(str, sizes))
    ax.minorticks_off()
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")


def _draw_quantiles(figure: Figure, name: str) -> None:
    ax = figure.add_subplot()
    for colour, size in zip(LINES, DRAWN, strict=False):
        values = exact(name, size)
        thin = np.unique(np.linspace(0, values.size - 1, 240).round().astype(int))
        ax.plot((thin + 0.5) / values.size, values[thin], color=colour, linewidth=1.2, label=f"N = {size}")
    symbols = of_symbol(name)
    thin = np.linspace(0, symbols.size - 1, 240).round().astype(int)
    ax.plot((thin + 0.5) / symbols.size, symbols[thin], "--", color="black", linewidth=1.0, label="symbol")
    ax.set(xlabel="share of the values (dimensionless)", ylabel="singular value (dimensionless)")
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")
