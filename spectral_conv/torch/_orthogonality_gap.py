"""``||M^T M - alpha I||_F^2`` of a weight, at a cost that does not depend on the image size."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function

from spectral_conv.geometry import ConvGeometry
from spectral_conv.torch._layers import geometry_of_weight
from spectral_conv.torch._pair_sets import pair_sets
from spectral_conv.torch._precision import full, full_precision

# A table of sets with more entries than this is stored sparse: long strided kernels.
_DENSE = 1 << 22
# Products of weights that are worked on at one time: so many bytes stay in the cache.
_CHUNK_BYTES = 1 << 20


@full_precision
def orthogonality_gap(
    weight: Tensor, input_shape: int | Sequence[int], *, alpha: float = 1.0, **layer: Any
) -> Tensor:
    r"""How far the layer is from ``sqrt(alpha)`` times an isometry: ``||M^T M - alpha I||_F^2``.

    The blocks of the Gram matrix are sums of products ``K[a] K[b]^T`` over few different sets of tap pairs
    (`spectral_conv.gram`): one stack of small products makes them all, and neither time nor memory depend on the
    image size. Where M is wider than high the same is done with ``M M^T``, which differs by the constant
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
    return total_gap([weight], geometry_of_weight(weight, input_shape, **layer), alpha=alpha)


def total_gap(weights: Sequence[Tensor], geometry: ConvGeometry, *, alpha: float = 1.0) -> Tensor:
    """Sum of `orthogonality_gap` over weights of one geometry, precision and device."""
    if not math.isfinite(alpha):
        raise ValueError(f"`alpha` must be a finite number; got {alpha!r}.")
    if not geometry.read_taps.any():
        # No tap meets a pixel: M = 0.
        return torch.stack([0.0 * weight.sum() for weight in weights]).sum() + (
            len(weights) * geometry.shape[1] * alpha**2
        )
    with torch.autocast(weights[0].device.type, enabled=False):
        total: Tensor = _Gap.apply(geometry, alpha, *map(full, weights))
    return total


class _Gap(Function):
    """The gaps and at once their gradients, from what is in the cache just then."""

    @staticmethod
    def forward(ctx: Any, geometry: ConvGeometry, alpha: float, *weights: Tensor) -> Tensor:
        plan = _plan(geometry, weights[0].dtype, weights[0].device)
        total, gradients = weights[0].new_full((), len(weights) * plan.unread * alpha**2), []
        for stack in plan.stacks(weights):
            first, second = plan.factors(stack)
            blocks = plan.blocks(first, second, alpha)
            total += blocks.square().sum()
            gradients.extend(plan.gradients(blocks, first, second))
        ctx.plan, ctx.alpha = plan, alpha
        ctx.save_for_backward(*weights, *gradients)
        return total

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        weights, gradients = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        if torch.is_grad_enabled():
            # The gradient will be differentiated itself: made again, of operations that PyTorch follows.
            plan: _Plan = ctx.plan
            stacks = plan.stacks(weights)
            blocks = [plan.blocks(*plan.factors(stack), ctx.alpha) for stack in stacks]
            total = torch.stack([part.square().sum() for part in blocks]).sum()
            gradients = torch.autograd.grad(total, weights, create_graph=True)
        return None, None, *(cotangent * gradient for gradient in gradients)


def _times(matrix: Tensor, table: Tensor) -> Tensor:
    """A matrix along the second of three axes."""
    if matrix.layout == torch.strided:
        return torch.matmul(matrix, table)
    columns = table.movedim(1, 0)
    product: Tensor = _SparseProduct.apply(matrix, columns.flatten(1))
    return product.unflatten(1, columns.shape[1:]).movedim(0, 1)


class _SparseProduct(Function):
    """A constant sparse matrix times a table: linear, so that its derivative is of the same kind."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, table: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix @ table

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor]:
        return None, _SparseProduct.apply(ctx.matrix.t(), cotangent)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How the different blocks of the smaller Gram matrix are made.

    Attributes
    ----------
    outer : bool
        Whether they are those of ``P P^T`` of the plain convolution P.
    groups : int
        Of the layer; each has blocks of its own.
    kernel_size : tuple of int
        Taps along each axis.
    first, second : (pairs,) int64 Tensors
        The taps of each pair, all axes together.
    sets : tuple of (sets, pairs) Tensors
        How often each pair is in each set, times the root of how often the set occurs: of all axes together, or of
        each axis; sparse where they are large.
    diagonal : (sets, 1, 1) Tensor
        Where a block joins a pixel with itself, the root of how often it occurs, else 0.
    unread : int
        Rows of ``M^T M`` that no block holds.
    """

    outer: bool
    groups: int
    kernel_size: tuple[int, ...]
    first: Tensor
    second: Tensor
    sets: tuple[Tensor, ...]
    diagonal: Tensor
    unread: int

    def stacks(self, weights: Sequence[Tensor]) -> Iterator[Tensor]:
        """So many weights at a time as fit into the cache with their products."""
        summed = weights[0].shape[1] if self.outer else weights[0].shape[0] // self.groups
        channels = weights[0].numel() // (self.groups * math.prod(self.kernel_size) * summed)
        product = self.groups * channels**2 * weights[0].element_size()
        step = max(1, _CHUNK_BYTES // (len(self.first) * product))
        for start in range(0, len(weights), step):
            yield torch.stack(tuple(weights[start : start + step]))

    def factors(self, stack: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of each product, ``(pairs, weights * groups, channels, summed channels)``."""
        own = stack.flatten(3).unflatten(1, (self.groups, -1)).flatten(0, 1)  # (weights * groups, h, g, taps)
        taps = own.permute(3, 0, 1, 2) if self.outer else own.permute(3, 0, 2, 1)
        taps = taps.contiguous()
        return taps[self.first], taps[self.second]

    def blocks(self, first: Tensor, second: Tensor, alpha: float) -> Tensor:
        """All different blocks of ``M^T M - alpha I``, times the roots of how often they occur."""
        products = torch.bmm(first.flatten(0, 1), second.flatten(0, 1).mT)
        channels, table = products.shape[-1], products
        before = 1
        for member in self.sets:
            table = _times(member, table.reshape(before, member.shape[1], -1))
            before *= member.shape[0]
        table = table.reshape(len(self.diagonal), -1, channels, channels)
        table.diagonal(dim1=-2, dim2=-1).sub_(alpha * self.diagonal)
        return table

    def gradients(self, blocks: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Gradients of the squared norm of the blocks by the weights."""
        table = blocks
        before = len(self.diagonal)
        for member in reversed(self.sets):
            before //= member.shape[0]
            table = _times(member.t(), table.reshape(before, member.shape[0], -1))
        table = table.reshape(-1, first.shape[2], first.shape[2])
        taps = first.new_zeros((math.prod(self.kernel_size), *first.shape[1:]))
        products = torch.bmm(table, second.flatten(0, 1))
        taps.index_add_(0, self.first, products.view_as(first), alpha=2)
        torch.bmm(table.mT, first.flatten(0, 1), out=products)
        taps.index_add_(0, self.second, products.view_as(first), alpha=2)
        own = taps.permute(1, 2, 3, 0) if self.outer else taps.permute(1, 3, 2, 0)
        return own.unflatten(0, (-1, self.groups)).flatten(1, 2).unflatten(-1, self.kernel_size)


@functools.lru_cache(maxsize=256)
def _plan(geometry: ConvGeometry, dtype: torch.dtype, device: torch.device) -> _Plan:
    rows, columns = geometry.shape
    outer = (rows < columns) != geometry.transposed
    sets = pair_sets(geometry.axes, outer=outer)
    taps = np.zeros((1, 2), np.int64)
    diagonal: NDArray[np.floating] = np.ones(1)
    for part in sets:
        taps = (taps[:, None] * part.size + part.taps).reshape(-1, 2)
        diagonal = np.kron(diagonal, np.sqrt(part.counts) * part.diagonal)
    channels = geometry.plain_channels[1 if outer else 0]
    return _Plan(
        outer=outer,
        groups=geometry.groups,
        kernel_size=geometry.kernel_size,
        first=torch.from_numpy(taps[:, 0].copy()).to(device),
        second=torch.from_numpy(taps[:, 1].copy()).to(device),
        sets=tuple(
            _tensor(scipy.sparse.diags_array(np.sqrt(part.counts)) @ part.member).to(device, dtype) for part in sets
        ),
        diagonal=torch.from_numpy(diagonal[:, None, None]).to(device, dtype),
        unread=columns - channels * int(np.rint(diagonal @ diagonal)),
    )


def _tensor(member: scipy.sparse.csr_array) -> Tensor:
    if math.prod(member.shape) <= _DENSE:
        return torch.from_numpy(member.toarray())
    entries = member.tocoo()
    places = torch.from_numpy(np.stack(entries.coords).astype(np.int64))
    return torch.sparse_coo_tensor(
        places, torch.from_numpy(entries.data), member.shape, check_invariants=False
    ).coalesce()
