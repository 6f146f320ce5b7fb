"""Parametrizations put on the convolutions of a model, and taken off again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from spectral_conv.torch._bcop import BCOP
from spectral_conv.torch._layers import convolutions, evaluating
from spectral_conv.torch._rko import RKO
from spectral_conv.torch._spectral_normalization import SpectralNorm

_OURS = (BCOP, RKO, SpectralNorm)
_OF_EVERY_CLASS = ("__dict__", "__weakref__")


def constrain(
    model: nn.Module,
    parametrization: Callable[..., nn.Module],
    input_shape: Sequence[int],
    *,
    layers: Sequence[str] | None = None,
    **options: Any,
) -> nn.Module:
    r"""Register a parametrization on the weights of a model's convolutions, each with its own input size.

    Parameters
    ----------
    model : Module
        Changed in place.
    parametrization : type
        `SpectralNorm`, `OSSN`, `BCOP` or `RKO`.
    input_shape : sequence of int
        Shape of the model's input without the batch, ``(channels, *spatial)``.
    layers : sequence of str, optional
        Names of the convolutions; default: all that a forward pass reaches.
    **options
        Passed on, ``mode="upper"`` for instance.

    Returns
    -------
    Module
        The model itself.

    Raises
    ------
    ValueError, NotApplicableError
        Of the parametrization; the model is then as it was before.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import SpectralNorm, constrain
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    >>> _ = constrain(model, SpectralNorm, input_shape=(3, 8, 8), mode="upper")
    """
    # All are made before the first is registered: an error leaves nothing half done.
    made = [
        (module, parametrization(geometry.input_shape, layer=module, **options))
        for _, module, geometry in convolutions(model, input_shape, layers)
    ]
    for module, own in made:
        parametrize.register_parametrization(module, "weight", own.train(module.training))
    return model


def export(model: nn.Module) -> nn.Module:
    r"""Copy a model, its parametrized convolutions as plain ones with the weights that they have in evaluation mode.

    Parameters
    ----------
    model : Module
        Stays as it is.

    Returns
    -------
    Module
        A copy without the parametrizations of this package, and others on the same weights; it can be pickled, traced
        and saved without this package.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import SpectralNorm, constrain, export
    >>> model = constrain(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3)), SpectralNorm, input_shape=(1, 8, 8))
    >>> list(export(model).state_dict())
    ['0.bias', '0.weight']
    """
    plain = copy.deepcopy(model)
    with evaluating(plain):
        for module in list(plain.modules()):
            if parametrize.is_parametrized(module, "weight") and any(
                isinstance(part, _OURS) for part in module.parametrizations["weight"]
            ):
                # A copy shares the class that PyTorch made for the original; removal takes `weight` off the class.
                own = {name: thing for name, thing in vars(type(module)).items() if name not in _OF_EVERY_CLASS}
                module.__class__ = type(type(module).__name__, type(module).__bases__, own)
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return plain
