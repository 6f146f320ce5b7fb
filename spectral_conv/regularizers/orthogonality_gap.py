"""``||M^T M - alpha I||_F^2``, its gradient and its course along a line, at a cost that does not depend on N."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

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
            # The classes come in mirrored pairs, so that the derivative by the products is symmetric.
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
class _Classes:
    """Classes of pixel pairs of one group that have the same block of the smaller Gram matrix.

    Attributes
    ----------
    starts, taps : (classes + 1,) and (pairs, 2) int64 ndarrays
        Tap pairs of each class, flattened over the axes.
    counts : (classes,) ndarray
        Pixel pairs of each class.
    diagonal : (classes,) ndarray
        1 for pairs of a pixel with itself, else 0.
    outer : bool
        Whether the blocks are those of ``P P^T`` of the plain convolution P.
    channels : int
        Size of a block.
    unread : int
        Rows of ``M^T M``, of all groups, whose diagonal is ``-alpha`` in no class: of pixels that nothing reads, and
        where M is wider than high.
    """

    starts: NDArray[np.int64]
    taps: NDArray[np.int64]
    counts: NDArray[np.floating]
    diagonal: NDArray[np.floating]
    outer: bool
    channels: int
    unread: int

    def distance(
        self, products: NDArray[np.floating], alpha: float, gradient: NDArray[np.floating] | None = None
    ) -> float:
        """``||G - alpha I||_F^2`` over the classes; its derivative by the products is added to `gradient`."""
        target = alpha * self.diagonal
        into = np.empty((0, 0), products.dtype) if gradient is None else gradient
        return float(
            gram_distance.distance(products, self.channels, self.starts, self.taps, self.counts, target, into)
        )

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
            constant,
            linear,
            quadratic,
            self.channels,
            self.starts,
            self.taps,
            self.counts,
            alpha * self.diagonal,
            coefficients,
        )
        return coefficients


@functools.lru_cache(maxsize=64)
def _plan(geometry: ConvGeometry) -> _Classes:
    rows, columns = geometry.shape
    on_rows = rows < columns  # of M: the smaller Gram matrix
    outer = on_rows != geometry.transposed
    axes = [axis_pairs(axis, outer=outer) for axis in geometry.axes]
    sizes = geometry.kernel_size
    starts, taps, counts, diagonal = [0], [], [], []
    for combination in itertools.product(*(range(len(pairs.sets)) for pairs in axes)):
        flat = np.zeros((1, 2), np.int64)
        for j, pairs, k in zip(combination, axes, sizes, strict=True):
            flat = (flat[:, None] * k + pairs.sets[j]).reshape(-1, 2)
        taps.append(flat)
        starts.append(starts[-1] + len(flat))
        counts.append(math.prod(int(pairs.counts[j]) for j, pairs in zip(combination, axes, strict=True)))
        diagonal.append(all(pairs.diagonal[j] for j, pairs in zip(combination, axes, strict=True)))
    channels = geometry.plain_channels[1 if outer else 0]
    own = np.array(diagonal, dtype=np.float64)
    read = int(np.dot(own, counts))
    return _Classes(
        starts=np.array(starts),
        taps=np.concatenate(taps) if taps else np.empty((0, 2), np.int64),
        counts=np.array(counts, dtype=np.float64),
        diagonal=own,
        outer=outer,
        channels=channels // geometry.groups,
        unread=columns - read * channels,
    )


def _stacked(conv: ConvOperator, kernel: NDArray[np.floating], plan: _Classes) -> list[NDArray[np.floating]]:
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


def _unstacked(conv: ConvOperator, parts: list[NDArray[np.floating]], plan: _Classes) -> NDArray[np.floating]:
    """Shape the gradients of the groups like the kernel."""
    tensors = [part.reshape(-1, plan.channels, part.shape[1]) for part in parts]
    flat = np.concatenate([part.swapaxes(1, 2) if plan.outer else part for part in tensors], axis=2)
    plain = flat.reshape(conv.plain_kernel.shape)
    return np.ascontiguousarray(plain.swapaxes(-1, -2) if conv.geometry.transposed else plain)
