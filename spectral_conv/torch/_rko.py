"""Reshaped kernel orthogonalization of a layer's weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spectral_conv.results import NotApplicableError
from spectral_conv.torch._layers import geometry_of
from spectral_conv.torch._polar import polar
from spectral_conv.torch._precision import full


class RKO(nn.Module):
    r"""Weights whose reshaped kernel is orthonormal, divided so that the layer stretches nothing, for `parametrize`.

    ``K = polar(A) / sqrt(prod ceil(k_i gcd(s_i, d_i) / s_i))`` with A the ``(k_1 ... k_d in) x out`` matrix of the
    free weights of each group: the same map as `spectral_conv.orthogonal.rko`.

    Parameters
    ----------
    input_shape : int or sequence of int
        Spatial size of the layer's input.
    layer : Conv1d, Conv2d, Conv3d or ConvTranspose1d, 2d, 3d
        Whose weight it will be; only its geometry is read.

    Raises
    ------
    NotApplicableError
        Padding that reads a pixel more often than the factor allows for: reflect, replicate, circular padding wider
        than "same" or of an image whose size the stride does not divide.

    Notes
    -----
    Guarantee: the norm of the layer is at most 1, to rounding. Weights of this form are their own images; a weight
    that is assigned is mapped to the nearest one.

    References
    ----------
    Q. Li et al., arXiv:1911.00937, Section 4; the bound: Y. Tsuzuku, I. Sato, M. Sugiyama, arXiv:1802.04034.

    Examples
    --------
    >>> import torch
    >>> from torch.nn.utils.parametrize import register_parametrization
    >>> from spectral_conv.torch import RKO
    >>> layer = torch.nn.Conv2d(1, 1, 2, bias=False)
    >>> _ = register_parametrization(layer, "weight", RKO((8, 8), layer=layer))
    >>> layer.weight.norm().round(decimals=4).item()
    0.5
    """

    def __init__(self, input_shape: int | Sequence[int], *, layer: nn.Module) -> None:
        super().__init__()
        geometry = geometry_of(layer, input_shape)
        wraps = [
            (axis.outputs - 1) * axis.stride >= axis.inputs or axis.inputs % axis.stride for axis in geometry.axes
        ]
        if geometry.padding_mode in ("reflect", "replicate") or (geometry.padding_mode == "circular" and any(wraps)):
            raise NotApplicableError(
                f"RKO does not apply to padding_mode={geometry.padding_mode!r} with padding {geometry.padding} of "
                f"{geometry.input_shape} pixels: some pixel is read more often than with zero padding. Use "
                "SpectralNorm."
            )
        self.groups, self.input_shape = geometry.groups, geometry.input_shape
        reads = [-(-a.kernel * math.gcd(a.stride, a.dilation) // a.stride) for a in geometry.axes]
        self.divisor = math.sqrt(math.prod(reads))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"input_shape={self.input_shape}"

    def forward(self, weight: Tensor) -> Tensor:
        """Free weights to the weight."""
        with torch.autocast(weight.device.type, enabled=False):
            rows = full(weight).flatten(1).unflatten(0, (self.groups, -1))  # (groups, out, in * taps)
            mapped = polar(rows) / self.divisor
        return mapped.reshape(weight.shape).to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Free weights of a weight: itself."""
        return weight
