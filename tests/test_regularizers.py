"""Penalties against their dense definitions: values, gradients, courses along lines."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from cases import naive_matrix, operators, reference_cases, reference_operator
from hypothesis import assume, given, settings
from tolerances import PENALTY, PENALTY_GRADIENT

from spectral_conv import ConvOperator, NotApplicableError, regularizers
from spectral_conv.kernel_adjoint import kernel_adjoint

CASES = [pytest.param(case, id=case["name"]) for case in reference_cases()] or [
    pytest.param(None, marks=pytest.mark.skip(reason="the folder `shared` does not lie beside the repository"))
]
ALPHAS = (1.0, 0.3)


def dense_gap(M: np.ndarray, alpha: float) -> np.ndarray:
    return M.T @ M - alpha * np.eye(M.shape[1])


def random_like(conv: ConvOperator, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(conv.kernel.shape)


def matrix_of(conv: ConvOperator, kernel: np.ndarray) -> np.ndarray:
    """M is linear in the kernel: the matrix of a direction."""
    return naive_matrix(conv.with_kernel(kernel))


def central_difference(penalty: regularizers.Penalty, conv: ConvOperator, E: np.ndarray, h: float) -> float:
    up, down = (penalty.value(conv.with_kernel(conv.kernel + s * h * E)) for s in (1.0, -1.0))
    return (up - down) / (2.0 * h)


def assert_slope(gradient: np.ndarray, E: np.ndarray, slope: float, tolerance: float) -> None:
    assert abs(np.vdot(gradient, E) - slope) <= tolerance * np.linalg.norm(gradient) * np.linalg.norm(E) + 1e-300


@pytest.mark.parametrize("case", CASES)
def test_norms_of_the_reference_cases(case: dict[str, Any]) -> None:
    conv = reference_operator(case, np.float64)
    assert 2.0 * regularizers.Frobenius().value(conv) == pytest.approx(case["frobenius"] ** 2, rel=PENALTY)
    assert regularizers.OrthogonalityGap(1.0).value(conv) == pytest.approx(
        case["orthogonality_gap_alpha1"], rel=PENALTY
    )


@settings(max_examples=150)
@given(conv=operators())
def test_polynomial_penalties_equal_the_dense_definition(conv: ConvOperator) -> None:
    M, E = naive_matrix(conv), random_like(conv)
    dM = matrix_of(conv, E)
    value, gradient = regularizers.Frobenius().value_and_grad(conv)
    assert value == pytest.approx(0.5 * (M**2).sum(), rel=PENALTY, abs=1e-300)
    assert np.vdot(gradient, E) == pytest.approx(np.vdot(M, dM), abs=PENALTY * (1 + (M**2).sum() + (dM**2).sum()))
    for alpha in ALPHAS:
        D = dense_gap(M, alpha)
        value, gradient = regularizers.OrthogonalityGap(alpha).value_and_grad(conv)
        assert value == regularizers.OrthogonalityGap(alpha).value(conv)
        assert value == pytest.approx((D**2).sum(), rel=PENALTY)
        scale = np.linalg.norm(M @ D) * np.linalg.norm(dM)
        assert np.vdot(gradient, E) == pytest.approx(np.vdot(4.0 * M @ D, dM), abs=PENALTY * (1 + scale))


@settings(max_examples=60)
@given(conv=operators())
def test_courses_along_a_line_are_the_stated_polynomials(conv: ConvOperator) -> None:
    M, E = naive_matrix(conv), random_like(conv)
    dM = matrix_of(conv, E)
    gap = regularizers.OrthogonalityGap(0.7)
    quadratic = regularizers.Frobenius().line_polynomial(conv, E)
    quartic = gap.line_polynomial(conv, E)
    mixed = regularizers.PenaltySum({"a": (2.0, regularizers.Frobenius()), "b": (0.5, gap)}).line_polynomial(conv, E)
    assert quadratic.shape == (3,)
    assert quartic.shape == (5,)
    for t in (0.4, -1.3):
        size = 0.5 * ((M + t * dM) ** 2).sum()
        distance = (dense_gap(M + t * dM, 0.7) ** 2).sum()
        # Terms of either sign may cancel.
        scale = 1e-12 * (1 + np.abs(quartic).max())
        assert np.polynomial.polynomial.polyval(t, quadratic) == pytest.approx(size, abs=scale)
        assert np.polynomial.polynomial.polyval(t, quartic) == pytest.approx(distance, abs=scale * 10)
        assert np.polynomial.polynomial.polyval(t, mixed) == pytest.approx(2 * size + distance / 2, abs=scale * 10)


@settings(max_examples=60)
@given(conv=operators())
def test_the_kernel_adjoint_is_the_adjoint_of_building_the_matrix(conv: ConvOperator) -> None:
    rng = np.random.default_rng(3)
    left = rng.standard_normal((conv.out_channels, *conv.output_shape))
    right = rng.standard_normal((conv.in_channels, *conv.input_shape))
    E = random_like(conv)
    expected = left.ravel() @ matrix_of(conv, E) @ right.ravel()
    scale = np.linalg.norm(left) * np.linalg.norm(right) * np.linalg.norm(E)
    assert np.vdot(kernel_adjoint(conv, left, right), E) == pytest.approx(expected, abs=1e-12 * (1 + scale))


@settings(max_examples=60)
@given(conv=operators())
def test_extreme_values_and_their_gradients(conv: ConvOperator) -> None:
    M, E = naive_matrix(conv), random_like(conv)
    s = np.linalg.svd(M, compute_uv=False)
    gaps = np.diff(-s) if len(s) > 1 else np.array([1.0])
    assume(s[0] > 0)
    assume(s[-1] > 1e-2 * s[0])
    assume(gaps[0] > 1e-2 * s[0])
    assume(gaps[-1] > 1e-2 * s[0])
    n = len(s)
    expected = {
        regularizers.SpectralNorm(): s[0],
        regularizers.SmallestSingularValue(): -s[-1],
        regularizers.FrobeniusMinusSmallest(): 0.5 * (M**2).sum() - n * s[-1],
        regularizers.TwoNormGap(0.3): np.linalg.norm(dense_gap(M, 0.3), 2),
        regularizers.TwoNormGap(0.3, side="smaller"): max(abs(s[0] ** 2 - 0.3), abs(s[-1] ** 2 - 0.3)),
    }
    for penalty, value in expected.items():
        found, gradient = penalty.value_and_grad(conv)
        assert found == pytest.approx(value, rel=1e-9, abs=1e-9 * s[0])
        assert gradient.shape == conv.kernel.shape
        assert penalty.multiplicity in (1, None)
        slope = central_difference(penalty, conv, E, 1e-6 * s[0] / np.linalg.norm(E))
        assert abs(np.vdot(gradient, E) - slope) <= 1e-6 * (
            1 + np.linalg.norm(gradient) + s[0] ** 2
        ) * np.linalg.norm(E)
    # Euler: the value is homogeneous.
    assert np.vdot(regularizers.SpectralNorm().value_and_grad(conv)[1], conv.kernel) == pytest.approx(s[0], rel=1e-8)


@settings(max_examples=60)
@given(conv=operators())
def test_circular_penalties_by_central_differences(conv: ConvOperator) -> None:
    E = random_like(conv)
    quartic = regularizers.CircularSpectralFunction(lambda s: s**4 + s**2, lambda s: 4 * s**3 + 2 * s)
    try:
        value, gradient = quartic.value_and_grad(conv)
    except NotApplicableError:
        assert conv.geometry.padding_mode != "zeros"
        return
    assert value == quartic.value(conv)
    assert_slope(gradient, E, central_difference(quartic, conv, E, 1e-4 / np.linalg.norm(E)), PENALTY_GRADIENT)
    for log in (True, False):
        bound = regularizers.LipBound(log=log)
        value, gradient = bound.value_and_grad(conv)
        norm = np.linalg.norm(naive_matrix(conv), 2)
        assert (np.exp(value) if log else value) >= norm * (1.0 - 1e-12)
        if not conv.geometry.read_taps.any():  # the layer is zero, whatever the weights
            assert value == (-np.inf if log else 0.0)
            continue
        # Homogeneous of degree 1; its logarithm has the slope 1 along the kernel.
        assert np.vdot(gradient, conv.kernel) == pytest.approx(1.0 if log else value, rel=1e-10)


def test_lipbound_gradient_by_central_differences() -> None:
    rng = np.random.default_rng(5)
    for options in ({}, {"stride": 2}, {"groups": 2}, {"dilation": 2}):
        conv = ConvOperator(rng.standard_normal((3, 3, 4 // options.get("groups", 1), 6)), (9, 9), **options)
        bound = regularizers.LipBound(log=False)
        gradient = bound.value_and_grad(conv)[1]
        E = random_like(conv, 6)
        # Where the maximum moves to another frequency of the grid the slope jumps: the step is short.
        assert_slope(gradient, E, central_difference(bound, conv, E, 1e-7), PENALTY_GRADIENT)


def test_the_factor_of_the_frequency_grid_costs_at_most_two_per_cent() -> None:
    # One constant tap: every frequency has the same value, the bound is the norm.
    conv = ConvOperator(np.full((1, 1, 1, 1), 2.0), (8, 8))
    assert 2.0 <= regularizers.LipBound(log=False).value(conv) <= 2.0 * (1 + 1e-12)
    K = np.zeros((5, 5, 1, 1))
    K[2, 2] = 1.0
    assert 1.0 <= regularizers.LipBound(log=False).value(ConvOperator(K, (8, 8))) <= 1.02 + 1e-12


def test_squares_of_circular_values_sum_to_the_frobenius_norm() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 2, 4))
    conv = ConvOperator(K, (7, 7), padding_mode="circular")
    square = regularizers.CircularSpectralFunction(lambda s: 0.5 * s**2, lambda s: s)
    value, gradient = square.value_and_grad(conv)
    expected, direction = regularizers.Frobenius().value_and_grad(conv)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, direction, rtol=1e-12, atol=1e-12)


def test_cost_does_not_depend_on_the_image() -> None:
    from spectral_conv.regularizers.orthogonality_gap import _plan

    K = np.ones((3, 3, 2, 2))
    small, large = (_plan(ConvOperator(K, (n, n)).geometry) for n in (16, 224))
    assert [axis.shape for axis in small.axes] == [axis.shape for axis in large.axes]
    assert large.unread == small.unread == 0


def test_large_kernels_need_little_memory() -> None:
    # 104 million combinations of tap pairs.
    conv = ConvOperator(np.random.default_rng(0).standard_normal((31, 31, 1, 1)) / 31.0, (40, 40))
    M = conv.to_dense()
    D = dense_gap(M, 1.0)
    value, gradient = regularizers.OrthogonalityGap().value_and_grad(conv)
    assert value == pytest.approx((D**2).sum(), rel=PENALTY)
    # The value is homogeneous but for alpha: <G, K> = 4 <M D, M>.
    assert np.vdot(gradient, conv.kernel) == pytest.approx(4.0 * np.vdot(M @ D, M), rel=1e-11)


def test_multiple_values_are_reported_and_averaged() -> None:
    # M = diag(3, 3, 1) on every pixel: each value has as many copies as pixels, more than are looked for.
    conv = ConvOperator(np.diag([3.0, 3.0, 1.0])[None, None], (2, 2))
    alone, mean = regularizers.SpectralNorm(), regularizers.SpectralNorm(average=True)
    alone.value_and_grad(conv)
    assert alone.multiplicity == 8
    gradient = mean.value_and_grad(conv)[1]
    np.testing.assert_allclose(gradient[0, 0], np.diag([0.5, 0.5, 0.0]), atol=1e-12)
    least = regularizers.SmallestSingularValue(average=True)
    np.testing.assert_allclose(least.value_and_grad(conv)[1][0, 0], np.diag([0.0, 0.0, -1.0]), atol=1e-12)
    assert least.multiplicity == 4
    # Both ends as far from alpha.
    gap = regularizers.TwoNormGap(5.0, average=True)
    value, gradient = gap.value_and_grad(conv)
    assert value == pytest.approx(4.0)
    assert gap.multiplicity == 12
    np.testing.assert_allclose(
        gradient[0, 0], np.diag([2 * 3 * 0.5 * 8 / 12, 2 * 3 * 0.5 * 8 / 12, -2 * 4 / 12]), atol=1e-12
    )


def test_rank_deficient_layers_have_as_many_zeros_as_are_counted() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 4, 4))
    K[..., 0] = 0.0
    least = regularizers.SmallestSingularValue()
    value, gradient = least.value_and_grad(ConvOperator(K, (8, 8)))
    assert abs(value) <= 1e-12
    assert least.multiplicity == 16  # of 64
    assert np.isfinite(gradient).all()


def test_a_wide_layer_has_a_two_norm_gap_of_alpha_at_least() -> None:
    conv = ConvOperator(np.array([[0.1], [0.1]])[None, None], (3, 3))  # 2 channels to 1
    gap = regularizers.TwoNormGap(1.0)
    value, gradient = gap.value_and_grad(conv)
    assert value == 1.0
    assert not gradient.any()
    assert gap.multiplicity is None
    assert regularizers.TwoNormGap(1.0, side="smaller").value(conv) == pytest.approx(0.98)


def test_float32_kernels_have_float32_gradients_near_the_exact_ones() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 8, 4)).astype(np.float32)
    conv, exact = ConvOperator(K, (16, 16)), ConvOperator(K.astype(np.float64), (16, 16))
    for penalty in (regularizers.Frobenius(), regularizers.OrthogonalityGap(), regularizers.SpectralNorm()):
        value, gradient = penalty.value_and_grad(conv)
        wanted, direction = penalty.value_and_grad(exact)
        assert gradient.dtype == np.float32
        assert value == pytest.approx(wanted, rel=2e-5)
        np.testing.assert_allclose(gradient, direction, atol=2e-5 * np.abs(direction).max())


def test_searches_start_from_the_last_vectors() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 16, 16))
    conv = ConvOperator(K, (16, 16))
    penalty = regularizers.SpectralNorm()
    penalty.value(conv)
    first = penalty.tracker.triplets(conv, "largest").applications
    near = conv.with_kernel(K + 1e-6 * random_like(conv))
    penalty.value(near)
    assert penalty.tracker.triplets(near, "largest").applications < first
    again = pickle.loads(pickle.dumps(penalty))
    assert again.value(near) == pytest.approx(penalty.value(near), rel=1e-9)


def test_a_sum_names_its_terms() -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 2, 2)), (6, 6))
    terms = {
        "size": (0.5, regularizers.Frobenius()),
        "least": (2.0, regularizers.SmallestSingularValue()),
        "norm": (1.0, regularizers.SpectralNorm()),
    }
    total = regularizers.PenaltySum(terms)
    value, gradient = total.value_and_grad(conv)
    assert total.terms(conv) == {name: w * p.value(conv) for name, (w, p) in terms.items()}
    assert value == pytest.approx(total.value(conv))
    np.testing.assert_allclose(gradient, sum(w * p.value_and_grad(conv)[1] for w, p in terms.values()), atol=1e-12)
    with pytest.raises(NotApplicableError, match="`line_polynomial` needs a polynomial in every term; 'least'"):
        total.line_polynomial(conv, gradient)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda conv: regularizers.OrthogonalityGap(np.nan), "`alpha` must be a finite number"),
        (lambda conv: regularizers.TwoNormGap(np.inf), "`alpha` must be a finite number; got inf"),
        (lambda conv: regularizers.TwoNormGap(side="inputs"), "Did you mean 'input'"),
        (lambda conv: regularizers.SpectralNorm(rtol=0.0), "`rtol` must be"),
        (lambda conv: regularizers.PenaltySum({}), "`terms` must name at least one penalty"),
        (
            lambda conv: regularizers.Frobenius().line_polynomial(conv, np.ones(3)),
            "`direction` must be finite and have the shape",
        ),
        (
            lambda conv: regularizers.CircularSpectralFunction(lambda s: s[0], lambda s: s).value(conv),
            "`f` must return one number per value",
        ),
        (
            lambda conv: regularizers.CircularSpectralFunction(lambda s: s, lambda s: s * np.inf).value_and_grad(
                conv
            ),
            "`df` must be finite at every singular value",
        ),
    ],
)
def test_bad_input_says_what_to_do(call: Any, message: str) -> None:
    conv = ConvOperator(np.ones((3, 3, 1, 1)), (4, 4))
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call(conv)
