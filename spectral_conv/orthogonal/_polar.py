"""The nearest matrix with orthonormal columns (or rows), and its derivative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas


@dataclass(frozen=True, kw_only=True)
class Polar:
    """Polar factors ``U V^T`` of matrices ``A = U S V^T``, with what their derivative needs.

    Attributes
    ----------
    factor : (..., m, n) ndarray
        The nearest matrices with orthonormal columns (m >= n) or rows, in the Frobenius norm.
    left, values, right : (..., m, r), (..., r), (..., r, n) ndarrays
        The singular value decompositions, r = min(m, n).
    """

    factor: NDArray[np.float64]
    left: NDArray[np.float64]
    values: NDArray[np.float64]
    right: NDArray[np.float64]

    def vjp(self, cotangent: NDArray[np.floating], name: str) -> NDArray[np.float64]:
        r"""Derivative of ``<cotangent, factor>`` by A.

        With ``G = U^T C V``: ``U [(G_ij - G_ji) / (s_i + s_j)] V^T``, which solves the Sylvester equation of the
        derivative, and ``(I - U U^T) C V S^-1 V^T + U S^-1 U^T C (I - V V^T)`` from outside the ranges.
        """
        U, s, Vt = self.left, self.values, self.right
        if s.size and not (s.min(axis=-1) > np.finfo(float).eps * s.max(axis=-1) * max(self.factor.shape[-2:])).all():
            raise ValueError(
                f"`{name}` must have full rank for a derivative; got a smallest singular value of {s.min():.1e}. "
                "Its orthonormal factor is not unique there: start from random parameters."
            )
        with serial_blas():
            Ut, V = U.swapaxes(-1, -2), Vt.swapaxes(-1, -2)
            CV = cotangent @ V
            G = Ut @ CV
            inner = (G - G.swapaxes(-1, -2)) / (s[..., :, None] + s[..., None, :])
            m, n = self.factor.shape[-2:]
            if m > n:
                return (U @ inner + (CV - U @ G) / s[..., None, :]) @ Vt
            if m < n:
                return U @ (inner @ Vt + (Ut @ cotangent - G @ Vt) / s[..., :, None])
            return U @ inner @ Vt


def polar(A: NDArray[np.float64]) -> Polar:
    """Polar factors of a stack of matrices ``(..., m, n)``; of a matrix without full rank one of several."""
    # 1. The papers iterate (Björck); the decomposition is its limit, right to rounding whatever the condition of A.
    with serial_blas():
        left, values, right = np.linalg.svd(A, full_matrices=False)
        return Polar(factor=left @ right, left=left, values=values, right=right)
