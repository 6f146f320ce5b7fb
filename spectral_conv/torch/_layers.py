"""Which convolutions a model has, and their geometry: from the modules, and from one forward pass for the sizes."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectral_conv.geometry import ConvGeometry
from spectral_conv.operator import ConvOperator

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

# What the last forward pass of each model found, and what it was asked.
_known: weakref.WeakKeyDictionary[nn.Module, tuple[Any, dict[str, ConvGeometry]]] = weakref.WeakKeyDictionary()


def geometry_of(layer: nn.Module, input_shape: int | Sequence[int]) -> ConvGeometry:
    """Geometry of a convolution of PyTorch's on images of a spatial size."""
    if not isinstance(layer, CONVOLUTIONS):
        raise TypeError(f"`layer` must be a Conv1d, 2d, 3d or ConvTranspose1d, 2d, 3d; got {type(layer).__name__}.")
    return ConvGeometry.create(
        kernel_size=layer.kernel_size,
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        input_shape=input_shape,
        stride=layer.stride,
        padding=layer.padding,
        padding_mode=layer.padding_mode,
        dilation=layer.dilation,
        groups=layer.groups,
        transposed=layer.transposed,
        output_padding=layer.output_padding if layer.transposed else 0,
    )


def geometry_of_weight(
    weight: Tensor,
    input_shape: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[Any] = "same",
    padding_mode: str = "zeros",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
) -> ConvGeometry:
    """Geometry of a layer with this weight, OIHW (of a transposed one IOHW)."""
    if not 3 <= weight.ndim <= 5:
        raise ValueError(
            "`weight` must have the shape (out, in / groups, *kernel), (in, out / groups, *kernel) of a transposed "
            f"layer, with 1 to 3 kernel axes; got {tuple(weight.shape)}."
        )
    first, second = int(weight.shape[0]), int(weight.shape[1]) * groups
    return ConvGeometry.create(
        kernel_size=tuple(weight.shape[2:]),
        in_channels=first if transposed else second,
        out_channels=second if transposed else first,
        input_shape=input_shape,
        stride=stride,
        padding=padding,
        padding_mode=padding_mode,
        dilation=dilation,
        groups=groups,
        transposed=transposed,
        output_padding=output_padding,
    )


def operator_of(weight: Tensor, geometry: ConvGeometry) -> ConvOperator:
    """The layer on the CPU in double precision."""
    plain = weight.detach().to("cpu", torch.float64).movedim((0, 1), (-1, -2))
    kernel = plain.transpose(-1, -2) if geometry.transposed else plain
    return ConvOperator.from_geometry(geometry, np.ascontiguousarray(kernel.numpy()))


def convolutions(
    model: nn.Module, input_shape: Sequence[int], layers: Sequence[str] | None = None
) -> Iterator[tuple[str, nn.Module, ConvGeometry]]:
    """Name, module and geometry of the convolutions that a forward pass reaches, in the order of the modules.

    `input_shape` is that of the model, ``(channels, *spatial)``; `layers` chooses some by their names.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}
    unknown = sorted(set(layers or ()) - set(found))
    if unknown:
        raise ValueError(
            f"`layers` must name convolutions of the model; got {', '.join(map(repr, unknown))}. "
            f"It has {', '.join(map(repr, found))}."
        )
    geometries = _geometries(model, found, tuple(int(n) for n in input_shape))
    for name, module in found.items():
        if name in geometries and (layers is None or name in layers):
            yield name, module, geometries[name]


def _geometries(
    model: nn.Module, found: dict[str, nn.Module], input_shape: tuple[int, ...]
) -> dict[str, ConvGeometry]:
    """Geometry of each convolution, with the size of its first input."""
    asked = (input_shape, tuple((name, id(module)) for name, module in found.items()))
    known = _known.get(model)
    if known is not None and known[0] == asked:
        return known[1]
    sizes: dict[str, tuple[int, ...]] = {}

    def note(name: str, ndim: int) -> Any:
        return lambda module, args: sizes.setdefault(name, tuple(args[0].shape[-ndim:])) and None

    handles = [
        module.register_forward_pre_hook(note(name, len(module.kernel_size))) for name, module in found.items()
    ]
    like = next(model.parameters())
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros((1, *input_shape), dtype=like.dtype, device=like.device))
    except Exception as error:
        raise ValueError(
            f"`input_shape` must be that of the model's input without the batch, (channels, *spatial); with "
            f"{input_shape} the forward pass fails: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    geometries = {name: geometry_of(found[name], size) for name, size in sizes.items()}
    _known[model] = (asked, geometries)
    return geometries


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and every flag as it was afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, flag in flags:
            module.training = flag
