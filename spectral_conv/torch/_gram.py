"""Gram iteration on a weight."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectral_conv.bounds._gram import _MOST_STEPS, _pixel_grid
from spectral_conv.bounds._symbol import Grid, torus
from spectral_conv.geometry import ConvGeometry, as_integer, checked_word
from spectral_conv.torch._layers import geometry_of_weight
from spectral_conv.torch._precision import full_precision
from spectral_conv.torch._symbol import Phases, read_part, without_weights


@full_precision
def gram(
    weight: Tensor,
    input_shape: int | Sequence[int],
    *,
    steps: int = 5,
    domain: str | None = None,
    log: bool = False,
    **layer: Any,
) -> Tensor:
    r"""Upper bound of the largest singular value by Gram iteration: ``G_1 = F^H F``, ``G_(t+1) = G_t^H G_t``.

    Parameters
    ----------
    weight, input_shape, **layer
        As of `frobenius`; zero padding, or circular padding up to "same".
    steps : int
        Number t of Gram matrices, 1 to 12.
    domain : {"frequencies", "pixels"}, optional
        As of `spectral_conv.bounds.gram`. Default: "frequencies" for circular padding, "pixels" for zero padding.
    log : bool
        Whether to take the logarithm.

    Returns
    -------
    Tensor
        A number: ``max_w ||G_t(w)||_F^(2^-t)`` over the frequencies of the smallest torus of which the layer is a
        compression, or ``max_i (sum_(j,e) |G_t(e)_ij|)^(2^-t)`` over its pixels; a bound for this image size, up to
        rounding; of groups the largest. Differentiable as often as wanted where the maximum is attained once.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    References
    ----------
    B. Delattre, Q. Barthelemy, A. Araujo, A. Allauzen, "Efficient bound of Lipschitz constant for convolutional
    layers by Gram iteration", ICML 2023, arXiv:2305.16173.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import gram
    >>> gram(torch.ones(1, 1, 3, 3), (8, 8), domain="frequencies").round(decimals=4)
    tensor(9.)
    """
    if as_integer("steps", steps, minimum=1) > _MOST_STEPS:
        raise ValueError(f"`steps` must be at most {_MOST_STEPS}, which gain no digit any more; got {steps}.")
    geometry = geometry_of_weight(weight, input_shape, **layer)
    circular = without_weights(geometry, "Gram iteration").geometry.padding_mode == "circular"
    default = "frequencies" if circular else "pixels"
    chosen = default if domain is None else checked_word("domain", domain, ("frequencies", "pixels"))
    weight = read_part(weight, geometry)
    if chosen == "frequencies":
        logarithm = _over_frequencies(weight, geometry, steps)
    else:
        logarithm = _over_pixels(weight, geometry, steps)
    return logarithm if log else logarithm.exp()


def _over_frequencies(weight: Tensor, geometry: ConvGeometry, steps: int) -> Tensor:
    """The largest of the logarithms; only the frequency where it is attained is differentiated."""
    phases = _phases(geometry, None, weight.dtype, weight.device)[0]
    with torch.no_grad():
        found = [
            _schatten(part.symbols(weight), steps).flatten(1).max(dim=1).values for _, part in phases.chunks(weight)
        ]
        best = torch.cat(found).argmax()
    return _schatten(phases.at(best[None]).symbols(weight), steps).max()


def _first_gram(F: Tensor) -> Tensor:
    return F.mH @ F if F.shape[-1] <= F.shape[-2] else F @ F.mH


def _size(G: Tensor) -> Tensor:
    return (G.real.square() + G.imag.square()).sum(dim=(-2, -1)).clamp_min(torch.finfo(G.real.dtype).tiny).sqrt()


def _schatten(F: Tensor, steps: int) -> Tensor:
    """``log ||G_t||_F^(2^-t)`` of each symbol; G is scaled to norm 1 at every step."""
    scale = F.abs().amax(dim=(-2, -1), keepdim=True).detach().clamp_min(torch.finfo(F.real.dtype).tiny)
    G, logarithm = _first_gram(F / scale), scale.log()[..., 0, 0]
    for t in range(1, steps + 1):
        if t > 1:
            G = G @ G
        size = _size(G)
        logarithm = logarithm + size.log() * 2.0**-t
        G = G / size[..., None, None]
    return logarithm


def _over_pixels(weight: Tensor, geometry: ConvGeometry, steps: int) -> Tensor:
    phases, lines, points = _phases(geometry, steps, weight.dtype, weight.device)
    power = _first_gram(phases.symbols(weight))  # (frequencies, groups, r, r)
    logarithm = torch.zeros(geometry.groups, dtype=weight.dtype, device=weight.device)
    for t in range(1, steps + 1):
        if t > 1:
            power = power @ power
        # Any positive scale will do; it is put back below.
        scale = _size(power).amax(dim=0).detach()
        power = power / scale[:, None, None]
        logarithm = logarithm + scale.log() * 2.0**-t
    kernel = torch.fft.irfftn(power.unflatten(0, lines), s=points, dim=tuple(range(len(points))))
    sums = kernel.flatten(0, len(points) - 1).abs().sum(dim=(0, 3)).max(dim=1).values
    return (logarithm + sums.log() * 2.0**-steps).max()


@functools.lru_cache(maxsize=256)
def _phases(
    geometry: ConvGeometry, steps: int | None, dtype: torch.dtype, device: torch.device
) -> tuple[Phases, tuple[int, ...], tuple[int, ...]]:
    """Phases over the torus or, with `steps`, over the pixels of the self-convolved kernel; and the sizes."""
    conv = without_weights(geometry, "Gram iteration")
    grid = torus(conv)
    if steps is not None:
        grid = Grid(axes=_pixel_grid(conv, grid, steps), factor=1.0)
    last = len(grid.axes) - 1
    lines = tuple(len(axis.frequencies(half=i == last)) for i, axis in enumerate(grid.axes))
    points = tuple(axis.points for axis in grid.axes)
    assert len(grid.frequencies) == math.prod(lines)
    return Phases.create(conv, grid.frequencies, geometry.groups, dtype, device), lines, points
