"""Block convolution orthogonal parametrization of a layer's weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spectral_conv.orthogonal import BcopParameters, bcop_parameters
from spectral_conv.orthogonal._representation import factor_axes
from spectral_conv.torch._layers import geometry_of
from spectral_conv.torch._plain_convolution import PlainConvolution
from spectral_conv.torch._polar import polar, projectors_onto
from spectral_conv.torch._precision import full
from spectral_conv.torch._symbol import without_weights


class BCOP(nn.Module):
    r"""Weights ``H □ [P_1; I - P_1] □ [Q_1, I - Q_1] □ ...`` of orthogonal convolutions, for `parametrize`.

    The same map as `spectral_conv.orthogonal.bcop`, group by group: H is the polar factor of one free matrix, P and Q
    are projectors onto the ranges of others. The free matrices are ``original0``, shape ``(groups, in, out)``, and
    ``original1``, shape ``(groups, sum(k - 1), c, floor(c / 2))`` with c the larger number of channels.

    Parameters
    ----------
    input_shape : int or sequence of int
        Spatial size of the layer's input.
    layer : Conv1d, Conv2d, Conv3d or ConvTranspose1d, 2d, 3d
        Whose weight it will be; only its geometry is read. Zero padding, or circular padding up to "same".

    Notes
    -----
    Guarantee: all singular values are 1 to rounding for circular padding "same" and stride 1; otherwise (zero
    padding, a stride) the norm is at most 1. A layer whose weight `bcop` can make keeps it; any other is drawn anew,
    from PyTorch's random numbers. The derivative is exact, once.

    References
    ----------
    Q. Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks", NeurIPS 2019,
    arXiv:1911.00937, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from torch.nn.utils.parametrize import register_parametrization
    >>> from spectral_conv.torch import BCOP
    >>> layer = torch.nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular", bias=False)
    >>> _ = register_parametrization(layer, "weight", BCOP((8, 8), layer=layer))
    >>> x = torch.randn(1, 4, 8, 8)
    >>> bool(torch.isclose(layer(x).norm(), x.norm(), rtol=1e-4))
    True
    """

    def __init__(self, input_shape: int | Sequence[int], *, layer: nn.Module) -> None:
        super().__init__()
        geometry = geometry_of(layer, input_shape)
        without_weights(geometry, "BCOP")
        self._convolution = PlainConvolution(geometry)
        self._initialized = False

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"input_shape={self._convolution.geometry.input_shape}"

    def forward(self, matrix: Tensor, bases: Tensor) -> Tensor:
        """Free matrices to the weight."""
        geometry = self._convolution.geometry
        with torch.autocast(matrix.device.type, enabled=False):
            H, P = polar(full(matrix)), projectors_onto(full(bases))
            weight = composed(geometry.kernel_size, H, P)
        return weight.to(matrix.dtype).contiguous()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Free matrices of a weight; at registration random ones where the weight has none."""
        first, self._initialized = not self._initialized, True
        groups = self._convolution.geometry.groups
        plain = weight.detach().unflatten(0, (groups, -1)).movedim((2, 1), (-2, -1))  # (groups, *k, in, out)
        try:
            found = [bcop_parameters(part, atol=1e-4) for part in plain.to("cpu", torch.float64).numpy()]
        except ValueError:
            if not first:
                raise
            return self._sample(weight)
        return (
            torch.stack([torch.from_numpy(p.matrix) for p in found]).to(weight),
            torch.stack([torch.from_numpy(p.projectors) for p in found]).to(weight),
        )

    def _sample(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        geometry = self._convolution.geometry
        out, into = weight.shape[0] // geometry.groups, weight.shape[1]
        widest, taps = max(out, into), sum(geometry.kernel_size) - geometry.ndim
        like = {"dtype": weight.dtype, "device": weight.device}
        # Orthonormal from the start: larger entries with the same ranges would turn less with every step.
        bases = torch.randn(geometry.groups, taps, widest, widest // 2, **like)
        return polar(torch.randn(geometry.groups, into, out, **like)), torch.linalg.qr(bases)[0]


def bcop_tensors(parameters: BcopParameters, like: Tensor) -> tuple[Tensor, Tensor]:
    """Parameters of NumPy's `bcop` as the two free tensors of a layer with one group."""
    return torch.from_numpy(parameters.matrix)[None].to(like), torch.from_numpy(parameters.projectors)[None].to(like)


def composed(kernel_size: Sequence[int], matrix: Tensor, projectors: Tensor) -> Tensor:
    """Weight ``(groups * out, in, *k)`` of the convolution with the given factors, group by group."""
    # For more outputs than inputs the projectors act on the outputs: the same on transposed taps.
    wide = matrix.shape[-2] < matrix.shape[-1]
    X = matrix.mT if wide else matrix
    X = X.reshape(len(X), *(1,) * len(kernel_size), *X.shape[1:])
    for number, axis in enumerate(factor_axes(kernel_size), start=0):
        P = projectors[:, number]
        PX = P.reshape(len(P), *(1,) * len(kernel_size), *P.shape[1:]) @ X
        nothing = torch.zeros_like(PX.narrow(1 + axis, 0, 1))
        X = torch.cat([PX, nothing], dim=1 + axis) + torch.cat([nothing, X - PX], dim=1 + axis)
    kernel = X.mT if wide else X  # (groups, *k, in, out)
    return kernel.movedim((-1, -2), (1, 2)).flatten(0, 1)
