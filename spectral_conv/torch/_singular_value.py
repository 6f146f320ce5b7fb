"""A singular value as a function of the weight: ``d sigma = <u, dM v>``."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from spectral_conv.results import NotApplicableError
from spectral_conv.torch._plain_convolution import PlainConvolution


class SingularValue(Function):
    """``SingularValue.apply(weight, sigma, left, right, convolution)``: `sigma`, its slope that of ``<u, P v>``.

    The stacks `left` and `right` hold one or more pairs of unit vectors ``(b, *shape)``, of the plain convolution;
    of several the slopes are averaged.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, sigma: Tensor, left: Tensor, right: Tensor, convolution: PlainConvolution
    ) -> Tensor:
        """Pass the value on."""
        ctx.save_for_backward(weight, left, right)
        ctx.convolution = convolution
        return sigma.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Times ``u v^T`` pulled back to the weight."""
        weight, left, right = ctx.saved_tensors
        return _Slope.apply(cotangent, weight, left, right, ctx.convolution), None, None, None, None


class _Slope(Function):
    """The slope, which does not know how the vectors turn with the weight."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, cotangent: Tensor, weight: Tensor, left: Tensor, right: Tensor, conv: PlainConvolution
    ) -> Tensor:
        return cotangent * (conv.weight_gradient(left, right) / len(left))

    @staticmethod
    def backward(ctx: FunctionCtx, *cotangents: Tensor) -> Any:
        raise NotApplicableError(
            "A singular value is not twice differentiable here: its slope u v^T is known, how u and v turn with the "
            "weight is not. Leave out create_graph=True, or use `orthogonality_gap`, `frobenius`, `lipbound` or "
            "`gram`."
        )
