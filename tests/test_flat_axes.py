"""Kernels with one tap along an axis: values come once per position, vectors stand at one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spectral_conv import ConvOperator, singular_triplets, smallest_singular_value

LAYERS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((5, 1, 3, 2), (12, 7), {}),
    ((1, 3, 2, 4), (6, 11), {"stride": (1, 2)}),
    ((1, 3, 1, 3), (5, 9), {}),
    ((3, 1, 2, 2), (8, 6), {"groups": 2}),
    ((1, 3, 2, 3), (5, 6), {"transposed": True}),
    ((3, 1, 1, 2, 2), (6, 4, 5), {"padding": [(1, 1), (0, 0), (0, 0)], "layout": "DHWIO"}),
    ((3, 1, 4, 4), (10, 8), {"padding_mode": "reflect", "padding": [(1, 1), (0, 0)]}),
    # No such axis: padding, or a stride, along the short one.
    ((3, 1, 2, 2), (6, 5), {"padding": [(1, 1), (1, 0)]}),
    ((3, 1, 2, 2), (6, 5), {"stride": (1, 2)}),
]


@pytest.mark.parametrize(("shape", "size", "options"), LAYERS)
@pytest.mark.parametrize("k", [1, 5, 9])
def test_triplets_equal_the_dense_ones(
    shape: tuple[int, ...], size: tuple[int, ...], options: dict[str, Any], k: int
) -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal(shape), size, **options)
    M = conv.to_dense()
    s = np.linalg.svd(M, compute_uv=False)
    for which, exact in (("largest", s[:k]), ("smallest", s[::-1][:k])):
        found = singular_triplets(conv, k, which)
        np.testing.assert_allclose(found.values, exact, atol=1e-9 * s[0])
        u, v = found.left.reshape(k, -1), found.right.reshape(k, -1)
        np.testing.assert_allclose(v @ v.T, np.eye(k), atol=1e-9)
        np.testing.assert_allclose(M @ v.T, (found.values[:, None] * u).T, atol=1e-7 * s[0])


def test_many_copies_of_the_smallest_value_are_no_obstacle() -> None:
    # As in a keyword spotter: 80 copies of every value; block Lanczos did not converge.
    conv = ConvOperator(np.random.default_rng(0).standard_normal((5, 1, 10, 1)), (125, 80))
    line = ConvOperator(conv.kernel[:, 0], (125,), layout="WIO")
    exact = np.linalg.svd(line.to_dense(), compute_uv=False)
    found = smallest_singular_value(conv)
    assert found.value == pytest.approx(exact[-1], abs=1e-9 * exact[0])
