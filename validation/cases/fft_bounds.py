"""The circular norm of the layer's own size is no bound; that of a slightly larger one is.

The zero-padded layer is a compression of the circular layer of n' >= N + min(max(before, after), d (k - 1)) pixels,
n' a multiple of the stride: whatever wraps around meets zeros only. So circ(n') bounds the norm from above, and one
pixel less does not. circ(N), the usual estimate, is below the norm of some layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, bounds, circulant_singular_values
from validation.checks.check import Check, at_least, none_of
from validation.checks.papers import COMPRESSION, REFUSED
from validation.checks.picture import LINES, Picture

QUICK, FULL = 600, 4000
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Ratios to the exact norm, one entry per layer; of one pixel less than the rule, only where it differs."""

    own_size: NDArray[np.floating]
    embedded: NDArray[np.floating]
    one_less: NDArray[np.floating]
    package: NDArray[np.floating]


def run(full: bool = False) -> list[Check]:
    """Draw random layers: first plain ones, then any stride, dilation and padding."""
    count = FULL if full else QUICK
    plain, general = sample(count // 2, plain=True), sample(count // 2, plain=False)
    picture = Picture(
        title="Circular norms of random small layers, over the exact norm",
        text='How many layers (3 x 3 to 5 x 5, "same" padding, 3 to 8 pixels) have which ratio; left of 1 the '
        "circular norm is too small. At n' the ratio is never below 1. Ratios beyond the axis are in the outermost "
        "bars.",
        draw=lambda figure: _draw(figure, plain),
    )
    return [
        at_least(
            f'Of {plain.own_size.size} layers with "same" padding, those whose norm is above circ(N)',
            REFUSED,
            _violations(plain.own_size),
            1,
            picture=picture,
        ),
        at_least(
            "The largest such excess, per cent",
            REFUSED,
            100.0 * (1.0 / plain.own_size.min() - 1.0),
            1.0,
            picture=picture,
        ),
        none_of(
            "Of the same layers, those whose norm is above circ(n') with n' by the rule",
            COMPRESSION,
            _violations(plain.embedded),
            picture=picture,
        ),
        none_of(
            f"Of {general.embedded.size} layers of any stride, dilation, padding, those whose norm is above circ(n')",
            COMPRESSION,
            _violations(general.embedded),
        ),
        at_least(
            "The rule is sharp: layers whose norm is above the circular norm of one pixel less",
            COMPRESSION,
            _violations(np.concatenate([plain.one_less, general.one_less])),
            1,
        ),
        none_of(
            "Of all, those whose norm is above `bounds.circulant_embedding`",
            COMPRESSION,
            _violations(np.concatenate([plain.package, general.package])),
        ),
    ]


def sample(count: int, *, plain: bool) -> Sample:
    """Compare `count` random layers with dense matrices."""
    rng = np.random.default_rng(0 if plain else 1)
    rows = []
    while len(rows) < count:
        conv = _plain(rng) if plain else _general(rng)
        if conv is None:
            continue
        exact = float(np.linalg.svd(conv.to_dense(), compute_uv=False)[0])
        if exact < 1e-6 * np.abs(conv.kernel).max():
            continue  # every tap falls outside the image
        grid = embedding(conv)
        less = tuple(n - s for n, s in zip(grid, conv.geometry.stride, strict=True))
        rows.append(
            (
                circulant_singular_values(conv).max() / exact,
                circulant_singular_values(conv, grid).max() / exact,
                circulant_singular_values(conv, less).max() / exact if min(less) > 0 else np.nan,
                bounds.circulant_embedding(conv).value / exact,
            )
        )
    own_size, embedded, one_less, package = np.array(rows).T
    return Sample(own_size=own_size, embedded=embedded, one_less=one_less[~np.isnan(one_less)], package=package)


def embedding(conv: ConvOperator) -> tuple[int, ...]:
    """The smallest size n' by the rule, per axis."""
    geometry, sizes = conv.geometry, []
    for axis, (before, _) in enumerate(geometry.padding):
        reach = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1)
        last = (conv.output_shape[axis] - 1) * geometry.stride[axis] - before + reach  # pixel of the last tap
        wrapped = min(max(before, last - (conv.input_shape[axis] - 1)), reach)
        sizes.append(-(-(conv.input_shape[axis] + wrapped) // geometry.stride[axis]) * geometry.stride[axis])
    return tuple(sizes)


def _plain(rng: np.random.Generator) -> ConvOperator:
    k = int(rng.integers(3, 6))
    channels = rng.integers(1, 4, 2)
    return ConvOperator(rng.standard_normal((k, k, *channels)), tuple(map(int, rng.integers(3, 9, 2))))


def _general(rng: np.random.Generator) -> ConvOperator | None:
    k, s, d = (rng.integers(low, high, 2) for low, high in ((1, 6), (1, 4), (1, 4)))
    padding = [tuple(map(int, pair)) for pair in rng.integers(0, 5, (2, 2))]
    size = rng.integers(3, 10, 2)
    if any(
        n + sum(pair) < dilation * (taps - 1) + 1 for n, pair, dilation, taps in zip(size, padding, d, k, strict=True)
    ):
        return None
    kernel = rng.standard_normal((*k, *rng.integers(1, 4, 2)))
    stride, dilation = (tuple(map(int, numbers)) for numbers in (s, d))
    return ConvOperator(kernel, tuple(map(int, size)), stride=stride, dilation=dilation, padding=padding)


def _violations(ratios: NDArray[np.floating]) -> int:
    return int((ratios < 1.0 - ROUNDING).sum())


def _draw(figure: Figure, found: Sample) -> None:
    ax = figure.add_subplot()
    bins = np.linspace(0.85, 1.6, 61)
    for colour, ratios, label in zip(LINES, (found.own_size, found.embedded), ("circ(N)", "circ(n')"), strict=False):
        ax.hist(np.clip(ratios, bins[0], bins[-1]), bins, histtype="step", color=colour, linewidth=1.4, label=label)
    ax.axvline(1.0, color="black", linewidth=0.9)
    ax.set(xlabel="circular norm / exact norm (dimensionless)", ylabel="layers (count)")
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")
