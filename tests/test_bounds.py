"""Bounds of the norm: never on the wrong side of it, as tight as published, with gradients that are theirs."""

from __future__ import annotations

import itertools
import math
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from cases import naive_matrix, operators, reference_cases, reference_operator
from hypothesis import given, settings
from numpy.typing import NDArray
from tolerances import BOUND_GRADIENT, DENSE

from spectral_conv import ConvOperator, NotApplicableError, bounds, descend, spectral_norm, steps
from spectral_conv.bounds import BoundMethod
from spectral_conv.bounds._method import without_idle_mode
from spectral_conv.bounds._reads import row_of_reads, stack_of_reads
from spectral_conv.geometry import NOTHING, Axis

UPPER = ("exact", "upper")
ANY_PADDING = ("fantastic_four", "reshaped", "power_iteration", "reshaped_norm")


def gaussian(shape: tuple[int, ...], size: int | tuple[int, ...], seed: int = 0, **options: Any) -> ConvOperator:
    return ConvOperator(np.random.default_rng(seed).standard_normal(shape), size, **options)


def dense_norm(conv: ConvOperator) -> float:
    return float(np.linalg.norm(naive_matrix(conv).astype(np.float64), 2))


def check_sides(conv: ConvOperator, exact: float, error: float = 1e-13) -> None:
    """No bound on the wrong side of a value that is right to the relative `error`."""
    table = bounds.table(conv, exact=False)
    for row in table.rows:
        if row.bound is None:
            assert row.method.split()[0] not in ANY_PADDING
            assert conv.geometry.padding_mode != "zeros", row.reason
            continue
        if row.bound.kind in UPPER:
            assert row.bound.value >= exact * (1.0 - error), row
        if row.bound.kind == "lower":
            assert row.bound.value <= exact * (1.0 + error), row
        if row.bound.kind == "exact":
            assert row.bound.value <= exact * (1.0 + 1e-9), row


class TestNeverOnTheWrongSide:
    @pytest.mark.parametrize("case", reference_cases(), ids=lambda case: case["name"])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_reference_cases(self, case: dict[str, Any], dtype: Any) -> None:
        if dtype == np.float64:
            check_sides(reference_operator(case), case["sigma_max"], 1e-12)
        else:
            conv = reference_operator(case, np.float32)
            exact = spectral_norm(conv.with_kernel(conv.kernel.astype(np.float64)))
            check_sides(conv, exact.lower)

    @given(operators())
    @settings(max_examples=int(os.environ.get("BOUND_EXAMPLES", "80")))  # more of them in `make validate-full`
    def test_random_operators(self, conv: ConvOperator) -> None:
        check_sides(conv, dense_norm(conv))

    @pytest.mark.parametrize("seed", range(4))
    def test_kernels_larger_than_the_image(self, seed: int) -> None:
        check_sides(conv := gaussian((7, 5, 2, 2), (3, 2), seed), dense_norm(conv))
        check_sides(conv := gaussian((7, 5, 2, 2), (3, 2), seed, padding=5, stride=(2, 3)), dense_norm(conv))

    @pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-160, 1e160, 1e300])
    def test_scales_near_the_ends_of_the_range(self, scale: float) -> None:
        conv = gaussian((3, 3, 2, 3), (5, 5))
        scaled = conv.with_kernel(conv.kernel * scale)
        exact = dense_norm(conv.with_kernel(scaled.kernel / scale)) * scale
        for row in bounds.table(scaled, exact=False).rows:
            assert row.bound is not None
            if row.bound.kind in UPPER:
                assert row.bound.value >= exact * (1 - 1e-12)
            if row.bound.kind == "lower":
                assert row.bound.value <= exact * (1 + 1e-12) + 1e-322

    # Norms that are attained, and are floating-point numbers: nothing may be lost to rounding.
    @pytest.mark.parametrize(
        ("kernel", "exact"),
        [
            (np.array([[3.0], [4.0]]), 5.0),
            (np.array([[5.0, -12.0]]), 13.0),
            (np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]]), 2.0),
            (np.array([[8.0, 0.0], [0.0, 3.0]]), 8.0),
            (np.full((16, 16), 0.1), 1.6),
        ],
    )
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_attained_values_are_not_rounded_away(
        self, kernel: NDArray[np.floating], exact: float, dtype: Any
    ) -> None:
        conv = ConvOperator(kernel.astype(dtype)[None, None], (4, 4))
        if exact == 1.6:
            exact = 16 * float(dtype(0.1))
        for row in bounds.table(conv, exact=False).rows:
            assert row.bound is not None
            if row.bound.kind in UPPER:
                assert row.bound.value >= exact, row
            if row.bound.kind == "lower":
                assert row.bound.value <= exact, row

    def test_zero_layers_have_zero_bounds(self) -> None:
        for row in bounds.table(ConvOperator(np.zeros((3, 3, 2, 2)), (5, 5))).rows:
            assert row.bound is not None
            assert row.bound.value == 0.0
            assert row.ratio is None

    def test_weights_that_never_meet_the_image_do_not_count(self) -> None:
        kernel = np.zeros((5, 1, 1))
        kernel[0], kernel[2] = 1e6, 1.0
        conv = ConvOperator(kernel, 1, layout="WIO")  # one pixel: the outer taps see padding only
        for row in bounds.table(conv).rows:
            assert row.bound is not None
            assert row.bound.value == pytest.approx(1.0, rel=0.02)


class TestWherePublicCodeFails:
    """The known defects of other tools, each with the number that is right."""

    def test_lipbound_keeps_the_sampling_factor_that_the_torch_default_drops(self) -> None:
        for seed in range(30):
            conv = gaussian((3, 3, 1, 1), (64, 64), seed)
            fine = np.abs(np.fft.fft2(conv.kernel[..., 0, 0], (512, 512))).max()
            assert fine <= bounds.lipbound(conv).value <= 1.021 * fine

    def test_a_grid_as_small_as_the_kernel_is_no_bound(self) -> None:
        below = 0
        for seed in range(20):
            conv = gaussian((3, 3, 4, 4), (32, 32), seed)
            coarse = np.linalg.norm(np.fft.fft2(conv.kernel, axes=(0, 1)), 2, axis=(2, 3)).max()
            below += coarse < spectral_norm(conv, rtol=1e-4).lower
            assert bounds.supremum(conv).value >= spectral_norm(conv, rtol=1e-4).lower
        assert below >= 10

    def test_circ_of_n_is_no_bound_and_the_embedding_is_one(self) -> None:
        violated = 0
        for seed in range(150):
            conv = gaussian((3, 1, 1), 4, seed, layout="WIO")
            exact = dense_norm(conv)
            violated += np.abs(np.fft.fft(conv.kernel[:, 0, 0], 4)).max() < exact * (1 - 1e-9)
            assert bounds.circulant_embedding(conv).value >= exact
        assert violated >= 3

    def test_groups_count_by_the_largest_not_by_the_product(self) -> None:
        kernel = np.array([2.0, 3.0]).reshape(1, 1, 1, 2)
        table = bounds.table(ConvOperator(kernel, (4, 4), groups=2))
        for row in table.rows:
            if row.method != "reshaped_norm":
                assert row.ratio == pytest.approx(1.0, rel=1e-6)

    def test_strides_are_taken_in_where_kernel_and_stride_differ(self) -> None:
        conv = gaussian((3, 3, 4, 4), (16, 16), stride=2)
        plain = gaussian((3, 3, 4, 4), (16, 16))
        for method in (bounds.circulant_embedding, bounds.supremum, bounds.gram, bounds.tensor_norm):
            assert method(conv).value < method(plain).value
        assert bounds.circulant_embedding(conv).value <= 1.03 * spectral_norm(conv).value

    def test_the_reshaped_norm_is_labelled_as_no_bound(self) -> None:
        conv = gaussian((3, 3, 16, 16), (16, 16))
        bound = bounds.reshaped_norm(conv)
        assert bound.kind == "estimate"
        assert 0.5 < bound.value / spectral_norm(conv).value < 0.75

    def test_power_iteration_is_labelled_as_a_lower_bound(self) -> None:
        conv = gaussian((3, 3, 8, 8), (16, 16))
        bound = bounds.power_iteration(conv)
        assert bound.kind == "lower"
        assert 0.9 * spectral_norm(conv).value < bound.value < spectral_norm(conv).lower

    def test_the_frobenius_norm_of_the_self_convolved_kernel_is_no_bound(self) -> None:
        kernel = np.ones((3, 1, 1))
        conv = ConvOperator(kernel, 100, layout="WIO")
        self_convolved = np.convolve(kernel.ravel(), kernel.ravel())
        exact = spectral_norm(conv).lower
        assert np.linalg.norm(self_convolved) ** 0.5 < 0.8 * exact
        assert bounds.gram(conv, steps=1, domain="pixels").value >= exact

    def test_circular_padding_of_an_image_that_is_no_multiple_of_the_stride(self) -> None:
        # Rows 0 and 2 of three pixels overlap around the corner: sqrt(3), where the strided symbol says sqrt(2).
        conv = ConvOperator(np.ones((2, 1, 1)), 3, layout="WIO", stride=2, padding=[(0, 1)], padding_mode="circular")
        assert dense_norm(conv) == pytest.approx(math.sqrt(3))
        check_sides(conv, math.sqrt(3))


class TestPublishedTightness:
    def test_order_and_size_on_a_gaussian_kernel(self) -> None:
        conv = gaussian((5, 5, 64, 64), (12, 12), padding_mode="circular")
        exact = spectral_norm(conv).value
        gram, four, lip = (
            method(conv).value / exact for method in (bounds.gram, bounds.fantastic_four, bounds.lipbound)
        )
        assert 1.0 <= gram <= 1.002
        assert 2.0 <= four <= 2.3
        assert 4.4 <= lip <= 4.8
        assert bounds.circulant_embedding(conv).kind == "exact"

    @pytest.mark.parametrize(("size", "median"), [(12, 0.02), (16, 0.01), (24, 0.005)])
    def test_circulant_embedding_of_small_images(self, size: int, median: float) -> None:
        ratios = []
        for seed in range(12):
            conv = gaussian((3, 3, 8, 8), (size, size), seed)
            ratios.append(bounds.circulant_embedding(conv).value / spectral_norm(conv).value)
        assert np.median(ratios) <= 1.0 + median
        assert max(ratios) <= 1.05

    def test_zero_padding_gram_by_steps(self) -> None:
        conv = gaussian((3, 3, 8, 8), (12, 12))
        values = [bounds.gram(conv, steps=t, domain="pixels").value for t in (1, 2, 4, 8)]
        assert values == sorted(values, reverse=True)
        assert values[-1] <= 1.02 * bounds.circulant_embedding(conv).value


def _im2col(axis: Axis) -> NDArray[np.floating]:
    """The stack of the selections S_a, (taps, outputs, inputs), by loops."""
    S = np.zeros((axis.kernel, axis.outputs, axis.inputs))
    for r, a in itertools.product(range(axis.outputs), range(axis.kernel)):
        if axis.reads[r, a] != NOTHING:
            S[a, r, axis.reads[r, a]] = 1.0
    return S


class TestAgainstPlainFormulas:
    @given(operators())
    @settings(max_examples=60)
    def test_reads_of_an_axis(self, conv: ConvOperator) -> None:
        for axis in conv.geometry.axes:
            S = _im2col(axis)
            if not S.any():
                continue
            assert math.sqrt(stack_of_reads(axis)) == pytest.approx(np.linalg.norm(np.vstack(S), 2))
            row = np.linalg.norm(np.hstack(S), 2)
            assert math.sqrt(row_of_reads(axis)) >= row * (1 - 1e-12)
            if conv.geometry.padding_mode == "zeros":
                assert math.sqrt(row_of_reads(axis)) == pytest.approx(row)

    @pytest.mark.parametrize(
        ("kernel", "stride", "dilation", "reads"),
        [
            ((3, 3), 1, 1, 9),
            ((3, 5), 1, 1, 15),
            ((5, 5), 2, 1, 9),
            ((4, 4), 2, 2, 16),
            ((3, 3), 3, 1, 1),
            ((5, 3), 4, 2, 6),
        ],
    )
    def test_factor_of_the_reshaped_kernel(
        self, kernel: tuple[int, int], stride: int, dilation: int, reads: int
    ) -> None:
        conv = gaussian((*kernel, 2, 3), (40, 40), stride=stride, dilation=dilation)
        matrix = conv.kernel.reshape(-1, 3)
        assert bounds.reshaped(conv).value == pytest.approx(math.sqrt(reads) * np.linalg.norm(matrix, 2), rel=1e-9)

    def test_the_four_matrices(self) -> None:
        conv = gaussian((3, 2, 4, 5), (16, 16))
        K = conv.kernel
        matrices = [
            K.transpose(3, 0, 1, 2).reshape(5, -1),
            K.transpose(3, 0, 1, 2).reshape(15, -1),
            K.transpose(3, 1, 0, 2).reshape(10, -1),
            K.transpose(3, 0, 1, 2).reshape(30, -1),
        ]
        least = math.sqrt(6) * min(np.linalg.norm(matrix, 2) for matrix in matrices)
        assert bounds.fantastic_four(conv).value == pytest.approx(least, rel=1e-9)

    @pytest.mark.parametrize("version", ["outputs", "inputs", "frobenius"])
    def test_lipbound_on_a_fine_grid(self, version: str) -> None:
        conv = gaussian((3, 4, 2, 3), (9, 9))
        F = np.fft.fft2(conv.kernel, (256, 256), axes=(0, 1))
        squares = np.abs(F) ** 2
        axes = {"outputs": 2, "inputs": 3, "frobenius": (2, 3)}[version]
        fine = math.sqrt(squares.sum(axis=axes).reshape(256 * 256, -1).max(axis=0).sum())
        assert fine <= bounds.lipbound(conv, version=version).value <= 1.0201 * fine

    def test_lipbound_of_a_strided_layer(self) -> None:
        conv = gaussian((4, 2, 3), 20, layout="WIO", stride=2)
        F = [np.fft.fft(conv.kernel[p::2], 256, axis=0) for p in range(2)]
        fine = math.sqrt((np.abs(np.stack(F)) ** 2).sum(axis=(0, 2)).max(axis=0).sum())
        assert fine <= bounds.lipbound(conv).value <= 1.0201 * fine

    @pytest.mark.parametrize("options", [{}, {"dilation": 2}, {"stride": 2}, {"stride": 2, "dilation": 3}])
    def test_supremum_on_a_fine_grid(self, options: dict[str, int]) -> None:
        conv = gaussian((3, 3, 2), 24, layout="WIO", **options)
        s, d = options.get("stride", 1), options.get("dilation", 1)
        spread = np.zeros((6 * s * d, 3, 2))
        spread[np.arange(3) * d] = conv.kernel
        phases = np.concatenate([np.fft.fft(spread[p::s], 1024, axis=0) for p in range(s)], axis=1)
        fine = np.linalg.norm(phases, 2, axis=(1, 2)).max()
        assert fine * (1 - 1e-12) <= bounds.supremum(conv).value <= 1.0003 * fine

    @pytest.mark.parametrize("steps_taken", [1, 2, 3])
    def test_gram_over_pixels_against_self_convolution(self, steps_taken: int) -> None:
        conv = gaussian((3, 2, 3), 400, layout="WIO")
        # M^T has fewer columns than M rows: two channels. The kernel of M^T M by loops.
        K = {a: conv.kernel[a] for a in range(3)}
        G: dict[int, NDArray[np.floating]] = {}
        for a, b in itertools.product(K, K):
            G[b - a] = G.get(b - a, 0.0) + K[a] @ K[b].T
        for _ in range(steps_taken - 1):
            square: dict[int, NDArray[np.floating]] = {}
            for e, f in itertools.product(G, G):
                square[e + f] = square.get(e + f, 0.0) + G[e] @ G[f]
            G = square
        rows = sum(np.abs(block).sum(axis=1) for block in G.values())
        expected = float(np.max(rows)) ** (2.0**-steps_taken)
        found = bounds.gram(conv, steps=steps_taken, domain="pixels")
        assert expected * (1 - 1e-12) <= found.value <= expected * (1 + 1e-7)

    def test_gram_over_frequencies_is_a_schatten_norm(self) -> None:
        conv = gaussian((3, 3, 3, 4), (7, 7), padding_mode="circular")
        values = np.linalg.svd(np.fft.fft2(conv.kernel, (7, 7), axes=(0, 1)), compute_uv=False)
        expected = ((values**8).sum(axis=-1) ** (1 / 8)).max()
        assert bounds.gram(conv, steps=2).value == pytest.approx(expected, rel=1e-9)

    def test_gram_keeps_to_its_budget(self) -> None:
        bound = bounds.gram(gaussian((3, 3, 256, 256), (56, 56)), steps=10, domain="pixels")
        assert "10 would take too long" in bound.notes

    def test_tensor_norm_between_supremum_and_reshaped_kernels(self) -> None:
        for seed in range(5):
            conv = gaussian((3, 3, 4, 6), (32, 32), seed)
            tensor = bounds.tensor_norm(conv)
            assert tensor.kind == "estimate"
            sup = bounds.supremum(conv).value
            assert sup / 1.0002 <= tensor.value <= bounds.fantastic_four(conv).value * (1 + 1e-9)
            certified = bounds.tensor_norm(conv, certified=True)
            assert (certified.kind, certified.value) == ("upper", max(tensor.value, sup))

    def test_tensor_norm_of_a_product_is_known(self) -> None:
        u, v, x, y = (np.random.default_rng(1).standard_normal(n) for n in (3, 2, 4, 5))
        conv = ConvOperator(np.einsum("a,b,i,j->abij", u, v, x, y), (16, 16))
        expected = math.sqrt(6) * math.prod(float(np.linalg.norm(w)) for w in (u, v, x, y))
        assert bounds.tensor_norm(conv).value == pytest.approx(expected, rel=1e-12)

    def test_a_second_difference_is_its_own_closed_form(self) -> None:
        conv = ConvOperator(np.array([-1.0, 2.0, -1.0]).reshape(3, 1, 1), 10, layout="WIO")
        exact = 2.0 + 2.0 * math.cos(math.pi / 11)
        assert bounds.circulant_embedding(conv).value == pytest.approx(exact, rel=1e-8)
        assert bounds.supremum(conv).value == pytest.approx(4.0, rel=2e-4)


OPTIONS: list[tuple[BoundMethod[...], dict[str, Any]]] = [
    (bounds.circulant_embedding, {}),
    (bounds.supremum, {}),
    (bounds.gram, {"domain": "frequencies", "steps": 3}),
    (bounds.gram, {"domain": "pixels", "steps": 1}),
    (bounds.gram, {"domain": "pixels", "steps": 3}),
    (bounds.lipbound, {}),
    (bounds.lipbound, {"version": "inputs"}),
    (bounds.lipbound, {"version": "frobenius"}),
    (bounds.fantastic_four, {}),
    (bounds.reshaped, {}),
    (bounds.tensor_norm, {}),
    (bounds.tensor_norm, {"certified": True}),
    (bounds.power_iteration, {"iterations": 3000}),
    (bounds.reshaped_norm, {}),
]
GEOMETRIES: dict[str, Callable[[], ConvOperator]] = {
    "plain": lambda: gaussian((3, 3, 2, 3), (6, 5), 3),
    "strided groups": lambda: gaussian((3, 3, 2, 4), (8, 8), 4, stride=2, groups=2),
    "transposed": lambda: gaussian((3, 4, 2), 9, 3, layout="WIO", transposed=True, stride=2),
    "transposed groups": lambda: gaussian((3, 4, 2), 9, 5, layout="WIO", transposed=True, stride=2, groups=2),
    "circular dilated": lambda: gaussian((3, 2, 2), 9, 6, layout="WIO", dilation=2, padding_mode="circular"),
    "circular odd stride": lambda: gaussian(
        (3, 2, 2), 9, 7, layout="WIO", stride=2, padding=1, padding_mode="circular"
    ),
    "three axes": lambda: gaussian((2, 2, 2, 2, 2), (4, 4, 4), 8, layout="DHWIO"),
}


class TestGradients:
    @pytest.mark.parametrize(("method", "options"), OPTIONS, ids=lambda x: getattr(x, "name", str(x)))
    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_against_central_differences(
        self, method: BoundMethod[...], options: dict[str, Any], geometry: str
    ) -> None:
        conv = GEOMETRIES[geometry]()
        direction = np.random.default_rng(9).standard_normal(conv.kernel.shape)
        value, gradient = method.value_and_grad(conv, **options)
        assert gradient.shape == conv.kernel.shape
        assert value == method(conv, **options).value
        h = 1e-5
        ends = [method.value(conv.with_kernel(conv.kernel + t * direction), **options) for t in (h, -h)]
        difference = (ends[0] - ends[1]) / (2 * h)
        assert (gradient * direction).sum() == pytest.approx(
            difference, rel=BOUND_GRADIENT, abs=BOUND_GRADIENT * value
        )
        # Bounds are homogeneous: Euler's identity.
        assert (gradient * conv.kernel).sum() == pytest.approx(value, rel=1e-3)

    def test_in_the_dtype_of_the_kernel(self) -> None:
        conv = gaussian((3, 3, 2, 2), (6, 6)).with_kernel(gaussian((3, 3, 2, 2), (6, 6)).kernel.astype(np.float32))
        assert bounds.gram.value_and_grad(conv)[1].dtype == np.float32

    def test_of_zero_layers_are_zero(self) -> None:
        value, gradient = bounds.fantastic_four.value_and_grad(ConvOperator(np.zeros((3, 3, 2, 2)), (6, 6)))
        assert value == 0.0
        assert not gradient.any()

    @pytest.mark.parametrize("method", [bounds.gram, bounds.circulant_embedding, bounds.fantastic_four])
    def test_a_bound_is_a_penalty(self, method: BoundMethod[...]) -> None:
        conv = gaussian((3, 3, 2, 2), (6, 6))
        run = descend(conv, method, step=steps.Armijo(), maxiter=5)
        assert method.value(conv.with_kernel(run.kernel)) < 0.9 * method.value(conv)


class TestInvariances:
    @given(operators(plain_zeros=True))
    @settings(max_examples=30)
    def test_powers_of_two_factor_out(self, conv: ConvOperator) -> None:
        doubled = conv.with_kernel(conv.kernel * 1024.0)
        for method, options in OPTIONS[:9]:
            assert method.value(doubled, **options) == 1024.0 * method.value(conv, **options)

    def test_groups_left_out_do_not_change_the_side(self) -> None:
        for seed in range(2):
            conv = gaussian((3, 3, 1, 40), (8, 8), seed, groups=40)
            check_sides(conv, spectral_norm(conv).lower)

    @pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
    def test_padding_that_is_not_read_has_no_mode(self, mode: str) -> None:
        conv = gaussian((3, 3, 2, 2), (7, 7), padding=0, padding_mode=mode)
        plain = gaussian((3, 3, 2, 2), (7, 7), padding=0)
        assert without_idle_mode(conv).geometry == plain.geometry
        assert bounds.gram(conv).value == bounds.gram(plain).value

    def test_methods_are_pickled_by_reference(self) -> None:
        for name in ("gram", "lipbound", "reshaped", "supremum"):
            method = getattr(bounds, name)
            assert pickle.loads(pickle.dumps(method)) is method


class TestTable:
    def test_upper_bounds_come_first_the_tightest_on_top(self) -> None:
        table = bounds.table(gaussian((3, 3, 4, 4), (10, 10)))
        assert table.exact is not None
        kinds = [row.bound.kind for row in table.rows if row.bound is not None]
        uppers = [row.bound.value for row in table.rows if row.bound is not None and row.bound.kind in UPPER]
        assert uppers == sorted(uppers)
        assert kinds[: len(uppers)] == ["upper"] * len(uppers)
        assert set(kinds[len(uppers) :]) == {"lower", "estimate"}
        assert table.rows[0].ratio == pytest.approx(uppers[0] / table.exact.value)
        assert table["reshaped"].bound == next(row.bound for row in table.rows if row.method == "reshaped")
        with pytest.raises(KeyError, match="no method 'nothing'; there are"):
            table["nothing"]

    @pytest.mark.parametrize("mode", ["reflect", "replicate"])
    def test_what_does_not_apply_is_listed_with_the_reason(self, mode: str) -> None:
        conv = gaussian((3, 3, 2, 2), (6, 6), padding_mode=mode)
        table = bounds.table(conv)
        absent = {row.method for row in table.rows if row.bound is None}
        assert {row.method for row in table.rows} - absent == set(ANY_PADDING)
        assert all(mode in row.reason for row in table.rows if row.bound is None)
        assert table.rows[-1].bound is None

    def test_without_the_exact_value(self) -> None:
        table = bounds.table(gaussian((3, 3, 2, 2), (6, 6)), exact=False)
        assert (table.exact, table.exact_reason) == (None, "not asked for")
        assert all(row.ratio is None for row in table.rows)

    def test_labels(self) -> None:
        labelled = bounds.table(gaussian((3, 3, 2, 2), (6, 6))).to_xarray()
        assert labelled["value"].sel(bound="gram (pixels)") > labelled["exact"].sel(end="lower")
        assert str(labelled["kind"].sel(bound="power_iteration").values) == "lower"

    def test_every_bound_says_where_it_comes_from_and_where_it_holds(self) -> None:
        for row in bounds.table(gaussian((3, 3, 2, 2), (6, 6))).rows:
            assert row.bound is not None
            assert row.bound.seconds > 0.0
            assert row.bound.scope
            assert row.bound.source
            assert row.bound.method == row.method.split()[0]


class TestErrors:
    def test_wrong_words_and_numbers(self) -> None:
        conv = gaussian((3, 3, 2, 2), (6, 6))
        with pytest.raises(ValueError, match=r"`version` must be one of .*got 'rows'"):
            bounds.lipbound(conv, version="rows")
        with pytest.raises(ValueError, match=r"`domain` must be one of .*Did you mean 'pixels'"):
            bounds.gram(conv, domain="pixel")
        with pytest.raises(ValueError, match="`steps` must be an integer of at least 1; got 0"):
            bounds.gram(conv, steps=0)
        with pytest.raises(ValueError, match="`steps` must be at most 12"):
            bounds.gram(conv, steps=13)
        with pytest.raises(ValueError, match="`iterations` must be an integer of at least 1"):
            bounds.power_iteration(conv, iterations=0)
        with pytest.raises(ValueError, match="`conv` must be a ConvOperator; got ndarray"):
            bounds.gram(np.ones((3, 3, 1, 1)))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "method", [bounds.gram, bounds.lipbound, bounds.supremum, bounds.circulant_embedding, bounds.tensor_norm]
    )
    def test_no_symbol_no_number(self, method: BoundMethod[...]) -> None:
        with pytest.raises(NotApplicableError, match="does not apply to padding_mode='reflect'"):
            method(gaussian((3, 3, 2, 2), (6, 6), padding_mode="reflect"))
        wide = gaussian((3, 2, 2), 6, layout="WIO", padding=3, padding_mode="circular")
        with pytest.raises(NotApplicableError, match="circular padding wider than 'same'"):
            method(wide)
        with pytest.raises(NotApplicableError, match="does not apply"):  # a zero layer is no way around it
            method(wide.with_kernel(np.zeros((3, 2, 2))))


def test_dense_reference_is_the_operator() -> None:
    conv = gaussian((3, 3, 2, 2), (5, 5), stride=2)
    assert np.allclose(naive_matrix(conv), conv.to_dense(), atol=DENSE[conv.dtype])


class TestFaultsOfTheFirstReview:
    def test_orthogonal_kernels_have_a_top_pair(self) -> None:
        for n in (16, 32, 64):
            conv = ConvOperator(scipy.linalg.hadamard(n).astype(float)[None, None], (4, 4))
            check_sides(conv, math.sqrt(n))
        for seed in range(12):
            rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((64, 64)))[0]
            check_sides(ConvOperator(rotation[None, None], (3, 3)), 1.0, 1e-12)

    def test_symbols_that_vanish_on_the_torus(self) -> None:
        conv = ConvOperator(np.array([1.0, -1.0]).reshape(2, 1, 1), 1, layout="WIO", padding=[(0, 1)])
        circular = ConvOperator(conv.kernel, 1, layout="WIO", padding=[(0, 1)], padding_mode="circular")
        check_sides(conv, dense_norm(conv))
        assert dense_norm(circular) == 0.0
        for domain in ("pixels", "frequencies"):
            value, gradient = bounds.gram.value_and_grad(circular, domain=domain)
            assert 0.0 <= value < 1e-9
            assert np.isfinite(gradient).all()

    def test_a_certified_tensor_norm_of_a_layer_that_reads_nothing(self) -> None:
        conv = ConvOperator(np.ones((1, 1, 1)), 2, layout="WIO", stride=4, padding=[(1, 0)])
        assert bounds.tensor_norm(conv, certified=True).value == 0.0

    @pytest.mark.parametrize("method", [bounds.supremum, bounds.lipbound])
    def test_weights_that_are_not_read_here_limit_the_scope(self, method: BoundMethod[...]) -> None:
        assert method(ConvOperator(np.ones((3, 1, 1)), 1, layout="WIO")).scope.startswith("this image size")
        assert method(ConvOperator(np.ones((3, 1, 1)), 2, layout="WIO")).scope.startswith("every image size")

    @given(operators(plain_zeros=True))
    @settings(max_examples=60)
    def test_every_size_means_every_size(self, conv: ConvOperator) -> None:
        bound = bounds.supremum(conv)
        geometry = conv.geometry
        if not bound.scope.startswith("every"):
            return
        for extra in (1, 4):
            larger = ConvOperator(
                conv.kernel,
                [n + extra for n in conv.input_shape],
                layout={1: "WIO", 2: "HWIO", 3: "DHWIO"}[geometry.ndim],
                stride=geometry.stride,
                padding=geometry.padding,
                dilation=geometry.dilation,
                groups=geometry.groups,
            )
            if max(larger.shape) <= 700:
                assert bound.value >= dense_norm(larger) * (1 - 1e-13)

    def test_wrong_arguments_of_the_table(self) -> None:
        with pytest.raises(ValueError, match="`conv` must be a ConvOperator; got int"):
            bounds.table(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"`exact` must be True, False or an Enclosure; got 3\.0"):
            bounds.table(gaussian((3, 3, 2, 2), (6, 6)), exact=3.0)  # type: ignore[arg-type]
