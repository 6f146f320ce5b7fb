r"""An upper bound of the norm of a weight that changes little by little, proved at some steps and carried in between.

Proved: ``||M|| <= f max_w ||F(w)||`` over the frequencies of a torus, twisted or not (`spectrum.embedding`), of which
the layer is a compression (f = 1), or of a coarser grid times what sampling may have missed (f <= 1.02 per axis);
``||F(w)||^2 < t`` at all of them because Cholesky's factorization of ``t I - F F^H`` runs to completion, its rounding
errors added. Carried:

    ``||M(W)|| <= ||M(W_s)|| + ||M(W - W_s)||,   ||M(D)|| <= max_w ||F_D(w)|| <= sqrt(taps) ||D||``

with D reshaped to a matrix of outputs by inputs and taps, and its norm bounded by ``||(D D^T)^2||_F^(1/4)``. The same
carries the norm of the symbol at each frequency, so that a proof looks again only where it may have become large.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectral_conv.bounds._symbol import Grid, torus, waves_of
from spectral_conv.geometry import ConvGeometry
from spectral_conv.spectrum.frequencies import GridAxis
from spectral_conv.symbols._sampling import degrees, excess_factor, fewest_points, substitutions
from spectral_conv.torch._precision import full
from spectral_conv.torch._symbol import Phases, read_part, without_weights

# What sampling may miss per axis; a bound is tried so far above the largest value seen, then farther.
_EXCESS, _MARGIN = 0.02, 0.005
# A coarser grid is worth its factor where it has fewer points than this share of the torus.
_COARSER = 0.8
# The carried bound and the factor of the grid together may make the bound so much larger.
_BUDGET = 0.06
# Before a proof: steps of the power method at so many frequencies with the largest values, and one at all others;
# steps where a proof fails, whose smaller gain is none; proofs at first.
_STEPS, _WATCHED, _MORE_STEPS, _GAIN, _FIRST_ROUNDS = 3, 12, 6, 1e-3, 8
# Norms at single frequencies are proved so far above what is seen there, as far as that is below the largest; looked
# at again are those above this share of the largest one of the last proof.
_LOOSE, _OPEN = 0.08, 0.97
# The frequencies are twisted otherwise where that promises so much less.
_TWIST = 0.01
# Weights in single precision are proved in it as long as the rounding of the square is less than this.
_SINGLE = 0.01
# The norm of the change is computed in the precision of the weight: this covers the rounding.
_SLACK = 1.01


class CarriedBound(nn.Module):
    """Holds a proved bound, the weight that it is for, norms at all frequencies, and the slope of the largest one.

    Parameters
    ----------
    geometry : ConvGeometry
        Of the layer: zero padding, or circular padding up to "same".
    weight : Tensor
        The weight of now.
    """

    anchor: Tensor
    bound: Tensor
    slope: Tensor
    vectors: Tensor
    levels: Tensor
    twist: Tensor

    def __init__(self, geometry: ConvGeometry, weight: Tensor) -> None:
        super().__init__()
        self.geometry = geometry
        without_weights(geometry, "An upper bound by frequencies")
        weight = full(weight.detach())
        grids = _grids(geometry, weight.dtype, weight.device)
        size = max(len(grid.phases.cosines) for grid in grids) * geometry.groups
        start = torch.randn((size, _rank(geometry), 2), generator=torch.Generator().manual_seed(0))
        start = start / start.norm(dim=(1, 2), keepdim=True)
        unknown = weight.new_full((size,), torch.inf)
        found = self._prove(weight, start.to(weight), unknown, 0.0, 0)
        for _ in range(_FIRST_ROUNDS):
            found = self._prove(weight, found.vectors, unknown, 0.0, found.twist)
        if not found.bound > 0.0:
            raise ValueError("`layer` must not have the weight 0, which no factor gives the norm 1. Initialize it.")
        self.register_buffer("anchor", weight.clone())
        self.register_buffer("bound", found.bound)
        self.register_buffer("slope", found.slope)
        self.register_buffer("levels", found.levels)
        self.register_buffer("twist", torch.tensor(found.twist))
        # Real numbers, lest a change of the model's precision drops the imaginary parts.
        self.register_buffer("vectors", found.vectors.to(weight.dtype))

    def forward(self, weight: Tensor, *, keep: bool) -> tuple[Tensor, Tensor]:
        """A bound of the norm of a weight, and its slope; `keep` what was proved for it, or do not."""
        with torch.no_grad():
            fixed = weight.detach()
            same = self.anchor.dtype == fixed.dtype
            growth = self._growth(fixed) if same else fixed.new_tensor(torch.inf)
            bound, slope = self.bound + growth, self.slope
            if not (same and bound <= self.bound * self._most()):
                levels = self.levels.to(fixed.dtype)
                found = self._prove(fixed, self.vectors, levels, growth, int(self.twist))
                bound, slope = found.bound, found.slope
                if keep:
                    self.anchor.copy_(fixed)
                    self.bound.copy_(bound)
                    self.slope.copy_(slope)
                    self.vectors.copy_(found.vectors)
                    self.levels.copy_(found.levels)
                    self.twist.fill_(found.twist)
            slope = slope.to(fixed.dtype)
            # Bounds are homogeneous in the weight: <slope, weight> is the bound.
            return bound, slope * (bound / torch.dot(slope.flatten(), fixed.flatten()))

    def _most(self) -> float:
        """How far above the proved bound a carried one may lie."""
        return (1.0 + _BUDGET) / _grids(self.geometry, self.anchor.dtype, self.anchor.device)[0].factor

    def _growth(self, weight: Tensor) -> Tensor:
        """Bound how much the norms of layer and symbol may have grown since the last proof."""
        change = read_part(weight - self.anchor, self.geometry).unflatten(0, (self.geometry.groups, -1))
        return _SLACK * _spread(self.geometry) * _norm_bound(change.flatten(2))  # (groups, h, g * taps)

    def _apply(self, fn: Any, recurse: bool = True) -> CarriedBound:
        before = self.anchor.dtype
        super()._apply(fn, recurse)
        if self.anchor.dtype != before:
            # What was proved for the weight as it was is not for its rounded numbers.
            self.bound.fill_(torch.nan)
            self.levels.fill_(torch.inf)
        return self

    def _prove(self, weight: Tensor, vectors: Tensor, levels: Tensor, growth: Tensor | float, twist: int) -> _Proved:
        """Bound the norm of a weight.

        From vectors ``(frequencies * groups, rank, 2)`` near the largest ones, and what the norms of the symbol at
        all frequencies were at most before they grew.
        """
        geometry = self.geometry
        dtype = weight.dtype if _rounding(geometry, weight.dtype) < _SINGLE else torch.float64
        grids = _grids(geometry, dtype, weight.device)
        grid = grids[twist]
        used = read_part(weight.to(dtype), geometry)
        scale = used.abs().max().clamp_min(torch.finfo(dtype).tiny)
        used = used / scale
        points, groups = len(grid.phases.cosines), geometry.groups
        vectors, levels = vectors.to(dtype, copy=True), levels.to(dtype, copy=True)
        before = levels[: points * groups].max()
        levels = levels * (1.0 + 4.0 * torch.finfo(weight.dtype).eps) + growth
        current = levels[: points * groups].view(points, groups).amax(dim=1)
        fresh = current > _OPEN * before if before.isfinite() else torch.ones_like(current, dtype=torch.bool)
        done, largest, best = torch.zeros_like(fresh), 0.0, 0
        while fresh.any():
            chosen = torch.nonzero(fresh)[:, 0]
            own = (chosen[:, None] * groups + torch.arange(groups, device=chosen.device)).flatten()
            for part, phases in grid.phases.at(chosen).chunks(used):
                F = phases.symbols(used).flatten(0, 1)
                F = F if F.shape[1] <= F.shape[2] else F.mH
                rows = own[part.start * groups : part.start * groups + len(F)]
                squares, quotients, x = _proved_squares(F, torch.view_as_complex(vectors[rows]))
                levels[rows] = (squares * (1.0 + _rounding(geometry, dtype))).sqrt() * scale
                vectors[rows] = torch.view_as_real(x)
                if float(quotients.max()) >= largest:
                    largest, best = float(quotients.max()), int(rows[quotients.argmax()])
            done |= fresh
            current = levels[: points * groups].view(points, groups).amax(dim=1)
            # Where the largest have shrunk others may be above them now.
            fresh = ~done & (current > current[done].max())
        # Of the division by the bound: with absolute weights the norm of each tap is at most sqrt(rank) times larger.
        spread = 1.0 + math.prod(geometry.kernel_size) * math.sqrt(_rank(geometry))
        division = 4.0 * torch.finfo(weight.dtype).eps * spread
        bound = current.max().double() * (grid.factor * (1.0 + division))
        outer = _outer(used, grid.phases, best, torch.view_as_complex(vectors[best]))
        turned = _lowest(grids, outer, used, best % groups, twist)
        return _Proved(
            bound=bound.to(weight.dtype),
            slope=_slope(outer, grid.phases, best, used).to(weight.dtype),
            vectors=vectors,
            levels=levels.to(weight.dtype) if turned == twist else torch.full_like(levels, torch.inf),
            twist=turned,
        )


@dataclass(frozen=True, kw_only=True)
class _Proved:
    """A bound, its slope, vectors and levels of all frequencies, and the twist that promises most next time."""

    bound: Tensor
    slope: Tensor
    vectors: Tensor
    levels: Tensor
    twist: int


@dataclass(frozen=True, kw_only=True)
class _ProofGrid:
    """Where the symbol is looked at, and by how much its supremum may be larger."""

    phases: Phases
    factor: float


@functools.lru_cache(maxsize=256)
def _grids(geometry: ConvGeometry, dtype: torch.dtype, device: torch.device) -> tuple[_ProofGrid, ...]:
    """The grids with every twist."""
    conv = without_weights(geometry, "An upper bound by frequencies")
    choices: list[list[GridAxis]] = []
    factor = 1.0 + 1e-12
    twists = conv.geometry.padding_mode == "zeros"
    for axis, degree, q in zip(torus(conv).axes, degrees(conv.geometry), substitutions(conv.geometry), strict=True):
        points = fewest_points(degree, _EXCESS)
        if points < _COARSER * axis.points:
            choices.append([GridAxis(points=points, period=points * q)])
            factor *= excess_factor(degree, points)
        else:
            twisted = [GridAxis(points=axis.points, period=axis.period, twist=1)] if twists and degree else []
            choices.append([axis, *twisted])
    return tuple(
        _ProofGrid(
            phases=Phases.create(conv, Grid(axes=axes, factor=1.0).frequencies, geometry.groups, dtype, device),
            factor=factor,
        )
        for axes in itertools.product(*choices)
    )


def _rank(geometry: ConvGeometry) -> int:
    read, written = (channels // geometry.groups for channels in geometry.plain_channels)
    conv = without_weights(geometry, "An upper bound by frequencies")
    return min(written, read * math.prod(conv.geometry.stride))


def _rounding(geometry: ConvGeometry, dtype: torch.dtype) -> float:
    """Bound the relative rounding error of the square of a proved value.

    Symbol and Gram matrix ``F F^H`` are sums of complex products, off by ``gamma ||F||_F^2``, Cholesky's factors by
    ``gamma trace(t I - F F^H)`` (Higham, Theorem 10.3); both are at most rank times t.
    """
    rank = _rank(geometry)
    read, written = (channels // geometry.groups for channels in geometry.plain_channels)
    terms = 4 * (max(written, read * math.prod(geometry.stride)) + math.prod(geometry.kernel_size) + rank + 40)
    return rank * terms * torch.finfo(dtype).eps


def _step(R: Tensor, shift: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """A step of the power method with ``shift I - R`` on unit vectors ``(n, rank)``; Rayleigh quotients before it."""
    y = shift[:, None] * x - (R @ x[..., None])[..., 0]
    quotients = torch.linalg.vecdot(x, y).real
    lengths = torch.linalg.vector_norm(y, dim=1, keepdim=True)
    return y / lengths.clamp_min(torch.finfo(lengths.dtype).tiny), quotients


def _proved_squares(F: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of ``||F||^2`` of a stack of matrices ``(n, rank, more)``, all but a little below the largest one seen.

    From unit vectors ``(n, rank)``; with it Rayleigh quotients and vectors that are nearer to the largest ones, most
    of all where the quotients are large.
    """
    # R = squares I - F F^H, in one place of memory from the beginning to the proof that it is positive definite.
    R = (F @ F.mH).neg_()
    squares = torch.zeros_like(R.real[:, 0, 0])
    x, quotients = _step(R, squares, x)
    left = torch.arange(len(F), device=F.device)
    watched = inside = quotients.topk(min(_WATCHED, len(F))).indices
    steps, seen, margin = _STEPS, 0.0, _MARGIN
    while True:
        part, shift, y = R[inside], squares[watched], x[watched]
        for _ in range(steps):
            y, found = _step(part, shift, y)
        x[watched], quotients[watched] = y, found
        highest = float(quotients.max())
        if highest <= 0.0:
            # Nothing is seen, probably because there is nothing: the squares of all entries are a bound, too.
            return torch.view_as_real(F).square().sum(dim=(1, 2, 3)), quotients, x
        if highest > seen * (1.0 + _GAIN):
            seen = highest
        else:
            margin *= 2.0
        most = seen * (1.0 + margin) ** 2
        # At first a bound of each matrix; where that fails the one of all.
        tried = (quotients * (1.0 + _LOOSE) ** 2).clamp_max(most) if steps == _STEPS else squares.new_full((), most)
        tried = tried.expand(len(F))[left]
        R.diagonal(dim1=1, dim2=2).add_((tried - squares[left])[:, None])
        squares[left] = tried
        failed = torch.linalg.cholesky_ex(R).info != 0
        if not failed.any():
            return squares, quotients, x
        # What passes at a bound passes at every larger one: only the others are looked at again.
        watched = left = left[failed]
        R, inside, steps = R[failed], slice(None), _MORE_STEPS


def _outer(weight: Tensor, phases: Phases, where: int, vector: Tensor) -> Tensor:
    """``conj(u) v^T`` of the largest value of one symbol, shaped (h, taps, g): the residues in their taps' places."""
    point, group = divmod(where, phases.groups)
    F = phases.at(slice(point, point + 1)).symbols(weight)[0, group]  # (h, residues * g)
    left, right = (vector, F.mH @ vector) if F.shape[0] <= F.shape[1] else (F @ vector, vector)
    outer = (left.conj()[:, None] * right[None, :]).unflatten(1, (phases.residues, -1))
    return outer[:, phases.residue]


def _slope(outer: Tensor, phases: Phases, where: int, weight: Tensor) -> Tensor:
    """Slope of that value by the weight, shaped like it, up to a factor."""
    point, group = divmod(where, phases.groups)
    real = outer.real * phases.cosines[point][:, None] - outer.imag * phases.sines[point][:, None]
    slope = torch.zeros_like(weight)
    h = len(real)
    slope[group * h : (group + 1) * h] = real.movedim(1, 2).reshape(slope[:h].shape)
    return slope


def _lowest(grids: tuple[_ProofGrid, ...], outer: Tensor, weight: Tensor, group: int, now: int) -> int:
    """The twist for which the peak that these vectors see lies farthest from the frequencies, or the one of now."""
    if len(grids) == 1:
        return 0
    h = len(outer)
    taps = weight[group * h : (group + 1) * h].flatten(2).movedim(2, 1)  # (h, taps, g)
    coefficients = torch.stack([(outer.real * taps).sum(dim=(0, 2)), (outer.imag * taps).sum(dim=(0, 2))], dim=1)
    highest = []
    for grid in grids:
        along = grid.phases.cosines @ coefficients, grid.phases.sines @ coefficients
        real, imaginary = along[0][:, 0] - along[1][:, 1], along[0][:, 1] + along[1][:, 0]
        highest.append(float((real.square() + imaginary.square()).max().sqrt()))
    lowest = min(highest)
    return highest.index(lowest) if lowest < (1.0 - _TWIST) * highest[now] else now


def _norm_bound(D: Tensor) -> Tensor:
    """``||(D D^T)^2||_F^(1/4)`` of the worst of a stack of matrices."""
    scale = D.abs().max().clamp_min(torch.finfo(D.dtype).tiny)
    D = D / scale
    G = D @ D.mT if D.shape[-2] <= D.shape[-1] else D.mT @ D
    return scale * (G @ G).norm(dim=(-2, -1)).max().sqrt().sqrt()


@functools.lru_cache(maxsize=256)
def _spread(geometry: ConvGeometry) -> float:
    """Root of the most taps in one column of the symbol of one channel: the norm of the matrix of their phases."""
    conv = without_weights(geometry, "An upper bound by frequencies")
    return math.sqrt(np.bincount(waves_of(conv).residue).max())
