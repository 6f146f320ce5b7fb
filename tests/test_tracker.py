"""Extreme triplets of kernels that change step by step, against dense decompositions."""

from __future__ import annotations

import numpy as np
import pytest
from cases import operators
from hypothesis import given, settings
from tolerances import NORM

from spectral_conv import ConvOperator
from spectral_conv.spectrum.tracker import ExtremeTracker

# Small enough for dense references, large enough for the tracker to keep factors.
LAYERS = {
    "wide": ((3, 3, 6, 3), (12, 12), {}),
    "tall": ((3, 3, 3, 6), (12, 12), {}),
    "square, strided": ((3, 3, 5, 20), (16, 16), {"stride": 2}),
    "reflect": ((3, 3, 4, 4), (10, 10), {"padding_mode": "reflect"}),
    "transposed": ((3, 3, 4, 6), (10, 10), {"transposed": True, "stride": 2, "padding": 1}),
    "grouped": ((3, 3, 2, 8), (10, 10), {"groups": 2}),
    "circular": ((3, 3, 3, 6), (10, 10), {"padding_mode": "circular"}),
}


def dense_ends(conv: ConvOperator) -> tuple[float, float]:
    s = np.linalg.svd(conv.to_dense(), compute_uv=False)
    return float(s[0]), float(s[-1])


@pytest.mark.parametrize("name", LAYERS)
def test_a_walk_of_kernels_stays_exact(name: str) -> None:
    shape, size, options = LAYERS[name]
    rng = np.random.default_rng(2)
    K = rng.standard_normal(shape)
    conv, tracker = ConvOperator(K, size, **options), ExtremeTracker(rtol=1e-8)
    for step in (0.0, 1e-6, 1e-3, 1e-2, 1e-2, 0.3, 1e-3):
        K = K + step * rng.standard_normal(shape)
        conv = conv.with_kernel(K)
        top, bottom = dense_ends(conv)
        for which, exact in (("largest", top), ("smallest", bottom)):
            found = tracker.triplets(conv, which)
            assert found.values[0] == pytest.approx(exact, abs=NORM * top)
            assert found.upper[0] - found.lower[0] <= 1e-8 * top
            assert found.lower[0] - 1e-12 * top <= exact <= found.upper[0] + 1e-12 * top
            assert tracker.triplets(conv, which) is found


@settings(max_examples=40)
@given(conv=operators())
def test_any_geometry(conv: ConvOperator) -> None:
    tracker = ExtremeTracker()
    for scale in (1.0, 1.001):
        near = conv.with_kernel(scale * conv.kernel)
        top, bottom = dense_ends(near)
        assert tracker.triplets(near, "largest").values[0] == pytest.approx(top, abs=1e-9 * top + 1e-300)
        assert tracker.triplets(near, "smallest").values[0] == pytest.approx(bottom, abs=1e-9 * top + 1e-300)


def test_a_rival_that_takes_the_lead_is_seen() -> None:
    # Two blocks of channels that do not mix; the weaker one grows until it is the stronger.
    rng = np.random.default_rng(0)
    K = np.zeros((3, 3, 8, 8))
    K[:, :, :4, :4], K[:, :, 4:, 4:] = rng.standard_normal((2, 3, 3, 4, 4))
    tracker = ExtremeTracker(rtol=1e-8)
    for growth in np.linspace(0.5, 2.0, 31):
        moved = K.copy()
        moved[:, :, 4:, 4:] *= growth
        conv = ConvOperator(moved, (10, 10))
        assert tracker.triplets(conv, "largest").values[0] == pytest.approx(dense_ends(conv)[0], rel=NORM)


def test_searches_near_the_last_kernel_are_cheap() -> None:
    K = np.random.default_rng(1).standard_normal((3, 3, 3, 6))
    conv, tracker = ConvOperator(K, (20, 20)), ExtremeTracker(rtol=1e-8)
    for which in ("largest", "smallest"):
        tracker.triplets(conv, which)
    near = conv.with_kernel(K * (1 + 1e-4 * np.random.default_rng(2).standard_normal(K.shape)))
    for which in ("largest", "smallest"):
        found = tracker.triplets(near, which)
        assert found.method == "davidson"
        assert found.applications <= 80


def test_a_restored_tracker_goes_on_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    kernels = [rng.standard_normal((3, 3, 3, 6))]
    for _ in range(6):
        kernels.append(kernels[-1] + 1e-3 * rng.standard_normal((3, 3, 3, 6)))
    layers = [ConvOperator(K, (12, 12)) for K in kernels]
    first, second = ExtremeTracker(rtol=1e-8), ExtremeTracker(rtol=1e-8)
    for conv in layers[:4]:
        for which in ("largest", "smallest"):
            first.triplets(conv, which)
    second.restore(first.state(), layers[3])
    for conv in layers[4:]:
        for which in ("largest", "smallest"):
            a, b = (tracker.triplets(conv, which) for tracker in (first, second))
            assert a.values[0] == b.values[0]
            np.testing.assert_array_equal(a.left, b.left)
            np.testing.assert_array_equal(a.right, b.right)


def test_clusters_are_counted() -> None:
    conv = ConvOperator(np.diag([3.0, 3.0, 1.0])[None, None], (2, 2))
    tracker = ExtremeTracker()
    assert tracker.cluster(conv, "largest", 1e-8)[1] == 8
    assert tracker.cluster(conv, "smallest", 1e-8)[1] == 4
