"""LipBound costs the same for every image size.

It looks at the kernel alone. A circular spectrum by FFT grows with the number of pixels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from spectral_conv import ConvOperator, bounds, circulant_singular_values
from validation.checks.check import Check, at_least, between
from validation.checks.papers import ARAUJO
from validation.checks.picture import LINES, Picture

COST = ARAUJO.at("cost of the bound")
SIZES = (16, 32, 64, 128, 256)
CHANNELS, ROUNDS = 8, 7
TIMING = "a timing, which other work on the machine disturbs: the interval is generous"


def run() -> list[Check]:
    """Time both in turn; the first round, which compiles, does not count."""
    kernel = np.random.default_rng(0).standard_normal((3, 3, CHANNELS, CHANNELS))
    convs = [ConvOperator(kernel, (size, size)) for size in SIZES]
    times = {method: [_seconds(method, conv) for conv in convs] for method in (bounds.lipbound, _circular)}
    values = [bounds.lipbound(conv).value for conv in convs]
    picture = Picture(
        title="Time over the image size",
        text=f"Medians of {ROUNDS} calls, 3 x 3, {CHANNELS} channels: LipBound, and all circular values "
        "for comparison.",
        draw=lambda figure: _draw(figure, times),
    )
    lipbound, circular = times[bounds.lipbound], times[_circular]
    return [
        between(
            "The bound is the same number for N = 16 to 256; largest over least",
            COST,
            max(values) / min(values),
            1,
            1,
        ),
        between(
            "Its time at N = 256 over that at 16",
            COST,
            lipbound[-1] / lipbound[0],
            0.2,
            5.0,
            note=TIMING,
            picture=picture,
        ),
        at_least(
            "For comparison, the same quotient for all circular values",
            COST,
            circular[-1] / circular[0],
            10.0,
            note=TIMING,
            picture=picture,
        ),
    ]


def _circular(conv: ConvOperator) -> object:
    return circulant_singular_values(conv)


def _seconds(method: Callable[[ConvOperator], object], conv: ConvOperator) -> float:
    found = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        method(conv)
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def _draw(figure: Figure, times: dict[Callable[[ConvOperator], object], list[float]]) -> None:
    ax = figure.add_subplot()
    for colour, label, found in zip(LINES, ("LipBound", "all circular values"), times.values(), strict=False):
        ax.plot(SIZES, 1e3 * np.array(found), "o-", color=colour, markersize=4, label=label)
    ax.set(xscale="log", yscale="log", xlabel="N (pixels per axis)", ylabel="time (ms)")
    ax.set_xticks(SIZES, map(str, SIZES))
    ax.minorticks_off()
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")
