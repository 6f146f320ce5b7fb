"""Exact extreme singular values of a weight's layer, with their slopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectral_conv.geometry import ConvGeometry
from spectral_conv.spectrum import singular_triplets
from spectral_conv.spectrum.triplets import Which
from spectral_conv.torch._layers import geometry_of_weight, operator_of
from spectral_conv.torch._plain_convolution import PlainConvolution
from spectral_conv.torch._precision import full_precision
from spectral_conv.torch._singular_value import SingularValue


@full_precision
def spectral_norm(weight: Tensor, input_shape: int | Sequence[int], *, rtol: float = 1e-10, **layer: Any) -> Tensor:
    r"""The largest singular value of the layer, ``sigma_max(M)``.

    Parameters
    ----------
    weight, input_shape, **layer
        As of `frobenius`.
    rtol : float
        Error of the value, relative.

    Returns
    -------
    Tensor
        A number; its slope is ``u v^T`` with the exact singular vectors, one subgradient where the value is multiple.
        It is found on the CPU by `singular_triplets`: in every training step take the parametrization `SpectralNorm`
        or a bound. The second derivative solves a linear system with the layer by MINRES.

    Raises
    ------
    NotApplicableError
        From a second derivative, of a value that is 0 or multiple.

    References
    ----------
    G. W. Stewart, "Matrix Algorithms, Volume II: Eigensystems", SIAM 2001, doi:10.1137/1.9780898718058.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import spectral_norm
    >>> weight = torch.tensor([[3.0, 0.0], [0.0, 1.0]])[..., None, None].requires_grad_()
    >>> spectral_norm(weight, (4, 4)).round(decimals=4).item()
    3.0
    """
    return _extreme(weight, geometry_of_weight(weight, input_shape, **layer), "largest", rtol)


@full_precision
def smallest_singular_value(
    weight: Tensor, input_shape: int | Sequence[int], *, rtol: float = 1e-10, **layer: Any
) -> Tensor:
    r"""The least of the ``min(rows, columns)`` singular values of the layer, ``sigma_min(M)``.

    Parameters
    ----------
    weight, input_shape, **layer
        As of `frobenius`.
    rtol : float
        Error of the value, relative to the largest.

    Returns
    -------
    Tensor
        A number, at least 0; otherwise as of `spectral_norm`. To raise it, subtract it from the loss; `regularize`
        does so by itself.

    References
    ----------
    P.-C. Guo, "Regularization for convolutional kernel tensors to avoid unstable gradient problem in convolutional
    neural networks", arXiv:2102.04294, Theorem 3.2.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import smallest_singular_value
    >>> weight = torch.tensor([[3.0, 0.0], [0.0, 1.0]])[..., None, None]
    >>> smallest_singular_value(weight, (4, 4)).round(decimals=4).item()
    1.0
    """
    return _extreme(weight, geometry_of_weight(weight, input_shape, **layer), "smallest", rtol)


def _extreme(weight: Tensor, geometry: ConvGeometry, which: Which, rtol: float) -> Tensor:
    found = singular_triplets(operator_of(weight, geometry), 1, which, rtol=rtol)
    left, right = (found.left, found.right) if not geometry.transposed else (found.right, found.left)
    pair = [torch.from_numpy(np.ascontiguousarray(side)).to(weight) for side in (left, right)]
    value: Tensor = SingularValue.apply(
        weight, weight.new_tensor(float(found.values[0])), *pair, PlainConvolution(geometry)
    )
    return value
