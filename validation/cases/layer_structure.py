"""The layer as it is defined: padding, stride, dilation, groups, transposed layers, against matrices by loops.

The matrix is written entry by entry from y[r] = sum_a K[a]^T x[r s + a d - p], without this package; LAPACK's
singular values of it are compared with all values, and with both ends as the solvers find them. Groups make it block
diagonal, so that the norm is the largest of the groups' norms; a transposed layer is the adjoint of a plain one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, singular_triplets, singular_values
from validation.checks.check import Check, at_most
from validation.checks.papers import LAYER
from validation.checks.picture import LINES, Picture

Real = NDArray[np.floating]
TOLERANCE = 1e-12
SOLVERS = 1e-8  # their default `rtol`
MODES = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Settings of a layer; `padding` has (before, after) per axis, `kernel` the inputs of one group."""

    words: str
    kernel: tuple[int, int, int, int]
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))
    groups: int = 1
    mode: str = "zeros"
    same: bool = False  # the package is told "same"


LAYERS = (
    Layer(words='even kernel, "same"', kernel=(2, 4, 2, 3), size=(7, 6), padding=((0, 1), (1, 2)), same=True),
    Layer(words="stride 2 and 3", kernel=(3, 3, 3, 2), size=(8, 9), stride=(2, 3)),
    Layer(words="dilation 2 and 3", kernel=(3, 2, 2, 2), size=(8, 7), dilation=(2, 3), padding=((2, 2), (1, 2))),
    Layer(words="uneven padding", kernel=(3, 3, 2, 2), size=(6, 5), padding=((0, 2), (3, 1))),
    Layer(words="stride and dilation", kernel=(3, 3, 2, 3), size=(9, 8), stride=(2, 2), dilation=(2, 1)),
    Layer(words="3 groups", kernel=(3, 3, 2, 6), size=(6, 6), groups=3),
    Layer(words="4 groups, stride 2", kernel=(3, 3, 1, 8), size=(6, 7), stride=(2, 2), groups=4),
    Layer(words="circular", kernel=(3, 3, 2, 2), size=(6, 5), mode="circular"),
    Layer(words="reflect", kernel=(3, 3, 2, 2), size=(6, 5), mode="reflect"),
    Layer(words="replicate", kernel=(3, 3, 2, 2), size=(6, 5), mode="replicate"),
)
DRAWN = (LAYERS[1], LAYERS[5])


def run() -> list[Check]:
    """Compare all values, both ends, and transposed layers."""
    picture = Picture(
        title="Singular values of layers by their definition",
        text="All values in falling order: of a matrix by loops (lines), of the package (every sixth, marks).",
        draw=_draw,
    )
    checks = [
        at_most(
            f"{layer.words}: all values are those of the matrix written by loops; largest difference, relative",
            LAYER,
            _difference(singular_values(operator(layer)), layer),
            TOLERANCE,
            picture=picture if layer in DRAWN else None,
        )
        for layer in LAYERS
    ]
    return [
        *checks,
        at_most(
            "Both ends by Lanczos and by a factorization: largest difference, relative to the largest value",
            LAYER,
            max(_ends(layer) for layer in LAYERS),
            SOLVERS,
        ),
        at_most(
            "Transposed layers, zero padding: their matrix is that of a plain layer, transposed; largest difference",
            LAYER,
            max(_transposed(layer) for layer in LAYERS if layer.mode == "zeros"),
            TOLERANCE,
        ),
    ]


def kernel_of(layer: Layer) -> Real:
    """Gaussian weights, HWIO; the second but last axis has the inputs of one group."""
    return np.random.default_rng(0).standard_normal(layer.kernel)


def operator(layer: Layer) -> ConvOperator:
    """The layer as the package has it."""
    return ConvOperator(
        kernel_of(layer),
        layer.size,
        stride=layer.stride,
        dilation=layer.dilation,
        padding="same" if layer.same else layer.padding,
        padding_mode=layer.mode,
        groups=layer.groups,
    )


def matrix_shape(layer: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sizes of the outputs and inputs."""
    sizes = zip(layer.size, layer.kernel, layer.stride, layer.dilation, layer.padding, strict=False)
    return tuple((n + sum(pad) - d * (k - 1) - 1) // s + 1 for n, k, s, d, pad in sizes), layer.size


def matrix(layer: Layer) -> Real:
    """Return M by loops over outputs, taps and channels."""
    kernel, (out_size, size) = kernel_of(layer), matrix_shape(layer)
    k1, k2, inner, h = layer.kernel
    per_group, g = h // layer.groups, inner * layer.groups
    # Which pixel each place of the padded image shows; -1 is a zero.
    how = {"constant_values": -1} if layer.mode == "zeros" else {"mode": MODES[layer.mode]}
    shown = [np.pad(np.arange(n), pad, **how) for n, pad in zip(size, layer.padding, strict=True)]
    found = np.zeros((h, *out_size, g, *size))
    for r1, r2, a, b in itertools.product(*map(range, (*out_size, k1, k2))):
        p = shown[0][r1 * layer.stride[0] + a * layer.dilation[0]]
        q = shown[1][r2 * layer.stride[1] + b * layer.dilation[1]]
        if min(p, q) >= 0:
            for i, j in itertools.product(range(inner), range(h)):
                found[j, r1, r2, (j // per_group) * inner + i, p, q] += kernel[a, b, i, j]
    return found.reshape(h * out_size[0] * out_size[1], -1)


def _expected(layer: Layer) -> Real:
    return np.linalg.svd(matrix(layer), compute_uv=False)


def _difference(found: Real, layer: Layer) -> float:
    expected = _expected(layer)
    return float(np.abs(np.sort(found)[::-1] - expected).max() / expected[0])


def _ends(layer: Layer) -> float:
    conv, expected = operator(layer), _expected(layer)
    largest = singular_triplets(conv, 1, "largest", method="lanczos").values[0]
    smallest = singular_triplets(conv, 1, "smallest", method="factorized").values[0]
    return float(max(abs(largest - expected[0]), abs(smallest - expected[-1])) / expected[0])


def _transposed(layer: Layer) -> float:
    inputs, outputs = matrix_shape(layer)
    each = zip(outputs, inputs, layer.kernel, layer.stride, layer.dilation, layer.padding, strict=False)
    conv = ConvOperator(
        kernel_of(layer).swapaxes(-1, -2),
        inputs,
        stride=layer.stride,
        dilation=layer.dilation,
        padding=layer.padding,
        output_padding=tuple(n - ((m - 1) * s + d * (k - 1) + 1 - sum(pad)) for n, m, k, s, d, pad in each),
        groups=layer.groups,
        transposed=True,
    )
    return float(np.abs(conv.to_dense() - matrix(layer).T).max())


def _draw(figure: Figure) -> None:
    ax = figure.add_subplot()
    for colour, layer in zip(LINES, DRAWN, strict=False):
        expected, found = _expected(layer), singular_values(operator(layer))
        ranks = np.arange(1, expected.size + 1)
        ax.plot(ranks, expected, color=colour, label=f"{layer.words}, by loops")
        ax.plot(ranks[::6], found[::6], "o", color=colour, markersize=4, label=f"{layer.words}, package")
    ax.set(xlabel="rank", ylabel="singular value (dimensionless)", ylim=(0.0, None))
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="small")
