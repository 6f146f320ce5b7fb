"""LipBound of a weight."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectral_conv.bounds._lipbound import _EXCESS
from spectral_conv.bounds._symbol import supremum_grid
from spectral_conv.geometry import ConvGeometry, checked_word
from spectral_conv.torch._layers import geometry_of_weight
from spectral_conv.torch._precision import full_precision
from spectral_conv.torch._symbol import Phases, read_part, without_weights

# What is summed at each frequency before the maximum is taken: axes of (frequencies, groups, h, residues * g).
_SUMMED = {"outputs": (3,), "inputs": (2,), "frobenius": (2, 3)}


@full_precision
def lipbound(
    weight: Tensor, input_shape: int | Sequence[int], *, version: str = "outputs", log: bool = False, **layer: Any
) -> Tensor:
    r"""Upper bound ``sqrt(sum_i max_w sum_j |F_ij(w)|^2)`` of the largest singular value, times the grid's factor.

    Parameters
    ----------
    weight, input_shape, **layer
        As of `frobenius`; zero padding, or circular padding up to "same".
    version : {"outputs", "inputs", "frobenius"}
        As of `spectral_conv.bounds.lipbound`.
    log : bool
        Whether to take the logarithm, as the authors do in training.

    Returns
    -------
    Tensor
        A number: a bound for every image size, up to rounding; of groups the largest. Differentiable as often as
        wanted where the maxima are attained once.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    References
    ----------
    A. Araujo, B. Negrevergne, Y. Chevaleyre, J. Atif, "On Lipschitz regularization of convolutional layers using
    Toeplitz matrix theory", AAAI 2021, arXiv:2006.08391.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import lipbound
    >>> lipbound(torch.full((4, 1, 1, 1), 0.5), (8, 8))
    tensor(1.)
    """
    summed = _SUMMED[checked_word("version", version, tuple(_SUMMED))]
    geometry = geometry_of_weight(weight, input_shape, **layer)
    phases, factor = _grid(geometry, weight.dtype, weight.device)
    weight, largest = read_part(weight, geometry), []
    for _, part in phases.chunks(weight):
        real, imaginary = part.parts(weight)
        sums = (real.square() + imaginary.square()).sum(dim=summed)
        largest.append(sums.reshape(len(sums), geometry.groups, -1).max(dim=0).values)
    bound = factor * torch.stack(largest).max(dim=0).values.sum(dim=-1).max().sqrt()
    return bound.log() if log else bound


@functools.lru_cache(maxsize=256)
def _grid(geometry: ConvGeometry, dtype: torch.dtype, device: torch.device) -> tuple[Phases, float]:
    conv = without_weights(geometry, "LipBound")
    grid = supremum_grid(conv, _EXCESS)
    return Phases.create(conv, grid.frequencies, geometry.groups, dtype, device), grid.factor
