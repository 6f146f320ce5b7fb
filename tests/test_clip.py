"""The nearest kernel of bounded norm: feasible, near, and as near as the dual problem allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
from cases import naive_matrix, operators
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_conv import ConvOperator, orthogonal, spectral_norm
from spectral_conv.orthogonal import _clip
from spectral_conv.orthogonal._symbol_ball import axis_window
from spectral_conv.symbols._peaks import TapWaves
from spectral_conv.symbols._transform import group_taps


def gaussian(shape: tuple[int, ...], size: int | tuple[int, ...], seed: int = 0, **options: Any) -> ConvOperator:
    return ConvOperator(np.random.default_rng(seed).standard_normal(shape), size, **options)


def dense_norm(conv: ConvOperator) -> float:
    return float(np.linalg.norm(naive_matrix(conv).astype(np.float64), 2))


@pytest.fixture(params=["dense", "symbol"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "symbol":
        monkeypatch.setattr(_clip, "_MOST_FLOPS", 0.0)
    return str(request.param)


def check_clipped(conv: ConvOperator, maximum: float, found: orthogonal.ClippedLayer) -> None:
    assert found.norm.upper <= maximum
    assert dense_norm(found.operator) <= maximum * (1.0 + 1e-12)
    assert found.operator.dtype == conv.dtype
    assert found.operator.geometry == conv.geometry
    start, norm = conv.kernel.astype(np.float64), dense_norm(conv)
    assert found.distance == pytest.approx(np.linalg.norm(found.operator.kernel - start), abs=1e-12)
    rescaled = max(0.0, 1.0 - maximum / norm) * float(np.linalg.norm(start)) if norm > 0 else 0.0
    rounding = 4 * np.finfo(conv.dtype).eps * float(np.linalg.norm(start))
    assert found.least_distance <= found.distance * (1.0 + 1e-9) + rounding
    assert found.distance <= rescaled * (1.0 + 1e-9) + rounding


class TestGeometries:
    @pytest.mark.parametrize(
        "conv",
        [
            gaussian((3, 3, 3, 4), (6, 6)),
            gaussian((3, 3, 2, 4), (8, 7), 1, stride=2, groups=2),
            gaussian((3, 3, 2, 3), (7, 7), 2, padding_mode="circular"),
            gaussian((3, 3, 2, 3), (7, 7), 3, padding_mode="reflect"),
            gaussian((3, 3, 2, 3), (7, 7), 4, padding_mode="replicate", padding=2),
            gaussian((4, 3, 2), 9, 5, layout="WIO", transposed=True, stride=2, padding=1),
            gaussian((2, 2, 2, 2, 3), (4, 4, 4), 6, layout="DHWIO"),
            gaussian((3, 2, 2), 12, 7, layout="WIO", dilation=3),
            gaussian((5, 2, 2), 3, 8, layout="WIO"),
        ],
        ids=repr,
    )
    def test_feasible_near_and_the_gap_known(self, conv: ConvOperator, engine: str) -> None:
        maximum = 0.3 * dense_norm(conv)
        found = orthogonal.clip(conv, maximum)
        check_clipped(conv, maximum, found)
        assert dense_norm(found.operator) >= maximum * (1.0 - 1e-2)  # hardly anything was given away
        if engine == "dense":
            assert found.gap <= 5e-3

    @given(operators(), st.floats(0.05, 2.0))
    @settings(max_examples=15)
    def test_random_geometries(self, conv: ConvOperator, share: float) -> None:
        maximum = share * (dense_norm(conv) or 1.0)
        check_clipped(conv, maximum, orthogonal.clip(conv, maximum, maxiter=100))

    def test_float32_is_safe_after_rounding(self) -> None:
        conv = gaussian((3, 3, 3, 3), (8, 8))
        conv = conv.with_kernel(conv.kernel.astype(np.float32))
        for maximum in (0.1, 1.0, 3.3):
            check_clipped(conv, maximum, orthogonal.clip(conv, maximum, maxiter=100))

    @pytest.mark.parametrize("scale", [1e-305, 1e-200, 1e200, 1e300])
    def test_scales_near_the_ends_of_the_range(self, scale: float) -> None:
        conv = gaussian((3, 3, 3, 3), (6, 6))
        maximum = 0.1 * scale * dense_norm(conv)
        found = orthogonal.clip(conv.with_kernel(conv.kernel * scale), maximum, maxiter=50)
        one = orthogonal.clip(conv, 0.1 * dense_norm(conv), maxiter=50)
        assert found.norm.upper <= maximum
        assert found.distance == pytest.approx(one.distance * scale, rel=1e-6)
        assert orthogonal.clip(conv, 1e-300, maxiter=5).norm.upper <= 1e-300
        assert orthogonal.clip(conv, 1e300).distance == 0.0

    def test_a_layer_that_is_small_enough_is_left_alone(self) -> None:
        conv = gaussian((3, 3, 2, 2), (6, 6))
        found = orthogonal.clip(conv, 1.01 * dense_norm(conv))
        assert np.array_equal(found.operator.kernel, conv.kernel)
        assert (found.distance, found.least_distance, found.gap, found.iterations) == (0.0, 0.0, 0.0, 0)
        assert orthogonal.clip(ConvOperator(np.zeros((3, 3, 2, 2)), (6, 6)), 1.0).distance == 0.0


class TestOptimality:
    def test_size_one_is_the_clipped_decomposition(self, engine: str) -> None:
        matrix = np.random.default_rng(1).standard_normal((4, 3))
        u, s, vh = np.linalg.svd(matrix, full_matrices=False)
        found = orthogonal.clip(ConvOperator(matrix[None, None], (5, 5)), 1.0, rtol=1e-8)
        expected = (u * np.minimum(s, 1.0)) @ vh
        assert np.allclose(found.operator.kernel[0, 0], expected, atol=1e-5)
        # Rayleigh quotients of sine windows see 1 - 5e-2 of a norm at five pixels; the dense problem is solved.
        assert found.gap <= (1e-5 if engine == "dense" else 0.5)

    @pytest.mark.parametrize("seed", range(3))
    def test_against_a_general_solver(self, seed: int) -> None:
        conv = gaussian((3, 1, 2), 6, seed, layout="WIO")
        start = conv.kernel.ravel()
        maximum = 0.5 * dense_norm(conv)

        def slack(x: np.ndarray) -> float:
            return maximum - float(np.linalg.norm(conv.with_kernel(x.reshape(3, 1, 2)).to_dense(), 2))

        best = min(
            scipy.optimize.minimize(
                lambda x: 0.5 * ((x - start) ** 2).sum(),
                start * scale,
                jac=lambda x: x - start,
                constraints={"type": "ineq", "fun": slack},
                method="SLSQP",
                options={"maxiter": 300, "ftol": 1e-12},
            ).fun
            for scale in (0.4, 0.1)
        )
        found = orthogonal.clip(conv, maximum, rtol=1e-7, maxiter=5000)
        assert found.distance == pytest.approx(np.sqrt(2 * best), rel=1e-3)

    def test_no_feasible_kernel_is_nearer_than_the_least_distance(self, engine: str) -> None:
        conv = gaussian((3, 3, 2, 2), (8, 8))
        rng = np.random.default_rng(3)
        maximum = 0.4 * dense_norm(conv)
        found = orthogonal.clip(conv, maximum)
        assert found.least_distance > 0.5 * found.distance
        for _ in range(40):
            # Points around the solution, pulled back into the ball.
            kernel = found.operator.kernel + rng.choice([1e-3, 1e-2, 0.1]) * rng.standard_normal(conv.kernel.shape)
            kernel = kernel + rng.uniform(0, 0.05) * (conv.kernel - kernel)
            other = conv.with_kernel(kernel)
            kernel = kernel * min(1.0, maximum / dense_norm(other))
            assert np.linalg.norm(kernel - conv.kernel) >= found.least_distance

    def test_both_engines_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        conv = gaussian((3, 3, 2, 2), (12, 12))
        monkeypatch.setattr(_clip, "_MOST_FLOPS", 1e9)
        dense = orthogonal.clip(conv, 2.0, maxiter=300)
        monkeypatch.setattr(_clip, "_MOST_FLOPS", 0.0)
        symbol = orthogonal.clip(conv, 2.0)
        assert symbol.least_distance <= dense.distance * (1 + 1e-9)
        assert dense.least_distance <= symbol.distance * (1 + 1e-9)
        assert symbol.distance <= 1.01 * dense.distance

    @given(operators())
    @settings(max_examples=60)
    def test_windowed_waves_never_exceed_the_norm(self, conv: ConvOperator) -> None:
        # The inequality that the lower bounds of large layers rest on.
        conv = conv.split_groups()[0]
        geometry, norm = conv.geometry, dense_norm(conv)
        window = np.ones(())
        for axis in geometry.axes:
            window = np.multiply.outer(window, axis_window(axis))
        assert window.min() >= 0.0
        assert window.max() <= 1.0 + 1e-12
        waves = TapWaves(geometry, group_taps(geometry, conv.plain_kernel * window[..., None, None], 0))
        t = np.random.default_rng(0).uniform(0, 2 * np.pi, (20, geometry.ndim))
        assert np.linalg.norm(waves.transposed(t), 2, axis=(1, 2)).max() <= norm * (1 + 1e-12)


class TestMinimum:
    def test_a_matrix_comes_into_the_interval(self) -> None:
        conv = ConvOperator(np.diag([4.0, 0.1, 0.7])[None, None], (4, 4))
        found = orthogonal.clip(conv, 1.0, 0.5)
        assert found.smallest is not None
        assert found.smallest.value == pytest.approx(0.5, rel=1e-3)
        assert found.norm.upper <= 1.0

    def test_a_wide_layer_is_lifted_and_says_how_far(self) -> None:
        conv = gaussian((3, 3, 2, 6), (6, 6), 1)
        plain = orthogonal.clip(conv, 4.0)
        before = np.linalg.svd(plain.operator.to_dense(), compute_uv=False).min()
        found = orthogonal.clip(conv, 4.0, 1.5 * before)
        assert found.smallest is not None
        after = np.linalg.svd(found.operator.to_dense(), compute_uv=False).min()
        assert found.smallest.value == pytest.approx(after, abs=1e-8)
        assert after > 1.2 * before
        assert found.norm.upper <= 4.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "`maximum` must be positive and finite; got 0.0"),
        ((float("nan"),), "`maximum` must be positive and finite; got nan"),
        ((1.0, 2.0), "`minimum` must lie between 0 and `maximum`=1.0; got 2.0"),
        ((1.0, -1.0), "`minimum` must lie between 0"),
    ],
)
def test_bad_intervals(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        orthogonal.clip(gaussian((3, 3, 2, 2), (6, 6)), *arguments)


def test_bad_iteration_parameters() -> None:
    conv = gaussian((3, 3, 2, 2), (6, 6))
    with pytest.raises(ValueError, match=r"`rtol` must lie between 0 and 1; got 2\.0"):
        orthogonal.clip(conv, 1.0, rtol=2.0)
    with pytest.raises(ValueError, match="`maxiter` must be an integer of at least 1; got 0"):
        orthogonal.clip(conv, 1.0, maxiter=0)


def test_norms_of_the_returned_layer_are_those_of_the_engine() -> None:
    conv = gaussian((3, 3, 4, 4), (16, 16))
    found = orthogonal.clip(conv, 2.0)
    exact = spectral_norm(found.operator)
    assert found.norm.lower <= exact.upper
    assert exact.lower <= found.norm.upper <= 2.0
    assert exact.value >= 2.0 * (1 - 1e-3)
