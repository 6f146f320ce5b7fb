"""Smallest triplets by a banded Cholesky factor and block Lanczos on its inverse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spectral_conv._kernels import banded, convolution
from spectral_conv._threads import run_parallel, serial_blas
from spectral_conv.gram import GramTable, gram_table
from spectral_conv.operator import ConvOperator
from spectral_conv.results import SingularTriplets, StopReason
from spectral_conv.spectrum.verify import assemble_triplets

# Right-hand sides per solution: as many near-null vectors may crowd below sqrt(shift), where the inverse cannot tell
# them apart; a block that holds them all does not need to.
_BLOCK = 8
# Most blocks of the basis; the search ends there.
_MOST_BLOCKS = 40
# The shift, in units of eps ||A||_1; tenfold while the factorization breaks down. A float32 factor approximates the
# inverse by as much as its shift is small against the smallest eigenvalue; singular A were factored with 0.1.
_SHIFT = {np.dtype(np.float64): 4.0, np.dtype(np.float32): 0.5}
_SHIFT_GROWTH, _SHIFT_ATTEMPTS = 10.0, 6
# The band is assembled in pieces of about this size.
_PIECE_BYTES = 2**26
# Values below this share of the largest entry of the triangle are zero to rounding.
_NULL = 1e-12
# Steps of iterative improvement of the far vectors.
_IMPROVEMENTS = 2


def factorized_bytes(conv: ConvOperator, dtype: DTypeLike = np.float64) -> int:
    """Memory that `smallest_triplets` needs at most, were the factor of this precision."""
    bases = 8 * sum(conv.shape) * (min(_MOST_BLOCKS * _BLOCK, min(conv.shape)) + 2 * _BLOCK)
    return inverse_bytes(conv, dtype) + bases


def inverse_bytes(conv: ConvOperator, dtype: DTypeLike = np.float64) -> int:
    """Memory of a `ShiftedInverse`."""
    table = smaller_gram(conv)
    taps = math.prod(conv.geometry.kernel_size)
    kinds = math.prod(len(pairs.sets) for pairs in table.pairs)
    band = np.dtype(dtype).itemsize * table.size * (table.bandwidth + 1)
    return band + 8 * table.channels**2 * (taps**2 + kinds)


def factorized_flops(conv: ConvOperator) -> float:
    """Operations of the factorization, which dominate: the square of what stands below the diagonal, by columns."""
    table = smaller_gram(conv)
    size, width = float(table.size), float(table.bandwidth)
    return (size - width) * (width + 1) ** 2 + width**3 / 3


@serial_blas()
def smallest_triplets(
    conv: ConvOperator, k: int, *, tolerance: float, largest: float, maxiter: int, rng: np.random.Generator
) -> SingularTriplets:
    r"""Find the `k` smallest of the ``min(rows, columns)`` triplets of an operator with one group.

    With A the smaller of ``M^T M`` and ``M M^T``: factor ``A + mu I``, run block Lanczos on the inverse, and take
    Ritz values from the SVD of ``M X``, not of ``X^T A X``, which keeps an absolute accuracy of about
    ``eps * largest`` although A squares the condition number.

    Parameters
    ----------
    tolerance : float
        On each residual, relative to `largest`.
    largest : float
        A lower bound of the largest singular value that is right to a few per cent: the scale of errors.

    References
    ----------
    G. H. Golub, R. Underwood, "The block Lanczos method for computing eigenvalues", in Mathematical Software III
    (1977).
    """
    table = smaller_gram(conv)
    outer_side = table.outer != conv.geometry.transposed  # whether A is M M^T of the layer itself
    inverse = ShiftedInverse(conv, table)
    forward, backward = (conv.rmatvec, conv.matvec) if outer_side else (conv.matvec, conv.rmatvec)
    search = _Search(inverse, forward, (max(conv.shape), table.size), k, rng)
    target = tolerance * largest
    best, reason = None, StopReason.MAXITER
    previous = np.full(k, np.inf)
    for _ in range(min(max(1, maxiter // search.block), _MOST_BLOCKS)):
        exhausted = search.extend()
        values = search.ritz_values()
        settled = np.all(np.abs(values - previous) <= 0.1 * target)
        previous = values
        if not (settled or exhausted):
            continue
        best = search.triplets(backward)
        if np.all(best.residuals <= target):
            reason = StopReason.CONVERGED
            break
        if exhausted:
            reason = StopReason.STAGNATED
            break
    if best is None:
        best = search.triplets(backward)
    left, right = (best.near, best.far) if outer_side else (best.far, best.near)
    return assemble_triplets(
        conv,
        best.values,
        left,
        right,
        best.residuals,
        search.applications,
        "factorized",
        tolerance=tolerance,
        reason=reason,
        largest=largest,
    )


def smaller_gram(conv: ConvOperator) -> GramTable:
    """Prepare A, the smaller of ``M^T M`` and ``M M^T``."""
    rows, columns = conv.shape[::-1] if conv.geometry.transposed else conv.shape
    return gram_table(conv.geometry, outer=rows < columns)


class ShiftedInverse:
    """Solve with ``A + mu I``, or ``tau I - A``, for vectors in the layer's own (channels first) order, in float64.

    `above` is tau, which must exceed every eigenvalue; without it mu is as small as rounding allows. With a float32
    factor, mu and the error of the factor are some 1e-7 to 1e-6 of the largest eigenvalue: close to the inverse where
    the condition number of the layer is below a hundred, a preconditioner up to several hundred.
    """

    def __init__(
        self, conv: ConvOperator, table: GramTable, dtype: DTypeLike = np.float64, *, above: float | None = None
    ) -> None:
        axes = [axis.outputs if table.outer else axis.inputs for axis in conv.geometry.axes]
        self._shape = (table.channels, *axes)
        self._permutation = (*(1 + axis for axis in table.order), 0)
        self._dtype = np.dtype(dtype)
        norm = _largest_column_sum(table, conv.plain_kernel)
        shift, growth = 0.0, 1.0
        for _ in range(_SHIFT_ATTEMPTS):
            self._band = assemble_band(table, conv.plain_kernel, dtype)
            limits = np.finfo(self._dtype)
            shift = max(growth * _SHIFT[self._dtype] * float(limits.eps) * norm, float(limits.tiny))
            if above is not None:
                np.negative(self._band, out=self._band)
            self._band[:, 0] += shift if above is None else above
            if banded.factor(self._band) == 0:
                return
            del self._band  # before the next one is made
            growth *= _SHIFT_GROWTH
            if above is not None:
                raise np.linalg.LinAlgError(f"`above` must exceed every eigenvalue; {above} does not.")
        raise np.linalg.LinAlgError(
            f"The Gram matrix of order {table.size} could not be factored even with a shift of {shift:.1e}; this "
            "should not happen. Please report the layer."
        )

    def __call__(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the solutions for the rows as right-hand sides."""
        count = len(rows)
        order = (0, *(1 + axis for axis in self._permutation))
        ordered = np.ascontiguousarray(rows.reshape(count, *self._shape).transpose(order), dtype=self._dtype)
        flat = ordered.reshape(count, -1)
        banded.solve(self._band, flat)
        solved = flat.reshape(ordered.shape).transpose(np.argsort(order))
        return np.ascontiguousarray(solved, dtype=np.float64).reshape(count, -1)


def assemble_band(
    table: GramTable, kernel: NDArray[np.floating], dtype: DTypeLike = np.float64
) -> NDArray[np.floating]:
    """Return the lower band of the Gram matrix, as `_kernels.banded` stores it; `kernel` is the plain one."""
    blocks = table.blocks(kernel.astype(np.float64, copy=False)).astype(dtype, copy=False)
    missing = 3 - len(table.pairs)
    blocks = blocks.reshape(*(1,) * missing, *blocks.shape)
    ends = [np.array([0, 1]), np.zeros(1, np.int64), np.zeros(1, np.int64)] * missing
    for pairs in table.pairs:
        order = np.argsort(pairs.first, kind="stable")
        starts = np.searchsorted(pairs.first[order], np.arange(pairs.pixels + 1))
        ends += [starts, pairs.second[order], pairs.kind[order]]
    band = np.zeros((table.size, table.bandwidth + 1), dtype)
    # Most of the time goes into the first touch of the memory, which threads share.
    pixels = table.size // table.channels
    pieces = max(1, min(pixels, band.nbytes // _PIECE_BYTES))
    cuts = [pixels * piece // pieces for piece in range(pieces + 1)]

    def fill(piece: tuple[int, int]) -> None:
        banded.fill(*ends, blocks, *piece, band)

    if pieces == 1:
        fill((0, pixels))
    else:
        run_parallel(fill, itertools.pairwise(cuts))
    return band


def _largest_column_sum(table: GramTable, kernel: NDArray[np.floating]) -> float:
    """1-norm of the Gram matrix: sums over the columns of each block, then over the pairs of each pixel."""
    sums = np.abs(table.blocks(kernel.astype(np.float64, copy=False))).sum(axis=-1)
    for i, pairs in enumerate(table.pairs):
        pairs_of = np.zeros((pairs.pixels, len(pairs.sets)))
        np.add.at(pairs_of, (pairs.first, pairs.kind), 1.0)
        sums = np.tensordot(pairs_of, sums, axes=(1, i))
    return float(sums.max())


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Singular pairs: `near` vectors on the side of A, `far` vectors on the other."""

    values: NDArray[np.floating]
    near: NDArray[np.floating]
    far: NDArray[np.floating]
    residuals: NDArray[np.floating]


class _Search:
    """A growing Krylov basis of the inverse, and Ritz values of M on it."""

    def __init__(
        self,
        inverse: ShiftedInverse,
        forward: Callable[[NDArray[Any]], NDArray[Any]],
        shape: tuple[int, int],
        k: int,
        rng: np.random.Generator,
    ) -> None:
        image_size, size = shape
        self._inverse, self._forward, self._k = inverse, forward, k
        self._size = size
        self._state = rng.integers(1, 2**31, size=1)
        self.block = min(max(_BLOCK, k), size)
        self._next: NDArray[np.floating] = rng.standard_normal((self.block, size))
        # Rows of the basis and their images M x, orthonormalized, with the triangle that goes with them. The pages of
        # these arrays are taken from memory as they are filled.
        most = min(size, _MOST_BLOCKS * self.block)
        self._basis = np.empty((most, size))
        self._images = np.empty((most, image_size))
        self._triangle = np.zeros((most, most))
        self._filled = 0
        self.applications = 0

    def extend(self) -> bool:
        """Add one block to the basis; return whether the basis now spans everything."""
        n = self._filled
        block = np.ascontiguousarray(self._next[: self._size - n])
        stop = n + len(block)
        convolution.orthonormalize(self._basis[:n], block, self._state, *_coefficients(n, len(block)))
        images = np.stack([self._forward(row) for row in block])
        self.applications += len(block)
        above, corner = _coefficients(n, len(block))
        convolution.orthonormalize(self._images[:n], images, self._state, above, corner)
        self._basis[n:stop], self._images[n:stop] = block, images
        self._triangle[:n, n:stop], self._triangle[n:stop, n:stop] = above, corner
        self._filled = stop
        if stop < self._size:
            self._next = self._inverse(block)
        return stop == self._size

    def ritz_values(self) -> NDArray[np.floating]:
        """Return the smallest `k` values of ``||M x||`` over the basis, ascending."""
        n = self._filled
        left, values, right = np.linalg.svd(self._triangle[:n, :n])
        self._left, self._right = left.T[::-1][: self._k], right[::-1][: self._k]
        return np.asarray(values[::-1][: self._k])

    def triplets(self, backward: Callable[[NDArray[Any]], NDArray[Any]]) -> _Pairs:
        """Form triplets from the Ritz vectors, improve the far vectors, and measure the residuals."""
        near = self._right @ self._basis[: self._filled]
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        images = np.stack([self._forward(v) for v in near])
        values = np.linalg.norm(images, axis=1)
        far = self._left @ self._images[: self._filled]
        found = self._improved(near, images, values, far, backward)
        null = values <= _NULL * np.abs(self._triangle).max()
        if null.any():
            # Images of null vectors are rounding errors, and may lie in the range of M, where no null vector of M^T
            # is; what the improvement leaves of a random vector is one.
            rows = np.random.default_rng(0).standard_normal((np.count_nonzero(null), far.shape[1]))
            far[null] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            other = self._improved(near, images, values, far, backward)
            found = min(found, other, key=lambda pairs: float(pairs.residuals.max()))
        return found

    def _improved(
        self,
        near: NDArray[np.floating],
        images: NDArray[np.floating],
        values: NDArray[np.floating],
        far: NDArray[np.floating],
        backward: Callable[[NDArray[Any]], NDArray[Any]],
    ) -> _Pairs:
        # M v / s carries rounding errors of eps * largest / s; a step of M^T u = s v, solved through the normal
        # equations, takes them out of every direction that matters.
        for _ in range(_IMPROVEMENTS):
            defect = np.stack([backward(u) for u in far]) - values[:, None] * near
            far = far - np.stack([self._forward(z) for z in self._inverse(defect)])
            # Far vectors of null vectors are free in the null space of M^T: keep them apart, the others as they are.
            columns, triangle = np.linalg.qr(far[::-1].T)
            far = (columns * np.where(np.diag(triangle) < 0, -1.0, 1.0)).T[::-1]
        back = np.stack([backward(u) for u in far])
        values = np.abs(np.einsum("ij,ij->i", far, images))
        residuals = np.maximum(
            np.linalg.norm(images - values[:, None] * far, axis=1),
            np.linalg.norm(back - values[:, None] * near, axis=1),
        )
        self.applications += (2 + 2 * _IMPROVEMENTS) * len(near)
        return _Pairs(values=values, near=near, far=far, residuals=residuals)


def _coefficients(n: int, rows: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    return np.empty((n, rows)), np.empty((rows, rows))
