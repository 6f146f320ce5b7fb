"""The smallest singular value of other layers has the right size, and may lie below everything the FFT can see.

With more inputs than outputs, or fewer, the zero-padded layer's smallest value settles as N grows, but often below
the infimum of the symbol over all frequencies. So neither circ(N) nor the infimum bounds it from below.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, circulant_singular_values, smallest_singular_value
from validation.checks.check import Check, at_least, at_most, between, none_of
from validation.checks.papers import COMPRESSION, REFUSED
from validation.checks.picture import LINES, Picture
from validation.symbol_search import infimum

SHAPES = ((3, 3, 3, 1), (3, 3, 2, 5))
SIZES = (4, 6, 8, 12, 16, 24, 32, 48, 64)
GRID = 96  # fine enough: the least value on it is above the infimum by far less than what is counted
SEEDS, COUNTED_AT = 200, 12  # random kernels, and the size at which they are counted


def run() -> list[Check]:
    """Follow one layer over N, then count over random kernels."""
    exact, circular, least = course((3, 3, 3, 1))
    pictures = [
        Picture(
            title=f"Smallest singular value over N, {'x'.join(map(str, shape))}",
            text="The exact value of the zero-padded layer, the circular one, and the infimum of the symbol over all "
            "frequencies, which the exact value stays below.",
            draw=lambda figure, shape=shape: _draw(figure, shape),
        )
        for shape in SHAPES
    ]
    counts = [sum(_is_below(shape, seed) for seed in range(SEEDS)) for shape in SHAPES]
    checks = [
        between(
            "3x3x3x1, seed 1: the value at N = 64 over that at 16, for it settles",
            REFUSED,
            exact[-1] / exact[SIZES.index(16)],
            0.95,
            1.0,
            picture=pictures[0],
        ),
        at_most(
            "3x3x3x1, seed 1: the value at N = 64 over the infimum of the symbol",
            REFUSED,
            exact[-1] / least,
            0.8,
            picture=pictures[0],
        ),
        at_least(
            "3x3x3x1, seed 1: circ(N) over the infimum, the least of all N; circ(N) is never below",
            REFUSED,
            circular.min() / least,
            1.0 - 1e-9,
            picture=pictures[0],
        ),
    ]
    for shape, count, picture in zip(SHAPES, counts, pictures, strict=True):
        text = (
            f"{'x'.join(map(str, shape))}, N = {COUNTED_AT}: of {SEEDS} kernels, those with a value below the infimum"
        )
        checks.append(between(text, REFUSED, count, 60, 180, picture=picture))
    text = "below circ(n'), n' the larger grid, of 100 random kernels"
    checks.append(
        none_of(f'"Valid" padding, 3 inputs to 1 output: values {text}', COMPRESSION, _violations("valid", (3, 1)))
    )
    checks.append(
        none_of(f'"Full" padding, 1 input to 3 outputs: values {text}', COMPRESSION, _violations("full", (1, 3)))
    )
    return checks


def course(shape: tuple[int, ...]) -> tuple[NDArray[np.floating], NDArray[np.floating], float]:
    """Exact and circular values over `SIZES`, and the infimum of the symbol over all frequencies."""
    layers = [_layer(shape, 1, size) for size in SIZES]
    exact = np.array([smallest_singular_value(conv).value for conv in layers])
    circular = np.array([circulant_singular_values(conv).min() for conv in layers])
    return exact, circular, infimum(layers[0].kernel)


def _layer(shape: tuple[int, ...], seed: int, size: int) -> ConvOperator:
    return ConvOperator(np.random.default_rng(seed).standard_normal(shape), (size, size))


def _is_below(shape: tuple[int, ...], seed: int) -> bool:
    conv = _layer(shape, seed, COUNTED_AT)
    return smallest_singular_value(conv).value < float(circulant_singular_values(conv, (GRID, GRID)).min()) * (
        1 - 1e-9
    )


def _violations(padding: str, channels: tuple[int, int]) -> int:
    count = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        k, size = int(rng.integers(2, 5)), int(rng.integers(5, 9))
        kernel = rng.standard_normal((k, k, *channels))
        conv = ConvOperator(kernel, (size, size), padding=k - 1 if padding == "full" else "valid")
        larger = max(*conv.input_shape, *conv.output_shape)
        exact = np.linalg.svd(conv.to_dense(), compute_uv=False)[-1]
        count += exact < circulant_singular_values(conv, (larger, larger)).min() * (1.0 - 1e-12)
    return int(count)


def _draw(figure: Figure, shape: tuple[int, ...]) -> None:
    exact, circular, least = course(shape)
    ax = figure.add_subplot()
    ax.plot(SIZES, exact, "o-", color=LINES[0], markersize=4, label="exact")
    ax.plot(SIZES, circular, "s--", color=LINES[1], markersize=4, markerfacecolor="none", label="circ(N)")
    ax.axhline(least, color="black", linewidth=0.9, linestyle=":", label="infimum of the symbol")
    ax.set(
        xscale="log", xlabel="N (pixels per axis)", ylabel="smallest singular value (dimensionless)", ylim=(0.0, None)
    )
    ax.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
    ax.minorticks_off()
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")
