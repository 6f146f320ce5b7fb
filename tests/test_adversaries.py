"""Layers made to mislead: null spaces, copies of values, channels that hardly mix, weights that meet padding only."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tolerances import NORM

from spectral_conv import (
    ConvOperator,
    condition_number,
    singular_triplets,
    singular_values,
    smallest_singular_value,
    spectral_norm,
)

RNG = np.random.default_rng(0)
SQUARE = RNG.standard_normal((3, 3, 6, 6))


def zero_output() -> ConvOperator:
    K = SQUARE.copy()
    K[..., 0] = 0.0
    return ConvOperator(K, (9, 9))


def equal_outputs() -> ConvOperator:
    K = SQUARE.copy()
    K[..., 1] = K[..., 0]
    return ConvOperator(K, (9, 9))


def equal_inputs() -> ConvOperator:
    K = SQUARE.copy()
    K[:, :, 1] = K[:, :, 0]
    return ConvOperator(K, (9, 9))


def unread_rows() -> ConvOperator:
    # Only 49 of 196 pixels are read, and 128 outputs come from 64 inputs.
    return ConvOperator(RNG.standard_normal((1, 1, 64, 128)), (14, 14), stride=2, padding=0)


@pytest.mark.parametrize("make", [zero_output, equal_outputs, equal_inputs, unread_rows])
def test_rank_deficient_layers_have_an_enclosed_zero(make: object) -> None:
    conv = make()
    found = smallest_singular_value(conv)
    top = spectral_norm(conv).value
    assert found.lower == 0.0
    assert found.upper <= 1e-12 * top
    assert condition_number(conv).value == math.inf
    several = singular_triplets(conv, 4, "smallest")
    assert several.upper.max() <= 1e-12 * top
    u = several.left.reshape(4, -1)
    np.testing.assert_allclose(u @ u.T, np.eye(4), atol=1e-10)


@pytest.mark.parametrize(
    ("amplitude", "k"), [(0.0, 5), (1e-3, 5), (1e-4, 3), (1e-6, 8)], ids=["equal", "1e-3", "1e-4", "1e-6"]
)
def test_copies_of_a_value_are_all_found(amplitude: float, k: int) -> None:
    rng = np.random.default_rng(3)
    Q = np.linalg.qr(rng.standard_normal((9, 9)))[0][:7]
    K = rng.standard_normal((4, 4))[:, :, None, None] * Q + amplitude * rng.standard_normal((4, 4, 7, 9))
    conv = ConvOperator(K, (8, 15))
    exact = singular_values(conv)[:k]
    for rtol in (1e-3, 1e-6, 1e-8):
        np.testing.assert_allclose(singular_triplets(conv, k, rtol=rtol).values, exact, atol=rtol * exact[0])


@pytest.mark.parametrize("mode", ["replicate", "reflect", "zeros"])
@pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-4])
def test_a_channel_that_hardly_mixes_is_seen_at_loose_tolerances(mode: str, rtol: float) -> None:
    channels, size = 24, (10, 10)
    alternating = (-1.0) ** np.indices((3, 3)).sum(axis=0) / 9.0
    corner = np.zeros((3, 3))
    corner[0, 0] = 1.0

    def norm(taps: np.ndarray) -> float:
        return float(singular_values(ConvOperator(taps[:, :, None, None], size, padding_mode=mode))[0])

    K = np.zeros((3, 3, channels, channels))
    for i in range(1, channels):
        K[:, :, i, i] = alternating * (1.0 + 0.003 * i / channels)
    K[:, :, 0, 0] = corner * 1.1 * norm(K[:, :, -1, -1]) / norm(corner)
    K += 1e-10 * np.random.default_rng(0).standard_normal(K.shape)
    found = spectral_norm(ConvOperator(K, size, padding_mode=mode), rtol=rtol)
    exact = norm(K[:, :, 0, 0])
    assert found.value == pytest.approx(exact, rel=rtol)


def test_weights_that_meet_padding_only_do_not_set_the_scale() -> None:
    K = np.random.default_rng(0).standard_normal((1, 15, 8, 8))
    K[:, [0, -1]] *= 1e200
    conv = ConvOperator(K, (60, 7), padding=[(0, 0), (7, 7)])
    K[:, [0, -1]] = 0.0
    same = ConvOperator(K, (60, 7), padding=[(0, 0), (7, 7)])
    assert spectral_norm(conv).value == pytest.approx(spectral_norm(same).value, rel=NORM)
    # By FFT too.
    K = np.random.default_rng(0).standard_normal((31, 31, 16, 16))
    K[0] *= 1e12
    conv, x = ConvOperator(K, (12, 12)), np.random.default_rng(1).standard_normal(16 * 144)
    assert conv.uses_fft
    K[0] = 0.0
    expected = ConvOperator(K, (12, 12)) @ x
    np.testing.assert_allclose(conv @ x, expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("limit", [1e3, 1e5, 1e6])
def test_little_memory_leads_to_a_bracket(limit: float) -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 16, 16)), (14, 14))
    found = spectral_norm(conv, memory_limit=limit)
    assert found.method == "bracket"
    assert found.lower <= spectral_norm(conv).value <= found.upper


def test_triplets_of_multiple_zeros_give_no_warning() -> None:
    conv = ConvOperator(np.ones((1, 1, 5, 24)), (8, 4), stride=3, dilation=(3, 1), padding="valid", groups=3)
    found = singular_triplets(conv, 5, method="davidson", on_failure="return")
    np.testing.assert_allclose(found.values, np.full(5, math.sqrt(40.0)))
