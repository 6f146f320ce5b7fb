"""What orthogonal convolutions are made of: projectors, block convolutions, components; what does not exist."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import dense_circulant
from tolerances import ORTHONORMAL

from spectral_conv import ConvOperator, NotConvergedError, circulant_singular_values, orthogonal

LAYOUT = {1: "WIO", 2: "HWIO", 3: "DHWIO"}


def polar_by_svd(A: np.ndarray) -> np.ndarray:
    U, _, Vt = np.linalg.svd(A, full_matrices=False)
    return U @ Vt


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (4, 6, 2), (1, 1)])
def test_bjorck_finds_the_polar_factor(order: int, shape: tuple[int, ...]) -> None:
    A = np.random.default_rng(0).standard_normal(shape)
    Q = orthogonal.bjorck(A, order=order)
    np.testing.assert_allclose(Q, polar_by_svd(A), atol=1e-11)
    # Without scaling, and by the definition of a step.
    small = A / (1.01 * np.linalg.norm(A, 2, axis=(-2, -1)).max())
    np.testing.assert_allclose(orthogonal.bjorck(small, order=order, scale=False), Q, atol=1e-11)


def test_a_step_of_bjorck_is_its_series() -> None:
    A = np.random.default_rng(1).standard_normal((4, 2))
    A /= 1.1 * np.linalg.norm(A, 2)
    Q = np.eye(2) - A.T @ A
    series = [np.eye(2), Q / 2, 3 / 8 * Q @ Q, 5 / 16 * Q @ Q @ Q]
    for order in (1, 2, 3):
        step = orthogonal.bjorck(A, order=order, scale=False, maxiter=1, on_failure="return")
        np.testing.assert_allclose(step, A @ sum(series[: order + 1]), atol=1e-14)


def test_higher_orders_of_bjorck_need_fewer_steps() -> None:
    A = np.diag([1.0, 1e-5]) @ polar_by_svd(np.random.default_rng(0).standard_normal((2, 2)))

    def steps(order: int) -> int:
        for count in itertools.count():
            Q = orthogonal.bjorck(A, order=order, maxiter=count, on_failure="return")
            if np.linalg.norm(Q.T @ Q - np.eye(2)) <= 1e-10:
                return count
        raise AssertionError

    assert steps(1) > steps(2) > steps(3) <= 24


def test_bjorck_takes_extreme_sizes() -> None:
    A = np.random.default_rng(0).standard_normal((5, 3))
    for size in (1e-200, 1e200):
        np.testing.assert_allclose(orthogonal.bjorck(size * A), polar_by_svd(A), atol=1e-11)


@settings(max_examples=40)
@given(c=st.integers(1, 8), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_projectors_are_projectors(c: int, data: st.DataObject, seed: int) -> None:
    r = data.draw(st.integers(0, c))
    A = np.random.default_rng(seed).standard_normal((2, c, r))
    P = orthogonal.projector(A)
    np.testing.assert_allclose(P @ P, P, atol=ORTHONORMAL)
    np.testing.assert_array_equal(P, P.swapaxes(-1, -2))
    np.testing.assert_allclose(P @ A, A, atol=1e-11)
    np.testing.assert_allclose(np.trace(P, axis1=1, axis2=2), r, atol=ORTHONORMAL)
    assert orthogonal.sample_projector(c, r, rng=seed).trace() == pytest.approx(r, abs=ORTHONORMAL)
    near = orthogonal.nearest_projector(P[0] + 1e-3 * np.random.default_rng(seed).standard_normal((c, c)))
    np.testing.assert_allclose(near, P[0], atol=0.05)
    assert np.linalg.matrix_rank(near) == r


def test_no_projector_is_nearer_than_the_nearest() -> None:
    S = np.random.default_rng(3).standard_normal((5, 5))
    for rank in (None, 2):
        best = np.linalg.norm(S - orthogonal.nearest_projector(S, rank))
        for seed, r in itertools.product(range(50), range(6)):
            if rank in (None, r):
                assert np.linalg.norm(S - orthogonal.sample_projector(5, r, rng=seed)) >= best


@settings(max_examples=40)
@given(
    ndim=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 3), min_size=6, max_size=6),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_block_convolution_is_one_after_the_other(
    ndim: int, sizes: list[int], channels: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((*sizes[:ndim], *channels[:2]))
    second = rng.standard_normal((*sizes[3 : 3 + ndim], *channels[1:]))
    found = orthogonal.block_convolution(first, second)
    grid, ones = (5, 3, 2)[:ndim], (1,) * ndim
    A, B, Z = (dense_circulant(K, grid, ones, ones, 1) for K in (first, second, found))
    np.testing.assert_allclose(Z, B @ A, atol=1e-12 * (1 + np.abs(B).sum() * np.abs(A).max()))


def random_factors(
    size: tuple[int, ...], channels: tuple[int, int], ranks: list[int], rng: np.random.Generator
) -> orthogonal.ProjectorFactors:
    c = max(channels)
    projectors = np.zeros((len(ranks), c, c))
    for i, rank in enumerate(ranks):
        projectors[i] = orthogonal.sample_projector(c, rank, rng=rng)
    return orthogonal.ProjectorFactors(
        kernel_size=size, matrix=orthogonal.bjorck(rng.standard_normal(channels)), projectors=projectors
    )


def test_compose_is_equation_5() -> None:
    rng = np.random.default_rng(0)
    factors = random_factors((3, 2), (4, 4), [1, 3, 2], rng)
    P, Q, R = factors.projectors
    eye = np.eye(4)
    # The last factor is applied first: the paper's (out, in) matrices are W = H [P; I - P] [Q, I - Q] [R; I - R].
    K = np.stack([R, eye - R])[:, None]
    for block in (np.stack([Q, eye - Q])[None], np.stack([P, eye - P])[:, None], factors.matrix[None, None]):
        K = orthogonal.block_convolution(K, block)
    np.testing.assert_allclose(orthogonal.compose(factors), K, atol=ORTHONORMAL)
    assert factors.ranks == (1, 3, 2)


@settings(max_examples=60)
@given(
    size=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    channels=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_compositions_are_orthogonal_whatever_the_ranks(
    size: list[int], channels: tuple[int, int], data: st.DataObject, seed: int
) -> None:
    count = sum(k - 1 for k in size)
    ranks = data.draw(st.lists(st.integers(0, max(channels)), min_size=count, max_size=count))
    factors = random_factors(tuple(size), channels, ranks, np.random.default_rng(seed))
    K = orthogonal.compose(factors)
    conv = ConvOperator(K, (5,) * len(size), layout=LAYOUT[len(size)], padding_mode="circular")
    assert np.abs(circulant_singular_values(conv) - 1.0).max() <= ORTHONORMAL
    if len(size) == 1:  # there every orthogonal convolution can be taken apart again
        again = orthogonal.factorize(K)
        np.testing.assert_allclose(orthogonal.compose(again), K, atol=1e-11)
        if channels[0] == channels[1]:
            found = orthogonal.component(K)
            assert found.rank == sum(found.ranks) == sum(ranks)
            assert found.determinant == round(np.linalg.det(factors.matrix))


@pytest.mark.parametrize(("k", "n"), [(2, 3), (3, 5), (5, 4), (4, 16), (3, 64)])
def test_ranks_of_one_dimensional_kernels_are_recovered(k: int, n: int) -> None:
    found = orthogonal.component(orthogonal.sample_bcop(k, n, n, ndim=1, rng=k))
    assert found.ranks == (n // 2,) * (k - 1)
    for rank in {0, 1, n - 1, n}:
        K = orthogonal.compose(random_factors((k,), (n, n), [rank] * (k - 1), np.random.default_rng(n)))
        assert orthogonal.component(K).ranks == (rank,) * (k - 1)


def test_ranks_do_not_see_rounding_errors() -> None:
    # Any ranks that sum to 3 would do; the last projector, peeled off first, has the least possible one.
    K = np.zeros((3, 3, 3))
    K[1] = orthogonal.sample_bcop(1, 3, 3, ndim=1, rng=0)[0]
    for noise in (0.0, 1e-14):
        found = orthogonal.component(K + noise * np.random.default_rng(1).standard_normal(K.shape))
        assert found.ranks == (3, 0)
        assert found.rank == 3


@pytest.mark.parametrize(("k", "n"), [(1, 3), (2, 2), (3, 2), (4, 1)])
def test_theorem_1_counts_the_components(k: int, n: int) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for ranks in itertools.product(range(n + 1), repeat=k - 1):
        for _ in range(6):
            found = orthogonal.component(orthogonal.compose(random_factors((k,), (n, n), list(ranks), rng)))
            seen.add((found.rank, found.determinant))
    assert len(seen) == 2 * (k - 1) * n + 2


def test_a_path_stays_in_its_component() -> None:
    rng = np.random.default_rng(0)
    a, b = (orthogonal.BcopParameters.sample(3, 4, 4, ndim=1, rng=rng) for _ in range(2))
    seen = set()
    for t in np.linspace(0.0, 1.0, 20):
        K = orthogonal.bcop(
            orthogonal.BcopParameters(
                kernel_size=(3,), matrix=a.matrix, projectors=(1 - t) * a.projectors + t * b.projectors
            )
        )
        found = orthogonal.component(K)
        seen.add((found.rank, found.determinant))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("size", "ranks"), [((4,), [0, 3, 1]), ((2, 2), [3, 0]), ((3, 3), [1, 0, 3, 2]), ((2, 2, 2), [0, 1, 3])]
)
def test_theorem_3_embeds_any_ranks_in_half_ranks(size: tuple[int, ...], ranks: list[int]) -> None:
    n = 3
    rng = np.random.default_rng(1)
    factors = random_factors(size, (n, n), ranks, rng)
    wider = orthogonal.with_auxiliary_channels(factors)
    assert wider.ranks == (n,) * len(ranks)
    C, D = orthogonal.compose(factors), orthogonal.compose(wider)
    np.testing.assert_allclose(D[..., :n, :n], C, atol=ORTHONORMAL)
    np.testing.assert_allclose(D[..., n:, :n], 0.0, atol=ORTHONORMAL)
    # It is a kernel of `bcop` itself, whose projectors all have half the rank.
    bases = [np.linalg.eigh(P)[1][:, n:] for P in wider.projectors]
    parameters = orthogonal.BcopParameters(kernel_size=size, matrix=wider.matrix, projectors=np.stack(bases))
    np.testing.assert_allclose(orthogonal.bcop(parameters), D, atol=1e-11)
    # C'(x) = C(x) on the first channels, as layers.
    grid, ones = (4,) * len(size), (1,) * len(size)
    small, large = (dense_circulant(K, grid, ones, ones, 1) for K in (C, D))
    x = rng.standard_normal(2 * small.shape[0])
    np.testing.assert_allclose((large @ x)[: small.shape[0]], small @ x[: small.shape[1]], atol=1e-11)


@pytest.mark.parametrize(
    ("size", "channels"),
    [
        ((4,), (5, 5)),
        ((3, 3), (4, 4)),
        ((5, 5), (16, 16)),
        ((2, 3, 2), (5, 5)),
        ((3, 3), (6, 4)),
        ((3,), (9, 2)),
        ((2, 2), (3, 8)),
        ((3, 2), (1, 1)),
        ((1, 1), (3, 5)),
    ],
)
def test_bcop_parameters_are_a_right_inverse(size: tuple[int, ...], channels: tuple[int, int]) -> None:
    for seed in range(5):
        K = orthogonal.sample_bcop(size, *channels, rng=seed)
        np.testing.assert_allclose(orthogonal.bcop(orthogonal.bcop_parameters(K)), K, atol=1e-11)


def test_no_zero_padded_convolution_is_orthogonal() -> None:
    """Appendix D.2: alternate between orthogonal matrices and convolutions; where it converges, one tap remains."""
    reached = []
    for seed, (k, c, n) in itertools.product(range(4), [(2, 2, 6), (3, 2, 6), (3, 3, 7)]):
        rng = np.random.default_rng(seed)
        for K in (orthogonal.sample_bcop(k, c, c, ndim=1, rng=rng), rng.standard_normal((k, c, c))):
            conv = ConvOperator(K, (n,), layout="WIO")
            centre = (k - 1) // 2
            for _ in range(100):
                U, _, Vt = np.linalg.svd(conv.to_dense())
                conv = conv.with_kernel(average_along_diagonals((U @ Vt).reshape(c, n, c, n), k))
            s = np.linalg.svd(conv.to_dense(), compute_uv=False)
            gap = np.abs(s**2 - 1.0).max()
            rest = np.delete(np.linalg.norm(conv.kernel, axis=(1, 2)), centre).max()
            # Columns of M at an inner pixel and at a border differ by what a tap loses there.
            assert rest**2 <= 2.0 * c * gap + ORTHONORMAL
            reached.append((gap, rest))
    assert min(gap for gap, rest in reached if rest > 0.05) > 1e-3
    assert sum(gap > 0.5 for gap, _ in reached) >= 4  # stuck far away
    assert sum(gap < 0.1 and rest < 0.5 for gap, rest in reached) >= 4  # on the way to one tap


def average_along_diagonals(M: np.ndarray, k: int) -> np.ndarray:
    """The nearest 1-D convolution with same padding; M is (out, row, in, column)."""
    n = M.shape[1]
    K = np.zeros((k, M.shape[2], M.shape[0]))
    for a in range(k):
        offset = a - (k - 1) // 2
        rows = [r for r in range(n) if 0 <= r + offset < n]
        K[a] = np.mean([M[:, r, :, r + offset].T for r in rows], axis=0)
    return K


NOT_ORTHOGONAL = np.random.default_rng(0).standard_normal((3, 2, 2))


def unlike_bcop() -> np.ndarray:
    """Orthogonal, with the axes in the order that `bcop` does not take."""
    return orthogonal.sample_bcop((3, 3), 6, 6, rng=0).swapaxes(0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthogonal.bjorck(np.ones((2, 2))), r"`maxiter`=100 steps left .* `A` has a singular value of 0"),
        (lambda: orthogonal.bjorck(np.zeros((3, 2)), maxiter=2), r"`maxiter`=2 steps left"),
    ],
)
def test_bjorck_says_where_it_does_not_converge(call: Callable[[], object], message: str) -> None:
    with pytest.raises(NotConvergedError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthogonal.bjorck(np.eye(2), order=4), "`order` must be 1, 2 or 3; got 4"),
        (
            lambda: orthogonal.bjorck(2.0 * np.eye(2), scale=False),
            r"singular values below sqrt\(2\) with scale=False; got 2",
        ),
        (lambda: orthogonal.bjorck(np.eye(2), atol=0.0), "`atol` must lie between 0 and 1; got 0"),
        (lambda: orthogonal.bjorck(np.eye(2) * 1j), "`A` must be a real array"),
        (lambda: orthogonal.projector(np.ones((2, 3))), "`A` must have at most as many columns as rows"),
        (lambda: orthogonal.nearest_projector(np.ones((2, 3))), "`S` must be square"),
        (lambda: orthogonal.nearest_projector(np.eye(2), rank=3), "`rank` must be at most the 2 channels; got 3"),
        (
            lambda: orthogonal.block_convolution(np.ones((2, 1, 2)), np.ones((2, 1, 2))),
            "`second` must have the spatial",
        ),
        (
            lambda: orthogonal.ProjectorFactors(kernel_size=(2,), matrix=np.ones((2, 2)), projectors=np.eye(2)[None]),
            r"`matrix` must have orthonormal columns, .* off by 2\.0e\+00",
        ),
        (
            lambda: orthogonal.ProjectorFactors(kernel_size=(2,), matrix=np.eye(2), projectors=2 * np.eye(2)[None]),
            "`projectors` must be symmetric and equal to their squares",
        ),
        (
            lambda: orthogonal.ProjectorFactors(kernel_size=(2,), matrix=np.eye(2), projectors=np.zeros((2, 2, 2))),
            r"`projectors` must have the shape \(1, 2, 2\)",
        ),
        (lambda: orthogonal.component(np.ones((2, 2, 1, 1))), "`kernel` must be one-dimensional with as many inputs"),
        (lambda: orthogonal.component(np.ones((2, 2, 1))), r"got shape \(2, 2, 1\)"),
        (lambda: orthogonal.component(NOT_ORTHOGONAL), "the nearest found is off by"),
        (lambda: orthogonal.factorize(2.0 * np.eye(2)[None]), r"the nearest found is off by 3\.0e\+00"),
        (lambda: orthogonal.factorize(unlike_bcop()), "the axes in the order of `compose`"),
        (
            lambda: orthogonal.bcop_parameters(
                orthogonal.compose(
                    orthogonal.ProjectorFactors(
                        kernel_size=(2,), matrix=np.eye(4), projectors=np.diag([1.0, 0, 0, 0])[None]
                    )
                )
            ),
            "of rank 2; a projector of it has a rank of 1 to 1",
        ),
        (
            lambda: orthogonal.with_auxiliary_channels(
                orthogonal.ProjectorFactors(kernel_size=(1,), matrix=np.eye(3)[:, :2], projectors=np.zeros((0, 3, 3)))
            ),
            "`factors` must have as many inputs as outputs",
        ),
    ],
)
def test_bad_input_says_what_to_do(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
