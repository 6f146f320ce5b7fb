"""The plain convolution of a layer on stacks of images, its adjoint, and its derivative by the weight.

A transposed convolution is the adjoint of the plain one with the same weight, so that PyTorch's weight is
``(plain outputs, plain inputs / groups, *kernel)`` for both, and the singular values are those of the plain one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spectral_conv.geometry import ConvGeometry

_F = nn.functional
_APPLY = {1: _F.conv1d, 2: _F.conv2d, 3: _F.conv3d}
_ADJOINT = {1: _F.conv_transpose1d, 2: _F.conv_transpose2d, 3: _F.conv_transpose3d}
_BY_WEIGHT = {1: nn.grad.conv1d_weight, 2: nn.grad.conv2d_weight, 3: nn.grad.conv3d_weight}


@dataclass(frozen=True)
class PlainConvolution:
    """Applies the plain convolution of a geometry; pure operations of PyTorch, on any device.

    Parameters
    ----------
    geometry : ConvGeometry
        Of the layer.
    """

    geometry: ConvGeometry

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels and pixels that the plain convolution reads."""
        return (self.geometry.plain_channels[0], *(axis.inputs for axis in self.geometry.axes))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Channels and pixels that it writes."""
        return (self.geometry.plain_channels[1], *(axis.outputs for axis in self.geometry.axes))

    @functools.cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of PyTorch's weight."""
        read, written = self.geometry.plain_channels
        return (written, read // self.geometry.groups, *self.geometry.kernel_size)

    @functools.cached_property
    def _padding(self) -> tuple[int, ...] | None:
        """What PyTorch's convolution may pad by itself, None where that is not what the layer does."""
        g = self.geometry
        if g.padding_mode != "zeros":
            return None
        for axis in g.axes:
            reach = axis.dilation * (axis.kernel - 1) + 1
            if (axis.inputs + 2 * axis.before - reach) // axis.stride + 1 != axis.outputs:
                return None
        return tuple(axis.before for axis in g.axes)

    @functools.cached_property
    def _borders(self) -> list[int]:
        """Zeros around the image in the order of `nn.functional.pad`; negative where the border is never read."""
        sides: list[int] = []
        for axis in reversed(self.geometry.axes):
            sides += [axis.before, axis.padded - axis.before - axis.inputs]
        return sides

    def _padded(self, x: Tensor) -> Tensor:
        if self._padding is not None:
            return x
        if self.geometry.padding_mode == "zeros":
            return _F.pad(x, self._borders)
        for number, axis in enumerate(self.geometry.axes, start=2):
            x = x.index_select(number, torch.from_numpy(axis.source).to(x.device))
        return x

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Images ``(b, *input_shape)`` to ``(b, *output_shape)``."""
        g = self.geometry
        padding = self._padding or (0,) * g.ndim
        y: Tensor = _APPLY[g.ndim](self._padded(x), weight, None, g.stride, padding, g.dilation, g.groups)
        return y

    def adjoint(self, y: Tensor, weight: Tensor) -> Tensor:
        """Images ``(b, *output_shape)`` to ``(b, *input_shape)``."""
        g = self.geometry
        padding, extra = self._padding or (0,) * g.ndim, (0,) * g.ndim
        if self._padding is not None:
            extra = tuple(
                axis.inputs - ((axis.outputs - 1) * axis.stride - 2 * p + axis.dilation * (axis.kernel - 1) + 1)
                for axis, p in zip(g.axes, padding, strict=True)
            )
        x: Tensor = _ADJOINT[g.ndim](y, weight, None, g.stride, padding, extra, g.groups, g.dilation)
        if self._padding is not None:
            return x
        if g.padding_mode == "zeros":
            return _F.pad(x, [-n for n in self._borders])
        for number, axis in enumerate(g.axes, start=2):
            folded = x.new_zeros((*x.shape[:number], axis.inputs, *x.shape[number + 1 :]))
            x = folded.index_add(number, torch.from_numpy(axis.source).to(x.device), x)
        return x

    def weight_gradient(self, y: Tensor, x: Tensor) -> Tensor:
        """Gradient of ``<y, P x>`` by the weight; y ``(b, *output_shape)``, x ``(b, *input_shape)``."""
        g = self.geometry
        padding = self._padding or (0,) * g.ndim
        gradient: Tensor = _BY_WEIGHT[g.ndim](
            self._padded(x), self.weight_shape, y, g.stride, padding, g.dilation, g.groups
        )
        return gradient
