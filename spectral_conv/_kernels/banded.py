"""Symmetric banded matrices: assembly from blocks, Cholesky factor, solution with many right-hand sides.

A matrix of order n with `width` diagonals below the main one is stored as ``band (n, width + 1)``: entry
``band[j, i - j]`` is element (i, j), i >= j. That is LAPACK's lower band storage, column by column. Seen from
element (j, j) with leading dimension `width`, it is also an ordinary column-major matrix: BLAS can work on any
part of the band that is full.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spectral_conv._kernels.blas import JIT, dgemm, dpbtrf, dtrsm

# Columns that the triangular solution handles at one time by BLAS.
PANEL = 48


@njit(cache=True, nogil=True)
def fill(first1, second1, kind1, first2, second2, kind2, first3, second3, kind3, n2, n3, blocks, band):
    """Write the lower triangle of a Gram matrix; `blocks` is ``(kinds1, kinds2, kinds3, c, c)``."""
    c = blocks.shape[3]
    for i1 in range(first1.size):
        for i2 in range(first2.size):
            for i3 in range(first3.size):
                p = (first1[i1] * n2 + first2[i2]) * n3 + first3[i3]
                q = (second1[i1] * n2 + second2[i2]) * n3 + second3[i3]
                if q < p:
                    continue
                block = blocks[kind1[i1], kind2[i2], kind3[i3]]
                distance = (q - p) * c
                for a in range(c):
                    column = band[p * c + a]
                    for b in range(a if p == q else 0, c):
                        column[distance + b - a] = block[a, b]


@njit(cache=True, nogil=True)
def largest_column_sum(band):
    """1-norm of the matrix."""
    n, height = band.shape
    sums = np.zeros(n)
    for j in range(n):
        for d in range(min(height, n - j)):
            value = abs(band[j, d])
            sums[j] += value
            if d > 0:
                sums[j + d] += value
    return sums.max()


def factor(band):
    """Overwrite `band` by its Cholesky factor L; return 0, or the order of the minor that is not positive."""
    from scipy.linalg import LinAlgError, cholesky_banded

    try:
        band[:] = cholesky_banded(band.T, lower=True).T
    except LinAlgError:
        return 1
    return 0


if JIT:

    @njit(cache=True, nogil=True)
    def factor(band):
        n, height = band.shape
        size = np.array([n, height - 1, height, 0], dtype=np.int32)
        letter = np.array([76], dtype=np.uint8)  # "L"
        dpbtrf(letter.ctypes, size.ctypes, size[1:].ctypes, band.ctypes, size[2:].ctypes, size[3:].ctypes)
        return size[3]


@njit(cache=True, nogil=True)
def _solve_narrow(band, x):
    """Both sweeps, entry by entry: for bands too narrow for BLAS."""
    n, height = band.shape
    for r in range(x.shape[0]):
        y = x[r]
        for j in range(n):
            y[j] /= band[j, 0]
            for d in range(1, min(height, n - j)):
                y[j + d] -= band[j, d] * y[j]
        for j in range(n - 1, -1, -1):
            total = y[j]
            for d in range(1, min(height, n - j)):
                total -= band[j, d] * y[j + d]
            y[j] = total / band[j, 0]


def solve(band, x):
    """Overwrite the rows of `x` by the solutions of ``L L^T x = b``; `band` holds L."""
    _solve_narrow(band, x)


if JIT:

    @njit(cache=True, nogil=True)
    def _triangle(letters, columns, rows, width, n, diagonal, x):
        """Solve with the triangle of a panel for all right-hand sides."""
        size = np.array([columns, rows, width, n], dtype=np.int32)
        one = np.ones(1)
        dtrsm(
            letters.ctypes, letters[1:].ctypes, letters[2:].ctypes, letters[3:].ctypes, size.ctypes, size[1:].ctypes,
            one.ctypes, diagonal.ctypes, size[2:].ctypes, x.ctypes, size[3:].ctypes,
        )  # fmt: skip

    @njit(cache=True, nogil=True)
    def _panel_product(transpose, m, k, rows, width, n, panel, x, y):
        """``y -= op(panel) x`` for all right-hand sides, rows of the band of leading dimension `width`."""
        size = np.array([m, rows, k, width, n, n], dtype=np.int32)
        letters = np.array([84 if transpose else 78, 78], dtype=np.uint8)
        factor = np.array([-1.0, 1.0])
        dgemm(
            letters.ctypes, letters[1:].ctypes, size.ctypes, size[1:].ctypes, size[2:].ctypes, factor.ctypes,
            panel.ctypes, size[3:].ctypes, x.ctypes, size[4:].ctypes, factor[1:].ctypes, y.ctypes, size[5:].ctypes,
        )  # fmt: skip

    @njit(cache=True, nogil=True)
    def solve(band, x):
        n, height = band.shape
        width = height - 1
        if width < 2 * PANEL:
            _solve_narrow(band, x)
            return
        rows = x.shape[0]
        flat = band.reshape(-1)
        base = x.reshape(-1)
        lower = np.array([76, 76, 78, 78], dtype=np.uint8)  # "L", "L", "N", "N"
        upper = np.array([76, 76, 84, 78], dtype=np.uint8)  # "L", "L", "T", "N"
        panels = (n + PANEL - 1) // PANEL
        for step in range(2 * panels):
            forward = step < panels
            j = (step if forward else 2 * panels - 1 - step) * PANEL
            columns = min(PANEL, n - j)
            # Rows down to `full` are inside the band of every column of the panel.
            full = min(n, j + height)
            below = full - j - columns
            diagonal = flat[j * height :]
            if forward:
                _triangle(lower, columns, rows, width, n, diagonal, base[j:])
                if below > 0:
                    panel = flat[j * height + columns :]
                    _panel_product(False, below, columns, rows, width, n, panel, base[j:], base[j + columns :])
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
                    panel = flat[j * height + columns :]
                    _panel_product(True, columns, below, rows, width, n, panel, base[j + columns :], base[j:])
                _triangle(upper, columns, rows, width, n, diagonal, base[j:])
