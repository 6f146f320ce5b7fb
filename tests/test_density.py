"""Histograms of whole spectra against dense decompositions: counts, error bars, and what the bars promise."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from cases import operators
from hypothesis import given, settings

import spectral_conv
from spectral_conv import ConvOperator, NotApplicableError, SpectralDensity, spectral_density
from spectral_conv._kernels.quadrature import gauss_rule, markov_bounds


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def centred(matrix: np.ndarray, noise: float = 0.0, size: int = 3) -> np.ndarray:
    """A kernel with `matrix` in the middle and noise everywhere."""
    kernel = noise * random(size, size, *matrix.shape, seed=5)
    kernel[size // 2, size // 2] += matrix
    return kernel


def orthogonal(n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(random(n, n, seed=seed))[0]


def two_orthogonal() -> np.ndarray:
    kernel = centred(orthogonal(6, 1))
    kernel[0, 0] = 0.3 * orthogonal(6, 2)
    return kernel


def decaying() -> np.ndarray:
    left, _, right = np.linalg.svd(random(3, 3, 12, 6).reshape(-1, 6), full_matrices=False)
    return ((left * 0.6 ** np.arange(6)) @ right).reshape(3, 3, 12, 6)


# Very different spectra: a smooth one, gaps, heaps, a null space, modes next to zero; n = 400 to 900.
LAYERS: dict[str, ConvOperator] = {
    "gaussian": ConvOperator(random(3, 3, 4, 4), (14, 14)),
    "more outputs": ConvOperator(random(3, 3, 3, 8), (15, 15)),
    "decaying channels": ConvOperator(decaying(), (11, 11)),
    "depthwise": ConvOperator(random(3, 3, 1, 5), (12, 12), groups=5),
    "1x1": ConvOperator(random(1, 1, 8, 8), (9, 9)),
    "strided": ConvOperator(random(3, 3, 4, 10), (15, 15), stride=2),
    "next to null": ConvOperator(random(3, 3, 1, 1, seed=5), (26, 26)),
    "next to the identity": ConvOperator(centred(np.eye(5), 0.01), (12, 12)),
    "channels apart": ConvOperator(centred(np.diag(np.linspace(0.2, 1.0, 6)), 0.01), (10, 10)),
    "two orthogonal taps": ConvOperator(two_orthogonal(), (10, 10)),
    "rank-deficient": ConvOperator(random(3, 3, 6, 2) @ random(2, 6), (11, 11)),
    "averaging": ConvOperator(np.ones((3, 3, 1, 1)) / 9, (26, 26)),
    "5x5 reflect": ConvOperator(random(5, 5, 3, 3), (13, 13), padding_mode="reflect"),
    "1-D replicate, dilated": ConvOperator(
        random(4, 5, 6), 110, layout="WIO", dilation=2, padding_mode="replicate"
    ),
    "3-D": ConvOperator(random(2, 3, 2, 3, 3), (6, 5, 7), layout="DHWIO"),
    "transposed": ConvOperator(random(4, 4, 6, 9), (9, 9), stride=2, padding=1, transposed=True),
}  # fmt: skip


def share_held(found: SpectralDensity, values: np.ndarray) -> float:
    exact = np.histogram(values, found.edges)[0]
    return float(np.mean(np.abs(found.counts - exact) <= found.error + 1e-6))


@functools.cache
def study(name: str) -> tuple[float, float, float]:
    """Share of bins whose bar holds the truth; mean bar and mean miss as shares of all values; three seeds."""
    conv = LAYERS[name]
    values = spectral_conv.singular_values(conv)
    rows = []
    for seed in range(3):
        found = spectral_density(conv, 30, moments=120, method="lanczos", rng=seed)
        assert found.total == len(values) == min(conv.shape)
        assert found.counts.sum() == pytest.approx(found.total, rel=1e-12)
        assert found.counts.min() >= 0
        assert found.edges[0] == 0
        assert values[0] < found.edges[-1] < 1.03 * values[0]
        assert 1180 <= found.applications <= 1200
        misses = np.abs(found.counts - np.histogram(values, found.edges)[0])
        rows.append((share_held(found, values), found.error.sum() / found.total, misses.sum() / found.total))
    held, bar, miss = np.mean(rows, axis=0)
    return held, bar, miss


@pytest.mark.parametrize("name", LAYERS)
def test_error_bars_hold_the_dense_histogram_and_are_not_wide(name: str) -> None:
    held, bar, miss = study(name)
    assert held >= 0.93
    # Bins of 20 values and ten vectors: two standard errors are 4 values, a fifth of the bin.
    assert bar <= 0.38
    assert miss <= 0.11


def test_error_bars_over_all_layers_keep_what_the_docstring_says() -> None:
    held, bar, miss = np.mean([study(name) for name in LAYERS], axis=0)
    assert held >= 0.97
    assert bar <= 0.25
    assert miss <= 0.07


def test_the_bars_shrink_with_vectors_and_moments() -> None:
    conv = LAYERS["gaussian"]
    few, many = (spectral_density(conv, 20, vectors=v, moments=m, method="lanczos") for v, m in ((4, 50), (40, 200)))
    assert many.error.mean() < 0.35 * few.error.mean()
    assert many.resolution == pytest.approx(few.resolution / 4, rel=0.02)
    values = spectral_conv.singular_values(conv)
    assert share_held(many, values) >= 0.9


def test_heaps_away_from_the_edges_are_counted_exactly() -> None:
    # One value only: nothing is random, and the Krylov space closes at once.
    found = spectral_density(ConvOperator(orthogonal(4, 0)[None, None], (12, 12)), 7, method="lanczos")
    np.testing.assert_allclose(found.counts, [0, 0, 0, 0, 0, 0, 576], atol=1e-6)
    np.testing.assert_allclose(found.error, 0, atol=1e-3)
    assert found.resolution == 0.0


@pytest.mark.parametrize("offset", [-3e-3, -1e-4, 0.0, 1e-4, 3e-3])
def test_a_heap_at_an_edge_is_not_assigned_with_confidence(offset: float) -> None:
    # All values within 1e-5 of 1: whether they lie on this or the other side of the edge cannot be told.
    conv = ConvOperator(centred(orthogonal(4, 0), 1e-6), (12, 12))
    values = spectral_conv.singular_values(conv)
    found = spectral_density(conv, [0.0, 0.5, 1.0 + offset, 1.5], moments=20, method="lanczos")
    assert share_held(found, values) == 1.0
    exact = spectral_density(ConvOperator(np.eye(2)[None, None], (5, 5)), [0.5, 1.0, 1.5])
    assert (exact.method, exact.error.tolist()) == ("dense", [50.0, 50.0])


@settings(max_examples=50)
@given(operators(most_pixels=6))
def test_any_geometry(conv: ConvOperator) -> None:
    values = spectral_conv.singular_values(conv)
    found = spectral_density(conv, 12, moments=60, method="lanczos")
    assert found.counts.sum() == pytest.approx(len(values), rel=1e-9)
    assert found.counts.min() >= 0
    assert share_held(found, values) >= 0.75
    exact = spectral_density(conv, 12)
    assert exact.method in ("dense", "symbol")
    assert exact.counts.sum() == exact.total == len(values)
    # Rounding may move a value across an edge only where `error` says so.
    difference = np.abs(exact.counts - np.histogram(values, exact.edges)[0])
    assert np.all(difference <= exact.error)


def test_small_and_circular_layers_are_counted() -> None:
    conv = ConvOperator(random(3, 3, 3, 4), (10, 10))
    found = spectral_density(conv, 15)
    np.testing.assert_array_equal(found.counts, np.histogram(spectral_conv.singular_values(conv), found.edges)[0])
    assert (found.method, found.error.max(), found.resolution, found.applications) == ("dense", 0.0, 0.0, 0)
    assert (found.vectors, found.moments, found.total) == (0, 0, 300)
    circular = ConvOperator(random(3, 3, 3, 4), (10, 10), stride=2, padding_mode="circular", padding=(1, 1))
    found = spectral_density(circular, 15)
    values = spectral_conv.singular_values(circular)
    np.testing.assert_array_equal(found.counts, np.histogram(values, found.edges)[0])
    assert (found.method, found.error.max()) == ("symbol", 0.0)


def test_larger_layers_are_estimated() -> None:
    conv = ConvOperator(random(3, 3, 8, 8), (16, 16))
    found = spectral_density(conv, moments=60)
    assert (found.method, found.vectors, found.moments, found.applications) == ("lanczos", 10, 60, 600)
    assert found.counts.shape == found.error.shape == (50,)
    # The trace of M^T M is the squared norm of its entries: a check without a dense decomposition.
    centres = (found.edges[1:] + found.edges[:-1]) / 2
    assert np.sum(found.counts * centres**2) == pytest.approx((conv.to_sparse().data ** 2).sum(), rel=0.02)


def test_groups_are_counted_together() -> None:
    conv = ConvOperator(random(3, 3, 2, 6) * np.repeat([1.0, 0.1], 3), (11, 11), groups=2)
    edges = np.linspace(0, 12, 25)
    parts = [spectral_density(part, edges).counts for part in conv.split_groups()]
    np.testing.assert_array_equal(spectral_density(conv, edges).counts, sum(parts))
    found = spectral_density(conv, edges, method="lanczos")
    assert np.mean(np.abs(found.counts - sum(parts)) <= found.error + 1e-6) >= 0.9


def test_edges_of_the_caller_are_kept_and_what_lies_outside_is_not_counted() -> None:
    conv = LAYERS["gaussian"]
    values = spectral_conv.singular_values(conv)
    edges = [-1.0, 0.0, 2.0, 2.5, 4.0, 1e300]
    for method in ("dense", "lanczos"):
        found = spectral_density(conv, edges, method=method)
        assert found.edges.tolist() == edges
        assert found.counts[0] == found.error[0] == 0
        assert found.counts.sum() == pytest.approx(len(values))
        assert share_held(found, values) == 1.0
        inside = spectral_density(conv, edges[2:5], method=method)
        np.testing.assert_array_equal(inside.counts, found.counts[2:4])


def test_zero_layers_and_single_values() -> None:
    zero = ConvOperator(np.zeros((3, 3, 2, 3)), (20, 20))
    one = ConvOperator(np.full((1, 1, 1, 1), -3.0), (1, 1))
    for method in ("dense", "lanczos"):
        found = spectral_density(zero, 4, method=method)
        assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert found.counts.tolist() == [800, 0, 0, 0]
        assert found.error.tolist() == [0, 0, 0, 0]
        found = spectral_density(one, [0, 2.9, 3.1], method=method)
        assert (found.counts.tolist(), found.error.tolist()) == ([0, 1], [0, 0])


def test_scale_and_precision_of_the_weights_change_no_count() -> None:
    conv = ConvOperator(random(3, 3, 2, 3).astype(np.float32), (12, 12))
    found = spectral_density(conv, 9, moments=40, method="lanczos")
    double = conv.with_kernel(conv.kernel.astype(np.float64))
    np.testing.assert_array_equal(found.counts, spectral_density(double, 9, moments=40, method="lanczos").counts)
    for exponent in (-900, 900):
        scaled = spectral_density(
            double.with_kernel(np.ldexp(double.kernel, exponent)), 9, moments=40, method="lanczos"
        )
        np.testing.assert_array_equal(scaled.counts, found.counts)
        np.testing.assert_allclose(np.ldexp(scaled.edges, -exponent), found.edges, rtol=1e-15)
    for number in (1.7e308, 5e-324):
        extreme = spectral_density(ConvOperator(np.full((1, 1, 1, 1), number), (4, 4)), 3, method="lanczos")
        assert extreme.counts.sum() == 16
        assert np.isfinite(extreme.edges).all()


def test_repetition_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_conv import _threads

    conv = LAYERS["more outputs"]
    found = []
    for threads in (1, 1, 3):
        monkeypatch.setattr(_threads, "numba_threads", lambda threads=threads: threads)
        found.append(spectral_density(conv, 20, moments=40, method="lanczos"))
    for other in found[1:]:
        np.testing.assert_array_equal(other.counts, found[0].counts)
        np.testing.assert_array_equal(other.error, found[0].error)
    seeded, same, other = (
        spectral_density(conv, 20, moments=40, method="lanczos", rng=rng) for rng in (1, np.random.default_rng(1), 2)
    )
    np.testing.assert_array_equal(seeded.counts, same.counts)
    assert np.any(seeded.counts != other.counts)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bins": 0}, ValueError, r"`bins` must be an integer of at least 1, or two or more finite edges .* got 0"),
        ({"bins": 2.5}, ValueError, r"`bins` must be .* got 2.5\. For equal bins in a range use numpy\.linspace"),
        ({"bins": True}, ValueError, r"`bins` must be .* got True"),
        ({"bins": "auto"}, ValueError, r"`bins` must be .* got 'auto'"),
        ({"bins": None}, ValueError, r"`bins` must be .* got None"),
        ({"bins": [1.0]}, ValueError, r"`bins` must be .* in increasing order; got \[1.0\]"),
        ({"bins": [0, 2, 1]}, ValueError, r"`bins` must be .* got \[0, 2, 1\]"),
        ({"bins": [0, 1, np.inf]}, ValueError, r"`bins` must be .* finite edges"),
        ({"bins": np.ones((2, 2))}, ValueError, r"`bins` must be"),
        ({"bins": [0j, 1j]}, ValueError, r"`bins` must be"),
        ({"vectors": 0}, ValueError, r"`vectors` must be an integer of at least 1; got 0"),
        ({"moments": 1}, ValueError, r"`moments` must be an integer of at least 2; got 1"),
        ({"method": "lancsoz"}, ValueError, r"`method` must be one of .* Did you mean 'lanczos'\?"),
        ({"method": "symbol"}, NotApplicableError, r"`method='symbol'` is for circular padding"),
    ],
)
def test_bad_input(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        spectral_density(ConvOperator(random(3, 3, 2, 2), (6, 6)), **arguments)


def test_something_else_than_an_operator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`conv` must be a ConvOperator; got ndarray"):
        spectral_density(np.ones((3, 3, 1, 1)))  # type: ignore[arg-type]


def test_results_have_labels_and_a_density() -> None:
    found = spectral_density(LAYERS["gaussian"], 10, moments=20, method="lanczos")
    assert np.sum(found.density * np.diff(found.edges)) == pytest.approx(1.0)
    labelled = found.to_xarray()
    assert dict(labelled.sizes) == {"bin": 10}
    np.testing.assert_array_equal(labelled["counts"], found.counts)
    np.testing.assert_array_equal(labelled["error"], found.error)
    np.testing.assert_array_equal(labelled["density"], found.density)
    np.testing.assert_allclose(labelled["bin"], (found.edges[1:] + found.edges[:-1]) / 2)
    np.testing.assert_array_equal(labelled["left_edge"], found.edges[:-1])
    np.testing.assert_array_equal(labelled["right_edge"], found.edges[1:])
    assert labelled.attrs["method"] == "lanczos"
    assert labelled.attrs["total"] == found.total


def test_gauss_rule_is_the_eigendecomposition() -> None:
    for n in (1, 2, 3, 40):
        diagonal, off_diagonal = random(n, seed=n), random(n, seed=n + 1)
        off_diagonal[n // 2] = 0.0
        T = np.diag(diagonal) + np.diag(off_diagonal[:-1], 1) + np.diag(off_diagonal[:-1], -1)
        values, vectors = np.linalg.eigh(T)
        first = np.eye(1, n)[0]
        gauss_rule(diagonal, off_diagonal, first)
        order = np.argsort(diagonal)
        np.testing.assert_allclose(diagonal[order], values, atol=1e-13)
        np.testing.assert_allclose(first[order] ** 2, vectors[0] ** 2, atol=1e-13)


@pytest.mark.parametrize("seed", range(5))
def test_markov_bounds_hold_the_distribution_of_the_measure(seed: int) -> None:
    # The theorem itself, on a measure with known points and masses.
    rng = np.random.default_rng(seed)
    s = np.sort(np.concatenate([rng.random(30), np.full(3, 0.5), np.zeros(2)]))
    z = rng.standard_normal(len(s))
    z /= np.linalg.norm(z)
    k, x = 8, np.append(np.linspace(0.01, 1.1, 50) ** 2, 0.25)
    right, alpha, beta = [z], np.zeros(k), np.zeros(k)
    left = np.zeros_like(z)
    for j in range(k):
        left = s * right[j] - (beta[j - 1] * left if j else 0)
        alpha[j] = np.linalg.norm(left)
        left /= alpha[j]
        following = s * left
        for _ in range(2):
            following -= np.array(right).T @ (np.array(right) @ following)
        beta[j] = np.linalg.norm(following)
        right.append(following / beta[j])
    below, mass = np.empty_like(x), np.empty_like(x)
    markov_bounds(alpha, beta, x, below, mass)
    less, most = np.array([[z[s**2 < e] @ z[s**2 < e], z[s**2 <= e] @ z[s**2 <= e]] for e in x]).T
    assert np.all(below <= less + 1e-9)
    assert np.all(most <= below + mass + 1e-9)
    assert np.mean(mass) < 0.2
