"""Penalties and their gradients: cost free of the image size, against PyTorch's OCNN penalty and dense matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spectral_conv import ConvOperator, regularizers
from spectral_conv._threads import serial_blas
from validation.benchmarks.layers import gaussian
from validation.benchmarks.timing import Row, compare, in_fresh_process, peak_bytes, within

TITLE = "OrthogonalityGap, value and gradient, float64, one thread"
GAP = regularizers.OrthogonalityGap(1.0)
# Ratios wanted.
SIZES, TORCH, DENSE, PEAK = 1 / 1.2, 3.0, 300.0, 1e9


def run() -> Iterator[Row | str]:
    """Compare on one BLAS thread."""
    with serial_blas():
        yield _sizes()
        yield from _torch()
        yield _dense()
    found = in_fresh_process("penalties", "measure_memory()", cores=1)
    task = "3x3x256x256 at 224: peak memory"
    yield within(task, found["peak"], PEAK, unit="B", agreement=found["error"])


def _sizes() -> Row:
    """The time at 224 against that at 20; each value against the quadratic that it is in N."""
    shape = (3, 3, 64, 64)
    small, large = gaussian(shape, 20, 0), gaussian(shape, 224, 0)
    # Exact in N: the classes of pixel pairs have counts that are quadratic polynomials, here from N = 8, 12, 16.
    nodes = np.array([8, 12, 16])
    values = [GAP.value(gaussian(shape, n, 0)) for n in nodes]
    expected = np.polyval(np.polyfit(nodes, values, 2), 224)
    error = abs(GAP.value(large) / expected - 1.0)
    if not error <= 1e-10:
        raise AssertionError(f"the value at 224 is off by {error:.1e}")
    row = compare(
        "3x3x64x64 at 224",
        "at 20",
        _timed(lambda: _both(large)),
        _timed(lambda: _both(small)),
        wanted=SIZES,
    )
    return Row(**{**vars(row), "agreement": error})


def _torch() -> Iterator[Row | str]:
    try:
        import torch
    except ImportError:
        yield "without PyTorch, which is not installed"
        return
    torch.set_num_threads(1)
    shape, k = (3, 3, 64, 64), 3
    conv = gaussian(shape, 20, 0)
    weight = torch.tensor(np.moveaxis(conv.kernel, (-2, -1), (0, 1)).copy(), requires_grad=True)
    identity = torch.zeros(64, 64, 2 * k - 1, 2 * k - 1, dtype=torch.float64)
    identity[range(64), range(64), k - 1, k - 1] = 1.0

    def ocnn() -> tuple[float, np.ndarray]:
        weight.grad = None
        value = ((torch.nn.functional.conv2d(weight, weight, padding=k - 1) - identity) ** 2).sum()
        value.backward()
        return value.item(), weight.grad.numpy()

    # What an interior pixel contributes: half the second difference in N of ours.
    first, middle, last = (_both(gaussian(shape, n, 0)) for n in (8, 9, 10))
    interior = (first - 2.0 * middle + last) / 2.0
    value, gradient = ocnn()
    theirs = np.concatenate([[value], np.moveaxis(gradient, (0, 1), (-2, -1)).ravel()])
    error = float(np.abs(interior - theirs).max() / np.abs(theirs).max())
    if not error <= 1e-9:
        raise AssertionError(f"the interior part differs from OCNN by {error:.1e}")
    row = compare("3x3x64x64", "torch OCNN, interior only", _timed(lambda: _both(conv)), _timed(ocnn), wanted=TORCH)
    yield Row(**{**vars(row), "agreement": error})


def _dense() -> Row:
    conv = gaussian((3, 3, 3, 6), 20, 1)
    return compare(
        "3x3x3x6 at 20", "dense, M formed", lambda: _both(conv), lambda: dense_gap(conv), wanted=DENSE, rounds=5
    )


def _both(conv: ConvOperator) -> np.ndarray:
    value, gradient = GAP.value_and_grad(conv)
    return np.concatenate([[value], gradient.ravel()])


def dense_gap(conv: ConvOperator) -> np.ndarray:
    """Value and gradient of ``||M^T M - I||_F^2`` by its definition: M, the Gram matrix, ``4 M (M^T M - I)``."""
    M = conv.to_dense()
    D = M.T @ M - np.eye(M.shape[1])
    G = 4.0 * (M @ D)
    (k1, k2, g, h), (n1, n2) = conv.kernel.shape, conv.input_shape
    blocks = G.reshape(h, n1, n2, g, n1, n2)
    gradient = np.empty(conv.kernel.shape)
    for a in range(k1):
        for b in range(k2):
            y, x = np.meshgrid(np.arange(n1), np.arange(n2), indexing="ij")
            p, q = y + a - (k1 - 1) // 2, x + b - (k2 - 1) // 2
            inside = (p >= 0) & (p < n1) & (q >= 0) & (q < n2)
            entries = blocks[:, y[inside], x[inside], :, p[inside], q[inside]]  # (pixels, h, g)
            gradient[a, b] = entries.sum(axis=0).T
    return np.concatenate([[np.sum(D**2)], gradient.ravel()])


def _timed(function: Callable[[], Any]) -> Callable[[], float]:
    """Run a function whose answer was compared before."""

    def call() -> float:
        function()
        return 1.0

    return call


def measure_memory() -> dict[str, float]:
    """Peak memory of this process, and the error of Euler's identity as a check of the gradient."""
    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 256, 256)) / 48.0, (224, 224))
    gradient = GAP.value_and_grad(conv)[1]
    peak = peak_bytes()
    coefficients = GAP.line_polynomial(conv, conv.kernel)
    return {"peak": peak, "error": abs(float(np.vdot(gradient, conv.kernel)) / coefficients[1] - 1.0)}
