"""Small Hermitian matrices, one per frequency: shifted Gram matrices, their inverses, and whether they are positive.

`near` is ``(frequencies, c, other)``; the matrices that are looked at are ``sign * near near^H + shift I``, of order
c, with `sign` -1 (is the Gram matrix below a bound?) or 1. BLAS reads a Hermitian matrix of rows as its conjugate in
columns; what is conjugated twice is itself again.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spectral_conv._kernels.blas import JIT, cherk, cpotrf, cpotri, zherk, zpotrf


def _gram(sign, near, shift, result):
    result[:] = sign * (near @ np.conj(near.T))
    result[np.diag_indices(len(result))] += shift


def _factor(matrix):
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return 1
    return 0


def _invert(matrix):
    info = _factor(matrix)
    if info == 0:
        matrix[:] = np.linalg.inv(matrix)
    return info


if JIT:

    @njit(cache=True, nogil=True)
    def _gram(sign, near, shift, result):
        """``result = sign * near near^H + shift I``, upper triangle of rows only."""
        c, other = near.shape
        letters = np.array([76, 67], dtype=np.uint8)  # "L", "C"
        size = np.array([c, other, max(1, other), c], dtype=np.int32)
        uplo, trans = letters.ctypes, letters[1:].ctypes
        n, k, lda, ldc = size.ctypes, size[1:].ctypes, size[2:].ctypes, size[3:].ctypes
        if near.itemsize == 16:
            double = np.array([sign, 0.0])
            zherk(uplo, trans, n, k, double.ctypes, near.ctypes, lda, double[1:].ctypes, result.ctypes, ldc)
        else:
            single = np.array([sign, 0.0], dtype=np.float32)
            cherk(uplo, trans, n, k, single.ctypes, near.ctypes, lda, single[1:].ctypes, result.ctypes, ldc)
        for i in range(c):
            result[i, i] += shift

    @njit(cache=True, nogil=True)
    def _factor(matrix):
        """Overwrite the upper triangle of rows by the Cholesky factor; 0, or the order of the bad minor."""
        size = np.array([matrix.shape[0], 0], dtype=np.int32)
        letter = np.array([76], dtype=np.uint8)
        if matrix.itemsize == 16:
            zpotrf(letter.ctypes, size.ctypes, matrix.ctypes, size.ctypes, size[1:].ctypes)
        else:
            cpotrf(letter.ctypes, size.ctypes, matrix.ctypes, size.ctypes, size[1:].ctypes)
        return size[1]

    @njit(cache=True, nogil=True)
    def _invert(matrix):
        """Overwrite a single precision matrix by its inverse; 0, or the order of the bad minor."""
        info = _factor(matrix)
        if info != 0:
            return info
        size = np.array([matrix.shape[0], 0], dtype=np.int32)
        letter = np.array([76], dtype=np.uint8)
        cpotri(letter.ctypes, size.ctypes, matrix.ctypes, size.ctypes, size[1:].ctypes)
        for i in range(matrix.shape[0]):
            for j in range(i):
                matrix[i, j] = np.conj(matrix[j, i])
        return 0


@njit(cache=True, nogil=True)
def shifted_inverses(sign, near, shift, result):
    """Write ``(sign * near near^H + shift I)^{-1}``, single precision; return how many are not positive definite."""
    failures = 0
    for f in range(near.shape[0]):
        _gram(sign, near[f], shift, result[f])
        if _invert(result[f]) != 0:
            failures += 1
    return failures


@njit(cache=True, nogil=True)
def definite(sign, near, shift, flags):
    """Set `flags` where Cholesky's factorization of ``sign * near near^H + shift I`` runs to completion."""
    c = near.shape[1]
    work = np.empty((c, c), dtype=near.dtype)
    for f in range(near.shape[0]):
        _gram(sign, near[f], shift, work)
        flags[f] = _factor(work) == 0
