"""Pictures over frequencies and pixels: Axes in, Axes out, and never the state of pyplot.

plot_frequencies -- the symbol's largest or smallest value over the frequency
plot_mode -- a singular vector
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spectral_conv.report.figures import End, FrequencyMap, Mode
from spectral_conv.report.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colorbar import Colorbar

EXACT, FFT = "#b3410e", "#1d4ed8"  # the page puts colours of its own for dark screens in their place
_PLAIN = (-3, 5)  # powers of ten outside of this stand above the axis, once
VALUE = "singular value (dimensionless)"


def plot_frequencies(found: FrequencyMap, end: End = "largest", *, ax: Axes | None = None) -> Axes:
    """Draw the symbol's largest or smallest singular value over the frequency.

    Parameters
    ----------
    found : FrequencyMap
        The values.
    end : {"largest", "smallest"}
        Which of them.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        An image with its scale for two axes, a line for one; frequencies in radians per pixel.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> from spectral_conv.report.figures import frequency_map
    >>> plot_frequencies(frequency_map(ConvOperator([[[[2.0]]]], (4, 4)))).get_xlabel()
    'horizontal frequency (radians per pixel)'
    """
    if ax is None:
        ax = new_figure(4.4, 3.6).add_subplot()
    values = found.largest if end == "largest" else found.smallest
    unit = "(radians per pixel)" if found.stride == 1 else "(radians per output pixel)"
    ticks, labels = [-np.pi, 0.0, np.pi], ["−π", "0", "π"]
    ax.set_xticks(ticks, labels)
    if values.ndim == 1:
        ax.plot(_frequencies(len(values)), values, color=FFT)
        ax.set(xlabel=f"frequency {unit}", ylabel=VALUE)
        ax.set_ylim(bottom=0.0)
        ax.set_xlim(-np.pi, np.pi)
        short_numbers(ax.yaxis)
        draw_grid(ax)
        return ax
    axes = ("vertical", "horizontal")
    reach = (-np.pi, np.pi, np.pi, -np.pi)
    _image(ax, values, "viridis", VALUE, extent=reach, aspect="auto", vmin=0.0)
    ax.set_yticks(ticks, labels)
    ax.set(xlabel=f"{axes[1]} frequency {unit}", ylabel=f"{axes[0]} frequency")
    return ax


def plot_mode(mode: Mode, part: str = "signal", *, ax: Axes | None = None) -> Axes:
    """Draw a singular vector.

    Parameters
    ----------
    mode : Mode
        The pair of vectors.
    part : {"signal", "input", "output"}
        The input in its strongest channel with its sign, or input or output as the root of the sum of squares over
        all channels.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        An image over the pixels with its scale, or a line for one axis. The vectors have norm 1.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> from spectral_conv.report.figures import extreme_mode
    >>> plot_mode(extreme_mode(ConvOperator([[[[2.0]]]], (4, 4)), "largest")).get_title()
    'input, channel 0'
    """
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        ax = new_figure(4.0, 3.4).add_subplot()
    values = getattr(mode, part)
    title = {
        "signal": f"input, channel {mode.channel}",
        "input": "input, all channels",
        "output": "output, all channels",
    }
    ax.set_title(title[part], fontsize="medium")
    label = "entry (norm 1)" if part == "signal" else "size (norm 1)"
    if values.ndim == 1:
        ax.plot(values, color=EXACT)
        ax.set(xlabel="position (pixels)", ylabel=label)
        draw_grid(ax)
        _small(ax.xaxis, ax.yaxis)
        return ax
    most = float(np.abs(values).max()) or 1.0
    colours, least = ("RdBu_r", -most) if part == "signal" else ("viridis", 0.0)
    bar = _image(ax, values, colours, label, vmin=least, vmax=most)
    ax.set(xlabel="column (pixels)", ylabel="row (pixels)")
    bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    _small(ax.xaxis, ax.yaxis, bar.ax.yaxis)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True))
    return ax


def draw_grid(ax: Axes) -> None:
    """Draw a faint grid behind what is drawn, and no frame above and on the right.

    Examples
    --------
    >>> ax = new_figure(2.0, 1.0).add_subplot()
    >>> draw_grid(ax)
    >>> ax.spines["top"].get_visible()
    False
    """
    ax.grid(alpha=0.35, linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def short_numbers(axis: Axis) -> None:
    """Write ticks as 2e-5 and 0.02: short, for their place is narrow, and plain, for a page has no font for formulas.

    Examples
    --------
    >>> axis = new_figure(2.0, 1.0).add_subplot().yaxis
    >>> short_numbers(axis)
    >>> [axis.get_major_formatter()(value) for value in (2e-5, 0.02, 300.0, 2.5e7, 0.0)]
    ['2e-5', '0.02', '300', '2.5e7', '0']
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    def written(value: float, _: object = None) -> str:
        if value == 0.0 or 1e-3 <= abs(value) < 1e5:
            return f"{value:g}"
        digits, power = f"{value:.3e}".split("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"

    axis.set_major_formatter(FuncFormatter(written))
    axis.set_minor_formatter(NullFormatter())


def _image(ax: Axes, values: Any, colours: str, label: str, **options: Any) -> Colorbar:
    image = ax.imshow(values, cmap=colours, interpolation="none", **options)
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, label=label)
    assert bar.solids is not None
    bar.solids.set_rasterized(True)  # one small picture in place of 256 shapes
    bar.ax.ticklabel_format(axis="y", scilimits=_PLAIN)
    return bar


def _small(*axes: Axis) -> None:
    for axis in axes:
        axis.label.set_fontsize("small")
        axis.set_tick_params(labelsize="small")


def _frequencies(count: int) -> Any:
    return 2.0 * np.pi * (np.arange(count) - count // 2) / count
