"""Singular value clipping and masking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.geometry import as_integer, checked_word
from spectral_conv.operator import ConvOperator
from spectral_conv.orthogonal._checks import checked_tolerance
from spectral_conv.orthogonal._iteration_limit import IterationLimitError
from spectral_conv.orthogonal._torus_taps import TorusTaps
from spectral_conv.spectrum.checks import check_operator
from spectral_conv.symbols import circulant_singular_values


@dataclass(frozen=True, kw_only=True)
class ClippedKernel:
    """A kernel whose circular singular values were brought into an interval.

    Attributes
    ----------
    kernel : ndarray
        HWIO, float64, shaped like the one given.
    smallest, largest : float
        Of all singular values of the circular layer on the grid; exact to rounding.
    distance : float
        Frobenius norm of the change of the kernel.
    iterations : int
        Rounds of clipping and masking.
    """

    kernel: NDArray[np.float64]
    smallest: float
    largest: float
    distance: float
    iterations: int


def svcm(
    conv: ConvOperator,
    *,
    lower: float = 0.0,
    upper: float = 1.0,
    grid: int | Sequence[int] | None = None,
    atol: float = 1e-6,
    maxiter: int = 2000,
    on_failure: str = "raise",
) -> ClippedKernel:
    r"""Clip the circular singular values into an interval and cut back to the taps, in turn, until both hold.

    Parameters
    ----------
    conv : ConvOperator
        The layer; stride, dilation and groups are taken in.
    lower, upper : float
        The interval, 0 <= lower <= upper, upper > 0.
    grid : int or sequence of int, optional
        Size of the circulant, as in `circulant_singular_values`; default: the image of the layer. The taps must fit.
    atol : float
        Stop where all values lie in the interval widened by ``atol * upper`` on both sides.
    maxiter : int
        Rounds at most. With ``lower = 0`` some ten do; otherwise the kernels form no convex set, and near
        ``lower = upper`` thousands may not.
    on_failure : {"raise", "return"}
        What to do at `maxiter`.

    Returns
    -------
    ClippedKernel
        For circular padding its values are those of the layer. For zero padding they are an estimate; on a `grid` of
        the image size plus ``dilation * (k - 1)`` the largest one is an upper bound of the layer's. With
        ``lower = 0`` the distance is at most that of dividing the kernel by its largest value over `upper`.

    Raises
    ------
    IterationLimitError
        Not converged.
    NotApplicableError
        Reflect, replicate and wide circular padding, and grids smaller than the extent of the kernel.

    Notes
    -----
    1. The paper clips a few times during training and never to convergence.
    2. Alternating projections end in the intersection, near the start, but not always at its nearest point: seldom,
       the plainly rescaled kernel is nearer, and is then the result.
    3. Steps are extrapolated, which takes tens of times fewer rounds than plain alternation and ends a per cent or
       two farther away.

    References
    ----------
    H. Sedghi, V. Gupta, P. M. Long, "The singular values of convolutional layers", ICLR 2019, arXiv:1805.10408;
    Q. Li et al., arXiv:1911.00937, Section 4; the extrapolation: H. H. Bauschke, P. L. Combettes, S. G. Kruk,
    "Extrapolation algorithm for affine-convex feasibility problems", Numer. Algorithms 41 (2006) 239-274,
    doi:10.1007/s11075-005-9010-6.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> from spectral_conv import orthogonal
    >>> conv = spectral_conv.ConvOperator(np.diag([4.0, 0.5])[None, None], (4, 4), padding_mode="circular")
    >>> orthogonal.svcm(conv).kernel[0, 0].round(12)
    array([[1. , 0. ],
           [0. , 0.5]])
    """
    check_operator(conv)
    low, high = _checked_interval(lower, upper)
    checked_word("on_failure", on_failure, ("raise", "return"))
    slack = checked_tolerance("atol", atol) * high
    plan = TorusTaps.of(conv.geometry, grid)
    start = conv.kernel.astype(np.float64)
    plain = start.swapaxes(-1, -2) if conv.geometry.transposed else start
    with serial_blas():
        found, rounds = _alternated(plain, plan, low, high, slack, as_integer("maxiter", maxiter, minimum=0))
    kernel = np.ascontiguousarray(found.swapaxes(-1, -2) if conv.geometry.transposed else found)
    if low == 0.0:
        norm = float(circulant_singular_values(conv.with_kernel(start), grid).max())
        rescaled = start if norm <= high else start * (high / norm)
        if np.linalg.norm(rescaled - start) < np.linalg.norm(kernel - start):
            kernel = rescaled
    values = circulant_singular_values(conv.with_kernel(kernel), grid)
    result = ClippedKernel(
        kernel=kernel,
        smallest=float(values.min()),
        largest=float(values.max()),
        distance=float(np.linalg.norm(kernel - start)),
        iterations=rounds,
    )
    outside = max(low - result.smallest, result.largest - high)
    if outside > slack and on_failure == "raise":
        raise IterationLimitError(
            f"{rounds} rounds (`maxiter`={maxiter}) left singular values {outside:.1e} outside "
            f"[{low:.6g}, {high:.6g}], more than {slack:.1e}. Raise `maxiter` or `atol`, widen the interval, or pass "
            "on_failure='return'.",
            result,
        )
    return result


def _checked_interval(lower: float, upper: float) -> tuple[float, float]:
    if not 0.0 <= lower <= upper or not 0.0 < upper < math.inf:
        raise ValueError(
            f"`lower` and `upper` must satisfy 0 <= lower <= upper and 0 < upper < inf; got {lower!r} and {upper!r}."
        )
    return float(lower), float(upper)


def _alternated(
    plain: NDArray[np.float64], plan: TorusTaps, low: float, high: float, slack: float, maxiter: int
) -> tuple[NDArray[np.float64], int]:
    """Clip and mask until the values of what the mask left lie in the interval, or `maxiter` rounds are over."""
    axes = tuple(range(len(plan.sizes)))
    for rounds in range(maxiter + 1):
        left, values, right = np.linalg.svd(np.fft.rfftn(plan.spread(plain), axes=axes), full_matrices=False)
        if max(low - values.min(), values.max() - high) <= slack or rounds == maxiter:
            break
        change = (left * (np.clip(values, low, high) - values)[..., None, :]) @ right
        torus = np.fft.irfftn(change, s=plan.sizes, axes=axes)
        masked = plan.gathered(torus)
        size = float((masked**2).sum())
        if size == 0.0:  # no tap can help
            break
        # 3. The mask takes most of the change away. Stretched by this factor, what it leaves ends on the hyperplane
        # that clipping puts between kernel and interval: still no farther from any solution, if those are convex.
        plain = plain + float((torus**2).sum()) / size * masked
    return plain, rounds
