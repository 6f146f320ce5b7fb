"""``||M^T M - alpha I||_F^2``, its gradient and its course along a line, at a cost that does not depend on N."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels import gram_distance
from spectral_conv.geometry import ConvGeometry
from spectral_conv.gram import axis_pairs
from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers._penalty import checked_alpha, checked_direction


@dataclass(frozen=True)
class OrthogonalityGap:
    r"""How far the layer is from ``sqrt(alpha)`` times an isometry: ``||M^T M - alpha I||_F^2``.

    The Gram matrix has few different blocks: sums of products ``K[a] K[b]^T`` over the tap pairs that join two pixels
    (`spectral_conv.gram`). So the value is a sum over classes of pixel pairs, and the gradient needs two matrix
    products beside: time and memory do not depend on the image size. Where M is wider than high the same is done with
    ``M M^T``, which differs by the constant ``alpha^2 (columns - rows)``.

    Parameters
    ----------
    alpha : float
        The wanted square of all singular values.

    Notes
    -----
    Guarantee: exact for every geometry, up to rounding in the dtype of the kernel (sums in float64). The paper's
    tensor (3.2) is half of this gradient.

    References
    ----------
    P.-C. Guo, "A Frobenius norm regularization method for convolutional kernels to avoid unstable gradient problem",
    (3.2), Algorithm 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(2 * np.eye(3)[None, None], (4, 4))  # M = 2 I, order 48
    >>> spectral_conv.regularizers.OrthogonalityGap(alpha=1.0).value(conv)  # 48 (4 - 1)^2
    432.0
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", checked_alpha(self.alpha))

    def value(self, conv: ConvOperator) -> float:
        """Return ``||M^T M - alpha I||_F^2``."""
        plan = _plan(conv.geometry)
        total = plan.unread * self.alpha**2
        for taps in _stacked(conv, conv.kernel, plan):
            total += plan.distance(taps @ taps.T, self.alpha)
        return total

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the value and its gradient, shaped like ``conv.kernel``."""
        plan = _plan(conv.geometry)
        total, gradients = plan.unread * self.alpha**2, []
        for taps in _stacked(conv, conv.kernel, plan):
            products = taps @ taps.T
            by_products = np.zeros_like(products)
            total += plan.distance(products, self.alpha, by_products)
            # The sets come in mirrored pairs, so that the derivative by the products is symmetric.
            gradients.append(2.0 * (by_products @ taps))
        return total, _unstacked(conv, gradients, plan)

    def line_polynomial(self, conv: ConvOperator, direction: NDArray[np.floating]) -> NDArray[np.floating]:
        """Coefficients of the quartic ``t -> value(K + t direction)``, the constant first."""
        plan = _plan(conv.geometry)
        kernel, towards = conv.kernel.astype(np.float64), checked_direction(conv, direction)
        coefficients = np.zeros(5)
        for K, D in zip(_stacked(conv, kernel, plan), _stacked(conv, towards, plan), strict=True):
            mixed = K @ D.T
            coefficients += plan.distance_along(K @ K.T, mixed + mixed.T, D @ D.T, self.alpha)
        coefficients[0] += plan.unread * self.alpha**2
        return coefficients


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """The different blocks of the smaller Gram matrix of one group.

    Attributes
    ----------
    axes : tuple
        Per axis, three in all: starts and taps of the sets of tap pairs, pixel pairs of each set, and whether they
        are of a pixel with itself; as `_kernels.gram_distance` takes them.
    sizes : (3,) int64 ndarray
        Kernel size, 1 along axes that the layer does not have.
    outer : bool
        Whether the blocks are those of ``P P^T`` of the plain convolution P.
    channels : int
        Size of a block.
    unread : int
        Rows of ``M^T M``, of all groups, that no block holds: of pixels that nothing reads, and where M is wider than
        high. Their part of ``M^T M - alpha I`` is ``-alpha`` on the diagonal.
    """

    axes: tuple[NDArray[Any], ...]
    sizes: NDArray[np.int64]
    outer: bool
    channels: int
    unread: int

    def distance(
        self, products: NDArray[np.floating], alpha: float, gradient: NDArray[np.floating] | None = None
    ) -> float:
        """``||G - alpha I||_F^2`` over the blocks; its derivative by the products is added to `gradient`."""
        into = np.empty((0, 0), products.dtype) if gradient is None else gradient
        return float(gram_distance.distance(products, self.channels, self.sizes, alpha, *self.axes, into))

    def distance_along(
        self,
        constant: NDArray[np.floating],
        linear: NDArray[np.floating],
        quadratic: NDArray[np.floating],
        alpha: float,
    ) -> NDArray[np.floating]:
        """Coefficients of `distance` at ``constant + t linear + t^2 quadratic``."""
        coefficients = np.empty(5)
        gram_distance.distance_along(
            constant, linear, quadratic, self.channels, self.sizes, alpha, *self.axes, coefficients
        )
        return coefficients


@functools.lru_cache(maxsize=64)
def _plan(geometry: ConvGeometry) -> _Blocks:
    rows, columns = geometry.shape
    on_rows = rows < columns  # of M: the smaller Gram matrix
    outer = on_rows != geometry.transposed
    pairs = [axis_pairs(axis, outer=outer) for axis in geometry.axes]
    missing = 3 - len(pairs)
    axes: list[NDArray[Any]] = [
        np.array([0, 1]),
        np.zeros((1, 2), np.int64),
        np.ones(1),
        np.ones(1, np.bool_),
    ] * missing
    for axis in pairs:
        starts = np.cumsum([0, *(len(taps) for taps in axis.sets)])
        taps = np.concatenate(axis.sets) if axis.sets else np.empty((0, 2), np.int64)
        axes += [starts, taps, axis.counts.astype(np.float64), axis.diagonal]
    channels = geometry.plain_channels[1 if outer else 0]
    read = math.prod(int(axis.counts[axis.diagonal].sum()) for axis in pairs)
    return _Blocks(
        axes=tuple(axes),
        sizes=np.array([1] * missing + list(geometry.kernel_size)),
        outer=outer,
        channels=channels // geometry.groups,
        unread=columns - read * channels,
    )


def _stacked(conv: ConvOperator, kernel: NDArray[np.floating], plan: _Blocks) -> list[NDArray[np.floating]]:
    """Taps of each group above each other: (taps * channels, other channels)."""
    geometry = conv.geometry
    plain = kernel.swapaxes(-1, -2) if geometry.transposed else kernel
    flat = plain.reshape(-1, *plain.shape[-2:])
    parts = np.split(flat, geometry.groups, axis=2)
    return [
        np.ascontiguousarray(part.swapaxes(1, 2) if plan.outer else part).reshape(
            -1, part.shape[1 if plan.outer else 2]
        )
        for part in parts
    ]


def _unstacked(conv: ConvOperator, parts: list[NDArray[np.floating]], plan: _Blocks) -> NDArray[np.floating]:
    """Shape the gradients of the groups like the kernel."""
    tensors = [part.reshape(-1, plan.channels, part.shape[1]) for part in parts]
    flat = np.concatenate([part.swapaxes(1, 2) if plan.outer else part for part in tensors], axis=2)
    plain = flat.reshape(conv.plain_kernel.shape)
    return np.ascontiguousarray(plain.swapaxes(-1, -2) if conv.geometry.transposed else plain)
