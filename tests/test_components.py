"""Channels that zero weights keep apart are found, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spectral_conv
from spectral_conv import ConvOperator
from spectral_conv.spectrum.components import group_components, mixing_components


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.booleans())
def test_components_rebuild_the_layer(seed: int, transposed: bool) -> None:
    rng = np.random.default_rng(seed)
    pattern = rng.random((5, 6)) < 0.25
    conv = ConvOperator(rng.standard_normal((2, 3, 5, 6)) * pattern, (4, 3), transposed=transposed)
    M = np.zeros((6, conv.shape[0] // 6, 5, conv.shape[1] // 5))
    seen: list[int] = []
    for part in mixing_components(group_components(conv)[0]):
        block = part.operator.to_dense().reshape(len(part.outputs), M.shape[1], len(part.inputs), M.shape[3])
        M[np.ix_(part.outputs, range(M.shape[1]), part.inputs, range(M.shape[3]))] = block
        seen += part.outputs.tolist()
    np.testing.assert_array_equal(M.reshape(conv.shape), conv.to_dense())
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_a_depthwise_layer_written_densely(which: str) -> None:
    rng = np.random.default_rng(0)
    thin = rng.standard_normal((3, 3, 1, 4))
    full = np.zeros((3, 3, 4, 4))
    full[:, :, np.arange(4), [2, 0, 3, 1]] = thin[:, :, 0, :]
    dense = spectral_conv.singular_triplets(ConvOperator(full, (15, 15)), 5, which)
    depthwise = spectral_conv.singular_triplets(ConvOperator(thin, (15, 15), groups=4), 5, which)
    np.testing.assert_allclose(dense.values, depthwise.values, atol=1e-9 * dense.values.max())


def test_pruned_channels_keep_their_zeros() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 3, 3))
    K[:, :, 1] = 0
    conv = ConvOperator(K, (10, 10))
    values = np.linalg.svd(conv.to_dense(), compute_uv=False)
    assert spectral_conv.spectral_norm(conv).value == pytest.approx(values[0], rel=1e-12)
    assert spectral_conv.smallest_singular_value(conv).value <= 1e-12 * values[0]
    # More triplets than the parts with weights have: the whole layer is looked at.
    many = spectral_conv.singular_triplets(conv, 250)
    np.testing.assert_allclose(many.values, values[:250], atol=1e-12 * values[0])
