"""Dense singular value decomposition by LAPACK, for small operators."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import SingularTriplets
from spectral_conv.spectrum.verify import EPS, direct_triplets

THEOREM = "Weyl's inequality, backward error of LAPACK's singular values"
# Up to these, the decomposition takes a few milliseconds, less than the others need to set up; an operator of so few
# rows or columns leaves an iteration nothing to do.
_SIDE, _PRODUCTS, _ALWAYS = 160, 160**2 * 1600, 24


def suits_dense(conv: ConvOperator, k: int) -> bool:
    """Whether LAPACK takes a few milliseconds, or `k` triplets leave an iteration no room to converge."""
    small, large = sorted(conv.shape)
    return (small <= _SIDE and small**2 * large <= _PRODUCTS) or small <= max(_ALWAYS, 8 * k)


def dense_bytes(conv: ConvOperator, *, vectors: bool) -> int:
    """Memory of the decomposition: M in sparse and dense form, LAPACK's copy and workspace, and the vectors."""
    rows, columns = conv.shape
    small = min(rows, columns)
    return 8 * (3 * rows * columns + 4 * small**2 + (2 * small * (rows + columns) if vectors else 0))


def dense_margin(conv: ConvOperator, largest: float) -> float:
    """Bound the error of LAPACK's singular values.

    By Weyl's inequality each is off by at most the norm of the backward error, ``p(m, n) eps ||M||``; LAPACK's
    guide calls p a modest polynomial; ``max(m, n) + 10`` held in every test (errors were below 1.4 max(m, n) for the
    smallest matrices, far below for others).
    """
    return (max(conv.shape) + 10) * EPS * largest


def dense_values(conv: ConvOperator) -> NDArray[np.floating]:
    """All ``min(rows, columns)`` singular values of M, descending."""
    with serial_blas():
        return np.linalg.svd(conv.to_dense().astype(np.float64, copy=False), compute_uv=False)


def dense_triplets(conv: ConvOperator, k: int, *, smallest: bool) -> SingularTriplets:
    """The `k` largest or smallest triplets of M."""
    M = conv.to_dense().astype(np.float64, copy=False)
    with serial_blas():
        left, values, right = np.linalg.svd(M, full_matrices=False)
    order = np.arange(len(values))[::-1][:k] if smallest else np.arange(k)
    margin = dense_margin(conv, float(values[0]))
    return direct_triplets(conv, values[order], left.T[order], right[order], margin, "dense", THEOREM)
