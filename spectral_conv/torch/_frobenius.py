"""``1/2 ||M||_F^2`` of a weight."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectral_conv.geometry import NOTHING, ConvGeometry
from spectral_conv.torch._layers import geometry_of_weight
from spectral_conv.torch._precision import full_precision


@full_precision
def frobenius(weight: Tensor, input_shape: int | Sequence[int], **layer: Any) -> Tensor:
    r"""Half the squared Frobenius norm of the layer, ``1/2 ||M||_F^2``, at a cost that does not depend on its size.

    Parameters
    ----------
    weight : (out, in / groups, *kernel) Tensor
        PyTorch's weight; of a transposed layer ``(in, out / groups, *kernel)``.
    input_shape : int or sequence of int
        Spatial size of the input.
    **layer
        `stride`, `padding` (default "same"), `padding_mode`, `dilation`, `groups`, `transposed`, `output_padding`, as
        of `ConvOperator`.

    Returns
    -------
    Tensor
        A number; exact to rounding, and differentiable as often as wanted. Its gradient is ``(C_1 x ... x C_n) K``,
        C_i counting the outputs along axis i whose taps a and b read the same pixel.

    References
    ----------
    P.-C. Guo, "Regularization for convolutional kernel tensors to avoid unstable gradient problem in convolutional
    neural networks", arXiv:2102.04294, Algorithm 3.1.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import frobenius
    >>> frobenius(torch.ones(1, 1, 3), 4)  # 10 ones
    tensor(5.)
    """
    met = weight
    for number, counts in enumerate(_meetings(geometry_of_weight(weight, input_shape, **layer)), start=2):
        met = torch.tensordot(met, counts.to(weight), dims=([number], [0])).movedim(-1, number)
    return 0.5 * (weight * met).sum()


@functools.lru_cache(maxsize=256)
def _meetings(geometry: ConvGeometry) -> tuple[Tensor, ...]:
    """Per axis: outputs whose taps a and b read the same pixel, shape (kernel, kernel)."""
    tables = []
    for axis in geometry.axes:
        reads = axis.reads
        same = (reads[:, :, None] == reads[:, None, :]) & (reads != NOTHING)[:, :, None]
        tables.append(torch.from_numpy(same.sum(axis=0).astype(np.float64)))
    return tuple(tables)
