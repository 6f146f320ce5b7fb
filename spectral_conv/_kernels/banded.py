"""Symmetric banded matrices: assembly from blocks, Cholesky factor, solution with many right-hand sides.

A matrix of order n with `width` diagonals below the main one is stored as ``band (n, width + 1)``, float64 or
float32: entry ``band[j, i - j]`` is element (i, j), i >= j. That is LAPACK's lower band storage, column by column.
Seen from element (j, j) with leading dimension `width`, it is also an ordinary column-major matrix: BLAS can work
on any part of the band that is full.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spectral_conv._kernels.blas import (
    JIT,
    dgemm,
    dpbtrf,
    dpotrf,
    dsyrk,
    dtrsm,
    sgemm,
    spbtrf,
    spotrf,
    ssyrk,
    strsm,
)
from spectral_conv._kernels.threads import numba_threads

# Columns that the triangular solution handles at one time by BLAS.
PANEL = 48
# Bands narrower than this are left to LAPACK: two threads of ours then win less than a quarter of the time.
NARROW = 768
# A single row is solved for without BLAS up to this width (measured).
NARROW_SINGLE = 400


@njit(cache=True, nogil=True)
def fill(starts1, second1, kind1, starts2, second2, kind2, starts3, second3, kind3, blocks, begin, end, band):
    """Write the columns of the pixels from `begin` to `end` into the lower triangle of a Gram matrix.

    Along an axis, pixel p pairs with ``second[i]`` by a block of kind ``kind[i]`` for i from ``starts[p]`` to
    ``starts[p + 1]``; `blocks` is ``(kinds1, kinds2, kinds3, c, c)``. Column by column, so that memory is touched
    in order.
    """
    c = blocks.shape[3]
    n2, n3 = starts2.size - 1, starts3.size - 1
    for p in range(begin, end):
        p1, p2, p3 = p // n3 // n2, p // n3 % n2, p % n3
        for a in range(c):
            column = band[p * c + a]
            for i1 in range(starts1[p1], starts1[p1 + 1]):
                for i2 in range(starts2[p2], starts2[p2 + 1]):
                    for i3 in range(starts3[p3], starts3[p3 + 1]):
                        q = (second1[i1] * n2 + second2[i2]) * n3 + second3[i3]
                        if q < p:
                            continue
                        row = blocks[kind1[i1], kind2[i2], kind3[i3], a]
                        distance = (q - p) * c - a
                        for b in range(a if p == q else 0, c):
                            column[distance + b] = row[b]


def _factor_narrow(band):
    from scipy.linalg import get_lapack_funcs

    lower, info = get_lapack_funcs("pbtrf", (band,))(band.T, lower=True)
    band[:] = lower.T
    return info


if JIT:

    @njit(cache=True, nogil=True)
    def _factor_narrow(band):
        n, height = band.shape
        size = np.array([n, height - 1, height, 0], dtype=np.int32)
        letter = np.array([76], dtype=np.uint8)  # "L"
        arguments = letter.ctypes, size.ctypes, size[1:].ctypes, band.ctypes, size[2:].ctypes, size[3:].ctypes
        if band.itemsize == 8:
            dpbtrf(*arguments)
        else:
            spbtrf(*arguments)
        return size[3]

    @njit(cache=True, nogil=True)
    def _gemm(letters, size, alpha, a, b, c):
        """Column-major ``c += alpha op(a) op(b)``; `size` holds m, n, k and the three leading dimensions."""
        factor = np.array([alpha, 1.0]).astype(c.dtype)
        m, n, k = size.ctypes, size[1:].ctypes, size[2:].ctypes
        lda, ldb, ldc = size[3:].ctypes, size[4:].ctypes, size[5:].ctypes
        ta, tb, one, two = letters.ctypes, letters[1:].ctypes, factor.ctypes, factor[1:].ctypes
        if c.itemsize == 8:
            dgemm(ta, tb, m, n, k, one, a.ctypes, lda, b.ctypes, ldb, two, c.ctypes, ldc)
        else:
            sgemm(ta, tb, m, n, k, one, a.ctypes, lda, b.ctypes, ldb, two, c.ctypes, ldc)

    @njit(cache=True, nogil=True)
    def _trsm(letters, size, triangle, x):
        """Column-major ``x = op(triangle)^-1 x``, or from the right; `size` holds m, n, two leading dimensions."""
        one = np.ones(1, x.dtype)
        side, lower, transpose, diagonal = letters.ctypes, letters[1:].ctypes, letters[2:].ctypes, letters[3:].ctypes
        m, n, lda, ldx = size.ctypes, size[1:].ctypes, size[2:].ctypes, size[3:].ctypes
        if x.itemsize == 8:
            dtrsm(side, lower, transpose, diagonal, m, n, one.ctypes, triangle.ctypes, lda, x.ctypes, ldx)
        else:
            strsm(side, lower, transpose, diagonal, m, n, one.ctypes, triangle.ctypes, lda, x.ctypes, ldx)

    @njit(cache=True, nogil=True)
    def _factor_panel(band, j, most, panel):
        """Factor `most` columns from j on that hold all updates; return 0 or the order of the bad minor.

        `panel` gets a copy of what stands below the diagonal block, column-major, with zeros outside the band.
        """
        n, height = band.shape
        columns = min(most, n - j)
        rows = min(height - 1, n - j - columns)
        diagonal = band.reshape(-1)[j * height :]
        letters = np.array([82, 76, 84, 78], dtype=np.uint8)  # "R", "L", "T", "N"
        size = np.array([columns, height - 1, 0], dtype=np.int32)
        arguments = letters[1:].ctypes, size.ctypes, diagonal.ctypes, size[1:].ctypes, size[2:].ctypes
        if band.itemsize == 8:
            dpotrf(*arguments)
        else:
            spotrf(*arguments)
        if size[2] != 0:
            return j + size[2]
        for t in range(columns):
            # Not every LAPACK says so about overflow and NaN; anywhere in a row, they reach its diagonal.
            if not 0.0 < band[j + t, 0] < np.inf:
                return j + t + 1
            inside = min(rows, height - columns + t)
            copy, column = panel[t * rows : (t + 1) * rows], band[j + t, columns - t :]
            copy[:inside] = column[:inside]
            copy[inside:] = 0.0
        if rows > 0:
            _trsm(letters, np.array([rows, columns, height - 1, rows], dtype=np.int32), diagonal, panel)
        for t in range(columns):
            inside = min(rows, height - columns + t)
            band[j + t, columns - t : columns - t + inside] = panel[t * rows : t * rows + inside]
        return 0

    @njit(cache=True, nogil=True)
    def _update_strip(band, j, columns, panel, first, last):
        """Subtract what `panel` contributes to columns `first` to `last`, counted from the end of the panel.

        The update of the lower triangle stays inside the band, whose upper neighbours are other columns: a
        triangle by syrk and the rectangle below it by gemm never write there.
        """
        n, height = band.shape
        width = height - 1
        rows = min(width, n - j - columns)
        count, below = last - first, rows - last
        left = panel[first:]
        corner = band.reshape(-1)[(j + columns + first) * height :]
        letters = np.array([76, 78, 84], dtype=np.uint8)  # "L", "N", "T"
        size = np.array([count, columns, rows, width], dtype=np.int32)
        factor = np.array([-1.0, 1.0]).astype(band.dtype)
        arguments = (
            letters.ctypes, letters[1:].ctypes, size.ctypes, size[1:].ctypes, factor.ctypes,
            left.ctypes, size[2:].ctypes, factor[1:].ctypes, corner.ctypes, size[3:].ctypes,
        )  # fmt: skip
        if band.itemsize == 8:
            dsyrk(*arguments)
        else:
            ssyrk(*arguments)
        if below > 0:
            size = np.array([below, count, columns, rows, rows, width], dtype=np.int32)
            _gemm(letters[1:], size, -1.0, left[count:], left, corner[count:])


def _strips(columns: int, rows: int) -> list[tuple[int, int]]:
    """Pieces of the update; the first is what the next panel waits for."""
    wide = max(columns, -(-rows // 8))
    return [(0, min(columns, rows)), *((first, min(first + wide, rows)) for first in range(columns, rows, wide))]


def factor(band: NDArray[np.floating]) -> int:
    """Overwrite `band` by its Cholesky factor L; return 0, or the order of the minor that is not positive.

    Blocked and right-looking: while the update by one panel of columns runs, in as many threads as numba may use,
    the next panel is factored. The pieces do not depend on the number of threads, so neither do the bits of L.
    BLAS should be kept serial around it (`_threads.serial_blas`).
    """
    n, width = len(band), band.shape[1] - 1
    if not JIT or width < NARROW:
        info = int(_factor_narrow(band))
        return info or next((j + 1 for j in np.flatnonzero(~(band[:, 0] < np.inf))), 0)
    columns = 64 if width < 1024 else 128
    panel, other = (np.empty(width * columns, band.dtype) for _ in range(2))
    bad = _factor_panel(band, 0, columns, panel)
    threads = numba_threads()
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        for j in range(0, n - columns, columns):
            if bad:
                break
            strips = iter(_strips(columns, min(width, n - j - columns)))  # shared by the threads

            def update(strips=strips, j=j, panel=panel, other=other) -> int:
                found = 0
                for first, last in strips:
                    _update_strip(band, j, columns, panel, first, last)
                    if first == 0:
                        found = _factor_panel(band, j + columns, columns, other)
                return found

            helpers = [pool.submit(update) for _ in range(threads - 1)]
            bad = update() + sum(helper.result() for helper in helpers)
            panel, other = other, panel
    return bad


@njit(cache=True, nogil=True)
def absolute_product(band, x, z):
    """``z = |L| |L|^T x``, where `band` holds L: column by column, in one pass."""
    n, height = band.shape
    z[:] = 0
    for j in range(n):
        total = 0.0
        for d in range(min(height, n - j)):
            total += abs(band[j, d]) * x[j + d]
        for d in range(min(height, n - j)):
            z[j + d] += abs(band[j, d]) * total


@njit(cache=True, nogil=True)
def _solve_narrow(band, x):
    """Both sweeps, entry by entry: for bands too narrow for BLAS, wider ones if there is one row only."""
    n, height = band.shape
    for r in range(x.shape[0]):
        y = x[r]
        for j in range(n):
            top = y[j] / band[j, 0]
            y[j] = top
            below, column = y[j + 1 : min(j + height, n)], band[j, 1:]
            for d in range(below.size):
                below[d] -= column[d] * top
        for j in range(n - 1, -1, -1):
            stop = min(height, n - j)
            # One sum would wait for each of its terms.
            a, b, c, e = y[j], band.dtype.type(0), band.dtype.type(0), band.dtype.type(0)
            d = 1
            while d + 3 < stop:
                a -= band[j, d] * y[j + d]
                b -= band[j, d + 1] * y[j + d + 1]
                c -= band[j, d + 2] * y[j + d + 2]
                e -= band[j, d + 3] * y[j + d + 3]
                d += 4
            while d < stop:
                a -= band[j, d] * y[j + d]
                d += 1
            y[j] = ((a + b) + (c + e)) / band[j, 0]


def solve(band, x):
    """Overwrite the rows of `x` by the solutions of ``L L^T x = b``; `band` holds L, in the precision of `x`."""
    _solve_narrow(band, x)


if JIT:

    @njit(cache=True, nogil=True)
    def solve(band, x):
        n, height = band.shape
        width = height - 1
        rows = x.shape[0]
        if width < 2 * PANEL or (rows == 1 and width < NARROW_SINGLE):
            _solve_narrow(band, x)
            return
        flat = band.reshape(-1)
        base = x.reshape(-1)
        plain = np.array([76, 76, 78, 78], dtype=np.uint8)  # "L", "L", "N", "N"
        transposed = np.array([76, 76, 84, 78], dtype=np.uint8)  # "L", "L", "T", "N"
        panels = (n + PANEL - 1) // PANEL
        for step in range(2 * panels):
            forward = step < panels
            j = (step if forward else 2 * panels - 1 - step) * PANEL
            columns = min(PANEL, n - j)
            # Rows down to `full` are inside the band of every column of the panel.
            full = min(n, j + height)
            below = full - j - columns
            diagonal, panel = flat[j * height :], flat[j * height + columns :]
            triangle = np.array([columns, rows, width, n], dtype=np.int32)
            if forward:
                _trsm(plain, triangle, diagonal, base[j:])
                if below > 0:
                    size = np.array([below, rows, columns, width, n, n], dtype=np.int32)
                    _gemm(plain[2:], size, -1.0, panel, base[j:], base[j + columns :])
                for i in range(1, columns):
                    column = band[j + i]
                    for d in range(full - j - i, min(height, n - j - i)):
                        for r in range(rows):
                            x[r, j + i + d] -= column[d] * x[r, j + i]
            else:
                for i in range(1, columns):
                    column = band[j + i]
                    for d in range(full - j - i, min(height, n - j - i)):
                        for r in range(rows):
                            x[r, j + i] -= column[d] * x[r, j + i + d]
                if below > 0:
                    size = np.array([columns, rows, below, width, n, n], dtype=np.int32)
                    _gemm(transposed[2:], size, -1.0, panel, base[j + columns :], base[j:])
                _trsm(transposed, triangle, diagonal, base[j:])
