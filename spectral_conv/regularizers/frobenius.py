"""``1/2 ||M||_F^2``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.geometry import NOTHING, Axis
from spectral_conv.operator import ConvOperator
from spectral_conv.regularizers._penalty import checked_direction


@dataclass(frozen=True)
class Frobenius:
    r"""Half the squared Frobenius norm of the operator, ``1/2 ||M||_F^2``: half the sum of all squared values.

    With ``C_i[a, b]`` the number of outputs along axis i whose taps a and b read the same pixel (for zero padding a
    diagonal matrix), it is ``1/2 <K, (C_1 x ... x C_n) K>``, exact for every geometry, at a cost free of N. The
    gradient ``(C_1 x ... x C_n) K`` is formula (3.2) of the paper.

    References
    ----------
    P.-C. Guo, "Regularization for convolutional kernel tensors to avoid unstable gradient problem in convolutional
    neural networks", arXiv:2102.04294, (3.2), Algorithm 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 1, 1)), 4, layout="WIO")
    >>> spectral_conv.regularizers.Frobenius().value(conv)  # 10 ones
    5.0
    """

    def value(self, conv: ConvOperator) -> float:
        """Return ``1/2 ||M||_F^2``, exact to rounding."""
        return self.value_and_grad(conv)[0]

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the value and its gradient, shaped like ``conv.kernel``."""
        K = conv.kernel.astype(np.float64)
        gradient = _meet(conv, K)
        return 0.5 * float(np.vdot(K, gradient)), gradient.astype(conv.dtype, copy=False)

    def line_polynomial(self, conv: ConvOperator, direction: NDArray[np.floating]) -> NDArray[np.floating]:
        """Coefficients of the quadratic ``t -> value(K + t direction)``, the constant first."""
        K, D = conv.kernel.astype(np.float64), checked_direction(conv, direction)
        image = _meet(conv, D)
        return np.array([0.5 * np.vdot(K, _meet(conv, K)), np.vdot(K, image), 0.5 * np.vdot(D, image)])


def _meet(conv: ConvOperator, K: NDArray[np.floating]) -> NDArray[np.floating]:
    """Apply the counts of every axis to the taps."""
    for i, axis in enumerate(conv.geometry.axes):
        K = np.moveaxis(np.tensordot(_meetings(axis), K, axes=(1, i)), 0, i)
    return K


def _meetings(axis: Axis) -> NDArray[np.floating]:
    """Number of outputs whose taps a and b read the same pixel, shape (kernel, kernel)."""
    reads = axis.reads
    same = (reads[:, :, None] == reads[:, None, :]) & (reads != NOTHING)[:, :, None]
    return same.sum(axis=0).astype(np.float64)
