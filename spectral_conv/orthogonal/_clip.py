"""The nearest kernel whose layer stretches nothing by more than a given factor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.geometry import as_integer
from spectral_conv.operator import ConvOperator
from spectral_conv.orthogonal._admm import Iterate, first_iterate, least_distance, nearest
from spectral_conv.orthogonal._checks import checked_tolerance
from spectral_conv.orthogonal._operator_ball import operator_ball
from spectral_conv.orthogonal._raise_smallest import raised
from spectral_conv.orthogonal._symbol_ball import symbol_ball
from spectral_conv.results import Enclosure
from spectral_conv.spectrum import smallest_singular_value, spectral_norm
from spectral_conv.spectrum.checks import check_operator

# Dense matrices of all groups may take so many operations per decomposition, up to a small factor; rounds of matching
# the level to the exact norm, and how well they match it.
_MOST_FLOPS, _LEVELS, _MATCH = 3e7, 6, 1e-5


@dataclass(frozen=True, kw_only=True)
class ClippedLayer:
    """A layer whose exact norm was brought down, or also its smallest value up.

    Attributes
    ----------
    operator : ConvOperator
        The layer with its new kernel, in the dtype of the old one.
    norm : Enclosure
        Its largest singular value; ``norm.upper <= maximum``.
    smallest : Enclosure or None
        Its smallest singular value, if `minimum` was given: what the heuristic reached.
    distance : float
        Frobenius norm of the change of the kernel.
    least_distance : float
        No kernel whose layer has norm `maximum` at most is nearer than this, by duality. (With `minimum` the distance
        may have to be larger.)
    iterations : int
        Of the alternating direction method of multipliers.
    """

    operator: ConvOperator
    norm: Enclosure
    smallest: Enclosure | None
    distance: float
    least_distance: float
    iterations: int

    @property
    def gap(self) -> float:
        """How much farther than necessary the kernel may have moved, relative to the distance."""
        return 1.0 - self.least_distance / self.distance if self.distance > 0.0 else 0.0


def clip(
    conv: ConvOperator, maximum: float, minimum: float | None = None, *, rtol: float = 1e-4, maxiter: int = 1000
) -> ClippedLayer:
    r"""Nearest kernel of the same shape whose layer, with its padding and size, has norm `maximum` at most.

    ``min ||X - K||_F`` over all kernels X with ``||M(X)|| <= maximum``: the norm ball meets the space of
    convolutions, a convex problem. It is solved by ADMM. Small layers (up to 300 rows and columns, or many small
    groups) are clipped as the dense matrices that they are. For larger ones the ball is that of the symbol on a grid
    of some six frequencies per tap and axis, whose level is matched to the exact norm; what this may cost is known
    from the dual problem, in which windowed waves stand for vectors of the layer: see ``ClippedLayer.gap``, some per
    cent for images of ten pixels and per mille for larger ones.

    Parameters
    ----------
    conv : ConvOperator
        Any layer.
    maximum : float
        Positive.
    minimum : float, optional
        Raise smallest singular values towards it, too, by Newton steps along their gradients, alternating with the
        projection. A local heuristic: these kernels form no convex set, and for square layers with zero padding whose
        border carries the smallest values it usually gets nowhere. `ClippedLayer.smallest` says what was reached.
    rtol : float
        Residuals of ADMM, relative to the kernel.
    maxiter : int
        Its iterations at most (per level). Where they run out the kernel is feasible all the same, and the gap wider.

    Returns
    -------
    ClippedLayer
        ``norm.upper <= maximum`` in the dtype of the kernel, with the basis that `norm` states: "certified" or a
        theorem where affordable, else "residual". Never farther from the start than the plainly rescaled kernel. A
        layer that is small enough is returned as it is.

    Raises
    ------
    ValueError
        A parameter that does not fit.

    References
    ----------
    H. Sedghi, V. Gupta, P. M. Long, "The singular values of convolutional layers", ICLR 2019, arXiv:1805.10408, clip
    those of the circular layer once; the algorithm and the duality are ours.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> from spectral_conv import orthogonal
    >>> conv = spectral_conv.ConvOperator(np.diag([4.0, 0.5])[None, None], (4, 4))
    >>> clipped = orthogonal.clip(conv, 1.0)
    >>> clipped.operator.kernel[0, 0].round(4), clipped.norm.upper <= 1.0
    (array([[1. , 0. ],
           [0. , 0.5]]), True)
    """
    check_operator(conv)
    maximum, minimum = _checked_interval(maximum, minimum)
    rtol, maxiter = checked_tolerance("rtol", rtol), as_integer("maxiter", maxiter, minimum=1)
    # A power of two brings the weights to order one, and changes no digit.
    exponent = int(np.frexp(np.abs(conv.kernel).max())[1])
    start = np.ldexp(conv.kernel.astype(np.float64), -exponent)
    limit = math.ldexp(maximum, -exponent) if maximum < math.ldexp(1.0, min(exponent + 900, 1023)) else math.inf
    first = _enclosed(conv, start)
    with serial_blas():
        kernel, least, iterations = _projected(conv, start, first, limit, rtol, maxiter)
    if minimum is not None:
        kernel = raised(
            conv,
            kernel,
            math.ldexp(minimum, -exponent),
            lambda x: _projected(conv, x, _enclosed(conv, x), limit, rtol, maxiter)[0],
        )
    if minimum is None and first.upper > limit:
        rescaled = start * (limit / first.upper)
        if np.linalg.norm(rescaled - start) < np.linalg.norm(kernel - start):
            kernel = rescaled
    safe, norm = _made_safe(conv, np.ldexp(kernel, exponent), maximum)
    change = np.ldexp(safe.kernel.astype(np.float64), -exponent) - start
    return ClippedLayer(
        operator=safe,
        norm=norm,
        smallest=None if minimum is None else smallest_singular_value(_wide(safe)),
        distance=math.ldexp(float(np.linalg.norm(change)), exponent),
        least_distance=math.ldexp(least, exponent),
        iterations=iterations,
    )


def _checked_interval(maximum: float, minimum: float | None) -> tuple[float, float | None]:
    if isinstance(maximum, bool) or not 0.0 < maximum < math.inf:
        raise ValueError(f"`maximum` must be positive and finite; got {maximum!r}.")
    if minimum is None:
        return float(maximum), None
    if isinstance(minimum, bool) or not 0.0 <= minimum <= maximum:
        raise ValueError(f"`minimum` must lie between 0 and `maximum`={maximum!r}; got {minimum!r}.")
    return float(maximum), float(minimum)


def _wide(conv: ConvOperator) -> ConvOperator:
    return conv if conv.dtype == np.float64 else conv.with_kernel(conv.kernel.astype(np.float64))


def _enclosed(conv: ConvOperator, kernel: NDArray[np.float64], rtol: float = 1e-6) -> Enclosure:
    return spectral_norm(conv.with_kernel(kernel), rtol=rtol)


def _projected(
    conv: ConvOperator, start: NDArray[np.float64], norm: Enclosure, maximum: float, rtol: float, maxiter: int
) -> tuple[NDArray[np.float64], float, int]:
    """A kernel of norm `maximum`, nearly, the least distance and the iterations."""
    if norm.upper <= maximum:
        return start, 0.0, 0
    groups = conv.geometry.groups
    if math.prod(conv.shape) * min(conv.shape) / groups**2 <= _MOST_FLOPS:
        parts = [_dense_part(part, maximum, rtol, maxiter) for part in conv.with_kernel(start).split_groups()]
        axis = -2 if conv.geometry.transposed else -1
        kernel = np.concatenate([kernel for kernel, _, _ in parts], axis=axis)
        least = math.sqrt(sum(distance**2 for _, distance, _ in parts))
        return kernel, least, sum(count for _, _, count in parts)
    return _by_symbol(conv, start, norm, maximum, rtol, maxiter)


def _dense_part(
    conv: ConvOperator, maximum: float, rtol: float, maxiter: int
) -> tuple[NDArray[np.float64], float, int]:
    ball, start = operator_ball(conv), _plain(conv, conv.kernel)
    found = nearest(start, ball, maximum, first_iterate(start, ball, maximum), rtol=rtol, maxiter=maxiter)
    return _plain(conv, found.kernel), least_distance(start, ball, maximum, found), found.iterations


def _by_symbol(
    conv: ConvOperator, start: NDArray[np.float64], norm: Enclosure, maximum: float, rtol: float, maxiter: int
) -> tuple[NDArray[np.float64], float, int]:
    """Lower or raise the level of the symbol's ball until the exact norm is the wanted one."""
    ball, plain = symbol_ball(conv), _plain(conv, start)
    level, least, best = maximum, 0.0, start * (maximum / norm.value)
    at: Iterate = first_iterate(plain, ball, level)
    for _ in range(_LEVELS):
        at = nearest(plain, ball, level, at, rtol=rtol, maxiter=maxiter)
        least = max(least, least_distance(plain, ball, maximum, at))
        kernel = _plain(conv, at.kernel)
        ratio = _enclosed(conv, kernel).value / maximum
        # The norm is convex: on the segment to the start it is at most the chord.
        share = (1.0 - ratio) / (norm.value / maximum - ratio) if ratio < 1.0 else 0.0
        feasible = kernel / ratio if ratio > 1.0 else kernel + share * (start - kernel)
        if np.linalg.norm(feasible - start) < np.linalg.norm(best - start):
            best = feasible
        if abs(ratio - 1.0) <= _MATCH:
            break
        level = min(level / ratio, norm.value)
    return best, least, at.iterations


def _plain(conv: ConvOperator, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between the kernel of the layer and that of the plain convolution; the way back is the same."""
    return np.ascontiguousarray(kernel.swapaxes(-1, -2) if conv.geometry.transposed else kernel)


def _made_safe(conv: ConvOperator, kernel: NDArray[np.float64], maximum: float) -> tuple[ConvOperator, Enclosure]:
    """Shrink the kernel, in the dtype of the layer, until the upper end of its norm is at most `maximum`."""
    while True:
        layer = conv.with_kernel(kernel.astype(conv.dtype))
        norm = spectral_norm(_wide(layer), rtol=1e-8)
        if norm.upper <= maximum and not norm.basis.startswith("residual"):
            return layer, norm
        if norm.basis.startswith("residual") and norm.value <= maximum * 1.01:
            proved = spectral_norm(_wide(layer), certify=True)
            norm = norm if proved.method == "bracket" else proved
        if norm.upper <= maximum:
            return layer, norm
        # Half a unit of the dtype more, lest rounding undoes it.
        kernel = kernel * (maximum / norm.upper) * (1.0 - 0.5 * float(np.finfo(conv.dtype).eps))
