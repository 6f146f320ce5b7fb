"""What the figures of one layer are drawn from: small arrays, computed when a figure or a page is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.results import NotApplicableError
from spectral_conv.spectrum import singular_triplets, singular_values
from spectral_conv.symbols import circulant_singular_values

Real = NDArray[np.floating]
End = Literal["largest", "smallest"]
Found = TypeVar("Found")
BINS = 40
_POINTS = 240  # of a curve of sorted values
_MOST_PIXELS = 64  # per axis of an image
_FINE_GRID, _FINE_ENTRIES = 32, 4096  # smaller grids are refined to this, where the symbol is small enough
_DENSE_ORDER = 1100  # up to here all exact values take well below a second
# The error of a vector is about that of its residual by the gap to the next value.
_RTOLS: dict[End, float] = {"largest": 1e-6, "smallest": 1e-9}


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Many singular values, thinned out for a curve and counted for a histogram.

    Attributes
    ----------
    ranks, values : (p,) ndarray
        Place of each value, 1 for the largest, and the value, descending; the ends are among them. Dimensionless.
    total : int
        Number of all values.
    edges, shares : (BINS + 1,), (BINS,) ndarray
        Bins from 0 to the largest value, and the share of all values in each.
    """

    ranks: NDArray[np.integer]
    values: Real
    total: int
    edges: Real
    shares: Real

    @classmethod
    def of(cls, values: Real) -> Spectrum:
        """Thin out and count.

        Examples
        --------
        >>> Spectrum.of(np.array([1.0, 3.0, 2.0])).values
        array([3., 2., 1.])
        """
        falling = np.sort(values, axis=None)[::-1]
        steps = np.linspace(0, falling.size - 1, _POINTS)
        # Near the ends the curve is steepest: their values one by one.
        tails = [np.arange(min(12, falling.size)), falling.size - 1 - np.arange(min(12, falling.size))]
        places = np.unique(np.concatenate([steps.round().astype(np.int64), *tails]))
        top = float(falling[0]) or 1.0
        counts, edges = np.histogram(falling, BINS, (0.0, top))
        return cls(
            ranks=places + 1,
            values=falling[places],
            total=falling.size,
            edges=edges,
            shares=counts / falling.size,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FrequencyMap:
    """Largest and smallest singular value of the symbol over the frequency, zero frequency in the middle.

    Attributes
    ----------
    largest, smallest : ndarray
        Over one or two axes, from -pi to pi; dimensionless. Blocks of a large grid give their largest (smallest)
        value, and so does the first axis of a layer with three.
    stride : int
        The product of the strides; above 1 frequencies are counted per output pixel.
    folded : bool
        Whether the first of three axes was left out.
    """

    largest: Real
    smallest: Real
    stride: int
    folded: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Mode:
    """A pair of singular vectors as images, over one or two axes, of at most 64 pixels each.

    Attributes
    ----------
    value : float
        Its singular value.
    channel : int
        The channel of the input vector with the greatest norm.
    signal : ndarray
        The input vector in that channel; where pixels are joined, the entry of the greatest size.
    input, output : ndarray
        Root of the sum of squares over all channels.
    slices : tuple of int or None
        For three axes: which slice of input and output is shown, that of the greatest norm.
    """

    value: float
    channel: int
    signal: Real
    input: Real
    output: Real
    slices: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerFigures:
    """The arrays of one layer's figures; what there is none of has a reason.

    Attributes
    ----------
    circulant, exact : Spectrum or None
        All values of the circular layer, as the FFT gives them, and of the layer itself where it is small.
    frequencies : FrequencyMap or None
        Of the symbol.
    largest, smallest : Mode or None
        The singular vectors of the layer itself.
    reasons : dict
        Why something is missing, by the names above.

    Examples
    --------
    >>> figures = layer_figures(ConvOperator([[[[2.0]]]], (4, 4)))
    >>> figures.exact.total, figures.largest.value, figures.reasons
    (16, 2.0, {})
    """

    circulant: Spectrum | None
    exact: Spectrum | None
    frequencies: FrequencyMap | None
    largest: Mode | None
    smallest: Mode | None
    reasons: dict[str, str]


def layer_figures(conv: ConvOperator, *, memory_limit: float | None = None, smallest: bool = True) -> LayerFigures:
    """Compute the arrays of all figures of a layer; about the time of its extreme values once more.

    Parameters
    ----------
    conv : ConvOperator
        The layer.
    memory_limit : float, optional
        Bytes that the vectors may take.
    smallest : bool
        Whether the vectors of the smallest value are wanted, which are the dearest.

    Returns
    -------
    LayerFigures
        What a limit or the geometry forbids is None, with the reason.
    """
    circulant, exact, reasons = layer_spectra(conv)
    frequencies = _attempt(reasons, "frequencies", lambda: frequency_map(conv))
    largest = _attempt(reasons, "largest", lambda: extreme_mode(conv, "largest", memory_limit))
    least = None
    if smallest:
        least = _attempt(reasons, "smallest", lambda: extreme_mode(conv, "smallest", memory_limit))
    return LayerFigures(
        circulant=circulant,
        exact=exact,
        frequencies=frequencies,
        largest=largest,
        smallest=least,
        reasons=reasons,
    )


def layer_spectra(conv: ConvOperator) -> tuple[Spectrum | None, Spectrum | None, dict[str, str]]:
    """All values of the circular layer and of the layer itself, as far as there are any, and why not.

    Examples
    --------
    >>> circulant, exact, reasons = layer_spectra(ConvOperator([[[[2.0]]]], (4, 4), padding_mode="reflect"))
    >>> circulant is None, exact.total, list(reasons)
    (True, 16, ['circulant'])
    """
    reasons: dict[str, str] = {}
    circulant = _attempt(reasons, "circulant", lambda: Spectrum.of(circulant_singular_values(conv)))
    return circulant, _attempt(reasons, "exact", lambda: exact_spectrum(conv)), reasons


def _attempt(reasons: dict[str, str], name: str, compute: Callable[[], Found]) -> Found | None:
    # A limit or a geometry that forbids one figure leaves the others; a mistake in this package is raised.
    try:
        return compute()
    except (ValueError, RuntimeError, ArithmeticError, MemoryError, OSError) as error:
        reasons[name] = str(error) or type(error).__name__
        return None


def exact_spectrum(conv: ConvOperator) -> Spectrum:
    """All singular values of a small layer.

    Raises
    ------
    ValueError
        The layer is too large for that.

    Examples
    --------
    >>> exact_spectrum(ConvOperator([[[[2.0]]]], (3, 3))).total
    9
    """
    if max(conv.shape) > _DENSE_ORDER:
        raise ValueError(
            f"All exact values are shown for matrices of up to {_DENSE_ORDER} rows and columns; this one is "
            f"{conv.shape[0]} x {conv.shape[1]}."
        )
    return Spectrum.of(singular_values(conv))


def frequency_map(conv: ConvOperator) -> FrequencyMap:
    """Largest and smallest singular value of the symbol over the frequency.

    Raises
    ------
    NotApplicableError
        The layer has no symbol, or one frequency only.

    Examples
    --------
    >>> frequency_map(ConvOperator([[[[2.0]]]], (4, 4))).largest.shape
    (32, 32)
    """
    geometry = conv.geometry
    coarse = [-(-axis.inputs // axis.stride) for axis in geometry.axes]
    if len(coarse) == 2 and geometry.in_channels * geometry.out_channels <= _FINE_ENTRIES:
        coarse = [max(n, _FINE_GRID) for n in coarse]
    if max(coarse) == 1:
        raise NotApplicableError("The layer sees a single pixel: there is one frequency only.")
    values = circulant_singular_values(conv, [n * s for n, s in zip(coarse, geometry.stride, strict=True)])
    folded = geometry.ndim == 3
    largest, smallest = values[..., 0], values[..., -1]
    if folded:
        largest, smallest = largest.max(axis=0), smallest.min(axis=0)
    return FrequencyMap(
        largest=_joined(np.fft.fftshift(largest), np.max),
        smallest=_joined(np.fft.fftshift(smallest), np.min),
        stride=math.prod(geometry.stride),
        folded=folded,
    )


def extreme_mode(conv: ConvOperator, end: End, memory_limit: float | None = None) -> Mode:
    """Singular vectors of the largest or smallest value as images.

    Raises
    ------
    MemoryLimitError, CostLimitError, NotConvergedError
        As of `spectral_conv.singular_triplets`.

    Examples
    --------
    >>> extreme_mode(ConvOperator([[[[2.0]]]], (4, 4)), "largest").value
    2.0
    """
    triplets = singular_triplets(conv, 1, end, rtol=_RTOLS[end], memory_limit=memory_limit)
    right, left = triplets.right[0], triplets.left[0]
    channel = int(np.argmax([np.linalg.norm(image) for image in right]))
    signal, before, after = right[channel], np.linalg.norm(right, axis=0), np.linalg.norm(left, axis=0)
    slices = None
    if signal.ndim == 3:
        slices = (_strongest(before), _strongest(after))
        signal, before, after = signal[slices[0]], before[slices[0]], after[slices[1]]
    # A vector is known up to its sign: the entry of the greatest size is shown as positive.
    flat = signal.ravel()
    sign = -1.0 if flat[np.argmax(np.abs(flat))] < 0.0 else 1.0
    return Mode(
        value=float(triplets.values[0]),
        channel=channel,
        signal=_joined(sign * signal, _outermost),
        input=_joined(before, np.max),
        output=_joined(after, np.max),
        slices=slices,
    )


def _strongest(volume: Real) -> int:
    return int(np.argmax([np.linalg.norm(part) for part in volume]))


def _outermost(values: Real, axis: int) -> Real:
    high, low = values.max(axis=axis), values.min(axis=axis)
    return np.where(high >= -low, high, low)


def _joined(image: Real, join: Callable[..., Real]) -> Real:
    """Join pixels to blocks, so that no axis has more than 64."""
    for axis, size in enumerate(image.shape):
        block = -(-size // _MOST_PIXELS)
        if block > 1:
            starts = range(0, size, block)
            parts = [join(np.take(image, range(i, min(i + block, size)), axis=axis), axis=axis) for i in starts]
            image = np.stack(parts, axis=axis)
    return image
