r"""Norms of reshaped kernels, times how often a pixel is read.

Along each axis ``M = sum_a S_a (x) K[a]^T``, where S_a selects the pixels that tap a reads. The taps of an axis may
stand beside the input channels, ``M = (I (x) [K[a]^T]_a) [S_a]_a``, or beside the output channels. The norms of
the stack and of the row of the S_a are those of `_reads`; the norms of several axes multiply.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds._method import Evaluation, bound_method
from spectral_conv.bounds._proof import TopPair, proved_norm, top_pair
from spectral_conv.bounds._reads import row_of_reads, stack_of_reads
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.rounding import UNIT

EVERY_PADDING = "this padding and image size"


@dataclass(frozen=True, kw_only=True)
class Reshaping:
    """A kernel as a matrix ``(out * row taps, in * column taps)``, and how to come back.

    Attributes
    ----------
    matrix : ndarray
        The weights.
    factor : float
        ``||M|| <= factor * ||matrix||``.
    order : tuple of int
        The axes of the plain kernel in the order of the matrix.
    shape : tuple of int
        The shape of the kernel with its axes in that order.
    words : str
        Names of the rows and columns.
    """

    matrix: NDArray[np.floating]
    factor: float
    order: tuple[int, ...]
    shape: tuple[int, ...]
    words: str

    def gradient(self, pair: TopPair) -> NDArray[np.floating]:
        """Gradient of ``factor * ||matrix||`` by the plain kernel."""
        outer = self.factor * np.outer(pair.left.real, pair.right.real)
        return outer.reshape(self.shape).transpose(np.argsort(self.order))


def reshaping(conv: ConvOperator, rows: Sequence[int]) -> Reshaping:
    """Put the taps of the axes `rows` beside the output channels, the others beside the input channels."""
    axes = conv.geometry.axes
    columns = [i for i in range(len(axes)) if i not in rows]
    order = (len(axes) + 1, *rows, len(axes), *columns)
    kernel = conv.plain_kernel.transpose(order)
    squares = [stack_of_reads(axes[i]) for i in columns] + [row_of_reads(axes[i]) for i in rows]
    return Reshaping(
        matrix=kernel.reshape(math.prod(kernel.shape[: 1 + len(rows)]), -1),
        factor=math.sqrt(math.prod(squares)) * (1.0 + 4.0 * UNIT),
        order=order,
        shape=kernel.shape,
        words=" x ".join(
            "(" + ", ".join([channels, *(f"k{i + 1}" for i in own)]) + ")"
            for channels, own in (("out", rows), ("in", columns))
        ),
    )


@bound_method(
    source="Y. Tsuzuku, I. Sato, M. Sugiyama, 'Lipschitz-margin training', NeurIPS 2018, arXiv:1802.04034; M. Cisse "
    "and others, 'Parseval networks', ICML 2017, arXiv:1704.08847"
)
def reshaped(conv: ConvOperator) -> Evaluation:
    r"""Upper bound ``sqrt(reads) ||K||``, K reshaped to ``(out, in * taps)``, reads of the pixel read most often.

    For stride 1 and large images ``reads = prod k_i``; with a stride ``prod ceil(k_i gcd(s_i, d_i) / s_i)``. Counted
    rather than computed it is right for every padding and size, too.

    Parameters
    ----------
    conv : ConvOperator
        Any layer.

    Returns
    -------
    Bound
        An upper bound, in floating point too; dimensionless.

    References
    ----------
    Y. Tsuzuku, I. Sato, M. Sugiyama, "Lipschitz-margin training", NeurIPS 2018, arXiv:1802.04034, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 3, 1, 1)), (8, 8))
    >>> round(spectral_conv.bounds.reshaped(conv).value, 6)
    9.0
    """
    return _evaluation(conv, [reshaping(conv, ())])


@bound_method(
    source="S. Singla, S. Feizi, 'Fantastic four: differentiable bounds on singular values of convolution layers', "
    "ICLR 2021, arXiv:1911.10258"
)
def fantastic_four(conv: ConvOperator) -> Evaluation:
    r"""Upper bound ``min_R factor_R ||R||`` over the reshaped kernels R; four of them in two dimensions.

    The taps of each axis stand beside the input channels (as in `reshaped`, where a stride lowers the factor) or
    beside the output channels. For stride 1 and large images all factors are ``sqrt(prod k_i)``.

    Parameters
    ----------
    conv : ConvOperator
        Any layer, in one to three dimensions (two, four or eight reshaped kernels).

    Returns
    -------
    Bound
        An upper bound, in floating point too, never above `reshaped`; dimensionless.

    References
    ----------
    S. Singla, S. Feizi, "Fantastic four: differentiable and efficient bounds on singular values of convolution
    layers", ICLR 2021, arXiv:1911.10258, theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 3, 1, 1)), (8, 8))
    >>> round(spectral_conv.bounds.fantastic_four(conv).value, 6)
    9.0
    """
    ndim = conv.geometry.ndim
    sides = [rows for count in range(ndim + 1) for rows in itertools.combinations(range(ndim), count)]
    return _evaluation(conv, [reshaping(conv, rows) for rows in sides])


def _evaluation(conv: ConvOperator, choices: Sequence[Reshaping]) -> Evaluation:
    pairs = [top_pair(choice.matrix) for choice in choices]
    values = [choice.factor * pair.value for choice, pair in zip(choices, pairs, strict=True)]
    best = int(np.argmin(values))
    choice, pair = choices[best], pairs[best]
    return Evaluation(
        value=choice.factor * proved_norm(choice.matrix, pair.value),
        kind="upper",
        scope=EVERY_PADDING,
        gradient=lambda: choice.gradient(pair),
        notes=f"{choice.words}, times {choice.factor:.4g}",
    )
