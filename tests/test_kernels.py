"""The jitted loops, also as plain Python (NUMBA_DISABLE_JIT=1), against NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spectral_conv import ConvOperator
from spectral_conv._kernels import banded, convolution, singular_values
from spectral_conv._kernels.blas import JIT
from spectral_conv._taps import TapPlan

GEOMETRIES = [
    {"kernel": (3, 3, 2, 3)},
    {"kernel": (2, 3, 1, 2), "stride": (2, 1), "padding": [(0, 2), (1, 0)]},
    {"kernel": (3, 2, 2, 4), "groups": 2, "dilation": 2},
    {"kernel": (3, 3, 3, 3), "padding_mode": "reflect", "padding": 1},
    {"kernel": (2, 2, 2, 3), "transposed": True, "stride": 2},
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_forward_and_adjoint(geometry: dict, dtype: type) -> None:
    rng = np.random.default_rng(0)
    options = {**geometry}
    conv = ConvOperator(rng.standard_normal(options.pop("kernel")), (5, 4), dtype=dtype, **options)
    M = conv.to_dense().T if conv.geometry.transposed else conv.to_dense()
    plan = conv.plan()
    # A plan for the loops also serves BLAS; one for BLAS may fold taps into rows, which the loops do not know.
    for loop in (False, True) if plan.loop else (False,):
        check_both_directions(plan, M, dtype, loop)


def check_both_directions(plan: TapPlan, M: np.ndarray, dtype: type, loop: bool) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(plan.input_shape).astype(dtype)
    y = np.empty(plan.output_shape, dtype)
    tables = (plan.taps, plan.row, plan.shift, *plan.sources, loop)
    convolution.forward(x, *tables, y)
    tolerance = 1e-13 if dtype is np.float64 else 1e-5
    np.testing.assert_allclose(y.ravel(), M @ x.ravel(), atol=tolerance)
    back = np.empty(plan.input_shape, dtype)
    convolution.adjoint(y, *tables, back)
    np.testing.assert_allclose(back.ravel(), M.T @ y.ravel(), atol=10 * tolerance)


def test_pad_and_unpad_are_adjoint() -> None:
    rng = np.random.default_rng(1)
    sources = tuple(rng.integers(-1, n, size=(p, q)) for n, p, q in ((3, 1, 2), (4, 2, 3), (2, 1, 5)))
    x, copy = rng.standard_normal((2, 3, 4, 2)), np.empty((4, 30))
    convolution.pad(x, *sources, copy)
    z, back = rng.standard_normal(copy.shape), np.zeros_like(x)
    convolution.unpad(z, *sources, back)
    assert np.vdot(copy, z) == pytest.approx(np.vdot(x, back), rel=1e-13)


def test_orthonormalize_keeps_what_it_replaces_out_of_the_coefficients() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((30, 4)))[0].T.copy()
    block = rng.standard_normal((3, 30))
    block[1] = 2 * block[0] + basis[3]  # vanishes after the first row and the basis are taken out
    old = block.copy()
    coefficients, triangle = np.empty((4, 3)), np.empty((3, 3))
    convolution.orthonormalize(basis, block, np.array([7]), coefficients, triangle)
    both = np.concatenate([basis, block])
    np.testing.assert_allclose(both @ both.T, np.eye(7), atol=1e-14)
    assert triangle[1, 1] == 0.0
    np.testing.assert_allclose(coefficients.T @ basis + triangle.T @ block, old, atol=1e-13)


def test_orthonormalize_survives_strong_cancellation() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((40, 8)))[0].T.copy()
    direction = rng.standard_normal((2, 40))
    block = rng.standard_normal((2, 8)) @ basis + 1e-13 * direction
    coefficients, triangle = np.empty((8, 2)), np.empty((2, 2))
    convolution.orthonormalize(basis, block, np.array([1]), coefficients, triangle)
    both = np.concatenate([basis, block])
    np.testing.assert_allclose(both @ both.T, np.eye(10), atol=1e-14)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 1), (6, 1)])
def test_singular_values_of_both_kernels(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((9, *shape)) + 1j * rng.standard_normal((9, *shape))
    A[3] = 0
    A[4, :, 0] = 0
    index = np.array([8, 0, 3, 4, 5])
    expected = np.linalg.svd(A[index], compute_uv=False)
    for kernel in (singular_values.interleaved_values, singular_values.lapack_values):
        values = np.empty((5, min(shape)))
        assert kernel(A, index, values) == 0
        np.testing.assert_allclose(values, expected, atol=1e-14 * expected.max())


WIDE = [(400, 100), (333, 120), (1700, 800), (900, 899), (850, 768)] if JIT else []


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "width"), [(7, 0), (9, 3), (60, 20), *WIDE])
def test_banded_factor_and_solve(n: int, width: int, dtype: type) -> None:
    rng = np.random.default_rng(n)
    band = np.zeros((n, width + 1), dtype)
    A = np.zeros((n, n))
    for j in range(n):
        rows = min(width + 1, n - j)
        band[j, :rows] = rng.standard_normal(rows)
        band[j, 0] = 4 * width + 4
        A[j : j + rows, j] = A[j, j : j + rows] = band[j, :rows]
    eps = float(np.finfo(dtype).eps)
    assert banded.factor(band) == 0
    L = np.zeros((n, n))
    for j in range(n):
        L[j : j + width + 1, j] = band[j, : min(width + 1, n - j)]
    np.testing.assert_allclose(L @ L.T, A, atol=10 * eps * (4 * width + 4))
    b = rng.standard_normal((3, n))
    x = b.astype(dtype)
    banded.solve(band, x)
    np.testing.assert_allclose(x @ A, b, atol=1e4 * eps)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "width"), [(30, 4)] + ([(2000, 800)] if JIT else []))
def test_an_indefinite_band_is_reported(n: int, width: int, dtype: type) -> None:
    small = np.array([[1.0, 2.0], [1.0, 0.0]], dtype)
    assert banded.factor(small) == 2
    for j in (0, n // 2, n - 1):
        for value in (-1.0, np.nan, np.inf):
            band = np.zeros((n, width + 1), dtype)
            band[:, 0], band[:-1, 1] = 3, 1
            band[j, 0] = value
            order = banded.factor(band)
            assert order == j + 1 if value < 0 else order >= j + 1


@pytest.mark.skipif(not JIT, reason="this is the run without the JIT")
def test_the_kernels_also_run_as_plain_python() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
