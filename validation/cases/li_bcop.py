"""BCOP: orthogonal convolutions, exactly, with circular padding; with zero padding only 1 x 1 kernels are.

Kernels built by Algorithm 1 from random free parameters have all singular values 1 for every image size. The same
kernels with zero padding stretch nothing still, but lose at the border.
"""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.figure import Figure

from spectral_conv import ConvOperator, circulant_singular_values, orthogonal, singular_values
from validation.cases.sedghi_circular import circular_matrix
from validation.checks.check import Check, at_most
from validation.checks.papers import LI
from validation.checks.picture import LINES, Picture

ALGORITHM = LI.at("Algorithm 1 and equation (5)")
APPENDIX = LI.at("Appendix D.2")
TOLERANCE = 1e-12
SIZES, CHANNELS = (1, 2, 3, 4, 5), ((1, 1), (4, 4), (8, 3), (3, 8), (16, 16))
IMAGES, MORE_IMAGES = (5, 8, 9, 16), tuple(range(5, 33))
ZERO_PADDED = 12


def run(full: bool = False) -> list[Check]:
    """Measure the distance from 1 over kernel sizes, channels and images."""
    kernels = {
        (k, channels): orthogonal.sample_bcop(k, *channels, rng=0)
        for k, channels in itertools.product(SIZES, CHANNELS)
    }
    images = MORE_IMAGES if full else IMAGES
    worst = max(_from_one(kernel, n) for kernel, n in itertools.product(kernels.values(), images))
    square = [_zero_padded(kernels[k, (4, 4)]) for k in (2, 3, 5)]
    single = [_zero_padded(kernels[1, channels]) for channels in CHANNELS]
    dense = np.linalg.svd(circular_matrix(kernels[3, (4, 4)], (6, 7)), compute_uv=False)
    picture = Picture(
        title=f"One BCOP kernel, 3 x 3, 4 to 4 channels, {ZERO_PADDED} x {ZERO_PADDED} pixels",
        text="All singular values in falling order: exactly 1 with circular padding, not so with zero padding.",
        draw=lambda figure: _draw(figure, kernels[3, (4, 4)]),
    )
    return [
        at_most(
            f"All circular singular values are 1: largest distance over kernels 1 to 5, channels 1 to 16, "
            f"{len(images)} image sizes",
            ALGORITHM,
            worst,
            TOLERANCE,
            picture=picture,
        ),
        at_most(
            "The same of a dense matrix built without this package, 3 x 3, 6 x 7 pixels",
            ALGORITHM,
            np.abs(dense - 1.0).max(),
            TOLERANCE,
        ),
        at_most(
            "Zero padding, kernels 2 to 5: the largest value stays at most 1; its excess",
            APPENDIX,
            max(values[0] for values in square) - 1.0,
            TOLERANCE,
            picture=picture,
        ),
        at_most(
            "Zero padding, kernels 2 to 5: the smallest value is below 1; the largest of them",
            APPENDIX,
            max(values[-1] for values in square),
            0.5,
            note="how far below, the paper does not say",
            picture=picture,
        ),
        at_most(
            "Zero padding, 1 x 1 kernels: all values are 1; largest distance",
            APPENDIX,
            max(np.abs(values - 1.0).max() for values in single),
            TOLERANCE,
        ),
    ]


def _from_one(kernel: np.ndarray, size: int) -> float:
    conv = ConvOperator(kernel, (size, size), padding_mode="circular")
    return float(np.abs(circulant_singular_values(conv) - 1.0).max())


def _zero_padded(kernel: np.ndarray) -> np.ndarray:
    return singular_values(ConvOperator(kernel, (ZERO_PADDED, ZERO_PADDED)))


def _draw(figure: Figure, kernel: np.ndarray) -> None:
    ax = figure.add_subplot()
    for colour, style, mode, word in zip(
        LINES, ("-", "--"), ("zeros", "circular"), ("zero", "circular"), strict=False
    ):
        values = singular_values(ConvOperator(kernel, (ZERO_PADDED, ZERO_PADDED), padding_mode=mode))
        ax.plot(np.arange(1, values.size + 1), values, style, color=colour, label=f"{word} padding")
    ax.set(xlabel="rank", ylabel="singular value (dimensionless)", ylim=(0.0, 1.05))
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")
