"""The factored inverse of the smaller Gram matrix, in both precisions, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spectral_conv
from spectral_conv import ConvOperator
from spectral_conv._kernels import banded
from spectral_conv.spectrum.factorized import (
    ShiftedInverse,
    _largest_column_sum,
    assemble_band,
    factorized_bytes,
    factorized_flops,
    inverse_bytes,
    smaller_gram,
)

LAYERS = [
    {"kernel": (3, 3, 8, 12), "input_shape": (12, 9)},
    {"kernel": (3, 3, 12, 8), "input_shape": (9, 12)},
    {"kernel": (3, 3, 8, 9), "input_shape": (10, 10)},  # condition number 65
    {"kernel": (3, 2, 6, 4), "input_shape": (8, 9), "transposed": True, "stride": 2, "padding": 0},
    {"kernel": (3, 3, 3, 4, 6), "input_shape": (5, 4, 6), "layout": "DHWIO"},
]


def layer(kernel: tuple[int, ...], input_shape: tuple[int, ...], **options: Any) -> ConvOperator:
    return ConvOperator(np.random.default_rng(0).standard_normal(kernel), input_shape, **options)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-2)])
@pytest.mark.parametrize("options", LAYERS, ids=lambda options: str(options["kernel"]))
def test_the_inverse_is_close_in_the_norm_of_the_gram_matrix(
    options: dict[str, Any], dtype: type, tolerance: float
) -> None:
    conv = layer(**options)
    M = conv.to_dense()
    left, values, right = np.linalg.svd(M, full_matrices=False)
    assert values[0] / values[-1] < 100
    rows = M.shape[0] < M.shape[1]
    A = M @ M.T if rows else M.T @ M
    assert _largest_column_sum(smaller_gram(conv), conv.plain_kernel) == pytest.approx(np.abs(A).sum(axis=0).max())
    # The direction of the smallest value is where a shift does the most.
    x = np.stack([(left.T if rows else right)[-1], np.random.default_rng(1).standard_normal(len(A))])
    z = ShiftedInverse(conv, smaller_gram(conv), dtype)(x @ A)
    assert z.dtype == np.float64
    norm = lambda v: np.sqrt(np.einsum("ij,ij->i", v @ A, v))  # noqa: E731
    assert np.all(norm(z - x) <= tolerance * norm(x))


def test_a_singular_layer_is_factored_too() -> None:
    conv = ConvOperator(np.ones((3, 3, 4, 4)), (12, 12))
    for dtype in (np.float64, np.float32):
        inverse = ShiftedInverse(conv, smaller_gram(conv), dtype)
        assert np.isfinite(inverse(np.ones((1, conv.shape[1])))).all()


def test_a_band_in_float32_is_the_rounded_band() -> None:
    conv = layer((3, 3, 4, 6), (9, 8))
    table = smaller_gram(conv)
    single, double = (assemble_band(table, conv.plain_kernel, dtype) for dtype in (np.float32, np.float64))
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_pieces_of_the_band_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_conv.spectrum import factorized

    conv = layer((3, 3, 4, 6), (9, 8))
    whole = assemble_band(smaller_gram(conv), conv.plain_kernel)
    monkeypatch.setattr(factorized, "_PIECE_BYTES", 1000)
    np.testing.assert_array_equal(assemble_band(smaller_gram(conv), conv.plain_kernel), whole)


def test_the_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = layer((3, 3, 24, 24), (15, 15))
    assert smaller_gram(conv).bandwidth >= banded.NARROW  # the blocked factorization
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(banded, "numba_threads", lambda threads=threads: threads)
        found.append(spectral_conv.singular_triplets(conv, 1, "smallest", method="factorized").values[0])
    assert found[0] == found[1] == found[2]


def test_costs_are_known_beforehand() -> None:
    conv = layer((3, 3, 64, 128), (56, 56))
    band = 56 * 56 * 64 * 7360
    assert band * 4 < inverse_bytes(conv, np.float32) < 1.01 * band * 4
    assert band * 8 < inverse_bytes(conv) < factorized_bytes(conv) < 1.2 * band * 8
    assert factorized_flops(conv) == pytest.approx(56 * 56 * 64 * 7360**2, rel=0.03)
