"""Weights divided by the norm of their layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from spectral_conv.geometry import as_integer, checked_word
from spectral_conv.torch._carried_bound import CarriedBound
from spectral_conv.torch._layers import geometry_of
from spectral_conv.torch._precision import full
from spectral_conv.torch._tracked_norm import TrackedNorm


class SpectralNorm(nn.Module):
    r"""Weights divided by the largest singular value of their layer, or by an upper bound of it, for `parametrize`.

    Parameters
    ----------
    input_shape : int or sequence of int
        Spatial size of the layer's input.
    mode : {"exact", "upper"}
        "exact": the norm of the layer as it is, followed from step to step with the singular vectors of the last
        one; of every padding. "upper": a bound, so that the norm of the layer is at most 1 at every step; for zero
        padding, and circular padding up to "same".
    layer : Conv1d, Conv2d, Conv3d or ConvTranspose1d, 2d, 3d
        Whose weight it will be; its geometry and its weight of now are read.
    every : int
        Of mode "exact": singular vectors are searched anew in every so many training steps, the layers taking turns;
        in between the value is ``<u, M v>`` with the last ones.

    Raises
    ------
    ValueError
        A weight of 0.
    NotApplicableError
        Mode "upper" with reflect or replicate padding, or circular padding wider than "same".

    Notes
    -----
    Guarantee: "upper" rests on a theorem, rounding included: ``sigma_max <= 1`` whatever the training does, usually
    within 2 to 8 per cent. "exact" is converged in evaluation mode and without gradients, by `singular_triplets` on
    the CPU, once for each weight: to 1e-6 in single, 1e-9 in double precision. In training steps it follows the
    largest value from below: to some 1e-3 of it where weights change by less than a per cent from one step to the
    next, by several per cent in wild first steps.

    Both are differentiated through ``u v^T`` (of the layer; of the symbol where it is largest). Only calls in
    training mode with gradients enabled change the buffers. Half precision is computed in float32.

    References
    ----------
    T. Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018, arXiv:1802.05957, who
    divide by the norm of the reshaped kernel.

    Examples
    --------
    >>> import torch, spectral_conv
    >>> from torch.nn.utils.parametrize import register_parametrization
    >>> from spectral_conv.torch import SpectralNorm
    >>> layer = torch.nn.Conv2d(2, 3, 3, padding=1, dtype=torch.float64)
    >>> _ = register_parametrization(layer, "weight", SpectralNorm((8, 8), mode="upper", layer=layer))
    >>> conv = spectral_conv.ConvOperator(layer.weight.detach(), (8, 8), layout="OIHW")
    >>> 0.9 < spectral_conv.spectral_norm(conv).value <= 1.0
    True
    """

    # Relative gain of a step that is worth another one, and how many there may be.
    _gain, _most = 2e-3, 2
    _turn = itertools.count()

    def __init__(
        self, input_shape: int | Sequence[int], mode: str = "exact", *, layer: nn.Module, every: int = 12
    ) -> None:
        super().__init__()
        geometry = geometry_of(layer, input_shape)
        weight = layer.weight.detach()
        self.mode = checked_word("mode", mode, ("exact", "upper"))
        self.input_shape = geometry.input_shape
        self.norm: nn.Module = (
            TrackedNorm(
                geometry,
                weight,
                gain=self._gain,
                most=self._most,
                every=as_integer("every", every, minimum=1),
                turn=next(SpectralNorm._turn),
            )
            if mode == "exact"
            else CarriedBound(geometry, weight)
        )

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"input_shape={self.input_shape}, mode={self.mode!r}"

    def forward(self, weight: Tensor) -> Tensor:
        """Divide the weight."""
        keep = self.training and torch.is_grad_enabled()
        with torch.autocast(weight.device.type, enabled=False):
            return self._divided(full(weight), keep).to(weight.dtype)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _divided(self, weight: Tensor, keep: bool) -> Tensor:
        value, slope = self.norm(weight, keep=keep)
        divided: Tensor = _Divided.apply(weight, value, slope)
        return divided

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Free weights of a weight: itself."""
        return weight


class _Divided(Function):
    """``W / value``, where the value changes with the weight as ``<slope, W>``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(weight, value, slope)
        return weight / value

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        weight, value, slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            along = (slope * weight).sum()
            value = value + (along - along.detach())
        share = torch.dot(cotangent.flatten(), weight.flatten()) / value
        return torch.addcmul(cotangent, slope, share, value=-1) / value, None, None


class OSSN(SpectralNorm):
    r"""Weights divided by the largest singular value of their layer, converged at every step, for `parametrize`.

    The same map as `spectral_conv.orthogonal.ossn`: `SpectralNorm` in mode "exact" with as many steps as are needed.

    Parameters
    ----------
    input_shape, layer
        As of `SpectralNorm`.

    Notes
    -----
    Guarantee: norm 1 to about 1e-9 in double and 1e-5 in single precision, from above, as long as the largest value
    is not overtaken within one step by one to which the old vectors are orthogonal.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, Section 4; H. Gouk et al., arXiv:1804.04368.

    Examples
    --------
    >>> import torch
    >>> from torch.nn.utils.parametrize import register_parametrization
    >>> from spectral_conv.torch import OSSN
    >>> layer = torch.nn.Conv2d(2, 2, 1, bias=False)
    >>> layer.weight.data = torch.diag(torch.tensor([4.0, 1.0]))[..., None, None]
    >>> _ = register_parametrization(layer, "weight", OSSN((4, 4), layer=layer))
    >>> round(layer.weight[1, 1].item(), 5)
    0.25
    """

    _gain, _most = 1e-13, 200

    def __init__(self, input_shape: int | Sequence[int], *, layer: nn.Module) -> None:
        super().__init__(input_shape, layer=layer, every=1)
