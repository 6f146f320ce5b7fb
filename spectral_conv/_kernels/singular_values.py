"""Singular values of many small complex matrices.

Small ones are interleaved: entry ``(i, j)`` of 32 matrices lies side by side, so that every operation of one
Householder bidiagonalization serves 32 matrices and fills the vector registers. Larger ones go to LAPACK.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spectral_conv._kernels.blas import JIT, dlasq1, zgesdd

LANES = 32


@njit(cache=True, nogil=True)
def _norm(re, im, total):
    """Add ``|entry|^2`` of a row of entries ``(n, LANES)`` to `total`."""
    for j in range(re.shape[0]):
        a, b = re[j], im[j]
        for lane in range(total.shape[0]):
            total[lane] += a[lane] * a[lane] + b[lane] * b[lane]


@njit(cache=True, nogil=True)
def _reflector(re, im, total, norm, scale):
    """Turn the first entry of a vector x into that of v, where ``I - scale v v^H`` maps x to its first axis.

    v adds ``||x||`` with the phase of the first entry; the image then has a phase of its own, which the singular
    values of the bidiagonal matrix do not see.
    """
    for lane in range(total.shape[0]):
        length = np.sqrt(total[lane])
        head = np.sqrt(re[lane] * re[lane] + im[lane] * im[lane])
        norm[lane] = length
        scale[lane] = 1.0 / (length * (length + head)) if length > 0.0 else 0.0
        if head > 0.0:
            re[lane] *= 1.0 + length / head
            im[lane] *= 1.0 + length / head
        else:
            re[lane] = length


@njit(cache=True, nogil=True)
def _reflect_left(re, im, k, scale, wre, wim):
    """``A <- (I - scale v v^H) A`` right of column k, v being that column from row k down."""
    p, q, lanes = re.shape
    wre[k + 1 :] = 0.0
    wim[k + 1 :] = 0.0
    for i in range(k, p):
        x, y = re[i, k], im[i, k]
        for j in range(k + 1, q):
            a, b, s, t = re[i, j], im[i, j], wre[j], wim[j]
            for lane in range(lanes):
                s[lane] += x[lane] * a[lane] + y[lane] * b[lane]
                t[lane] += x[lane] * b[lane] - y[lane] * a[lane]
    for j in range(k + 1, q):
        s, t = wre[j], wim[j]
        for lane in range(lanes):
            s[lane] *= scale[lane]
            t[lane] *= scale[lane]
    for i in range(k, p):
        x, y = re[i, k], im[i, k]
        for j in range(k + 1, q):
            a, b, s, t = re[i, j], im[i, j], wre[j], wim[j]
            for lane in range(lanes):
                a[lane] -= x[lane] * s[lane] - y[lane] * t[lane]
                b[lane] -= x[lane] * t[lane] + y[lane] * s[lane]


@njit(cache=True, nogil=True)
def _reflect_right(re, im, k, scale, s, t):
    """``A <- A (I - scale v^H v)`` below row k, v being that row from column k + 1 on."""
    p, q, lanes = re.shape
    for i in range(k + 1, p):
        s[:] = 0.0
        t[:] = 0.0
        for j in range(k + 1, q):
            a, b, x, y = re[i, j], im[i, j], re[k, j], im[k, j]
            for lane in range(lanes):
                s[lane] += a[lane] * x[lane] + b[lane] * y[lane]
                t[lane] += b[lane] * x[lane] - a[lane] * y[lane]
        for lane in range(lanes):
            s[lane] *= scale[lane]
            t[lane] *= scale[lane]
        for j in range(k + 1, q):
            a, b, x, y = re[i, j], im[i, j], re[k, j], im[k, j]
            for lane in range(lanes):
                a[lane] -= s[lane] * x[lane] - t[lane] * y[lane]
                b[lane] -= s[lane] * y[lane] + t[lane] * x[lane]


@njit(cache=True, nogil=True)
def bidiagonalize(re, im, diagonal, upper):
    """Reduce ``(p, q, LANES)`` interleaved matrices, ``p >= q``, to the moduli of a bidiagonal form, in place."""
    _, q, lanes = re.shape
    wre, wim = np.empty((q, lanes)), np.empty((q, lanes))
    total, scale = np.empty(lanes), np.empty(lanes)
    for k in range(q):
        total[:] = 0.0
        _norm(re[k:, k], im[k:, k], total)
        _reflector(re[k, k], im[k, k], total, diagonal[k], scale)
        if k + 1 == q:
            break
        _reflect_left(re, im, k, scale, wre, wim)
        total[:] = 0.0
        _norm(re[k, k + 1 :], im[k, k + 1 :], total)
        _reflector(re[k, k + 1], im[k, k + 1], total, upper[k], scale)
        _reflect_right(re, im, k, scale, wre[0], wim[0])


def _bidiagonal_values(diagonal, upper):
    matrix = np.diag(diagonal) + np.diag(upper[: diagonal.size - 1], 1)
    diagonal[:] = np.linalg.svd(matrix, compute_uv=False)
    return 0


if JIT:

    @njit(cache=True, nogil=True)
    def _bidiagonal_values(diagonal, upper):
        size = np.array([diagonal.size, 0], dtype=np.int32)
        work = np.empty(4 * diagonal.size)
        dlasq1(size.ctypes, diagonal.ctypes, upper.ctypes, work.ctypes, size[1:].ctypes)
        return size[1]


@njit(cache=True, nogil=True)
def interleaved_values(matrices, index, values):
    """Singular values, descending, of ``matrices[index]`` (..., m, n) into `values` (len(index), min(m, n))."""
    m, n = matrices.shape[1:]
    p, q = max(m, n), min(m, n)
    lanes = LANES
    re, im = np.zeros((p, q, lanes)), np.zeros((p, q, lanes))
    diagonal, upper = np.empty((q, lanes)), np.zeros((q, lanes))
    d, e = np.empty(q), np.zeros(q)
    failures = 0
    for start in range(0, index.size, LANES):
        count = min(LANES, index.size - start)
        if count < lanes - 7:  # the last matrices fill fewer vector registers
            lanes = (count + 7) // 8 * 8
            re, im = np.zeros((p, q, lanes)), np.zeros((p, q, lanes))
            diagonal, upper = np.empty((q, lanes)), np.zeros((q, lanes))
        for lane in range(count):
            matrix = matrices[index[start + lane]]
            for i in range(m):
                for j in range(n):
                    row, column = (i, j) if m >= n else (j, i)
                    re[row, column, lane] = matrix[i, j].real
                    im[row, column, lane] = matrix[i, j].imag
        bidiagonalize(re, im, diagonal, upper)
        for lane in range(count):
            d[:] = diagonal[:, lane]
            e[:] = upper[:, lane]
            failures += _bidiagonal_values(d, e) != 0
            values[start + lane] = d
    return failures


def lapack_values(matrices, index, values):
    """Do the same by LAPACK's divide and conquer, matrix by matrix; return the number of failures."""
    values[:] = np.linalg.svd(matrices[index], compute_uv=False)
    return 0


if JIT:

    @njit(cache=True, nogil=True)
    def lapack_values(matrices, index, values):
        m, n = matrices.shape[1:]
        rank = min(m, n)
        # LAPACK reads the row-major (m, n) matrix as its transpose, which has the same singular values.
        size = np.array([n, m, max(1, n), 1, -1, 0], dtype=np.int32)
        letter = np.array([78], dtype=np.uint8)  # "N"
        real_work, integer_work = np.empty(7 * rank), np.empty(8 * rank, dtype=np.int32)
        matrix = np.empty((m, n), dtype=np.complex128)
        dummy = np.empty(1, dtype=np.complex128)
        work = np.empty(1, dtype=np.complex128)
        failures = 0
        for f in range(-1, index.size):  # the first call asks for the size of the workspace
            if f >= 0:
                matrix[:] = matrices[index[f]]
            target = values[max(f, 0)]
            zgesdd(
                letter.ctypes, size.ctypes, size[1:].ctypes, matrix.ctypes, size[2:].ctypes, target.ctypes,
                dummy.ctypes, size[3:].ctypes, dummy.ctypes, size[3:].ctypes, work.ctypes, size[4:].ctypes,
                real_work.ctypes, integer_work.ctypes, size[5:].ctypes,
            )  # fmt: skip
            failures += size[5] != 0
            if f < 0:
                size[4] = max(1, int(work[0].real))
                work = np.empty(size[4], dtype=np.complex128)
        return failures
