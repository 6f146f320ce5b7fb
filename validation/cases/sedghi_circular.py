"""Circular padding: the FFT gives the singular values exactly.

The matrix is built here by rolling images, one unit vector after the other, without this package; LAPACK's
decomposition of it is compared with the values of the small matrices at each frequency.
"""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, circulant_singular_values
from validation.checks.check import Check, at_most
from validation.checks.papers import SEDGHI
from validation.checks.picture import LINES, Picture

Real = NDArray[np.floating]
THEOREM = SEDGHI.at("Theorem 6")
TOLERANCE = 1e-12
# Kernel, image, stride and dilation.
LAYERS = (
    ((3, 3, 1, 1), (8, 8), 1, 1),
    ((3, 3, 2, 3), (7, 9), 1, 1),
    ((5, 5, 3, 2), (8, 8), 1, 1),
    ((2, 4, 2, 2), (6, 8), 1, 1),
    ((3, 3, 2, 2), (9, 9), 1, 2),
    ((3, 3, 2, 3), (8, 8), 2, 1),
    ((3, 3, 4, 4), (12, 12), 1, 1),
)


def circular_matrix(kernel: Real, size: tuple[int, int], stride: int = 1, dilation: int = 1) -> Real:
    """Return M of a circular "same" convolution: ``y[r] = sum_a K[a]^T x[r s + a d - before]``, indices modulo N."""
    k1, k2, g, _ = kernel.shape
    before = [dilation * (k - 1) // 2 for k in (k1, k2)]
    columns = []
    for channel, row, column in itertools.product(range(g), *map(range, size)):
        x = np.zeros(size)
        x[row, column] = 1.0
        y = sum(
            np.roll(x, (before[0] - a * dilation, before[1] - b * dilation), (0, 1))[..., None]
            * kernel[a, b, channel]
            for a, b in itertools.product(range(k1), range(k2))
        )
        columns.append(y[::stride, ::stride].ravel())
    return np.stack(columns, axis=1)


def run() -> list[Check]:
    """Compare every value of several layers."""
    picture = Picture(
        title="Circular padding, 3 x 3 kernel, 2 to 3 channels, 7 x 9 pixels",
        text="All singular values in falling order: of the dense matrix (line) and frequency by frequency (marks).",
        draw=_draw,
    )
    errors = {layer: _error(*layer) for layer in LAYERS}
    plain = max(error for layer, error in errors.items() if layer[2:] == (1, 1))
    dilated, strided = (next(e for layer, e in errors.items() if layer[i] == 2) for i in (3, 2))
    text = "are those of the dense circular matrix; largest difference, relative"
    return [
        at_most(f"All values of the symbol on the N x N grid {text}", THEOREM, plain, TOLERANCE, picture=picture),
        at_most(f"The same with dilation 2: they {text}", THEOREM, dilated, TOLERANCE),
        at_most(
            f"With stride 2, the polyphase symbol's {text}",
            THEOREM,
            strided,
            TOLERANCE,
            note="the paper has stride 1; this is its generalization",
        ),
    ]


def _both(shape: tuple[int, ...], size: tuple[int, int], stride: int, dilation: int) -> tuple[Real, Real]:
    kernel = np.random.default_rng(0).standard_normal(shape)
    conv = ConvOperator(kernel, size, stride=stride, dilation=dilation, padding_mode="circular")
    dense = np.linalg.svd(circular_matrix(kernel, size, stride, dilation), compute_uv=False)
    return dense, np.sort(circulant_singular_values(conv), axis=None)[::-1]


def _error(*layer: object) -> float:
    dense, found = _both(*layer)
    return float(np.abs(dense - found).max() / dense[0])


def _draw(figure: Figure) -> None:
    dense, found = _both(*LAYERS[1])
    ax = figure.add_subplot()
    ranks = np.arange(1, len(dense) + 1)
    ax.plot(ranks, dense, color=LINES[0], label="dense matrix, LAPACK")
    shown = slice(None, None, 4)
    ax.plot(ranks[shown], found[shown], "o", color=LINES[1], markersize=4, label="by frequency (every fourth)")
    ax.set(xlabel="rank", ylabel="singular value (dimensionless)", ylim=(0.0, None))
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")
