"""The preconditioned iteration: its kernels, its preconditioners, and both ends of the spectrum."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from cases import operators
from hypothesis import given, settings

import spectral_conv
from spectral_conv import ConvOperator
from spectral_conv._kernels import hermitian
from spectral_conv._threads import run_parallel
from spectral_conv.results import NotApplicableError, NotConvergedError, StopReason
from spectral_conv.spectrum import preconditioner, smallest
from spectral_conv.spectrum.packing import Packing
from spectral_conv.spectrum.preconditioner import CirculantPreconditioner


def gaussian(shape: tuple[int, ...], size: tuple[int, ...], seed: int = 0, **options: object) -> ConvOperator:
    return ConvOperator(np.random.default_rng(seed).standard_normal(shape), size, **options)


def complex_stack(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.mark.parametrize("shape", [(5, 1, 3), (4, 6, 2), (3, 9, 17), (2, 40, 40)])
def test_shifted_inverses_and_definiteness(shape: tuple[int, int, int]) -> None:
    near = complex_stack(shape)
    gram = near @ np.conj(np.swapaxes(near, 1, 2))
    largest = np.linalg.eigvalsh(gram)[:, -1]
    identity = np.eye(shape[1])
    for sign, shift in ((-1.0, 1.3 * largest.max()), (1.0, 0.2 * largest.max())):
        result = np.empty((shape[0], shape[1], shape[1]), np.complex64)
        assert hermitian.shifted_inverses(np.float32(sign), near.astype(np.complex64), np.float32(shift), result) == 0
        expected = np.linalg.inv(sign * gram + shift * identity)
        assert np.abs(result - expected).max() <= 2e-4 * np.abs(expected).max()
    flags = np.empty(shape[0], np.bool_)
    threshold = float(np.median(largest))
    hermitian.definite(-1.0, near, threshold * (1 + 1e-9), flags)
    np.testing.assert_array_equal(flags, largest < threshold * (1 + 1e-9))
    failures = hermitian.shifted_inverses(
        np.float32(-1.0),
        near.astype(np.complex64),
        np.float32(0.5 * largest.min()),
        np.empty((shape[0], shape[1], shape[1]), np.complex64),
    )
    assert failures == shape[0]


@settings(max_examples=100)
@given(operators())
def test_packing_keeps_every_entry(conv: ConvOperator) -> None:
    group = conv.split_groups()[0]
    packing = Packing(group.geometry)
    row = np.random.default_rng(0).standard_normal(min(group.shape))
    packed = packing.pack(row)
    assert packed.shape[0] == packing.order
    assert np.linalg.norm(packed) == pytest.approx(np.linalg.norm(row), rel=1e-12)
    whole = np.zeros((packing.order, *packing.grid))
    whole[(slice(None), *(slice(0, n) for n in packed.shape[1:]))] = packed
    np.testing.assert_array_equal(packing.unpack(whole), row)


@pytest.mark.parametrize(
    ("shape", "options"),
    [((3, 3, 4, 6), {}), ((3, 3, 6, 4), {}), ((3, 3, 3, 16), {"stride": 2}), ((3, 3, 8, 4), {"stride": (2, 1)})],
)
def test_the_preconditioner_is_nearly_the_inverse_inside(shape: tuple[int, ...], options: dict[str, object]) -> None:
    # What lives in the middle of a large image does not see the border: there the circulant is the operator.
    conv = gaussian(shape, (48, 48), padding=1, **options)
    norm = spectral_conv.spectral_norm(conv).value
    wide = conv.shape[0] < conv.shape[1]
    near = (conv.out_channels, *conv.output_shape) if wide else (conv.in_channels, *conv.input_shape)
    x = np.zeros(near)
    centre = tuple(slice(n // 2 - 1, n // 2 + 1) for n in near[1:])
    x[(slice(None), *centre)] = np.random.default_rng(1).standard_normal((near[0], 2, 2))
    x = x.ravel()
    gram = conv.matvec(conv.rmatvec(x)) if wide else conv.rmatvec(conv.matvec(x))
    peak = 2.0 * norm  # far from the spectrum, so that the inverse decays fast
    tau = preconditioner._ABOVE_LEAST * peak**2
    found = CirculantPreconditioner(conv, peak=peak)((tau * x - gram)[None])[0]
    assert np.linalg.norm(found - x) <= 1e-4 * np.linalg.norm(x)
    mu = preconditioner._SHIFT * peak**2
    found = CirculantPreconditioner(conv, peak=peak, smallest=True)((gram + mu * x)[None])[0]
    assert np.linalg.norm(found - x) <= 1e-2 * np.linalg.norm(x)


def test_low_rank_preconditioner_costs_few_steps_more(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = gaussian((3, 3, 32, 32), (20, 20), 1)
    full = spectral_conv.singular_triplets(conv, rtol=1e-6, method="davidson")
    points = math.prod(Packing(conv.geometry).grid)
    monkeypatch.setattr(preconditioner, "_MOST_BYTES", 8 * points * 32 * 4)
    low = spectral_conv.singular_triplets(conv, rtol=1e-6, method="davidson")
    assert low.values[0] == pytest.approx(full.values[0], rel=1e-6)
    assert low.applications <= 1.5 * full.applications + 10


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("shape", "size", "options"),
    [
        ((3, 3, 3, 1), (20, 20), {}),
        ((3, 3, 1, 3), (20, 20), {}),
        ((3, 3, 8, 16), (16, 16), {}),
        ((3, 3, 16, 8), (16, 14), {}),
        ((3, 3, 8, 64), (16, 16), {"stride": 2}),
        ((7, 7, 3, 32), (24, 24), {"stride": 2, "padding": 3}),
        ((5, 4, 16), (200,), {"layout": "WIO"}),
    ],
)
def test_smallest_values_of_layers_that_widen(
    shape: tuple[int, ...], size: tuple[int, ...], options: dict[str, object], seed: int
) -> None:
    conv = gaussian(shape, size, seed, **options)
    exact = spectral_conv.singular_triplets(conv, 2, "smallest", method="factorized", rtol=1e-9)
    largest = spectral_conv.spectral_norm(conv, rtol=1e-3).value
    found = spectral_conv.singular_triplets(conv, 2, "smallest", method="davidson", rtol=1e-8)
    assert np.abs(found.values - exact.values).max() <= 1e-8 * largest
    assert np.all(found.upper - found.lower <= 1e-8 * largest * 1.1)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", [(3, 3, 4, 4), (3, 3, 8, 9), (3, 3, 8, 16)])
def test_a_float32_factor_refined_in_float64(shape: tuple[int, ...], seed: int) -> None:
    # The memory limit lets in the factor of half the size only.
    conv = gaussian(shape, (20, 20), seed)
    exact = spectral_conv.singular_triplets(conv, 1, "smallest", method="factorized", rtol=1e-9)
    largest = spectral_conv.spectral_norm(conv, rtol=1e-3).value
    limit = smallest.inverse_bytes(conv, np.float32) + smallest.davidson_bytes(conv, 1)
    assert limit < smallest.factorized_bytes(conv)
    found = spectral_conv.singular_triplets(conv, 1, "smallest", method="factorized", rtol=1e-9, memory_limit=limit)
    assert found.method == "factorized"
    assert abs(found.values[0] - exact.values[0]) <= 1e-9 * largest


def test_a_float32_factor_that_is_too_coarse_gives_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = gaussian((3, 3, 8, 8), (20, 20))
    exact = spectral_conv.smallest_singular_value(conv)
    limit = smallest.inverse_bytes(conv, np.float32) + smallest.davidson_bytes(conv, 1)
    monkeypatch.setattr(smallest, "_MAXITER_FACTOR", 8)
    found = spectral_conv.smallest_singular_value(conv, memory_limit=limit)
    assert (found.method, found.stop_reason) == ("bracket", StopReason.LIMIT)
    assert found.basis == "theorem: Rayleigh quotient above"
    assert found.lower == 0.0
    assert exact.lower <= found.upper <= 1e-2 * spectral_conv.spectral_norm(conv).value
    with pytest.raises(spectral_conv.MemoryLimitError, match="double precision, single precision being too coarse"):
        spectral_conv.singular_triplets(conv, 1, "smallest", memory_limit=limit)


def test_what_the_circulant_does_not_see_is_left_to_a_factor() -> None:
    # Three copies of one channel: the layer widens, and its smallest value is 0 all the same.
    K = np.repeat(np.random.default_rng(0).standard_normal((3, 3, 1, 8)), 3, axis=2)
    conv = ConvOperator(K, (24, 24))
    found = spectral_conv.smallest_singular_value(conv)
    assert found.value <= 1e-9 * spectral_conv.spectral_norm(conv).value
    assert found.method == "factorized"


def test_square_layers_are_refused_by_name() -> None:
    with pytest.raises(NotApplicableError, match=r"longer side of M is at least 1\.5 times.*method='factorized'"):
        spectral_conv.singular_triplets(gaussian((3, 3, 4, 4), (20, 20)), 1, "smallest", method="davidson")


def test_out_of_steps_carries_the_best_that_was_reached() -> None:
    conv = gaussian((3, 3, 8, 8), (24, 24))
    with pytest.raises(NotConvergedError, match=r"`maxiter` was reached.*widest error interval") as caught:
        spectral_conv.singular_triplets(conv, rtol=1e-12, method="davidson", maxiter=12)
    reached = caught.value.result
    exact = spectral_conv.spectral_norm(conv).value
    assert reached.stop_reason is StopReason.MAXITER
    assert reached.applications <= 16
    assert reached.lower[0] <= exact * (1 + 1e-12)
    assert 0.9 * exact <= reached.values[0] <= exact * (1 + 1e-12)
    returned = spectral_conv.singular_triplets(conv, rtol=1e-12, method="davidson", maxiter=12, on_failure="return")
    assert returned.values[0] == reached.values[0]


def test_a_warm_start_takes_few_applications() -> None:
    conv = gaussian((3, 3, 16, 16), (24, 24))
    first = spectral_conv.singular_triplets(conv, rtol=1e-6, method="davidson")
    moved = conv.with_kernel(conv.kernel * (1 + 1e-4 * np.random.default_rng(1).standard_normal(conv.kernel.shape)))
    cold = spectral_conv.singular_triplets(moved, rtol=1e-4, method="davidson")
    warm = spectral_conv.singular_triplets(moved, rtol=1e-4, method="davidson", start=first)
    assert warm.values[0] == pytest.approx(cold.values[0], rel=1e-6)
    assert warm.applications < cold.applications


def test_an_interrupt_leaves_no_thread_behind() -> None:
    before = threading.active_count()

    def task(i: int) -> None:
        if i == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_parallel(task, range(100))
    assert threading.active_count() == before
