"""Symbol and circulant spectrum against dense operators on the torus."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import operators, reference_array, reference_cases, reference_operator
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import dense_circulant
from tolerances import DENSE

from spectral_conv import ConvOperator, NotApplicableError, circulant_singular_values, circulant_svd, symbol

TOLERANCE = DENSE[np.dtype(np.float64)]


def torus_values(conv: ConvOperator, grid: tuple[int, ...]) -> np.ndarray:
    g = conv.geometry
    M = dense_circulant(conv.plain_kernel, grid, g.stride, g.dilation, g.groups)
    return np.linalg.svd(M, compute_uv=False)


def default_grid(conv: ConvOperator) -> tuple[int, ...]:
    return tuple(-(-axis.inputs // axis.stride) * axis.stride for axis in conv.geometry.axes)


@pytest.mark.parametrize("case", reference_cases(), ids=lambda case: case["name"])
def test_reference_case(case: dict[str, Any]) -> None:
    conv = reference_operator(case)
    if case["padding_mode"] in ("reflect", "replicate"):
        with pytest.raises(NotApplicableError, match="does not apply to padding_mode="):
            circulant_singular_values(conv)
        return
    values = np.sort(circulant_singular_values(conv).ravel())[::-1]
    if case["padding_mode"] == "circular":
        expected = reference_array(f"{case['name']}/singular_values")
    else:
        expected = torus_values(conv, default_grid(conv))
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= TOLERANCE * expected[0]


@settings(max_examples=100)
@given(operators(plain_zeros=True, most_pixels=6), st.integers(1, 3))
def test_any_geometry_on_any_grid(conv: ConvOperator, extra: int) -> None:
    grid = tuple(n * extra for n in conv.geometry.stride)
    values = circulant_singular_values(conv, grid)
    g, h = conv.geometry.plain_channels
    assert values.shape == (extra,) * len(grid) + (min(h, g * math.prod(conv.geometry.stride)),)
    assert np.all(np.diff(values, axis=-1) <= 0)
    expected = torus_values(conv, grid)
    found = np.zeros_like(expected)  # a torus smaller than its groups' rank has zeros besides
    ordered = np.sort(values.ravel())[::-1][: expected.size]
    found[: ordered.size] = ordered
    assert np.abs(found - expected).max() <= TOLERANCE * max(expected[0], 1e-300)


@settings(max_examples=60)
@given(operators(plain_zeros=True, most_pixels=5))
def test_symbol_is_the_sum_over_taps(conv: ConvOperator) -> None:
    grid = tuple(3 * s for s in conv.geometry.stride)
    F = symbol(conv, grid)
    groups, kernel = conv.geometry.groups, conv.plain_kernel
    g, h = kernel.shape[-2], kernel.shape[-1] // groups
    expected = np.zeros_like(F)
    for j in np.ndindex(*grid):
        for a in np.ndindex(*conv.geometry.kernel_size):
            turn = sum(ji * ai * d / n for ji, ai, d, n in zip(j, a, conv.geometry.dilation, grid, strict=True))
            for q in range(groups):
                block = kernel[a][:, q * h : (q + 1) * h].T
                expected[j][q * h : (q + 1) * h, q * g : (q + 1) * g] += block * np.exp(2j * np.pi * turn)
    np.testing.assert_allclose(F, expected, atol=1e-12)
    if all(s == 1 for s in conv.geometry.stride):
        values = np.linalg.svd(F, compute_uv=False)
        found = circulant_singular_values(conv, grid)
        np.testing.assert_allclose(found, values[..., : found.shape[-1]], atol=1e-12 * (1 + values.max()))


@pytest.mark.parametrize("taps", [63, 64, 200])
@pytest.mark.parametrize("stride", [1, 2])
def test_long_kernels_by_fft_equal_phases(taps: int, stride: int) -> None:
    K = np.random.default_rng(taps).standard_normal((taps, 2, 3))
    conv = ConvOperator(K, 96, layout="WIO", stride=stride)
    found = np.sort(circulant_singular_values(conv).ravel())[::-1]
    expected = torus_values(conv, (96,))
    assert np.abs(found - expected).max() <= TOLERANCE * expected[0]


@pytest.mark.parametrize(("g", "h"), [(16, 16), (33, 30), (64, 3), (3, 64), (50, 47)])
def test_interleaved_and_lapack_paths(g: int, h: int) -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, g, h)), (6, 5))
    expected = np.linalg.svd(np.fft.fft2(conv.kernel, (6, 5), axes=(0, 1)), compute_uv=False)
    found = circulant_singular_values(conv)
    np.testing.assert_allclose(np.sort(found.ravel()), np.sort(expected.ravel()), atol=TOLERANCE * expected.max())
    # Every frequency holds its own values, mirrored halves included (the sign of w is a matter of convention).
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * expected.max())


def test_scale_does_not_matter() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 4, 4))
    values = circulant_singular_values(ConvOperator(K, (6, 6)))
    for exponent in (-1000, 1000):
        scaled = circulant_singular_values(ConvOperator(np.ldexp(K, exponent), (6, 6)))
        np.testing.assert_allclose(np.ldexp(scaled, -exponent), values, rtol=1e-12)
    assert not circulant_singular_values(ConvOperator(np.zeros((3, 3, 4, 4)), (6, 6))).any()


@pytest.mark.parametrize("groups", [1, 2])
def test_vectors_rebuild_the_symbol(groups: int) -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 2, 2, 4)), (6, 8), groups=groups)
    parts = circulant_svd(conv)
    rebuilt = np.einsum("...or,...r,...ir->...oi", parts.output_vectors, parts.values, np.conj(parts.input_vectors))
    F = symbol(conv)[:, :5]
    for q in range(groups):
        rows, columns = slice(q * 4 // groups, (q + 1) * 4 // groups), slice(2 * q, 2 * q + 2)
        np.testing.assert_allclose(rebuilt[:, :, q], F[..., rows, columns], atol=1e-12)


def test_a_grid_that_the_stride_does_not_divide_is_refused() -> None:
    conv = ConvOperator(np.ones((3, 3, 1, 1)), (8, 8), stride=2)
    with pytest.raises(ValueError, match=r"`grid` must have multiples of the stride \(2, 2\); got \(8, 7"):
        circulant_singular_values(conv, (8, 7))


def test_wide_circular_padding_has_no_symbol() -> None:
    conv = ConvOperator(np.ones((3, 3, 1, 1)), (8, 8), padding=2, padding_mode="circular")
    with pytest.raises(NotApplicableError, match="circular padding wider than 'same'"):
        circulant_singular_values(conv)
    narrow = ConvOperator(np.ones((3, 3, 1, 1)), (8, 8), padding="valid", padding_mode="circular")
    assert circulant_singular_values(narrow).shape == (8, 8, 1)
