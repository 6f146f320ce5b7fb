"""The exact norm of a weight that changes from step to step, followed with the singular vectors of the last one.

What is looked for at each step: combinations of the last vectors, of the plane wave at which the symbol is largest
now (under a sine window: nearly a singular vector of the zero-padded layer), and of what the layer makes of them.
Without the wave a value that overtakes would go unnoticed for long, as its vector is all but orthogonal to the old
ones; measured, in the first steps of a training with large steps, the norm was up to 15 per cent off without it.

Between two searches ``<u, M(W) v>`` with the last vectors is linear in the weight, ``<G, W>``: as good as to second
order, and it costs nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from spectral_conv.geometry import ConvGeometry
from spectral_conv.results import SingularTriplets
from spectral_conv.spectrum import singular_triplets
from spectral_conv.torch._layers import operator_of
from spectral_conv.torch._plain_convolution import PlainConvolution
from spectral_conv.torch._plane_waves import PlaneWaves
from spectral_conv.torch._precision import full

# Vectors that are followed: peaks of a symbol come in pairs.
_BLOCK = 2
# Combinations of a smaller squared length than this are rounding.
_RANK = 1e-3
# Error of the value in evaluation, relative, in single and in double precision.
_SINGLE, _DOUBLE = 1e-6, 1e-9


class TrackedNorm(nn.Module):
    """Follows the largest singular vectors; a step applies the layer to some eight images.

    Parameters
    ----------
    geometry : ConvGeometry
        Of the layer.
    weight : Tensor
        The weight of now, whose vectors are found on the CPU by `singular_triplets`.
    gain : float
        Steps go on while they raise the value by a larger share,
    most : int
        but no more of them than this.
    every : int
        Calls that keep what they find search at every so many of them.
    turn : int
        At which of them.
    """

    vectors: Tensor
    slope: Tensor
    calls: Tensor

    def __init__(
        self, geometry: ConvGeometry, weight: Tensor, *, gain: float, most: int, every: int = 1, turn: int = 0
    ) -> None:
        super().__init__()
        self.convolution, self.gain, self.most, self.every = PlainConvolution(geometry), gain, most, every
        weight = full(weight.detach())
        found = singular_triplets(
            operator_of(weight, geometry), min(_BLOCK, *geometry.shape), rtol=self._rtol(weight), on_failure="return"
        )
        if not found.values[0] > 0.0:
            raise ValueError("`layer` must not have the weight 0, which no factor gives the norm 1. Initialize it.")
        near = found.left if geometry.transposed else found.right
        self.register_buffer("vectors", torch.from_numpy(np.ascontiguousarray(near)).to(weight))
        self.register_buffer("slope", torch.zeros_like(weight))
        # Layers that take turns share the work of the steps; counted on the CPU, where it is read.
        self.register_buffer("calls", torch.tensor(turn % every))
        self.waves = PlaneWaves(geometry, weight)
        self._seen: tuple[Tensor, ...] | None = None
        self._remember(weight, found)
        _, left, right = self._quietly(weight)
        self.slope.copy_(self.convolution.weight_gradient(left, right))

    def forward(self, weight: Tensor, *, keep: bool) -> tuple[Tensor, Tensor]:
        """The norm of a weight, and its slope; `keep` the vectors for the next call, or do not."""
        with torch.no_grad():
            fixed = weight.detach()
            if not keep:
                value, left, right = self._quietly(fixed)
                return value, self.convolution.weight_gradient(left, right)
            self.calls.add_(1)
            if int(self.calls) % self.every == 0:
                left, right, vectors, wave = self._search(fixed)
                self.vectors.copy_(vectors)
                self.waves.keep(wave)
                self.slope.copy_(self.convolution.weight_gradient(left, right))
                self._seen = None
            # A copy: the next search must not change what this call is differentiated with.
            slope = self.slope.to(weight.dtype, copy=True)
            return torch.dot(slope.flatten(), fixed.flatten()), slope

    def _rtol(self, weight: Tensor) -> float:
        return _DOUBLE if weight.dtype == torch.float64 else _SINGLE

    def _quietly(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Converge on the CPU, once for each weight: in evaluation it stays the same."""
        if self._seen is None or self._seen[0].dtype != weight.dtype or not torch.equal(self._seen[0], weight):
            conv = operator_of(weight, self.convolution.geometry)
            found = singular_triplets(conv, 1, rtol=self._rtol(weight), on_failure="return")
            self._remember(weight, found)
        assert self._seen is not None
        return self._seen[1], self._seen[2], self._seen[3]

    def _remember(self, weight: Tensor, found: SingularTriplets) -> None:
        sides = (found.left[:1], found.right[:1])[:: -1 if self.convolution.geometry.transposed else 1]
        left, right = (torch.from_numpy(np.ascontiguousarray(side)).to(weight) for side in sides)
        self._seen = (weight.clone(), weight.new_tensor(float(found.values[0])), left, right)

    def _search(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The vectors (left, right) of the largest value, the block, and what the waves remember."""
        apply, adjoint = self.convolution.apply, self.convolution.adjoint
        tiny = torch.finfo(weight.dtype).tiny
        found, wave = self.waves.largest(weight)
        shape = found.shape[1:]
        flat = self.vectors.to(weight.dtype).flatten(1)
        basis = torch.cat([flat, _outside(found.flatten(1), flat)])
        flat, images, square = _best(basis, apply(basis.view(-1, *shape), weight).flatten(1), len(self.vectors))
        for _ in range(self.most):
            pulled = _outside(adjoint(images.view(-1, *self.convolution.output_shape), weight).flatten(1), flat)
            moved = apply(pulled.view(-1, *shape), weight).flatten(1)
            before = square
            flat, images, square = _best(torch.cat([flat, pulled]), torch.cat([images, moved]), len(flat))
            if not square > before * (1.0 + self.gain) ** 2:
                break
        size, length = images[0].norm().clamp_min(tiny), flat[0].norm().clamp_min(tiny)
        left = (images[:1] / size).view(-1, *self.convolution.output_shape)
        right = (flat[:1] / length).view(-1, *shape)
        return left, right, flat.view(-1, *shape), wave


def _outside(rows: Tensor, basis: Tensor) -> Tensor:
    """Unit vectors along what of the rows lies outside of the span of an orthonormal basis."""
    rest = torch.addmm(rows, rows @ basis.T, basis, alpha=-1.0)
    return rest / rest.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def _best(basis: Tensor, images: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rayleigh-Ritz: orthonormal combinations that are stretched most, their images, the largest square."""
    # The small matrices in double precision, where a small gain is still a digit.
    metric, stretch = (basis @ basis.T).double(), (images @ images.T).double()
    sizes, turn = torch.linalg.eigh(metric)
    whitened = turn * torch.where(sizes > _RANK, sizes, torch.inf).rsqrt()
    squares, best = torch.linalg.eigh(whitened.T @ stretch @ whitened)
    mix = (whitened @ best[:, -count:].flip(1)).T.to(basis.dtype)
    return mix @ basis, mix @ images, squares[-1]
