"""LipBound: an upper bound for every image size, tight for one output channel.

sqrt(sum_i max_w sum_j |F_ij(w)|²) over the outputs i bounds the norm of the zero-padded layer, whatever N. For one
output it is the supremum of the symbol; with more, each row takes its maximum elsewhere, and the bound grows loose.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from spectral_conv import ConvOperator, bounds, spectral_norm
from validation.checks.check import Check, at_most, between, none_of
from validation.checks.papers import ARAUJO, INDEPENDENT
from validation.checks.picture import LINES, MARKERS, Picture
from validation.symbol_search import supremum

BOUND = ARAUJO.at("LipBound, the upper bound for several channels")
TIGHT = ARAUJO.at("tightness")
VERSIONS = ("outputs", "inputs", "frobenius")
LAYERS, MORE_LAYERS = 200, 1500
SIZES, CHANNELS = (6, 8, 12, 16, 24, 32, 48, 64), (1, 2, 4, 8)
GRID_FACTOR = 1.02  # the most that sampling the frequencies enlarges the bound
# Random 64 -> 64 channels, 5 x 5, N = 12, circular: ratio of this bound to the norm, found without this package.
STATED = (4.4, 4.7)


def run(full: bool = False) -> list[Check]:
    """Count violations over random layers; follow the ratio over N and the channels."""
    count = MORE_LAYERS if full else LAYERS
    picture = Picture(
        title="LipBound over the exact norm",
        text="Ratio for 3 x 3 Gaussian kernels over the image size, by the number of channels; 1 would be exact.",
        draw=_draw,
    )
    one = _kernel(8, 1)
    single = bounds.lipbound(ConvOperator(one, (8, 8))).value / supremum(one)
    ratios = {channels: [_ratio(channels, size) for size in SIZES] for channels in CHANNELS}
    conv = ConvOperator(np.random.default_rng(0).standard_normal((5, 5, 64, 64)), (12, 12), padding_mode="circular")
    wide = bounds.lipbound(conv).value / spectral_norm(conv).value
    return [
        none_of(
            f"Of {count} random layers (kernels 1 to 5, 1 to 8 channels, 4 to 16 pixels, three versions of the "
            "bound), those whose norm is above it",
            BOUND,
            sum(_violated(seed) for seed in range(count)),
        ),
        between(
            "Eight inputs to one output: the bound over the supremum of the symbol", TIGHT, single, 1.0, GRID_FACTOR
        ),
        at_most(
            "One channel: the ratio falls with N; largest change from one N to the next",
            TIGHT,
            max(np.diff(ratios[1])),
            0.0,
            picture=picture,
        ),
        between("One channel, N = 64: the ratio", TIGHT, ratios[1][-1], 1.0, 1.03, picture=picture),
        between(
            "Eight channels, N = 64: the ratio, which no image size improves",
            TIGHT,
            ratios[8][-1],
            1.3,
            2.5,
            note="the paper calls the bound tight; for many channels it is not",
            picture=picture,
        ),
        between(
            "64 to 64 channels, 5 x 5, N = 12, circular: the ratio of other random kernels",
            INDEPENDENT,
            wide,
            *STATED,
        ),
    ]


def _violated(seed: int) -> bool:
    rng = np.random.default_rng(seed)
    k, (g, h), size = int(rng.integers(1, 6)), rng.integers(1, 9, 2), int(rng.integers(4, 17))
    conv = ConvOperator(rng.standard_normal((k, k, g, h)), (size, size))
    least = min(bounds.lipbound(conv, version=version).value for version in VERSIONS)
    return least < spectral_norm(conv, rtol=1e-6).lower


def _kernel(into: int, out: int) -> np.ndarray:
    return np.random.default_rng(into).standard_normal((3, 3, into, out))


def _ratio(channels: int, size: int) -> float:
    conv = ConvOperator(_kernel(channels, channels), (size, size))
    return bounds.lipbound(conv).value / spectral_norm(conv, rtol=1e-6).value


def _draw(figure: Figure) -> None:
    ax = figure.add_subplot()
    for colour, marker, channels in zip(LINES, MARKERS, CHANNELS, strict=False):
        label = f"{channels} channel{'s' * (channels > 1)}"
        ratios = [_ratio(channels, size) for size in SIZES]
        ax.plot(SIZES, ratios, f"{marker}-", color=colour, markersize=4, label=label)
    ax.axhline(1.0, color="black", linewidth=0.9)
    ax.set(
        xscale="log", xlabel="N (pixels per axis)", ylabel="LipBound / exact norm (dimensionless)", ylim=(0.9, None)
    )
    ax.set_xticks(SIZES, map(str, SIZES))
    ax.minorticks_off()
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small", ncols=2)
