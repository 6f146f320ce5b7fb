"""Edge modes: what carries the smallest singular values of square layers.

The singular vector of the smallest value lives in a few pixels along the border. The FFT's are plane waves,
everywhere of the same size, and cannot have such a shape; the vector of the largest value is one of them, faded out
at the border.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, singular_triplets
from spectral_conv.report.figures import extreme_mode
from spectral_conv.report.plots_images import plot_mode
from validation.checks.check import Check, at_least, at_most
from validation.checks.papers import BOTTCHER_SILBERMANN
from validation.checks.picture import Picture

LOCALIZED = BOTTCHER_SILBERMANN.at("singular vectors of exponentially small singular values")
SIZE, BORDER = 24, 3
OURS = "the theory states no number; the limit is ours"
LAYERS = {"1 channel, seed 5": ((3, 3, 1, 1), 5), "3 to 3 channels, seed 0": ((3, 3, 3, 3), 0)}


def run() -> list[Check]:
    """Compare how much of the vectors' energy lies near the border."""
    even = 1.0 - (1.0 - 2.0 * BORDER / SIZE) ** 2
    checks = []
    for name, (shape, seed) in LAYERS.items():
        conv = ConvOperator(np.random.default_rng(seed).standard_normal(shape), (SIZE, SIZE))
        smallest, largest = (border_share(conv, which) for which in ("smallest", "largest"))
        value = float(singular_triplets(conv, 1, "smallest").values[0])
        picture = Picture(
            title=f"Edge mode, {name}",
            text=f"The input vector of the smallest singular value, {value:.1e}, of the zero-padded layer at {SIZE} "
            f"x {SIZE} pixels, and that of the largest: the root of the sum of squares over the channels.",
            draw=lambda figure, conv=conv: _draw(figure, conv),
            size=(6.4, 2.9),
        )
        where = f"within {BORDER} pixels of the border"
        text = f"{name}: share of the smallest value's vector {where}; a plane wave has {even:.2f}"
        checks.append(at_least(text, LOCALIZED, smallest, 0.9, note=OURS, picture=picture))
        text = f"{name}: share of the largest value's vector {where}"
        checks.append(at_most(text, LOCALIZED, largest, even / 2, note=OURS, picture=picture))
    return checks


def border_share(conv: ConvOperator, which: str) -> float:
    """Share of the squares of the right singular vector that lies near the border."""
    squares: NDArray[np.floating] = singular_triplets(conv, 1, which).right[0] ** 2
    inside = squares[:, BORDER:-BORDER, BORDER:-BORDER].sum()
    return float(1.0 - inside / squares.sum())


def _draw(figure: Figure, conv: ConvOperator) -> None:
    for ax, end in zip(figure.subplots(1, 2), ("smallest", "largest"), strict=True):
        mode = extreme_mode(conv, end)
        plot_mode(mode, "input", ax=ax)
        ax.set_title(f"{end}, {mode.value:.3g}", fontsize="medium")
