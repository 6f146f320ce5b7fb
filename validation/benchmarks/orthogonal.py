"""The BCOP map against Algorithm 1 as it is printed, and how far its circular singular values are from 1."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from spectral_conv import ConvOperator, circulant_singular_values, orthogonal
from spectral_conv._threads import serial_blas
from validation.benchmarks.timing import Row, compare, within

TITLE = "BCOP, free parameters to a kernel, float64, one thread"
# Seconds for 64 -> 64 channels, 3x3; ratio wanted; largest distance of a singular value from 1.
MAP, LITERAL, EXACT = 20e-3, 3.0, 1e-12
SIZES, CHANNELS = (1, 2, 3, 4, 5), (1, 2, 3, 5, 8, 16, 33, 64)


def run(full: bool = False) -> Iterator[Row | str]:
    """Compare on one BLAS thread; `full` goes through every image size up to 64."""
    with serial_blas():
        for k, c in ((3, 64), (5, 64), (3, 16)):
            parameters = orthogonal.BcopParameters.sample(k, c, c, rng=0)
            task = f"{k}x{k}x{c}x{c}"
            row = compare(
                task,
                "Algorithm 1, Björck of order 1, tap by tap",
                lambda p=parameters: orthogonal.bcop(p),
                lambda p=parameters: literal_map(p),
                wanted=LITERAL if (k, c) == (3, 64) else 0.0,
            )
            yield row
            if (k, c) == (3, 64):
                yield within(f"{task}: one map", row.ours, MAP, agreement=row.agreement)
            factors = orthogonal.factorize(orthogonal.bcop(parameters))
            yield compare(
                f"{task}, factors given",
                "block convolutions, tap by tap",
                lambda f=factors: orthogonal.compose(f),
                lambda f=factors: literal_loop(f.kernel_size, f.matrix, f.projectors),
                wanted=0.0,
            )
        worst, count = _worst(full)
    yield within("worst |sigma - 1|, circular", worst, EXACT, unit="", rival=f"{count} layers, k 1-5, c 1-64, N k-64")


def literal_map(parameters: orthogonal.BcopParameters) -> np.ndarray:
    """Algorithm 1 as printed: every matrix orthonormalized by Björck's iteration, then the block convolutions."""
    bases = [orthogonal.bjorck(A, order=1, atol=1e-13) for A in parameters.projectors]
    matrix = orthogonal.bjorck(parameters.matrix, order=1, atol=1e-13)
    return literal_loop(parameters.kernel_size, matrix, np.stack([R @ R.T for R in bases]))


def literal_loop(kernel_size: tuple[int, ...], matrix: np.ndarray, projectors: np.ndarray) -> np.ndarray:
    """``Z_ij = sum_i'j' X_i'j' Y_i-i',j-j'`` for one factor after another, one small product per pair of taps."""
    kernel = matrix[None, None]
    eye = np.eye(len(matrix))
    for number, P in enumerate(projectors):
        pair = np.stack([P, eye - P])
        kernel = _block_convolution(pair[:, None] if number % 2 == 0 else pair[None], kernel)
    assert kernel.shape[:2] == kernel_size
    return kernel


def _block_convolution(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    rows, columns = (X.shape[axis] + Y.shape[axis] - 1 for axis in (0, 1))
    Z = np.zeros((rows, columns, X.shape[2], Y.shape[3]))
    for i, j in itertools.product(range(rows), range(columns)):
        for p, q in itertools.product(range(X.shape[0]), range(X.shape[1])):
            if 0 <= i - p < Y.shape[0] and 0 <= j - q < Y.shape[1]:
                Z[i, j] += X[p, q] @ Y[i - p, j - q]
    return Z


def _worst(full: bool) -> tuple[float, int]:
    """Largest distance of a circular singular value from 1, square and rectangular layers."""
    worst, count = 0.0, 0
    rng = np.random.default_rng(0)
    for k, c in itertools.product(SIZES, CHANNELS):
        for channels in {(c, c), (c, max(1, c // 3)), (max(1, c // 2), c)}:
            kernel = orthogonal.sample_bcop(k, *channels, rng=rng)
            # Many channels on large images take seconds each.
            sizes = range(k, 65) if full else (n for n in (k, k + 1, 9, 16, 64) if k <= n and n * n * c <= 2**13)
            for n in sizes:
                conv = ConvOperator(kernel, (n, n), padding_mode="circular")
                worst = max(worst, float(np.abs(circulant_singular_values(conv) - 1.0).max()))
                count += 1
    return worst, count
