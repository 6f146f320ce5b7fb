"""The nearest matrices with orthonormal columns or rows, and projectors, with derivatives that stay finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Polar(Function):
    r"""``polar(A) = U V^T`` of a stack of matrices ``A = U S V^T``.

    Backwards the Sylvester equation of its derivative is solved in the singular vectors. The derivative of the
    decomposition itself, which has the differences of singular values as denominators, would not be finite at
    orthonormal matrices.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        """Return the factor."""
        U, s, Vt = torch.linalg.svd(matrix, full_matrices=False)
        ctx.save_for_backward(U, s, Vt)
        return U @ Vt

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        """Pull a derivative by the factor back to the matrix."""
        U, s, Vt = ctx.saved_tensors
        CV = cotangent @ Vt.mT
        G = U.mT @ CV
        inner = (G - G.mT) / (s[..., :, None] + s[..., None, :])
        rows, columns = cotangent.shape[-2:]
        if rows > columns:
            return (U @ inner + (CV - U @ G) / s[..., None, :]) @ Vt
        if rows < columns:
            return U @ (inner @ Vt + (U.mT @ cotangent - G @ Vt) / s[..., :, None])
        return U @ inner @ Vt


def polar(matrix: Tensor) -> Tensor:
    """Polar factors of a stack of matrices ``(..., m, n)`` of full rank."""
    factor: Tensor = Polar.apply(matrix)
    return factor


def projectors_onto(matrix: Tensor) -> Tensor:
    """Projectors ``(..., c, c)`` onto the ranges of matrices ``(..., c, r)``, r <= c, of full rank."""
    basis = torch.linalg.qr(matrix).Q
    return basis @ basis.mT
