"""Power iteration on the layer: a lower bound, often used as if it were an upper one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds._method import Evaluation, bound_method
from spectral_conv.bounds._reshaped import EVERY_PADDING
from spectral_conv.geometry import as_integer
from spectral_conv.kernel_adjoint import kernel_adjoint
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.rounding import stretch


@bound_method(
    source="E. Ryu and others, 'Plug-and-play methods provably converge with properly trained denoisers', ICML 2019, "
    "arXiv:1905.05406; H. Gouk and others, 'Regularisation of neural networks by enforcing Lipschitz continuity', "
    "2021, doi:10.1007/s10994-020-05929-w"
)
def power_iteration(conv: ConvOperator, *, iterations: int = 20, rng: int | np.random.Generator = 0) -> Evaluation:
    r"""Lower bound ``||M x|| / ||x||`` after so many steps ``x <- M^T M x`` from a random start.

    It converges from below, as slowly as the largest singular values lie close together, which those of convolutions
    do. `spectral_conv.spectral_norm` takes other steps and says how far it is.

    Parameters
    ----------
    conv : ConvOperator
        Any layer.
    iterations : int
        Applications of ``M^T M``.
    rng : int or numpy.random.Generator
        Of the start.

    Returns
    -------
    Bound
        A lower bound, in floating point too; dimensionless.

    References
    ----------
    E. Ryu, J. Liu, S. Wang, X. Chen, Z. Wang, W. Yin, "Plug-and-play methods provably converge with properly trained
    denoisers", ICML 2019, arXiv:1905.05406, section 4 ("real spectral normalization").

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 1, 1)), 8, layout="WIO")
    >>> round(spectral_conv.bounds.power_iteration(conv, iterations=100).value, 6)
    2.879385
    """
    iterations = as_integer("iterations", iterations, minimum=1)
    x = np.random.default_rng(rng).standard_normal(conv.shape[1])
    for _ in range(iterations):
        image = conv.rmatvec(conv.matvec(x / np.linalg.norm(x)))
        if not image.any():
            break
        x = image
    plain = (conv.out_channels, *conv.output_shape), (conv.in_channels, *conv.input_shape)
    right = (x / np.linalg.norm(x)).reshape(plain[1])

    def gradient() -> NDArray[np.floating]:
        image = conv.matvec(right.ravel())
        left = (image / (np.linalg.norm(image) or 1.0)).reshape(plain[0])
        by_kernel = kernel_adjoint(conv, left, right)
        return by_kernel.swapaxes(-1, -2) if conv.geometry.transposed else by_kernel

    return Evaluation(
        value=stretch(conv, right, adjoint=conv.geometry.transposed)[0],
        kind="lower",
        scope=EVERY_PADDING,
        gradient=gradient,
        notes=f"{iterations} iterations",
    )
