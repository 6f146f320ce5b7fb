"""One layer: its exact extreme singular values beside what the FFT says, and what that will cost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from spectral_conv import bounds as bounding
from spectral_conv.models import ConvLayer
from spectral_conv.operator import ConvOperator
from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.results import BoundTable, Enclosure, StopReason
from spectral_conv.spectrum import smallest_singular_value, spectral_norm
from spectral_conv.spectrum.checks import memory_or_half
from spectral_conv.spectrum.cost import Cost, predicted_cost
from spectral_conv.spectrum.extremes import bracket
from spectral_conv.spectrum.triplets import Which
from spectral_conv.symbols import circulant_singular_values

Result = TypeVar("Result")
TIGHTEST_SMALLEST = 1e-9  # the smallest value is wanted at least this well, in units of the largest

# What a layer may fail with and still be listed: a limit, no convergence, an overflow. Anything else is a
# mistake in this package and is raised.
FAILURES = (ValueError, RuntimeError, ArithmeticError, MemoryError, OSError)
OUT_OF_MEMORY = "Out of memory"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is computed for every layer, and how well.

    Attributes
    ----------
    rtol : float
        Wanted error of the largest singular value, relative to it.
    smallest : bool
        Whether the smallest singular value is wanted too.
    memory_limit : float or None
        Bytes that one layer may take; None for the package's own limit.
    certify : bool
        Whether the enclosures are proved, rounding errors included.
    bounds : bool
        Whether every bound of the largest singular value is wanted beside it.
    """

    rtol: float = 1e-8
    smallest: bool = True
    memory_limit: float | None = None
    certify: bool = False
    bounds: bool = False


def analyze_layer(layer: ConvLayer, settings: Settings) -> LayerReport:
    """Analyse one layer: a pure function of picklable arguments, to be run anywhere.

    Parameters
    ----------
    layer : ConvLayer
        The layer; its weights are taken to float64.
    settings : Settings
        What is wanted.

    Returns
    -------
    LayerReport
        All that was found; a part that failed is None, with the reason beside it.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> from spectral_conv.models import ConvLayer
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> layer = ConvLayer(name="a", operator=conv, assumed=(), kernel_shape=(1, 1, 1, 1), layout="HWIO")
    >>> analyze_layer(layer, Settings()).sigma_min.value
    2.0
    """
    start = time.perf_counter()
    conv = in_double(layer.operator)
    limit, certify = settings.memory_limit, settings.certify
    largest, largest_reason = _attempt(
        lambda: spectral_norm(conv, rtol=settings.rtol, certify=certify, memory_limit=limit)
    )
    least: Enclosure | None = None
    least_reason: str | None = NOT_ASKED
    if settings.smallest:
        rtol = min(settings.rtol, TIGHTEST_SMALLEST)
        least, least_reason = _attempt(
            lambda: smallest_singular_value(conv, rtol=rtol, certify=certify, memory_limit=limit)
        )
    circulant, circulant_reason = _attempt(lambda: _circulant_ends(conv))
    table: BoundTable | None = None
    table_reason: str | None = NOT_ASKED
    if settings.bounds:
        table, table_reason = _attempt(lambda: bounding.table(conv, exact=largest or False))
    return layer_record(
        layer,
        sigma_max=largest,
        sigma_max_reason=largest_reason,
        sigma_min=least,
        sigma_min_reason=least_reason,
        circulant=circulant,
        circulant_reason=circulant_reason,
        bounds=table,
        bounds_reason=table_reason,
        seconds=time.perf_counter() - start,
    )


def bracket_layer(layer: ConvLayer, settings: Settings, seconds: float) -> LayerReport:
    """Say of a layer that reached its time limit what cheap means give: a rigorous bracket of either end.

    Parameters
    ----------
    layer : ConvLayer
        The layer.
    settings : Settings
        What was wanted.
    seconds : float
        The limit, for the record.

    Returns
    -------
    LayerReport
        With the method "bracket", a basis that names the limit, and the circulant values.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> from spectral_conv.models import ConvLayer
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> layer = ConvLayer(name="a", operator=conv, assumed=(), kernel_shape=(1, 1, 1, 1), layout="HWIO")
    >>> bracket_layer(layer, Settings(), 5.0).sigma_max.basis[-25:]
    'time limit of 5 s reached'
    """
    start = time.perf_counter()
    conv, memory = in_double(layer.operator), memory_or_half(settings.memory_limit)

    def attempt(which: Which) -> tuple[Enclosure | None, str | None]:
        found, reason = _attempt(lambda: bracket(conv, which, memory))
        if found is not None:
            basis = f"{found.basis}; time limit of {seconds:g} s reached"
            found = dataclasses.replace(found, basis=basis, stop_reason=StopReason.TIME_LIMIT)
        return found, reason

    largest, largest_reason = attempt("largest")
    least, least_reason = attempt("smallest") if settings.smallest else (None, NOT_ASKED)
    circulant, circulant_reason = _attempt(lambda: _circulant_ends(conv))
    return layer_record(
        layer,
        sigma_max=largest,
        sigma_max_reason=largest_reason,
        sigma_min=least,
        sigma_min_reason=least_reason,
        circulant=circulant,
        circulant_reason=circulant_reason,
        bounds_reason=f"The time limit of {seconds:g} s was reached: raise it." if settings.bounds else NOT_ASKED,
        seconds=time.perf_counter() - start,
    )


def failed_report(blank: LayerReport, settings: Settings, reason: str) -> LayerReport:
    """Return the record of a layer of which nothing is known, with the reason in every place that was asked for."""
    return dataclasses.replace(
        blank,
        sigma_max_reason=reason,
        sigma_min_reason=reason if settings.smallest else NOT_ASKED,
        circulant_reason=reason,
        bounds_reason=reason if settings.bounds else NOT_ASKED,
    )


def layer_cost(layer: ConvLayer, settings: Settings) -> Cost | None:
    """Predict what `analyze_layer` will take; None where the layer allows no prediction.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> layer = ConvLayer(name="a", operator=conv, assumed=(), kernel_shape=(1, 1, 1, 1), layout="HWIO")
    >>> layer_cost(layer, Settings()).seconds < 1.0
    True
    """
    limit = settings.memory_limit
    cost, _ = _attempt(
        lambda: predicted_cost(layer.operator, rtol=settings.rtol, smallest=settings.smallest, memory_limit=limit)
    )
    return cost


def _attempt(compute: Callable[[], Result]) -> tuple[Result | None, str | None]:
    try:
        return compute(), None
    except FAILURES as error:
        return None, reason_of(error)


def reason_of(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"{OUT_OF_MEMORY} ({error or 'no details'}): set a `memory_limit`, or use a smaller `input_size`."
    return str(error) or type(error).__name__


def _circulant_ends(conv: ConvOperator) -> tuple[float, float]:
    values = circulant_singular_values(conv)
    ends = float(values[..., 0].max()), float(values[..., -1].min())
    if not np.isfinite(ends).all():
        raise OverflowError("The circulant's singular values are beyond the range of numbers: scale the kernel.")
    return ends


def layer_record(layer: ConvLayer, **found: Any) -> LayerReport:
    """Return the record of a layer with its geometry, and what was `found` about it.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> layer = ConvLayer(name="a", operator=conv, assumed=(), kernel_shape=(1, 1, 1, 1), layout="HWIO")
    >>> layer_record(layer).output_shape
    (1, 4, 4)
    """
    geometry = layer.operator.geometry
    return LayerReport(
        name=layer.name,
        kernel_shape=tuple(layer.kernel_shape),
        layout=layer.layout,
        input_shape=(geometry.in_channels, *geometry.input_shape),
        output_shape=(geometry.out_channels, *geometry.output_shape),
        kernel_size=geometry.kernel_size,
        stride=geometry.stride,
        dilation=geometry.dilation,
        padding=geometry.padding,
        groups=geometry.groups,
        padding_mode=geometry.padding_mode,
        transposed=geometry.transposed,
        assumed=tuple(layer.assumed),
        folded=tuple(layer.folded),
        **found,
    )


def in_double(conv: ConvOperator) -> ConvOperator:
    return conv if conv.dtype == np.float64 else conv.with_kernel(conv.kernel.astype(np.float64))
