"""Penalties summed over the convolutions of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectral_conv.geometry import ConvGeometry, checked_word
from spectral_conv.torch._extremes import smallest_singular_value, spectral_norm
from spectral_conv.torch._frobenius import frobenius
from spectral_conv.torch._gram import gram
from spectral_conv.torch._layers import convolutions
from spectral_conv.torch._lipbound import lipbound
from spectral_conv.torch._orthogonality_gap import total_gap


def _each(penalty: Callable[..., Tensor], sign: float = 1.0) -> Callable[..., Tensor]:
    """Sum a penalty over weights of one geometry."""

    def total(weights: Sequence[Tensor], geometry: ConvGeometry, **options: Any) -> Tensor:
        layer = {name: getattr(geometry, name) for name in _LAYER}
        values = [penalty(weight, geometry.input_shape, **layer, **options) for weight in weights]
        return sign * torch.stack(values).sum()

    return total


_LAYER = ("stride", "padding", "padding_mode", "dilation", "groups", "transposed", "output_padding")
_PENALTIES: dict[str, Callable[..., Tensor]] = {
    "orthogonality_gap": total_gap,
    "frobenius": _each(frobenius),
    "smallest_singular_value": _each(smallest_singular_value, sign=-1.0),
    "spectral_norm": _each(spectral_norm),
    "lipbound": _each(lipbound),
    "gram": _each(gram),
}


def regularize(
    model: nn.Module,
    penalties: Mapping[str, float | tuple[float, Mapping[str, Any]]],
    input_shape: Sequence[int],
    *,
    layers: Sequence[str] | None = None,
) -> Tensor:
    r"""Weighted sum of penalties over the convolutions of a model, to be added to the loss.

    Parameters
    ----------
    model : Module
        Its convolutions are those that a forward pass of zeros reaches; it runs once for a model and a size, in
        evaluation mode. A module that is called several times counts once, with the size of its first call.
    penalties : mapping of str to float
        Weights of "orthogonality_gap", "frobenius", "smallest_singular_value", "spectral_norm", "lipbound", "gram";
        or pairs of a weight and options, ``{"orthogonality_gap": (1e-4, {"alpha": 2.0})}``. As in
        `spectral_conv.regularizers` the smallest singular value counts with a minus sign: training raises it.
    input_shape : sequence of int
        Shape of the model's input without the batch, ``(channels, *spatial)``.
    layers : sequence of str, optional
        Names of the convolutions that count; default: all.

    Returns
    -------
    Tensor
        A number, differentiable in the weights, parametrized ones too.

    Raises
    ------
    ValueError
        Unknown penalties or layers, or an `input_shape` with which the model fails.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import regularize
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    >>> loss = regularize(model, {"orthogonality_gap": 1e-4}, input_shape=(3, 8, 8))
    >>> loss.backward()
    """
    if not penalties:
        raise ValueError(f"`penalties` must name at least one of {', '.join(map(repr, _PENALTIES))}; got none.")
    chosen = {checked_word("penalties", name, tuple(_PENALTIES)): _parts(given) for name, given in penalties.items()}
    alike: dict[tuple[ConvGeometry, torch.dtype, torch.device], list[Tensor]] = {}
    for _, module, geometry in convolutions(model, input_shape, layers):
        weight = module.weight
        alike.setdefault((geometry, weight.dtype, weight.device), []).append(weight)
    terms = [
        factor * _PENALTIES[name](weights, geometry, **options)
        for (geometry, _, _), weights in alike.items()
        for name, (factor, options) in chosen.items()
    ]
    like = next(model.parameters())
    return sum(terms, torch.zeros((), dtype=like.dtype, device=like.device))


def _parts(given: float | tuple[float, Mapping[str, Any]]) -> tuple[float, Mapping[str, Any]]:
    return given if isinstance(given, tuple) else (float(given), {})
