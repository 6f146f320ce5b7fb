"""Gram matrices from tap products against ``M^T M`` and ``M M^T``."""

from __future__ import annotations

import numpy as np
import pytest
from cases import operators
from hypothesis import assume, given, settings

from spectral_conv import ConvOperator
from spectral_conv.gram import gram_table
from spectral_conv.spectrum.factorized import assemble_band


def dense(band: np.ndarray) -> np.ndarray:
    n, height = band.shape
    A = np.zeros((n, n))
    for j in range(n):
        rows = min(height, n - j)
        A[j : j + rows, j] = A[j, j : j + rows] = band[j, :rows]
    return A


@pytest.mark.parametrize("outer", [False, True])
@settings(max_examples=120)
@given(conv=operators())
def test_band_equals_the_dense_gram_matrix(conv: ConvOperator, outer: bool) -> None:
    assume(conv.geometry.groups == 1)
    M = conv.to_dense().T if conv.geometry.transposed else conv.to_dense()
    expected = M @ M.T if outer else M.T @ M
    table = gram_table(conv.geometry, outer=outer)
    A = dense(assemble_band(table, conv.plain_kernel))
    grid = [axis.outputs if outer else axis.inputs for axis in conv.geometry.axes]
    index = np.arange(len(expected)).reshape(-1, *grid)
    order = index.transpose(*(1 + i for i in table.order), 0).ravel()
    np.testing.assert_allclose(A, expected[np.ix_(order, order)], atol=1e-12 * (1 + np.abs(expected).max()))


def test_the_table_does_not_grow_with_the_image() -> None:
    K = np.ones((5, 5, 1, 1))
    sizes = [
        [len(pairs.sets) for pairs in gram_table(ConvOperator(K, (n, n)).geometry, outer=False).pairs]
        for n in (16, 64)
    ]
    assert sizes[0] == sizes[1]


def test_the_shorter_axis_goes_last() -> None:
    K = np.ones((3, 3, 2, 2))
    wide = gram_table(ConvOperator(K, (8, 40)).geometry, outer=False)
    tall = gram_table(ConvOperator(K, (40, 8)).geometry, outer=False)
    assert wide.order == (1, 0)
    assert tall.order == (0, 1)
    assert wide.bandwidth == tall.bandwidth == 2 * 8 * 2 + 2 * 2 + 1
