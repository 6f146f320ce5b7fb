"""Pictures of one layer's spectrum, and of all layers: Axes in, Axes out, and never the state of pyplot.

plot_extremes -- the exact ends of all layers, beside the FFT's
plot_values -- all values in order, the exact ends marked
plot_histogram -- how many values are where
plot_layer -- a picture of a layer by name, its numbers computed first
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spectral_conv.operator import ConvOperator
from spectral_conv.report.figures import (
    End,
    Spectrum,
    extreme_mode,
    frequency_map,
    layer_spectra,
)
from spectral_conv.report.plots import new_figure
from spectral_conv.report.plots_bounds import plot_bounds
from spectral_conv.report.plots_images import (
    EXACT,
    FFT,
    VALUE,
    draw_grid,
    plot_frequencies,
    plot_mode,
    short_numbers,
)
from spectral_conv.report.record import LayerReport, is_reached
from spectral_conv.report.text import exact_text
from spectral_conv.results import Enclosure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = (
    *("extremes", "values", "histogram", "bounds"),
    *(f"{end}_{what}" for end in ("largest", "smallest") for what in ("over_frequency", "signal", "input", "output")),
)
_LINEAR = 50.0  # up to this ratio of the ends the axis is linear
_ZERO = 1e-16  # what is less than this share of the largest value is drawn there: it is zero but for rounding


def plot_extremes(reports: Sequence[LayerReport], *, ax: Axes | None = None) -> Axes:
    """Draw the largest and smallest singular value of every layer, exact (filled) and by FFT (hollow).

    Parameters
    ----------
    reports : sequence of LayerReport
        Analysed layers; one without a value has no mark.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        Number of the layer, from 1, and singular value on a logarithmic axis; a bracket is a line from end to end.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> plot_extremes(inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).reports).get_xlabel()
    'layer'
    """
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        ax = new_figure(7.0, 3.6).add_subplot()
    ends = [
        (i, marker, getattr(report, end), None if report.circulant is None else report.circulant[side])
        for i, report in enumerate(reports, 1)
        for side, (end, marker) in enumerate((("sigma_max", "^"), ("sigma_min", "v")))
    ]
    found = [value.value for _, _, value, _ in ends if is_reached(value)] + [e for *_, e in ends if e is not None]
    floor = _ZERO * max([value for value in found if np.isfinite(value)], default=1.0) or _ZERO
    for number, marker, value, estimate in ends:
        if estimate is not None:
            look: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": FFT, "markersize": 6.5}
            ax.plot(number, max(estimate, floor), marker, **look)
        if is_reached(value):
            ax.plot(number, max(value.value, floor), marker, color=EXACT, markersize=4.5)
        elif value is not None and np.isfinite(value.upper):
            ax.plot([number, number], [max(value.lower, floor), max(value.upper, floor)], color=EXACT)
    ax.set_yscale("log")
    short_numbers(ax.yaxis)
    ax.set(xlabel="layer", ylabel=VALUE, xlim=(0.4, len(reports) + 0.6))
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    draw_grid(ax)
    _legend(
        ax,
        [
            ("largest, exact", "^", EXACT, EXACT),
            ("smallest, exact", "v", EXACT, EXACT),
            ("largest, by FFT", "^", "none", FFT),
            ("smallest, by FFT", "v", "none", FFT),
        ],
    )
    return ax


def plot_values(
    report: LayerReport, circulant: Spectrum | None, exact: Spectrum | None = None, *, ax: Axes | None = None
) -> Axes:
    """Draw the singular values in order: the FFT's, the exact ones where they are known, and the exact ends.

    Parameters
    ----------
    report : LayerReport
        The layer, for the exact ends.
    circulant, exact : Spectrum or None
        All values of the circular layer, and of the layer itself.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        Place in the order, from 1, and singular value; logarithmic where the values differ by more than 50 times.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> from spectral_conv.report.figures import exact_spectrum
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> plot_values(inspect_model([conv]).reports[0], None, exact_spectrum(conv)).get_ylabel()
    'singular value (dimensionless)'
    """
    if ax is None:
        ax = new_figure(5.0, 3.4).add_subplot()
    spectra = [spectrum for spectrum in (circulant, exact) if spectrum is not None]
    ends = _ends(report)
    values = np.concatenate([*(spectrum.values for spectrum in spectra), [end.value for _, end in ends]])
    top = float(values.max(initial=0.0))
    floor = _ZERO * top
    logarithmic = top > _LINEAR * float(values.min(initial=np.inf))
    if circulant is not None:
        ax.plot(circulant.ranks, np.maximum(circulant.values, floor), color=FFT, linestyle="--", label="by FFT")
    if exact is not None:
        ax.plot(exact.ranks, np.maximum(exact.values, floor), color=EXACT, label="exact")
    for word, end in ends:
        place, marker = (1, "^") if word == "largest" else (_count(report), "v")
        label = f"{word}, exact: {exact_text(end, 5)}"
        ax.plot(place, max(end.value, floor), marker, color=EXACT, linestyle="", label=label, clip_on=False)
    ax.set(xlabel="place in the order, the largest first", ylabel=VALUE)
    _scale(ax, logarithmic=logarithmic)
    draw_grid(ax)
    _place_legend(ax)
    return ax


def plot_histogram(
    report: LayerReport, circulant: Spectrum | None, exact: Spectrum | None = None, *, ax: Axes | None = None
) -> Axes:
    """Draw how the singular values are spread: shares of the FFT's values, of the exact ones, and the exact ends.

    Parameters
    ----------
    report : LayerReport
        The layer, for the exact ends.
    circulant, exact : Spectrum or None
        All values of the circular layer, and of the layer itself.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        Singular value, and share of all values in each of 40 bins, in percent.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> from spectral_conv.report.figures import exact_spectrum
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> plot_histogram(inspect_model([conv]).reports[0], None, exact_spectrum(conv)).get_xlabel()
    'singular value (dimensionless)'
    """
    if ax is None:
        ax = new_figure(5.0, 3.4).add_subplot()
    if circulant is not None:
        ax.stairs(100.0 * circulant.shares, circulant.edges, color=FFT, linestyle="--", label="by FFT")
    if exact is not None:
        ax.stairs(100.0 * exact.shares, exact.edges, color=EXACT, label="exact")
    for word, end in _ends(report):
        marker = "^" if word == "largest" else "v"
        ax.plot(end.value, 0.0, marker, color=EXACT, linestyle="", label=f"{word}, exact", clip_on=False)
    ax.set(xlabel=VALUE, ylabel="share of all values (%)")
    short_numbers(ax.xaxis)
    ax.set_ylim(bottom=0.0)
    draw_grid(ax)
    _place_legend(ax)
    return ax


def plot_layer(
    kind: str, report: LayerReport, conv: ConvOperator, *, memory_limit: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw one of the figures of a layer.

    Parameters
    ----------
    kind : str
        One of `KINDS` but "extremes".
    report : LayerReport
        What is known of the layer.
    conv : ConvOperator
        The layer.
    memory_limit : float, optional
        Bytes that the vectors may take.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        With labels and units.

    Raises
    ------
    ValueError
        The figure does not apply; the message says why.

    Examples
    --------
    >>> from spectral_conv import inspect_model
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> plot_layer("largest_output", inspect_model([conv]).reports[0], conv).get_title()
    'output, all channels'
    """
    if kind == "bounds":
        if report.bounds is None:
            raise ValueError(f"There are no bounds: {report.bounds_reason}. Pass bounds=True to inspect_model.")
        return plot_bounds(report.bounds, ax=ax)
    if kind in ("values", "histogram"):
        circulant, exact, reasons = layer_spectra(conv)
        if circulant is None and exact is None:
            raise ValueError(f"There are no values to draw: {' '.join(reasons.values())}")
        draw = plot_values if kind == "values" else plot_histogram
        return draw(report, circulant, exact, ax=ax)
    end: End = "largest" if kind.startswith("largest") else "smallest"
    part = kind.partition("_")[2]
    if part == "over_frequency":
        return plot_frequencies(frequency_map(conv), end, ax=ax)
    return plot_mode(extreme_mode(conv, end, memory_limit), part, ax=ax)


def _count(report: LayerReport) -> int:
    """Number of singular values of the layer."""
    return min(math.prod(report.input_shape), math.prod(report.output_shape))


def _ends(report: LayerReport) -> list[tuple[str, Enclosure]]:
    ends = (("largest", report.sigma_max), ("smallest", report.sigma_min))
    return [(word, end) for word, end in ends if end is not None and is_reached(end)]


def _scale(ax: Axes, *, logarithmic: bool) -> None:
    if logarithmic:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0.0)
    short_numbers(ax.yaxis)


def _place_legend(ax: Axes, **options: Any) -> None:
    """Above the axes, where it covers nothing."""
    narrow = {"handlelength": 1.6, "columnspacing": 1.2, "borderaxespad": 0.2}
    ax.legend(
        ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small", **narrow, **options
    )


def _legend(ax: Axes, marks: Sequence[tuple[str, str, str, str]]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=marker, markerfacecolor=face, markeredgecolor=edge, linestyle="", label=label)
        for label, marker, face, edge in marks
    ]
    _place_legend(ax, handles=handles)
