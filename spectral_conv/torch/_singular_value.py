r"""A singular value as a function of the weight, and its first two derivatives.

With ``M v = sigma u`` and ``M^T u = sigma v``, in a direction ``dM``:

    ``d sigma = <u, dM v>``,   ``d^2 sigma = <du, dM v> + <u, dM dv>``,

    ``M dv - sigma du = -(dM v - d sigma u)``,   ``M^T du - sigma dv = -(dM^T u - d sigma v)``,

where du, dv are orthogonal to u, v: a symmetric system, singular and consistent as long as sigma is a simple value,
which is solved by MINRES.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, minres
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from spectral_conv.results import NotApplicableError
from spectral_conv.torch._layers import operator_of
from spectral_conv.torch._plain_convolution import PlainConvolution

# Residual of the turning of the vectors, relative: wanted in double precision, and the largest that will do.
_RTOL, _SUFFICIENT = 1e-13, 1e-6
_MAXITER = 20_000


class SingularValue(Function):
    """``SingularValue.apply(weight, sigma, left, right, convolution)``: `sigma`, its slope that of ``<u, P v>``.

    The unit vectors `left` and `right` are those of the plain convolution P, ``(1, *shape)``.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, sigma: Tensor, left: Tensor, right: Tensor, convolution: PlainConvolution
    ) -> Tensor:
        """Pass the value on."""
        ctx.save_for_backward(weight, sigma, left, right)
        ctx.convolution = convolution
        return sigma.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Times ``u v^T`` pulled back to the weight."""
        slope: Tensor = _Slope.apply(cotangent, *ctx.saved_tensors, ctx.convolution)
        return slope, None, None, None, None


class _Slope(Function):
    """The slope; its derivative knows how the vectors turn with the weight."""

    @staticmethod
    def forward(
        ctx: Any,
        cotangent: Tensor,
        weight: Tensor,
        sigma: Tensor,
        left: Tensor,
        right: Tensor,
        conv: PlainConvolution,
    ) -> Tensor:
        ctx.save_for_backward(cotangent, weight, sigma, left, right)
        ctx.convolution = conv
        return cotangent * conv.weight_gradient(left, right)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        cotangent, weight, sigma, left, right = ctx.saved_tensors
        conv: PlainConvolution = ctx.convolution
        along = (left * conv.apply(right, direction)).sum()
        second = None
        if ctx.needs_input_grad[1]:
            turned_left, turned_right = _turned(conv, weight, sigma, left, right, direction)
            second = conv.weight_gradient(turned_left, right) + conv.weight_gradient(left, turned_right)
            second = cotangent * second
        return along, second, None, None, None, None


def _turned(
    conv: PlainConvolution, weight: Tensor, sigma: Tensor, left: Tensor, right: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Derivatives of both vectors along a direction of the weight, found on the CPU in double precision."""
    geometry = conv.geometry
    M, D = (operator_of(kernel, geometry) for kernel in (weight, direction))
    if geometry.transposed:
        M, D = M.H, D.H
    u, v = (side.detach().to("cpu", torch.float64).numpy().ravel() for side in (left, right))
    value, rows = float(sigma), len(u)
    moved, pulled = D.matvec(v), D.rmatvec(u)
    along = u @ moved
    wanted = -np.concatenate([moved - along * u, pulled - along * v])
    size = float(np.linalg.norm(wanted))

    def apply(x: Any) -> Any:
        return np.concatenate([M.matvec(x[rows:]) - value * x[:rows], M.rmatvec(x[:rows]) - value * x[rows:]])

    system = LinearOperator((len(wanted),) * 2, matvec=apply, dtype=np.float64)
    found, _ = minres(system, wanted, rtol=_RTOL, maxiter=_MAXITER)
    rest = float(np.linalg.norm(apply(found) - wanted))
    if value <= 0.0 or rest > _SUFFICIENT * size:
        raise NotApplicableError(
            f"The singular value {value:.6g} has no second derivative that could be found: it is 0, or so near to "
            f"another one that its vectors turn at once (residual {rest / size if size else 0.0:.1e}). Leave out "
            "create_graph=True, or use `orthogonality_gap`, `frobenius`, `lipbound` or `gram`."
        )
    sides = found[:rows] - (u @ found[:rows]) * u, found[rows:] - (v @ found[rows:]) * v
    turned = [torch.from_numpy(x).to(like).view_as(like) for x, like in zip(sides, (left, right), strict=True)]
    return turned[0], turned[1]
