"""Orthogonal convolutions: the maps, their guarantees on the exact spectrum, their derivatives."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import dense_circulant, dense_convolution
from tolerances import CLIPPED, NORM, ORTHOGONAL_VJP, ORTHONORMAL

from spectral_conv import (
    ConvOperator,
    NotApplicableError,
    NotConvergedError,
    circulant_singular_values,
    orthogonal,
    singular_values,
    spectral_norm,
)

LAYOUT = {1: "WIO", 2: "HWIO", 3: "DHWIO"}


def layer(K: np.ndarray, n: int, **options: Any) -> ConvOperator:
    axes = K.ndim - 2
    return ConvOperator(K, (n,) * axes, layout=LAYOUT[axes], **options)


def circular(K: np.ndarray, n: int, **options: Any) -> ConvOperator:
    return layer(K, n, padding_mode="circular", **options)


def off_one(K: np.ndarray, n: int) -> float:
    return float(np.abs(circulant_singular_values(circular(K, n)) - 1.0).max())


def naive_polar(A: np.ndarray) -> np.ndarray:
    """First-order Björck iteration as the paper prints it, far beyond convergence."""
    X = A / np.linalg.norm(A)
    for _ in range(200):
        X = X + X @ (np.eye(X.shape[1]) - X.T @ X) / 2.0 if A.shape[0] >= A.shape[1] else X
        X = X + (np.eye(X.shape[0]) - X @ X.T) @ X / 2.0 if A.shape[0] < A.shape[1] else X
    return X


def naive_bcop(parameters: orthogonal.BcopParameters) -> np.ndarray:
    """Algorithm 1 on (out, in) matrices, for in >= out, tap by tap; the result is HWIO."""
    size = parameters.kernel_size
    taps = {(0,) * len(size): naive_polar(parameters.matrix.T)}
    rest = list(parameters.projectors)
    c = parameters.matrix.shape[0]
    for turn in range(max(size) - 1):
        for axis, k in enumerate(size):
            if turn >= k - 1:
                continue
            R = naive_polar(rest.pop(0))
            P = R @ R.T
            found: dict[tuple[int, ...], np.ndarray] = {}
            for place, W in taps.items():
                for step, block in enumerate((P, np.eye(c) - P)):
                    moved = tuple(p + step * (i == axis) for i, p in enumerate(place))
                    found[moved] = found.get(moved, 0.0) + W @ block
            taps = found
    K = np.zeros((*size, *parameters.matrix.shape))
    for place, W in taps.items():
        K[place] = W.T
    return K


@pytest.mark.parametrize(
    ("size", "channels"),
    [((3,), (4, 4)), ((2, 3), (5, 3)), ((3, 3), (4, 4)), ((4, 1), (3, 3)), ((2, 3, 2), (3, 2)), ((3, 3), (1, 1))],
)
def test_bcop_is_algorithm_1(size: tuple[int, ...], channels: tuple[int, int]) -> None:
    parameters = orthogonal.BcopParameters.sample(size, *channels, rng=3)
    np.testing.assert_allclose(orthogonal.bcop(parameters), naive_bcop(parameters), atol=1e-12)


def test_bcop_with_more_outputs_is_the_transposed_taps_of_the_other() -> None:
    parameters = orthogonal.BcopParameters.sample((3, 2), 2, 5, rng=0)
    turned = orthogonal.BcopParameters(
        kernel_size=(3, 2), matrix=parameters.matrix.T, projectors=parameters.projectors
    )
    np.testing.assert_allclose(
        orthogonal.bcop(parameters), orthogonal.bcop(turned).swapaxes(-1, -2), atol=ORTHONORMAL
    )


@settings(max_examples=60)
@given(
    ndim=st.sampled_from([1, 2, 2, 3]),
    k=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    extra=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_bcop_kernels_are_orthogonal_at_every_size(
    ndim: int, k: list[int], channels: tuple[int, int], extra: int, seed: int
) -> None:
    size = tuple(min(j, 3) if ndim == 3 else j for j in k[:ndim])
    K = orthogonal.sample_bcop(size, *channels, rng=seed)
    assert K.shape == (*size, *channels)
    n = max(size) + (extra if ndim < 3 else extra % 2)
    assert off_one(K, n) <= ORTHONORMAL
    assert orthogonal.is_orthogonal(circular(K, n), atol=ORTHONORMAL)
    again = orthogonal.sample_bcop(size, *channels, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(K, again)


@pytest.mark.parametrize(
    ("k", "c", "n"), [(1, 64, 4), (2, 64, 5), (3, 64, 6), (5, 64, 5), (4, 33, 7), (5, 1, 64), (3, 4, 64), (5, 2, 9)]
)
def test_bcop_kernels_of_many_channels_and_sizes(k: int, c: int, n: int) -> None:
    K = orthogonal.sample_bcop(k, c, c, rng=k * c)
    assert off_one(K, n) <= ORTHONORMAL


def test_bcop_against_a_dense_circulant_matrix() -> None:
    K = orthogonal.sample_bcop((3, 2), 3, 2, rng=0)
    M = dense_circulant(K, (4, 5), (1, 1), (1, 1), 1)
    np.testing.assert_allclose(M @ M.T, np.eye(40), atol=ORTHONORMAL)


@pytest.mark.parametrize(("k", "c", "n"), [(2, 4, 8), (3, 2, 8), (3, 8, 12), (3, 16, 14), (5, 4, 10)])
def test_zero_padding_keeps_the_norm_but_not_the_smallest_value(k: int, c: int, n: int) -> None:
    conv = layer(orthogonal.sample_bcop(k, c, c, rng=1), n)
    if max(conv.shape) <= 1200:
        s = singular_values(conv)
        assert s[0] <= 1.0 + ORTHONORMAL
        assert s[-1] <= 0.2
    assert spectral_norm(conv).value <= 1.0 + ORTHONORMAL
    assert not orthogonal.is_orthogonal(conv, atol=0.1)


def directions(like: orthogonal.BcopParameters, rng: np.random.Generator) -> orthogonal.BcopParameters:
    return orthogonal.BcopParameters(
        kernel_size=like.kernel_size,
        matrix=rng.standard_normal(like.matrix.shape),
        projectors=rng.standard_normal(like.projectors.shape),
    )


def assert_vjp(f: Callable[[float], np.ndarray], C: np.ndarray, slope: float, scale: float) -> None:
    """Compare with central differences of ``<C, f(t)>``."""
    h = 1e-5
    expected = float(np.vdot(C, f(h) - f(-h))) / (2.0 * h)
    assert abs(slope - expected) <= ORTHOGONAL_VJP * scale


@pytest.mark.parametrize(
    ("size", "channels"),
    [((3,), (4, 4)), ((2, 3), (5, 3)), ((3, 3), (2, 6)), ((1, 1), (3, 5)), ((2, 2, 2), (3, 3)), ((3, 2), (1, 1))],
)
def test_vjp_of_bcop_by_central_differences(size: tuple[int, ...], channels: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    parameters = orthogonal.BcopParameters.sample(size, *channels, rng=rng)
    mapped = orthogonal.bcop_with_vjp(parameters)
    np.testing.assert_array_equal(mapped.kernel, orthogonal.bcop(parameters))
    C = rng.standard_normal(mapped.kernel.shape)
    found = mapped.vjp(C)
    for _ in range(3):
        E = directions(parameters, rng)

        def moved(t: float, E: orthogonal.BcopParameters = E) -> np.ndarray:
            return orthogonal.bcop(
                orthogonal.BcopParameters(
                    kernel_size=size,
                    matrix=parameters.matrix + t * E.matrix,
                    projectors=parameters.projectors + t * E.projectors,
                )
            )

        slope = np.vdot(found.matrix, E.matrix) + np.vdot(found.projectors, E.projectors)
        norms = [np.hypot(np.linalg.norm(x.matrix), np.linalg.norm(x.projectors)) for x in (found, E)]
        assert_vjp(moved, C, slope, norms[0] * norms[1] + 1e-3)
    # The map sees neither the size of the matrix nor that of the ranges' spanning vectors.
    assert abs(np.vdot(found.matrix, parameters.matrix)) <= 1e-10
    assert abs(np.vdot(found.projectors, parameters.projectors)) <= 1e-10


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (2, 1, 9), (1, 1, 4, 4), (2, 2, 2, 3, 5)])
def test_vjp_of_rko_by_central_differences(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(8)
    A, E, C = (rng.standard_normal(shape) for _ in range(3))
    mapped = orthogonal.rko_with_vjp(A, stride=2)
    np.testing.assert_array_equal(mapped.kernel, orthogonal.rko(A, stride=2))
    found = mapped.vjp(C)
    scale = np.linalg.norm(found) * np.linalg.norm(E) + 1e-3
    assert_vjp(lambda t: orthogonal.rko(A + t * E, stride=2), C, np.vdot(found, E), scale)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 3, 2, 4), {}),
        ((3, 2, 2), {"stride": 2}),
        ((2, 3, 2, 2), {"padding_mode": "reflect"}),
        ((3, 2, 2, 4), {"groups": 2}),
        ((3, 3, 3, 2), {"transposed": True, "stride": 2, "padding": 1}),
    ],
)
def test_vjp_of_ossn_by_central_differences(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(9)
    conv = layer(rng.standard_normal(shape), 6, **options)
    s = singular_values(conv)
    assert s[0] - s[1] > 1e-3 * s[0]  # else there is no derivative to compare with
    E, C = rng.standard_normal(shape), rng.standard_normal(shape)
    mapped = orthogonal.ossn_with_vjp(conv)
    np.testing.assert_allclose(mapped.kernel, orthogonal.ossn(conv), rtol=1e-8)
    found = mapped.vjp(C)

    def moved(t: float) -> np.ndarray:
        K = conv.kernel + t * E
        return K / singular_values(conv.with_kernel(K))[0]

    assert_vjp(moved, C, np.vdot(found, E), np.linalg.norm(found) * np.linalg.norm(E))


@settings(max_examples=40)
@given(
    k=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 20)),
    stride=st.integers(1, 3),
    mode=st.sampled_from(["zeros", "circular"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_rko_stretches_nothing(k: list[int], channels: tuple[int, int], stride: int, mode: str, seed: int) -> None:
    K = orthogonal.sample_rko(k, *channels, rng=seed, stride=stride)
    flat = K.reshape(-1, channels[1])
    gram = flat.T @ flat if flat.shape[0] >= flat.shape[1] else flat @ flat.T
    taps = np.prod([-(-j // stride) for j in k])
    np.testing.assert_allclose(gram, np.eye(len(gram)) / taps, atol=ORTHONORMAL)
    conv = layer(K, 6, stride=stride, padding_mode=mode)  # 6: a multiple of every stride
    assert spectral_norm(conv).value <= 1.0 + ORTHONORMAL
    np.testing.assert_allclose(orthogonal.rko(K, stride=stride), K, atol=ORTHONORMAL)


def test_rko_is_the_nearest_of_its_kind() -> None:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((3, 3, 2, 4))
    distance = np.linalg.norm(orthogonal.rko(A) - A)
    for seed in range(50):
        near = orthogonal.rko(A + 0.3 * np.random.default_rng(seed).standard_normal(A.shape))
        assert np.linalg.norm(near - A) >= distance


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding_mode": "circular"},
        {"padding_mode": "replicate"},
        {"stride": 2, "padding": 1},
        {"dilation": 2},
        {"transposed": True, "stride": 2, "padding": 1},
        {"dtype": np.float32},
    ],
)
def test_ossn_has_the_exact_norm_one(options: dict[str, Any]) -> None:
    conv = layer(np.random.default_rng(2).standard_normal((3, 3, 3, 4)), 7, **options)
    K = orthogonal.ossn(conv)
    normed = ConvOperator.from_geometry(conv.geometry, K)
    assert np.linalg.svd(normed.to_dense(), compute_uv=False)[0] == pytest.approx(1.0, rel=NORM)
    np.testing.assert_allclose(orthogonal.ossn(normed), K, rtol=NORM)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_sampled_ossn_kernels_have_norm_one(ndim: int) -> None:
    K = orthogonal.sample_ossn(3, 2, 3, ndim=ndim, rng=1, input_shape=(5,) * ndim, padding_mode="circular")
    assert circulant_singular_values(circular(K, 5)).max() == pytest.approx(1.0, rel=NORM)
    assert orthogonal.sample_ossn(2, 1, 1, ndim=1, rng=1).shape == (2, 1, 1)


@pytest.mark.parametrize(
    ("shape", "n", "options"),
    [
        ((3, 3, 4, 4), 8, {}),
        ((3, 2, 3, 5), 7, {}),
        ((4, 2, 3), 9, {"dilation": 2}),
        ((3, 3, 2, 3), 8, {"stride": 2}),
        ((4, 3, 5), 12, {"stride": 2, "dilation": 3, "padding": [(4, 4)]}),
        ((3, 3, 2, 6), 6, {"groups": 3}),
        ((2, 2, 2, 2, 3), 4, {}),
    ],
)
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 2.0)])
def test_svcm_brings_the_exact_circular_values_into_the_interval(
    shape: tuple[int, ...], n: int, options: dict[str, Any], interval: tuple[float, float]
) -> None:
    conv = circular(np.random.default_rng(4).standard_normal(shape), n, **options)
    found = orthogonal.svcm(conv, lower=interval[0], upper=interval[1], maxiter=20000)
    geometry = conv.geometry
    M = dense_convolution(
        found.kernel,
        conv.input_shape,
        conv.output_shape,
        geometry.stride,
        [pair[0] for pair in geometry.padding],
        geometry.dilation,
        geometry.groups,
        "circular",
    )
    s = np.linalg.svd(M, compute_uv=False)
    slack = CLIPPED * interval[1] + 1e-12
    assert interval[0] - slack <= s[-1]
    assert s[0] <= interval[1] + slack
    assert (found.smallest, found.largest) == pytest.approx((s[-1], s[0]), abs=1e-12)
    assert found.distance == pytest.approx(np.linalg.norm(found.kernel - conv.kernel))
    assert found.iterations <= (20 if interval[0] == 0.0 else 2000)


def test_svcm_is_no_farther_than_rescaling_and_seldom_is_rescaling() -> None:
    rescalings = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        K = rng.standard_normal((4, 1, 1)) * np.exp(2.0 * rng.standard_normal((4, 1, 1)))
        conv = circular(K, 5)
        top = circulant_singular_values(conv).max()
        conv = conv.with_kernel(K * rng.uniform(1.0, 3.0) / top)
        rescaled = np.linalg.norm(conv.kernel) * (1.0 - 1.0 / circulant_singular_values(conv).max())
        found = orthogonal.svcm(conv)
        assert found.distance <= rescaled * (1.0 + 1e-12)
        rescalings += abs(found.distance - rescaled) <= 1e-12 and found.iterations > 1
    assert 1 <= rescalings <= 50
    # One that lies inside is left alone.
    inside = circular(np.full((3, 1, 1), 0.1), 5)
    np.testing.assert_array_equal(orthogonal.svcm(inside).kernel, inside.kernel)


def test_svcm_of_a_dilated_layer_is_that_of_its_independent_parts() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 2, 2))
    plain, dilated = orthogonal.svcm(circular(K, 4)), orthogonal.svcm(circular(K, 8, dilation=2))
    np.testing.assert_allclose(dilated.kernel, plain.kernel, atol=1e-10)
    assert dilated.iterations == plain.iterations


def test_svcm_on_a_padded_grid_bounds_the_zero_padded_layer() -> None:
    conv = layer(np.random.default_rng(0).standard_normal((3, 3, 3, 3)), 6)
    found = orthogonal.svcm(conv, grid=8)
    assert singular_values(conv.with_kernel(found.kernel))[0] <= 1.0 + CLIPPED
    turned = layer(np.random.default_rng(0).standard_normal((3, 3, 2, 3)), 4, transposed=True, padding=1)
    clipped = turned.with_kernel(orthogonal.svcm(turned, grid=6).kernel)
    assert singular_values(clipped)[0] <= 1.0 + CLIPPED


def test_svcm_says_where_it_stopped_early() -> None:
    conv = circular(np.random.default_rng(0).standard_normal((3, 3, 4, 4)), 8)
    with pytest.raises(
        NotConvergedError, match=r"3 rounds \(`maxiter`=3\) left singular values .* outside"
    ) as caught:
        orthogonal.svcm(conv, lower=1.0, maxiter=3)
    reached = orthogonal.svcm(conv, lower=1.0, maxiter=3, on_failure="return")
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.result.iterations == reached.iterations == 3
    assert str(again) == str(caught.value)


def rank_deficient() -> orthogonal.BcopParameters:
    good = orthogonal.BcopParameters.sample(2, 4, 4, rng=0)
    return orthogonal.BcopParameters(kernel_size=(2, 2), matrix=good.matrix, projectors=np.ones((2, 4, 2)))


CONV = ConvOperator(np.ones((3, 3, 1, 1)), (4, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthogonal.sample_bcop(0, 2, 2, rng=0), "`kernel_size` must be an integer of at least 1; got 0"),
        (lambda: orthogonal.sample_bcop((3,) * 4, 2, 2, rng=0), "`kernel_size` must be an int or have 1 to 3"),
        (lambda: orthogonal.sample_bcop(3, 2, 2, ndim=4, rng=0), "`ndim` must be 1, 2 or 3; got 4"),
        (lambda: orthogonal.sample_rko(3, 2, 0, rng=0), "`out_channels` must be an integer of at least 1"),
        (
            lambda: orthogonal.BcopParameters(kernel_size=(2,), matrix=np.eye(3), projectors=np.ones((1, 3, 2))),
            r"`projectors` must have the shape \(1, 3, 1\)",
        ),
        (
            lambda: orthogonal.bcop_with_vjp(rank_deficient()).vjp(np.ones((2, 2, 4, 4))),
            "`projectors` must have full",
        ),
        (lambda: orthogonal.rko_with_vjp(np.ones((2, 2, 2))).vjp(np.ones((2, 2, 2))), "`parameters` must have full"),
        (lambda: orthogonal.rko_with_vjp(np.ones((2, 1, 1))).vjp(np.ones(2)), "`cotangent` must be a real array"),
        (lambda: orthogonal.rko_with_vjp(np.ones((2, 1, 1))).vjp(np.ones((1, 1, 1))), "`cotangent` must have the"),
        (lambda: orthogonal.rko(np.full((2, 1, 1), np.nan)), "`parameters` must be finite; got 2"),
        (lambda: orthogonal.rko(np.ones((0, 1, 1))), "`parameters` must not be empty"),
        (lambda: orthogonal.ossn(CONV.with_kernel(0.0 * CONV.kernel)), "`conv` must not be the zero layer"),
        (lambda: orthogonal.ossn(np.ones((3, 3, 1, 1))), "`conv` must be a ConvOperator"),
        (lambda: orthogonal.is_orthogonal(CONV, atol=2.0), r"`atol` must lie between 0 and 1; got 2\.0"),
        (lambda: orthogonal.svcm(CONV, lower=2.0), "`lower` and `upper` must satisfy"),
        (lambda: orthogonal.svcm(CONV, on_failure="rase"), "Did you mean 'raise'"),
        (lambda: orthogonal.svcm(CONV, grid=2), r"`grid` must be at least the extent \(3, 3\)"),
    ],
)
def test_bad_input_says_what_to_do(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_svcm_refuses_reflect_padding() -> None:
    with pytest.raises(NotApplicableError, match="Clipping the circulant spectrum does not apply"):
        orthogonal.svcm(layer(np.ones((3, 3, 1, 1)), 5, padding_mode="reflect"))
