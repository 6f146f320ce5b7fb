"""Exact triplets and extremes against dense decompositions, closed forms and each other."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from cases import operators, reference_array, reference_cases, reference_operator
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import DENSE, NORM, SMALLEST

import spectral_conv
from spectral_conv import (
    ConvOperator,
    MemoryLimitError,
    NotApplicableError,
    NotConvergedError,
    SingularTriplets,
    StopReason,
)

CASES = pytest.mark.parametrize("case", reference_cases(), ids=lambda case: case["name"])
TIGHT = DENSE[np.dtype(np.float64)]


def gaussian(shape: tuple[int, ...], seed: int = 0, **options: Any) -> ConvOperator:
    kernel, inputs = shape[: -len(shape) // 2 + 1], shape[-len(shape) // 2 + 1 :]
    return ConvOperator(np.random.default_rng(seed).standard_normal(kernel), inputs, **options)


def check_triplets(
    conv: ConvOperator, found: SingularTriplets, expected: np.ndarray, largest: float, rtol: float
) -> None:
    """One checker for every engine: values, enclosures, orthonormal vectors, residuals on the dense matrix."""
    k = len(expected)
    assert found.values.shape == found.lower.shape == found.upper.shape == found.residuals.shape == (k,)
    assert found.left.shape == (k, conv.out_channels, *conv.output_shape)
    assert found.right.shape == (k, conv.in_channels, *conv.input_shape)
    assert np.abs(found.values - expected).max() <= max(rtol, TIGHT) * largest
    slack = 1e-14 * largest
    assert np.all(found.lower - slack <= expected)
    assert np.all(expected <= found.upper + slack)
    assert np.all(found.upper - found.lower <= 1.001 * max(rtol, TIGHT) * largest)
    U, V = found.left.reshape(k, -1), found.right.reshape(k, -1)
    np.testing.assert_allclose(U @ U.T, np.eye(k), atol=1e-6)
    np.testing.assert_allclose(V @ V.T, np.eye(k), atol=1e-6)
    M = conv.to_dense().astype(float)
    gaps = np.maximum(
        np.linalg.norm(V @ M.T - found.values[:, None] * U, axis=1),
        np.linalg.norm(U @ M - found.values[:, None] * V, axis=1),
    )
    np.testing.assert_allclose(gaps, found.residuals, atol=1e-13 * max(largest, 1e-300))


@CASES
def test_reference_case_extremes(case: dict[str, Any]) -> None:
    conv = reference_operator(case)
    top, bottom = spectral_conv.spectral_norm(conv), spectral_conv.smallest_singular_value(conv)
    largest = case["sigma_max"]
    assert abs(top.value - largest) <= NORM * largest
    assert abs(bottom.value - case["sigma_min"]) <= SMALLEST * largest
    for found, stated, rtol in ((top, largest, 1e-8), (bottom, case["sigma_min"], 1e-9)):
        assert found.lower <= found.value <= found.upper
        assert found.lower - 1e-13 * largest <= stated <= found.upper + 1e-13 * largest
        assert found.upper - found.lower <= rtol * largest * (1 + 1e-9)
        assert found.basis == "residual" or found.basis.startswith("theorem: ")
        assert (found.applications == 0) == (found.method in ("dense", "blocks", "symbol"))


@CASES
def test_reference_case_every_method_and_both_ends(case: dict[str, Any]) -> None:
    conv = reference_operator(case)
    stated = reference_array(f"{case['name']}/singular_values")
    tried = []
    # Vectors of the larger cases by dense decomposition take too long here; their values are tested below.
    methods = ["lanczos", "davidson", "factorized", "blocks", "symbol"] + ["dense"] * (min(conv.shape) < 500)
    for method, which in itertools.product(methods, ("largest", "smallest")):
        expected = stated[:3] if which == "largest" else stated[::-1][:3]
        try:
            found = spectral_conv.singular_triplets(conv, len(expected), which, method=method, rtol=1e-7)
        except NotApplicableError:
            continue
        except NotConvergedError:
            # The circulant does not see exact copies and null vectors; "auto" then turns to a factor.
            assert (method, which) == ("davidson", "smallest")
            continue
        tried.append(method)
        assert found.method == method
        check_triplets(conv, found, expected, stated[0], 1e-7)
    assert len(tried) >= 2


@CASES
def test_reference_case_whole_spectrum(case: dict[str, Any]) -> None:
    stated = reference_array(f"{case['name']}/singular_values")
    values = spectral_conv.singular_values(reference_operator(case))
    assert np.abs(values - stated).max() <= TIGHT * stated[0]


@settings(max_examples=100)
@given(operators(most_pixels=6), st.integers(1, 4), st.sampled_from(["largest", "smallest"]))
def test_any_geometry(conv: ConvOperator, k: int, which: str) -> None:
    values = np.linalg.svd(conv.to_dense(), compute_uv=False)
    k = min(k, len(values))
    expected = values[:k] if which == "largest" else values[::-1][:k]
    check_triplets(conv, spectral_conv.singular_triplets(conv, k, which), expected, values[0], 1e-8)


@settings(max_examples=60)
@given(operators(most_pixels=6))
def test_any_geometry_factorized(conv: ConvOperator) -> None:
    values = np.linalg.svd(conv.to_dense(), compute_uv=False)
    if values[0] == 0:
        return
    found = spectral_conv.singular_triplets(conv, 1, "smallest", method="factorized", rtol=1e-9)
    assert abs(found.values[0] - values[-1]) <= 1e-9 * values[0]
    assert found.lower[0] - 1e-14 * values[0] <= values[-1] <= found.upper[0] + 1e-14 * values[0]


@pytest.mark.parametrize("seed", range(6))
def test_a_near_degenerate_pair_never_gives_the_second_value(seed: int) -> None:
    # w0 and -w0 give two singular values with relative gaps down to 1e-9: compare with many more triplets.
    conv = gaussian((3, 3, 64, 64, 12, 12), seed)
    many = spectral_conv.singular_triplets(conv, 6, rtol=1e-6, method="lanczos")
    for rng, method in itertools.product((None, 1), ("lanczos", "davidson")):
        one = spectral_conv.singular_triplets(conv, 1, rng=rng, method=method)
        assert one.values[0] >= many.values[0] * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_random_starts_find_the_largest_value_too(seed: int) -> None:
    conv = gaussian((3, 3, 64, 64, 12, 12), seed)
    reference = spectral_conv.spectral_norm(conv).value
    start = np.random.default_rng(100 + seed).standard_normal((2, 64, 12, 12))
    for method in ("lanczos", "davidson"):
        found = spectral_conv.singular_triplets(conv, start=start, method=method)
        assert found.values[0] == pytest.approx(reference, rel=1e-9)


def uncoupled(first: np.ndarray, second: np.ndarray) -> ConvOperator:
    """Two channels that do not mix."""
    K = np.zeros((3, 3, 2, 2))
    K[..., 0, 0], K[..., 1, 1] = first, second
    return ConvOperator(K, (16, 16))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("excess", "rtol"), [(1e-5, 1e-8), (1e-3, 1e-6), (1e-2, 1e-4)])
def test_channels_that_do_not_mix_hide_no_larger_value(seed: int, excess: float, rtol: float) -> None:
    # All seeds may lie in the channel whose norm is the smaller one by a hair.
    a, b = np.random.default_rng(seed).standard_normal((2, 3, 3))
    norms = [spectral_conv.spectral_norm(ConvOperator(k[..., None, None], (16, 16))).value for k in (a, b)]
    conv = uncoupled(a / norms[0], (1 + excess) * b / norms[1])
    for method in ("lanczos", "davidson"):
        found = spectral_conv.singular_triplets(conv, rtol=rtol, method=method)
        assert found.values[0] == pytest.approx(1 + excess, rel=rtol)


def test_a_start_that_belongs_to_another_value_does_not_win() -> None:
    conv = gaussian((3, 3, 2, 2, 16, 16), 1)
    triplets = spectral_conv.singular_triplets(conv, 3)
    for row, method in itertools.product(range(3), ("lanczos", "davidson")):
        found = spectral_conv.singular_triplets(conv, start=triplets.right[row : row + 1], method=method)
        assert found.values[0] == pytest.approx(triplets.values[0], rel=1e-10)
    a, b = np.random.default_rng(2).standard_normal((2, 3, 3))
    norms = [spectral_conv.spectral_norm(ConvOperator(k[..., None, None], (16, 16))).value for k in (a, b)]
    before = spectral_conv.singular_triplets(uncoupled(a / norms[0], 0.999 * b / norms[1]), 1)
    after = spectral_conv.singular_triplets(uncoupled(a / norms[0], 1.01 * b / norms[1]), start=before)
    assert after.values[0] == pytest.approx(1.01, rel=1e-9)


@pytest.mark.parametrize("method", ["lanczos", "davidson"])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_multiple_values_are_found_as_often_as_they_occur(seed: int, k: int, method: str) -> None:
    # An orthonormal channel part makes every value double; dilation 2 makes them fourfold.
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((4, 4)))[0][:2]
    double = ConvOperator(np.multiply.outer(rng.standard_normal((2, 3)), Q), (11, 13))
    fourfold = gaussian((3, 3, 2, 2, 16, 16), seed, dilation=2)
    for conv in (double, fourfold):
        found = spectral_conv.singular_triplets(conv, k, method=method).values
        np.testing.assert_allclose(found, spectral_conv.singular_values(conv)[:k], rtol=1e-9)


def test_a_strided_shortcut_that_loses_rank() -> None:
    # 1x1, stride 2, more channels out than in: far vectors of null vectors must not come from rounding.
    conv = ConvOperator(np.random.default_rng(0).standard_normal((1, 1, 16, 32)), (32, 32), stride=2, padding=0)
    assert spectral_conv.smallest_singular_value(conv).value <= 1e-9 * spectral_conv.spectral_norm(conv).value
    forced = spectral_conv.singular_triplets(conv, 2, "smallest", method="factorized")
    assert forced.values.max() <= 1e-12 * spectral_conv.spectral_norm(conv).value


def test_many_inputs_and_few_outputs() -> None:
    conv = gaussian((7, 7, 400, 1, 8, 8), padding="valid")
    values = np.linalg.svd(conv.to_dense(), compute_uv=False)
    assert spectral_conv.spectral_norm(conv).value == pytest.approx(values[0], rel=1e-12)
    assert spectral_conv.smallest_singular_value(conv).value == pytest.approx(values[-1], rel=1e-10)


def test_groups_of_very_different_size() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 4, 8))
    K[..., 4:] *= 1e-170
    conv = ConvOperator(K, (16, 16), groups=2)
    small = ConvOperator(K[..., 4:], (16, 16))
    found, alone = (spectral_conv.smallest_singular_value(c).value for c in (conv, small))
    assert found == pytest.approx(alone, rel=1e-6)
    K[..., 4:] = 0
    limited = spectral_conv.smallest_singular_value(ConvOperator(K, (40, 40), groups=2), memory_limit=1e6)
    assert (limited.lower, limited.value, limited.upper) == (0.0, 0.0, 0.0)


def test_the_largest_and_the_least_numbers() -> None:
    for number in (1e308, 5e-324):
        conv = ConvOperator(np.full((1, 1, 1, 1), number), (4, 4))
        assert spectral_conv.spectral_norm(conv).value == number
        assert spectral_conv.circulant_singular_values(conv, np.int64(4)).max() == number


def test_a_warm_start_saves_applications() -> None:
    conv = gaussian((3, 3, 8, 8, 24, 24))
    cold = spectral_conv.singular_triplets(conv, 2)
    near = conv.with_kernel(conv.kernel * (1 + 1e-9))
    warm = spectral_conv.singular_triplets(near, 2, start=cold)
    assert warm.values[0] == pytest.approx(cold.values[0] * (1 + 1e-9), rel=1e-11)
    assert warm.applications < cold.applications


def test_closed_forms() -> None:
    n = 300
    second = ConvOperator(np.array([-1.0, 2.0, -1.0]).reshape(3, 1, 1), n, layout="WIO")
    angles = np.arange(1, n + 1) * math.pi / (n + 1)
    exact = np.sort(2 - 2 * np.cos(angles))[::-1]
    np.testing.assert_allclose(spectral_conv.singular_values(second), exact, atol=1e-13)
    # The smallest value of the 1-D Laplacian, 1e-4, and the largest, close to the next by 3e-4.
    assert spectral_conv.smallest_singular_value(second).value == pytest.approx(exact[-1], abs=4e-9 * 1e-3)
    assert spectral_conv.spectral_norm(second).value == pytest.approx(exact[0], rel=1e-12)
    # Separable kernels: products of 1-D values.
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(3), rng.standard_normal(5)
    values = [
        spectral_conv.singular_values(ConvOperator(t.reshape(-1, 1, 1), m, layout="WIO"))
        for t, m in ((a, 14), (b, 18))
    ]
    plane = ConvOperator(np.multiply.outer(a, b)[..., None, None], (14, 18))
    products = np.sort(np.multiply.outer(*values).ravel())[::-1]
    assert spectral_conv.spectral_norm(plane).value == pytest.approx(products[0], rel=1e-12)
    found = spectral_conv.smallest_singular_value(plane).value
    assert abs(found - products[-1]) <= 1e-13 * products[0]
    # Orthogonal 1x1 layers and the identity keep every length.
    Q = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    for kernel in (
        Q[None, None],
        np.eye(7)[None, None],
        np.pad(np.eye(7)[None, None], [(1, 1), (1, 1), (0, 0), (0, 0)]),
    ):
        conv = ConvOperator(kernel, (9, 9))
        assert spectral_conv.spectral_norm(conv).value == pytest.approx(1.0, abs=1e-14)
        assert spectral_conv.smallest_singular_value(conv).value == pytest.approx(1.0, abs=1e-13)


def test_exponentially_small_values_where_the_fft_sees_none() -> None:
    # Figures of the notes: 5.4e-2, 9.3e-3, 1.5e-3, 2.3e-4 while the circular layer says 0.30, 0.37, 0.23, 0.25.
    K = np.random.default_rng(5).standard_normal((3, 3, 1, 1))
    for n, exact, circular in ((8, 5.4e-2, 0.30), (12, 9.3e-3, 0.37), (16, 1.5e-3, 0.23), (20, 2.3e-4, 0.25)):
        conv = ConvOperator(K, (n, n))
        assert spectral_conv.smallest_singular_value(conv).value == pytest.approx(exact, rel=0.02)
        assert spectral_conv.circulant_singular_values(conv).min() == pytest.approx(circular, abs=0.006)


def test_scale_moves_only_the_exponent() -> None:
    conv = gaussian((3, 3, 2, 2, 16, 16))
    top, bottom = spectral_conv.spectral_norm(conv).value, spectral_conv.smallest_singular_value(conv).value
    for exponent in (-1000, -400, 400, 1000):
        scaled = conv.with_kernel(np.ldexp(conv.kernel, exponent))
        assert spectral_conv.spectral_norm(scaled).value == math.ldexp(top, exponent)
        assert spectral_conv.smallest_singular_value(scaled).value == pytest.approx(math.ldexp(bottom, exponent))


def test_float32_weights_are_analysed_in_float64() -> None:
    conv = gaussian((3, 3, 3, 4, 14, 14), dtype=np.float32)
    values = np.linalg.svd(conv.to_dense().astype(np.float64), compute_uv=False)
    assert spectral_conv.spectral_norm(conv).value == pytest.approx(values[0], rel=1e-12)
    assert spectral_conv.smallest_singular_value(conv).value == pytest.approx(values[-1], abs=1e-12 * values[0])


def test_zero_kernels_and_zero_groups() -> None:
    zero = ConvOperator(np.zeros((3, 3, 2, 2)), (20, 20))
    for found in (spectral_conv.spectral_norm(zero), spectral_conv.smallest_singular_value(zero)):
        assert (found.lower, found.value, found.upper) == (0.0, 0.0, 0.0)
    assert spectral_conv.condition_number(zero).value == math.inf
    K = np.random.default_rng(0).standard_normal((3, 3, 1, 2))
    K[..., 1] = 0
    half = ConvOperator(K, (20, 20), groups=2)
    alone = ConvOperator(K[..., :1], (20, 20))
    assert spectral_conv.spectral_norm(half).value == spectral_conv.spectral_norm(alone).value
    assert spectral_conv.smallest_singular_value(half).value == 0.0


def test_groups_take_the_extremes_over_groups() -> None:
    conv = gaussian((3, 3, 2, 6, 15, 15), groups=3)
    values = np.linalg.svd(conv.to_dense(), compute_uv=False)
    assert spectral_conv.spectral_norm(conv).value == pytest.approx(values[0], rel=1e-12)
    assert abs(spectral_conv.smallest_singular_value(conv).value - values[-1]) <= 1e-12 * values[0]
    check_triplets(conv, spectral_conv.singular_triplets(conv, 5, method="lanczos"), values[:5], values[0], 1e-8)


def test_many_groups_share_the_tables_of_one() -> None:
    conv = gaussian((3, 3, 1, 40, 24, 24), groups=40)
    parts = [spectral_conv.smallest_singular_value(part).value for part in conv.split_groups()]
    found = spectral_conv.smallest_singular_value(conv).value
    assert abs(found - min(parts)) <= 1e-12 * spectral_conv.spectral_norm(conv).value


def test_condition_number() -> None:
    conv = gaussian((3, 3, 2, 4, 12, 12))
    values = np.linalg.svd(conv.to_dense(), compute_uv=False)
    found = spectral_conv.condition_number(conv)
    assert found.value == pytest.approx(values[0] / values[-1], rel=1e-9)
    assert found.lower <= values[0] / values[-1] <= found.upper
    deficient = ConvOperator(np.ones((3, 3, 2, 2)), (12, 12))
    assert spectral_conv.condition_number(deficient).upper == math.inf


@settings(max_examples=60)
@given(operators(most_pixels=6))
def test_brackets_hold_the_truth(conv: ConvOperator) -> None:
    values = np.linalg.svd(conv.to_dense(), compute_uv=False)
    top = spectral_conv.spectral_norm(conv, memory_limit=1)
    bottom = spectral_conv.smallest_singular_value(conv, memory_limit=1)
    slack = 1e-13 * max(values[0], 1e-300)
    for found, exact in ((top, values[0]), (bottom, values[-1])):
        assert found.lower - slack <= exact <= found.upper + slack
        assert found.lower <= found.value <= found.upper
        if found.method == "bracket":
            assert found.stop_reason is StopReason.LIMIT


def test_beyond_the_memory_limit_a_corner_gives_an_upper_bound() -> None:
    conv = ConvOperator(np.random.default_rng(5).standard_normal((3, 3, 1, 1)), (40, 40))
    exact = spectral_conv.smallest_singular_value(conv).value
    found = spectral_conv.smallest_singular_value(conv, memory_limit=1.3e6)
    assert found.method == "bracket"
    assert found.lower == 0.0
    assert exact <= found.upper < 0.2 * spectral_conv.circulant_singular_values(conv).min()
    assert "corner" in found.basis


def test_beyond_ten_minutes_a_bracket_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_conv.spectrum import smallest

    conv = gaussian((3, 3, 4, 4, 20, 20))
    exact = spectral_conv.smallest_singular_value(conv)
    monkeypatch.setattr(smallest, "MOST_FLOPS", 1e6)
    found = spectral_conv.smallest_singular_value(conv)
    assert (found.method, found.stop_reason) == ("bracket", StopReason.LIMIT)
    assert found.lower <= exact.value <= found.upper
    with pytest.raises(spectral_conv.CostLimitError, match=r"takes about .* operations.* method='factorized'"):
        spectral_conv.singular_triplets(conv, 1, "smallest")
    asked = spectral_conv.singular_triplets(conv, 1, "smallest", method="factorized", rtol=1e-9)
    assert asked.values[0] == exact.value


def test_threads_and_repetition_change_nothing() -> None:
    from concurrent.futures import ThreadPoolExecutor

    convs = [gaussian((3, 3, 4, 4, 14, 14), seed) for seed in range(4)]

    def both(conv: ConvOperator) -> tuple[float, float]:
        return spectral_conv.spectral_norm(conv).value, spectral_conv.smallest_singular_value(conv).value

    serial = [both(conv) for conv in convs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(both, convs)) == serial


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ValueError, r"`k` must be an int from 1 to 72, the number of singular values; got 0"),
        ({"k": 73}, ValueError, r"`k` must be an int from 1 to 72"),
        ({"which": "big"}, ValueError, r"`which` must be one of 'largest', 'smallest'; got 'big'"),
        ({"method": "lancsoz"}, ValueError, r"`method` must be one of .* Did you mean 'lanczos'\?"),
        ({"rtol": 0}, ValueError, r"`rtol` must be a positive number; got 0"),
        ({"rtol": math.nan}, ValueError, r"`rtol` must be a positive number"),
        ({"memory_limit": -1}, ValueError, r"`memory_limit` must be a positive number"),
        (
            {"start": np.ones((2, 2))},
            ValueError,
            r"`start` must hold real, .* \(b, 2, 6, 6\); got float64 of shape \(2, 2\)",
        ),
        ({"maxiter": 0.5}, ValueError, r"`maxiter` must be an integer of at least 1; got 0.5"),
        ({"on_failure": "ignore"}, ValueError, r"`on_failure` must be one of 'raise', 'return'"),
        ({"method": "symbol"}, NotApplicableError, r"`method='symbol'` is for circular padding"),
        ({"method": "blocks"}, NotApplicableError, r"`method='blocks'` is for layers that read no pixel twice"),
        ({"method": "lanczos", "which": "smallest"}, NotApplicableError, r"`method='lanczos'` finds the largest"),
        ({"method": "factorized"}, NotApplicableError, r"`method='factorized'` finds the smallest values only"),
        ({"method": "dense", "memory_limit": 1000}, MemoryLimitError, r"`memory_limit` must be at least 0.000456 GB"),
    ],
)
def test_bad_input(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        spectral_conv.singular_triplets(gaussian((3, 3, 2, 2, 6, 6)), **arguments)


def test_something_else_than_an_operator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`conv` must be a ConvOperator; got ndarray"):
        spectral_conv.spectral_norm(np.ones((3, 3, 1, 1)))  # type: ignore[arg-type]


def test_no_convergence_raises_with_the_result_or_returns_it() -> None:
    conv = gaussian((3, 3, 8, 8, 24, 24))
    with pytest.raises(NotConvergedError, match="`maxiter` was reached") as caught:
        spectral_conv.singular_triplets(conv, maxiter=20)
    result = caught.value.result
    assert result.stop_reason is StopReason.MAXITER
    assert result.applications <= 24
    exact = spectral_conv.spectral_norm(conv).value
    assert result.lower[0] <= exact
    again = spectral_conv.singular_triplets(conv, maxiter=20, on_failure="return")
    np.testing.assert_array_equal(again.values, result.values)


def test_a_tolerance_below_rounding_ends_with_the_reason() -> None:
    conv = gaussian((3, 3, 4, 4, 16, 16))
    found = spectral_conv.singular_triplets(conv, rtol=1e-17, on_failure="return")
    assert found.stop_reason is StopReason.STAGNATED
    assert found.upper[0] - found.lower[0] <= 1e-13 * found.values[0]


def test_results_have_labels() -> None:
    conv = gaussian((3, 3, 2, 3, 6, 5))
    triplets = spectral_conv.singular_triplets(conv, 2).to_xarray()
    assert dict(triplets.sizes) == {
        "rank": 2, "output_channel": 3, "output_y": 6, "output_x": 5, "input_channel": 2, "input_y": 6, "input_x": 5,
    }  # fmt: skip
    enclosure = spectral_conv.spectral_norm(conv).to_xarray()
    assert list(enclosure["end"].values) == ["lower", "value", "upper"]
