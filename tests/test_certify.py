"""Certified enclosures against exact arithmetic (mpmath, integers) and dense decompositions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from cases import naive_matrix, operators, reference_array, reference_cases, reference_operator
from hypothesis import given, settings
from hypothesis import strategies as st

import spectral_conv
from spectral_conv import ConvOperator, Enclosure, StopReason
from spectral_conv._kernels import banded
from spectral_conv.spectrum import certify, verified
from spectral_conv.spectrum.rounding import absolute_norm, stretch
from spectral_conv.spectrum.verified import VerifiedGram, verified_parts

EPS = float(np.finfo(float).eps)
BITS = 20  # weights that are multiples of 2^-20 make every entry of M exact
FUNCTIONS = {"largest": spectral_conv.spectral_norm, "smallest": spectral_conv.smallest_singular_value}


def gaussian(shape: tuple[int, ...], size: tuple[int, ...], seed: int = 0, **options: Any) -> ConvOperator:
    return ConvOperator(np.random.default_rng(seed).standard_normal(shape), size, **options)


def exact(conv: ConvOperator) -> ConvOperator:
    return conv.with_kernel(np.round(np.ldexp(conv.kernel, BITS)) / 2.0**BITS)


def integers(x: np.ndarray) -> np.ndarray:
    return np.vectorize(int, otypes=[object])(np.ldexp(x, BITS))


def true_ends(conv: ConvOperator) -> dict[str, tuple[Any, Any]]:
    """Intervals that hold the extreme values for certain: by mpmath where M is small, else by LAPACK and Weyl."""
    M = naive_matrix(conv)
    M = M if M.shape[0] <= M.shape[1] else M.T
    if len(M) > 10:
        values, margin = np.linalg.svd(M, compute_uv=False), (max(M.shape) + 10) * EPS
        return {
            which: (value - margin * values[0], value + margin * values[0])
            for which, value in (("largest", values[0]), ("smallest", values[-1]))
        }
    whole = integers(M)
    with mpmath.workdps(60):
        squares = mpmath.eigsy(mpmath.matrix((whole @ whole.T).tolist()), eigvals_only=True)
        values = [mpmath.sqrt(abs(square)) / 2**BITS for square in squares]
        return {"largest": (max(values),) * 2, "smallest": (min(values),) * 2}


def check(found: Enclosure, truth: tuple[Any, Any]) -> None:
    """The enclosure meets the interval of the truth, and holds it where that is a point."""
    assert 0.0 <= found.lower <= found.value <= found.upper
    assert found.lower <= truth[1]
    assert truth[0] <= found.upper
    assert found.basis.startswith("certified: ")


@pytest.mark.parametrize("case", reference_cases(), ids=lambda case: case["name"])
def test_reference_case(case: dict[str, Any]) -> None:
    conv = reference_operator(case)
    stated = reference_array(f"{case['name']}/singular_values")
    margin = (max(conv.shape) + 10) * EPS * stated[0]
    top, bottom = (function(conv, certify=True) for function in FUNCTIONS.values())
    check(top, (stated[0] - margin, stated[0] + margin))
    check(bottom, (stated[-1] - margin, stated[-1] + margin))
    assert top.upper - top.lower <= 1e-9 * top.value
    assert bottom.upper - bottom.value <= 1e-11 * stated[0]
    if stated[-1] > 1e-5 * stated[0]:
        assert bottom.value - bottom.lower <= 0.2 * bottom.value
    if stated[-1] > 1e-2 * stated[0]:
        assert bottom.value - bottom.lower <= 1e-8 * stated[0]


@settings(max_examples=200)
@given(operators(most_pixels=6), st.sampled_from([np.float64, np.float32]))
def test_any_geometry(conv: ConvOperator, dtype: Any) -> None:
    conv = exact(conv.with_kernel(conv.kernel.astype(dtype)))
    assert conv.dtype == dtype
    for which, truth in true_ends(conv).items():
        found = FUNCTIONS[which](conv, certify=True)
        check(found, truth)
        if which == "largest":
            assert found.upper - found.lower <= 1e-10 * found.value + 1e-12
        assert found.upper - found.value <= 1e-11 * truth[1] + 1e-11


@settings(max_examples=60)
@given(operators(most_pixels=5), st.integers(0, 2**31))
def test_norm_of_absolute_weights_and_quotients(conv: ConvOperator, seed: int) -> None:
    group = exact(conv).split_groups()[0]
    N = naive_matrix(group.with_kernel(np.abs(group.kernel)))
    assert np.linalg.norm(N, 2) <= absolute_norm(group)
    P = naive_matrix(group).T if group.geometry.transposed else naive_matrix(group)
    for adjoint in (False, True):
        M = integers(P.T if adjoint else P)
        # As many signs as a power of 4: their norm is a power of 2, and `stretch` need not round when it scales.
        x = np.zeros(M.shape[1])
        count = max(4**i for i in range(9) if 4**i <= len(x))
        x[:count] = np.random.default_rng(seed).choice([-1.0, 1.0], count)
        square = Fraction(int((np.dot(M, x.astype(int)) ** 2).sum()), int((x**2).sum()) * 4**BITS)
        lower, upper = stretch(group, x, adjoint=adjoint)
        assert Fraction(lower) ** 2 <= square <= Fraction(upper) ** 2
        assert upper - lower <= 1e-12 * absolute_norm(group) + 1e-270


def test_the_check_refuses_what_is_not_so() -> None:
    conv = gaussian((3, 3, 4, 4), (9, 9))
    values = spectral_conv.singular_values(conv)
    (part,) = verified_parts(conv, smallest=False)[1]
    (least,) = verified_parts(conv, smallest=True)[1]
    top, bottom = values[0] ** 2, values[-1] ** 2
    assert part.at_most(top * (1 - 1e-9)) is None
    assert part.at_most(0.5 * top) is None
    assert part.at_most(math.nan) is None
    assert part.at_most(math.inf) is None
    assert least.at_least(bottom + 1e-9 * top) is None
    assert least.at_least(math.nan) is None
    above = part.at_most(top * (1 + 1e-12))
    below = least.at_least(bottom - 1e-12 * top)
    assert above is not None
    assert top < above < top * (1 + 1e-11)
    assert below is not None
    assert bottom - 1e-11 * top < below < bottom


def test_a_wrong_gram_matrix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = gaussian((3, 3, 4, 4), (9, 9))
    values = spectral_conv.singular_values(conv)
    assemble = verified.assemble_band
    for part, error in itertools.product(verified_parts(conv, smallest=True)[1], (1e-8, -1e-8)):
        monkeypatch.setattr(verified, "assemble_band", lambda *a, e=error: (1 + e) * assemble(*a))
        assert (part.at_most(values[0] ** 2 * (1 + 1e-11)) is None) == (error > 0)
        assert (part.at_least(values[-1] ** 2 * (1 - 1e-9)) is None) == (error < 0)


def test_the_error_terms_are_needed_and_enough() -> None:
    # One output pixel: A is a single sum of squares, off by an ulp or two, and exact integers tell the truth.
    needed = 0
    for seed in range(200):
        conv = gaussian((1, 1, 40, 1), (1, 1), seed)
        square = sum(Fraction(w) ** 2 for w in conv.kernel.ravel().tolist())
        _, (part,) = verified_parts(conv, smallest=False)
        for ulps in range(-4, 5):
            t = float(square) * (1 + ulps * EPS)
            high, low = part.at_most(t), part.at_least(t)
            assert high is None or square <= Fraction(high)
            assert low is None or Fraction(low) <= square
            needed += (high is not None and Fraction(t) < square) + (low is not None and Fraction(t) > square)
    assert needed > 20


@pytest.mark.parametrize("which", FUNCTIONS)
def test_a_poor_vector_gives_a_wide_enclosure_and_no_wrong_one(monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    conv = gaussian((3, 3, 3, 3), (6, 6), groups=1)
    values = spectral_conv.singular_values(conv)
    truth = values[0] if which == "largest" else values[-1]
    real = certify.singular_triplets

    def poor(conv: ConvOperator, k: int, end: Any, **options: Any) -> Any:
        return real(conv, k, "smallest" if end == "largest" else "largest", **options)

    monkeypatch.setattr(certify, "singular_triplets", poor)
    found = FUNCTIONS[which](conv, certify=True)
    assert found.lower <= truth <= found.upper
    assert found.upper - found.lower > 0.5 * truth


@pytest.mark.parametrize("exponent", [-900, -300, 300, 900])
def test_powers_of_two_scale_the_enclosure(exponent: int) -> None:
    conv = gaussian((3, 3, 2, 3), (7, 7), stride=(1, 2))
    scaled = conv.with_kernel(np.ldexp(conv.kernel, exponent))
    for function in FUNCTIONS.values():
        one, other = function(conv, certify=True), function(scaled, certify=True)
        for end in ("lower", "value", "upper"):
            assert math.ldexp(getattr(one, end), exponent) == getattr(other, end)


def test_numbers_at_the_ends_of_the_range() -> None:
    for number in (1e308, 5e-324, 1e-310):
        conv = ConvOperator(np.full((1, 1, 1, 1), number), (4, 4))
        for function in FUNCTIONS.values():
            found = function(conv, certify=True)
            assert found.lower <= number <= found.upper
            assert found.upper <= number * (1 + 1e-13) + 5e-324
    huge = ConvOperator(np.full((3, 3, 1, 1), 1.7e308), (8, 8))
    with np.errstate(over="ignore"):
        found = spectral_conv.spectral_norm(huge, certify=True)
    assert (found.lower, found.upper) == (np.finfo(float).max, math.inf)


def test_weights_of_very_different_size() -> None:
    K = np.zeros((3, 3, 2, 2))
    K[1, 1] = np.eye(2)
    K[0] = 1e-200
    for function in FUNCTIONS.values():
        found = function(ConvOperator(K, (6, 6)), certify=True)
        assert 1 - 1e-13 < found.lower <= 1.0 <= found.upper < 1 + 1e-13
    # 1e300 beside 1e-300: the small ones are lost in scaling, not their effect.
    K = np.zeros((1, 1, 2, 2))
    K[0, 0] = np.diag([1e300, 1e-300])
    found = spectral_conv.smallest_singular_value(ConvOperator(K, (3, 3)), certify=True)
    assert found.lower <= 1e-300 <= found.upper
    # A weight that meets nothing but padding is no part of M, however large.
    K = np.zeros((3, 1, 1))
    K[0], K[1] = 1e300, 1e-12
    conv = ConvOperator(K, (1,), layout="WIO")
    for function in FUNCTIONS.values():
        found = function(conv, certify=True)
        assert found.lower <= 1e-12 <= found.upper <= 1e-12 * (1 + 1e-13)


@pytest.mark.parametrize("factor", [1e-170, 1e-3])
def test_groups_of_different_size(factor: float) -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 2, 6))
    K[..., 3:] *= factor
    conv = ConvOperator(K, (8, 8), groups=2)
    first, second = conv.split_groups()
    top, bottom = (function(conv, certify=True) for function in FUNCTIONS.values())
    for found, alone in (
        (top, spectral_conv.spectral_norm(first, certify=True)),
        (bottom, spectral_conv.smallest_singular_value(second, certify=True)),
    ):
        assert found.lower == pytest.approx(alone.lower, rel=1e-8)
        assert found.upper == pytest.approx(alone.upper, rel=1e-8)
    K[..., 3:] = 0
    empty = spectral_conv.smallest_singular_value(ConvOperator(K, (8, 8), groups=2), certify=True)
    assert (empty.lower, empty.value, empty.upper) == (0.0, 0.0, 0.0)
    assert spectral_conv.spectral_norm(ConvOperator(K, (8, 8), groups=2), certify=True).upper == top.upper


def test_zero_and_rank_deficient_layers() -> None:
    zero = ConvOperator(np.zeros((3, 3, 2, 2)), (5, 5))
    for function in FUNCTIONS.values():
        found = function(zero, certify=True)
        assert (found.lower, found.value, found.upper, found.applications) == (0.0, 0.0, 0.0, 0)
    deficient = ConvOperator(np.ones((3, 3, 2, 2)), (9, 9))
    found = spectral_conv.smallest_singular_value(deficient, certify=True)
    assert found.lower == 0.0
    assert 0.0 < found.upper < 1e-12
    # Stride 2 reads a quarter of the pixels: the null vectors are not those of a block.
    found = spectral_conv.smallest_singular_value(gaussian((1, 1, 4, 8), (8, 8), stride=2, padding=0), certify=True)
    assert found.lower == 0.0
    assert found.upper < 1e-12


@pytest.mark.parametrize(
    ("shape", "size", "options"),
    [
        ((3, 3, 8, 8), (14, 14), {}),
        ((3, 3, 16, 32), (12, 12), {"stride": 2}),
        ((3, 3, 4, 16), (12, 12), {"padding": "valid"}),
        ((4, 4, 16, 8), (6, 6), {"stride": 2, "padding": 1, "transposed": True}),
        ((3, 3, 8, 8), (14, 14), {"padding_mode": "circular"}),
    ],
)
def test_beyond_the_memory_limit_the_bounds_are_wide_and_certified(
    shape: tuple[int, ...], size: tuple[int, ...], options: dict[str, Any]
) -> None:
    conv = gaussian(shape, size, **options)
    values = spectral_conv.singular_values(conv)
    for which, truth in (("largest", values[0]), ("smallest", values[-1])):
        found = FUNCTIONS[which](conv, certify=True, memory_limit=1e5)
        check(found, (truth, truth))
        assert found.method == "bracket"
        assert found.stop_reason is StopReason.LIMIT
        assert found.upper < 5 * values[0]
        if which == "smallest":
            assert found.lower == 0.0
        else:
            assert found.lower > 0.9 * truth


def test_kernels_that_go_through_fft_elsewhere() -> None:
    conv = gaussian((31, 31, 2, 2), (8, 8))
    assert conv.uses_fft
    values = spectral_conv.singular_values(conv)
    found = spectral_conv.spectral_norm(conv, certify=True)
    check(found, (values[0] * (1 - 1e-13), values[0] * (1 + 1e-13)))
    assert found.upper - found.lower <= 1e-10 * found.value


def test_parts_that_do_not_touch_are_checked_once() -> None:
    whole = sum(part.flops for part in verified_parts(gaussian((3, 3, 4, 4), (8, 8)), smallest=True)[1])
    for mode in ("zeros", "circular"):
        dilated = gaussian((3, 3, 4, 4), (8, 8), dilation=2, padding_mode=mode)
        (part,) = verified_parts(dilated, smallest=True)[1]  # of four alike
        assert part.flops < 0.2 * whole
    for shape, size, options in (
        ((1, 1, 8, 12), (56, 56), {}),
        ((4, 4, 3, 48), (224, 224), {"stride": 4, "padding": 0}),
        ((4, 4, 3, 40), (41, 39), {"stride": 4, "padding": 2}),
    ):
        conv = gaussian(shape, size, **options)
        _, parts = verified_parts(conv, smallest=True)
        assert sum(part.flops for part in parts) < 2e6
        top, bottom = (function(conv, certify=True) for function in FUNCTIONS.values())
        reference = spectral_conv.singular_triplets(conv).values[0]
        check(top, (reference * (1 - 1e-13), reference * (1 + 1e-13)))
        assert top.upper - top.lower <= 1e-10 * top.value
        assert bottom.upper - bottom.lower <= 1e-8 * top.value


def test_width_where_the_factor_fits() -> None:
    found = spectral_conv.spectral_norm(gaussian((3, 3, 16, 16), (24, 24)), certify=True)
    assert found.basis == (
        "certified: Rayleigh quotient below, Rump's verified Cholesky factorization (BIT 46, 2006) above"
    )
    assert found.upper - found.lower <= 1e-10 * found.value
    # A tight width is not promised, and no reason to raise.
    tight = spectral_conv.spectral_norm(gaussian((3, 3, 4, 4), (12, 12)), certify=True, rtol=1e-15)
    assert 0 < tight.upper - tight.lower <= 1e-11 * tight.value


def test_condition_number() -> None:
    conv = ConvOperator(np.diag([3.0, 1.0])[None, None], input_shape=(8, 8))
    found = spectral_conv.condition_number(conv, certify=True)
    assert found.lower <= 3.0 <= found.upper <= 3.0 * (1 + 1e-13)
    assert all(part.startswith("certified: ") for part in found.basis.split("; "))
    deficient = ConvOperator(np.ones((3, 3, 2, 2)), (5, 5))
    assert spectral_conv.condition_number(deficient, certify=True).upper == math.inf


def test_product_of_absolute_factors() -> None:
    rng = np.random.default_rng(0)
    n, width = 9, 3
    band = rng.standard_normal((n, width + 1))
    L = np.zeros((n, n))
    for j, d in itertools.product(range(n), range(width + 1)):
        if j + d < n:
            L[j + d, j] = abs(band[j, d])
    x, z = rng.random(n), np.empty(n)
    banded.absolute_product(band, x, z)
    np.testing.assert_allclose(z, L @ (L.T @ x), rtol=1e-14)


def test_a_part_needs_a_positive_diagonal() -> None:
    part: VerifiedGram = verified_parts(gaussian((1, 1, 2, 2), (1, 1)), smallest=False)[1][0]
    assert part.at_most(-1.0) is None
    assert part.at_least(1e9) is None
