"""``||M^T M - alpha I||_F^2`` of a weight, at a cost that does not depend on the image size."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from spectral_conv.geometry import ConvGeometry
from spectral_conv.gram import AxisPairs, axis_pairs
from spectral_conv.torch._layers import geometry_of_weight
from spectral_conv.torch._precision import full_precision

# A table of sets with more entries than this is stored sparse: long strided kernels.
_DENSE = 1 << 22


@full_precision
def orthogonality_gap(
    weight: Tensor, input_shape: int | Sequence[int], *, alpha: float = 1.0, **layer: Any
) -> Tensor:
    r"""How far the layer is from ``sqrt(alpha)`` times an isometry: ``||M^T M - alpha I||_F^2``.

    The blocks of the Gram matrix are sums of products ``K[a] K[b]^T`` over few different sets of tap pairs
    (`spectral_conv.gram`): one matrix product makes them all, and neither time nor memory depend on the image size.
    Where M is wider than high the same is done with ``M M^T``, which differs by the constant
    ``alpha^2 (columns - rows)``.

    Parameters
    ----------
    weight, input_shape, **layer
        As of `frobenius`; any padding mode, stride, dilation and groups, transposed or not.
    alpha : float
        The wanted square of all singular values.

    Returns
    -------
    Tensor
        A number; exact to rounding in the precision of the weight, differentiable as often as wanted.

    References
    ----------
    P.-C. Guo, "A Frobenius norm regularization method for convolutional kernels to avoid unstable gradient problem",
    (3.2), Algorithm 3.1.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import orthogonality_gap
    >>> orthogonality_gap(2 * torch.eye(3)[..., None, None], (4, 4))  # M = 2 I of order 48: 48 (4 - 1)^2
    tensor(432.)
    """
    geometry = geometry_of_weight(weight, input_shape, **layer)
    if not math.isfinite(alpha):
        raise ValueError(f"`alpha` must be a finite number; got {alpha!r}.")
    plan = _plan(geometry, weight.dtype, weight.device)
    # (groups, own channels of a block, summed channels, *taps)
    own = weight.unflatten(0, (geometry.groups, -1))
    own = own if plan.outer else own.transpose(1, 2)
    ndim, (groups, channels, summed) = geometry.ndim, own.shape[:3]
    stacked = own.permute(0, *range(3, 3 + ndim), 1, 2).reshape(groups, -1, summed)
    products: Tensor = _GramProduct.apply(stacked)
    sizes = geometry.kernel_size
    table = products.reshape(groups, *sizes, channels, *sizes, channels)
    # Taps of both factors side by side, axis by axis: (k1, k1, k2, k2, ..., groups, channels, channels).
    order = [side for i in range(ndim) for side in (1 + i, 2 + ndim + i)]
    table = table.permute(*order, 0, 1 + ndim, 2 + 2 * ndim)
    for axis in plan.axes:
        joined = table.flatten(0, 1)
        table = _Sets.apply(joined.flatten(1), axis.member).unflatten(1, joined.shape[1:])
        # The sets of this axis go last among the axes, so that the next one stands first.
        table = table.movedim(0, -4)
    square = (table - plan.identity * alpha).square().sum(dim=(-3, -2, -1))
    return (plan.counts * square).sum() + plan.unread * alpha**2


class _GramProduct(Function):
    """``A A^T`` of a stack of matrices: backwards one product instead of two."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(matrix)
        return matrix @ matrix.mT

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        (matrix,) = ctx.saved_tensors
        return (cotangent + cotangent.mT) @ matrix


class _Sets(Function):
    """A constant matrix, dense or sparse, times a table: linear, so that its derivative is of the same kind."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, member: Tensor) -> Tensor:
        ctx.member = member
        return member @ table

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return _Sets.apply(cotangent, ctx.member.t()), None


@dataclass(frozen=True, kw_only=True)
class _AxisSets:
    """Sets of tap pairs along one axis: their members ``(sets, k k)``, counts, and which join a pixel with itself."""

    member: Tensor
    counts: Tensor
    diagonal: Tensor


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The different blocks of the smaller Gram matrix.

    Attributes
    ----------
    outer : bool
        Whether they are those of ``P P^T`` of the plain convolution P.
    axes : tuple of _AxisSets
        Per axis; along the first one of each pair of mirrored sets.
    counts : (*sets) Tensor
        How often each block occurs.
    identity : (*sets, 1, channels, channels) Tensor
        1 on the diagonals of blocks that join a pixel with itself.
    unread : int
        Rows of ``M^T M`` that no block holds.
    """

    outer: bool
    axes: tuple[_AxisSets, ...]
    counts: Tensor
    identity: Tensor
    unread: int


@functools.lru_cache(maxsize=256)
def _plan(geometry: ConvGeometry, dtype: torch.dtype, device: torch.device) -> _Plan:
    rows, columns = geometry.shape
    outer = (rows < columns) != geometry.transposed
    pairs = [axis_pairs(axis, outer=outer) for axis in geometry.axes]
    axes = tuple(
        _axis_sets(p, k, mirrored=i == 0, like=torch.empty(0, dtype=dtype, device=device))
        for i, (p, k) in enumerate(zip(pairs, geometry.kernel_size, strict=True))
    )
    counts, diagonal = axes[0].counts, axes[0].diagonal
    for axis in axes[1:]:
        counts, diagonal = counts[..., None] * axis.counts, diagonal[..., None] * axis.diagonal
    channels = geometry.plain_channels[1 if outer else 0]
    block = torch.eye(channels // geometry.groups, dtype=dtype, device=device)
    read = math.prod(int(p.counts[p.diagonal].sum()) for p in pairs)
    return _Plan(
        outer=outer,
        axes=axes,
        counts=counts,
        identity=diagonal[..., None, None, None] * block,
        unread=columns - read * channels,
    )


def _axis_sets(pairs: AxisPairs, k: int, *, mirrored: bool, like: Tensor) -> _AxisSets:
    """Of two sets with the taps of the pairs exchanged, whose blocks are transposes, one counts twice."""
    names = [
        (bool(own), tuple(map(tuple, taps.tolist()))) for own, taps in zip(pairs.diagonal, pairs.sets, strict=True)
    ]
    place = {name: i for i, name in enumerate(names)}
    kept, weights = [], []
    for i, (own, taps) in enumerate(names):
        other = place[own, tuple(sorted((b, a) for a, b in taps))]
        if mirrored and other < i:
            continue
        kept.append(i)
        weights.append(2.0 if mirrored and other != i else 1.0)
    lengths = [len(pairs.sets[i]) for i in kept]
    row = torch.repeat_interleave(torch.arange(len(kept)), torch.tensor(lengths, dtype=torch.long))
    column = torch.tensor([a * k + b for i in kept for a, b in names[i][1]], dtype=torch.long)
    shape = (len(kept), k * k)
    ones = torch.ones(len(column), dtype=like.dtype)
    member = torch.sparse_coo_tensor(torch.stack([row, column]), ones, shape, check_invariants=False).coalesce()
    if math.prod(shape) <= _DENSE:
        member = member.to_dense()
    counts = [float(pairs.counts[i]) * weight for i, weight in zip(kept, weights, strict=True)]
    return _AxisSets(
        member=member.to(like.device),
        counts=like.new_tensor(counts),
        diagonal=like.new_tensor([float(names[i][0]) for i in kept]),
    )
