"""The norm of the kernel reshaped to a matrix: what spectral normalization divides by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds._method import Evaluation, bound_method
from spectral_conv.bounds._proof import top_pair
from spectral_conv.operator import ConvOperator


@bound_method(
    source="T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, 'Spectral normalization for generative adversarial "
    "networks', ICLR 2018, arXiv:1802.05957",
    by_group=False,
)
def reshaped_norm(conv: ConvOperator) -> Evaluation:
    r"""Estimate ``||K||``, K reshaped to ``(out, in / groups * taps)``: no bound, neither upper nor lower.

    This is the number that PyTorch's ``spectral_norm`` and its copies set to one. Of an ordinary layer with one group
    whose image holds the kernel it is at most ``||M||``, and at least ``||M|| / sqrt(reads)`` (see `reshaped`).

    Parameters
    ----------
    conv : ConvOperator
        Any layer. Groups are not told apart, as in these libraries; of a transposed layer the matrix is
        ``(out / groups, in * taps)``.

    Returns
    -------
    Bound
        An estimate; dimensionless.

    References
    ----------
    T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, "Spectral normalization for generative adversarial networks", ICLR
    2018, arXiv:1802.05957, section 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 3, 1, 1)), (8, 8))
    >>> round(spectral_conv.bounds.reshaped_norm(conv).value, 6)
    3.0
    """
    kernel = np.moveaxis(conv.kernel, -1, 0)  # (out, *k, in)
    pair = top_pair(kernel.reshape(len(kernel), -1))

    def gradient() -> NDArray[np.floating]:
        outer = np.moveaxis(np.outer(pair.left.real, pair.right.real).reshape(kernel.shape), 0, -1)
        return outer.swapaxes(-1, -2) if conv.geometry.transposed else outer

    return Evaluation(
        value=pair.value,
        kind="estimate",
        scope="the weights alone, whatever they are applied to",
        gradient=gradient,
        notes="no bound: what spectral normalization divides by",
    )
