"""Upper bounds from the symbol: twisted circulants, the supremum, and the enclosures that rest on them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import operators
from hypothesis import given, settings
from hypothesis import strategies as st

import spectral_conv
from spectral_conv import ConvOperator
from spectral_conv.results import StopReason
from spectral_conv.spectrum.embedding import embeddings, smallest_size, tightest_embedding
from spectral_conv.spectrum.frequencies import GridAxis, VerifiedSymbol
from spectral_conv.symbols._peaks import symbol_peaks
from spectral_conv.symbols._transform import group_taps


def norms_on_grid(conv: ConvOperator, sizes: tuple[int, ...], twists: tuple[int, ...]) -> np.ndarray:
    """``||F||`` at ``(2 pi j + pi twist) / n'``, by the definition, residues of the stride side by side."""
    g = conv.geometry
    K = conv.plain_kernel
    coarse = [n // s for n, s in zip(sizes, g.stride, strict=True)]
    result = np.empty(coarse)
    for j in np.ndindex(*coarse):
        t = [(2 * np.pi * i + np.pi * w) / m for i, w, m in zip(j, twists, coarse, strict=True)]
        blocks: dict[tuple[int, ...], np.ndarray] = {}
        for a in np.ndindex(*g.kernel_size):
            steps = [divmod(i * d, s) for i, d, s in zip(a, g.dilation, g.stride, strict=True)]
            phase = np.exp(1j * sum(m * x for (m, _), x in zip(steps, t, strict=True)))
            p = tuple(r for _, r in steps)
            blocks[p] = blocks.get(p, 0) + phase * K[a].T
        result[j] = np.linalg.norm(np.concatenate(list(blocks.values()), axis=1), 2)
    return result


@settings(max_examples=150)
@given(operators(plain_zeros=True, most_pixels=6), st.integers(0, 3), st.integers(0, 7))
def test_zero_padding_is_a_compression_of_every_twisted_circulant(conv: ConvOperator, more: int, twist: int) -> None:
    group = conv.split_groups()[0]
    axes = group.geometry.axes
    sizes = tuple(smallest_size(axis) + more * axis.stride for axis in axes)
    twists = tuple(twist >> i & 1 for i in range(len(axes)))
    norm = np.linalg.norm(group.to_dense(), 2)
    assert norm <= norms_on_grid(group, sizes, twists).max() * (1 + 1e-12) + 1e-13


def test_a_smaller_circulant_is_no_bound() -> None:
    violated = 0
    for seed in range(200):
        conv = ConvOperator(np.random.default_rng(seed).standard_normal((3, 3, 1, 1)), (5, 5))
        assert all(smallest_size(axis) == 6 for axis in conv.geometry.axes)
        violated += spectral_conv.singular_values(conv)[0] > norms_on_grid(conv, (5, 5), (0, 0)).max() * (1 + 1e-9)
    assert violated > 5


@settings(max_examples=80)
@given(operators(plain_zeros=True, most_pixels=6))
def test_proved_bounds_hold(conv: ConvOperator) -> None:
    group = conv.split_groups()[0]
    norm = float(np.linalg.norm(group.to_dense(), 2))
    if norm == 0:
        return
    peaks = symbol_peaks(group.geometry, group_taps(group.geometry, group.plain_kernel, 0))
    for width, embedding in itertools.chain.from_iterable(
        ((w, e) for e in embeddings(group, peaks, norm * (1 + w))) for w in (0.01, 0.3, 3.0)
    ):
        proved = embedding.prove(norm * (1 + width), peaks[0].vector, least=norm * (1 - 1e-12))
        if proved is not None:
            assert norm * (1 - 1e-14) <= proved <= norm * (1 + width) * (1 + 1e-12)


@settings(max_examples=60)
@given(operators(plain_zeros=True), st.floats(0.5, 2.0))
def test_verified_symbol_against_singular_values(conv: ConvOperator, share: float) -> None:
    group = conv.split_groups()[0]
    sizes = tuple(smallest_size(axis) for axis in group.geometry.axes)
    values = norms_on_grid(group, sizes, (1,) * len(sizes))
    grid = [
        GridAxis(points=n // s, period=n // s, twist=1) for n, s in zip(sizes, group.geometry.stride, strict=True)
    ]
    symbol = VerifiedSymbol(group, grid)
    t = (share * values.max()) ** 2
    proved = symbol.at_most(t)
    if share > 1 + 1e-6 and t > 1e-12:
        assert proved is not None
        assert values.max() ** 2 <= proved <= t * (1 + 1e-9) + 1e-12
    if share < 1 - 1e-6:
        assert proved is None


@pytest.mark.parametrize(
    ("shape", "size", "options", "rtol"),
    [
        ((3, 3, 3, 1), (40, 40), {}, 1e-2),
        ((3, 3, 16, 16), (32, 32), {}, 1e-2),
        ((5, 5, 8, 8), (48, 40), {"padding": "valid"}, 5e-3),
        ((3, 3, 16, 24), (33, 40), {"stride": 2, "padding": 1}, 1e-2),
        ((3, 3, 12, 12), (40, 40), {"dilation": 2}, 2e-2),
        ((9, 8, 8), (300,), {"layout": "WIO"}, 1e-3),
        ((3, 3, 16, 16), (17, 17), {"stride": 2, "padding": 1, "transposed": True}, 5e-2),
    ],
)
def test_a_loose_norm_is_a_theorem_in_few_applications(
    shape: tuple[int, ...], size: tuple[int, ...], options: dict[str, object], rtol: float
) -> None:
    conv = ConvOperator(np.random.default_rng(3).standard_normal(shape), size, **options)
    exact = spectral_conv.singular_triplets(conv, rtol=1e-9, method="lanczos").values[0]
    found = spectral_conv.spectral_norm(conv, rtol=rtol)
    assert found.basis.startswith("theorem: Rayleigh quotient below,")
    assert found.stop_reason is StopReason.ENCLOSED
    assert found.lower <= exact * (1 + 1e-12)
    assert exact <= found.upper
    assert found.upper - found.lower <= rtol * found.value * (1 + 1e-12)
    assert found.applications <= 16


def test_the_bound_is_closer_than_the_supremum() -> None:
    # Frequencies that keep midway from the peak undo much of what the border takes.
    shares = []
    for seed in range(5):
        conv = ConvOperator(np.random.default_rng(seed).standard_normal((3, 3, 4, 4)), (30, 30))
        exact = spectral_conv.spectral_norm(conv, rtol=1e-9).value
        peaks = symbol_peaks(conv.geometry, group_taps(conv.geometry, conv.plain_kernel, 0))
        bound, theorem = tightest_embedding(conv, exact, [5e-4 * 1.5**i for i in range(12)]) or (np.inf, "")
        assert "compression" in theorem
        shares.append((bound - exact) / (peaks[0].value - exact))
        assert bound >= exact
    assert np.median(shares) < 0.7


def test_other_padding_has_no_embedding() -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 8, 8)), (20, 20), padding_mode="reflect")
    peaks = symbol_peaks(conv.geometry, group_taps(conv.geometry, conv.plain_kernel, 0))
    assert list(embeddings(conv, peaks, 10 * peaks[0].value)) == []
    assert spectral_conv.spectral_norm(conv, rtol=1e-2).basis == "residual"
