"""Pictures of a descent: Axes in, Axes out, and never the state of pyplot.

plot_descent -- the exact ends of the spectrum over the iterations
plot_circulant -- the circulant spectrum over the iterations, beneath the exact ends
draw_course -- both, in one figure
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_ENDS = {
    "sigma_max": (r"largest singular value $\sigma_{\max}$", "tab:blue", "largest"),
    "sigma_min": (r"smallest singular value $\sigma_{\min}$", "tab:red", "smallest"),
}
_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))
_PADDINGS = {"zeros": "zero-padded", "reflect": "reflection-padded", "replicate": "replication-padded"}
_BAND = 0.004  # error bounds narrower than this share of the axis are narrower than the line
_BINS = 60
_SMALL = 8.5  # points, for captions and legends


def plot_descent(
    histories: xr.Dataset | Mapping[str, xr.Dataset], *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Draw the exact largest (left axis, blue) and smallest singular value (right axis, red) over the iterations.

    Parameters
    ----------
    histories : Dataset or mapping of str to Dataset
        One run, or several by name, told apart by line style: ``Descent.history`` or ``SpectrumStore.open()``.
    figure : Figure or SubFigure, optional
        Where to draw; default: a new figure, not known to pyplot.

    Returns
    -------
    Figure or SubFigure
        With the axes of both ends, or of the one that was recorded; the caption below says which operator, penalty
        and step rule it is. Error bounds are a band where they are wider than the line.

    Raises
    ------
    ValueError
        No run, or a run that recorded neither end.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator, descend, plot_descent, regularizers
    >>> conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 3, 1)), (8, 8))
    >>> run = descend(conv, regularizers.OrthogonalityGap(), maxiter=2)
    >>> [axes.get_ylabel()[:8] for axes in plot_descent(run.history).axes]
    ['largest ', 'smallest']
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    runs = _named(histories)
    ends = [end for end in _ENDS if any(end in history for history in runs.values())]
    empty = [name for name, history in runs.items() if not any(end in history for end in _ENDS)]
    if empty or not runs:
        which = f"; {', '.join(map(repr, empty))} has neither" if empty != [""] else ""
        raise ValueError(
            f"`histories` must hold runs with `sigma_max` or `sigma_min`; got {len(runs)} runs{which}. Pass track= "
            "to descend."
        )
    if figure is None:
        figure = new_figure(7.0, 4.0 + 0.4 * len(runs))  # each run has its lines in legend and caption
    if isinstance(figure, Figure) and not figure.axes and figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")  # makes room for legend and caption
    first = figure.add_subplot()
    panels = dict(zip(ends, [first, first.twinx()] if len(ends) == 2 else [first], strict=True))
    handles = []
    for end, ax in panels.items():
        label, colour, word = _ENDS[end]
        for style, history in zip(_styles(len(runs)), runs.values(), strict=True):
            if end in history:
                _line(ax, history, end, color=colour, linestyle=style)
        _start_at_zero(ax)
        ax.set_ylabel(f"{label} (dimensionless)", color=colour)
        ax.tick_params(axis="y", colors=colour)
        side = (" (left axis)", " (right axis)")[list(panels).index(end)] if len(panels) == 2 else ""
        handles.append(Line2D([], [], color=colour, label=f"{word}{side}"))
    first.set_xlabel("iteration")
    _whole_numbers(first)
    first.grid(alpha=0.3)
    if len(runs) > 1:
        styles = zip(_styles(len(runs)), runs, strict=True)
        handles += [Line2D([], [], color="black", linestyle=style, label=name) for style, name in styles]
    _legend_above(first, handles)
    _caption_below(figure, _caption(runs))
    return figure


def plot_circulant(history: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how the circulant spectrum moves: singular value over iteration, shaded by the share of values.

    Parameters
    ----------
    history : Dataset
        A run that recorded circulant spectra: ``Descent.history`` or ``SpectrumStore.open()``.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        A column for each iteration whose spectrum was computed, over all frequencies and ranks: an **estimate** of
        the layer's spectrum unless padding is circular, and the title says so. The exact ends are lines.

    Raises
    ------
    ValueError
        No circulant spectrum was recorded.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator, descend, plot_circulant, regularizers
    >>> conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 3, 1)), (8, 8))
    >>> run = descend(conv, regularizers.OrthogonalityGap(), maxiter=2, circulant_every=1)
    >>> plot_circulant(run.history).get_ylabel()
    'singular value (dimensionless)'
    """
    from matplotlib.colors import LogNorm

    if not _has_circulant(history):
        raise ValueError(
            "`history` must hold a circulant spectrum; none was recorded. Pass circulant_every= to descend; padding "
            "by reflection or replication has none."
        )
    recorded = history.isel(iteration=np.flatnonzero(history["circulant_computed"].values))
    values = recorded["circulant_spectrum"].values.reshape(recorded.sizes["iteration"], -1)
    edges = np.linspace(0.0, 1.02 * (float(values.max()) or 1.0), _BINS + 1)
    shares = np.stack([np.histogram(row, edges)[0] / row.size for row in values], axis=1)
    if ax is None:
        ax = new_figure(7.0, 4.4).add_subplot()
    mesh = ax.pcolormesh(
        _cell_edges(recorded["iteration"].values),
        edges,
        np.ma.masked_equal(shares, 0.0),
        cmap="Greys",
        # Spread over many bins at first, in few at the end: shares of 1 % and of 100 % are to be seen side by side.
        norm=LogNorm(vmin=min(1e-3, float(shares[shares > 0.0].min())), vmax=1.0),
        rasterized=True,
    )
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(mesh, ax=ax, label="share of the circulant's values (dimensionless)")
    handles = []
    for end, (_, colour, word) in _ENDS.items():
        if end in history:
            (line,) = ax.plot(history["iteration"].values, history[end].values, color=colour, label=f"{word}, exact")
            handles.append(line)
    # The legend stands between the axes and their title.
    ax.set_title(_circulant_title(history), fontsize="medium", pad=22 if handles else None)
    ax.set_xlabel("iteration")
    ax.set_ylabel("singular value (dimensionless)")
    _whole_numbers(ax)
    ax.set_ylim(bottom=0.0)
    if handles:
        _legend_above(ax, handles)
    return ax


def draw_course(history: xr.Dataset, *, title: str = "") -> Figure:
    """Draw the exact ends of the spectrum and, where it was recorded, the circulant spectrum below.

    Parameters
    ----------
    history : Dataset
        ``Descent.history`` or ``SpectrumStore.open()``.
    title : str
        Shown as it is.

    Returns
    -------
    Figure
        Not known to pyplot.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator, descend, regularizers
    >>> conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 3, 1)), (8, 8))
    >>> run = descend(conv, regularizers.OrthogonalityGap(), maxiter=2)
    >>> len(draw_course(run.history, title="a layer").subfigs)
    2
    """
    both = _has_circulant(history)
    figure = new_figure(7.0, 8.8 if both else 4.6)
    if title:
        figure.suptitle(title, parse_math=False)
    panels = figure.subfigures(2 if both else 1, 1, squeeze=False)[:, 0]
    plot_descent(history, figure=panels[0])
    if both:
        plot_circulant(history, ax=panels[1].add_subplot())
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Return a figure that is not known to pyplot, its size in inches.

    Examples
    --------
    >>> new_figure(3.0, 2.0).get_layout_engine() is None
    False
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _named(histories: xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    import xarray as xr

    # A dataset is a mapping itself.
    return {"": histories} if isinstance(histories, xr.Dataset) else dict(histories)


def _styles(count: int) -> list[Any]:
    return [_STYLES[i % len(_STYLES)] for i in range(count)]


def _line(ax: Axes, history: xr.Dataset, end: str, **look: Any) -> None:
    iterations, values = history["iteration"].values, history[end].values
    single = len(iterations) == 1
    ax.plot(iterations, values, marker="o" if single else "", **look)
    if f"{end}_lower" not in history or f"{end}_upper" not in history:
        return
    lower, upper = history[f"{end}_lower"].values, history[f"{end}_upper"].values
    if np.max(upper - lower) > _BAND * (np.max(values) - np.min(values)):
        ax.fill_between(iterations, lower, upper, color=look["color"], alpha=0.2, linewidth=0)


def _start_at_zero(ax: Axes) -> None:
    """Show no singular values below 0."""
    if ax.get_ylim()[0] < 0.0:
        ax.set_ylim(bottom=0.0)


def _whole_numbers(ax: Axes) -> None:
    """Put ticks at whole iterations only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def _legend_above(ax: Axes, handles: Sequence[Any]) -> None:
    """Put the legend outside, where it covers no line."""
    columns = 4 if sum(len(handle.get_label()) for handle in handles) < 60 else 2
    legend = ax.legend(
        handles=handles,
        ncols=min(len(handles), columns),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
        fontsize=_SMALL,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _caption_below(figure: Figure | SubFigure, text: str) -> None:
    width = figure.bbox.width / figure.dpi  # inches; a letter takes a little more than half its size
    wrapped = "\n".join(textwrap.fill(line, max(30, int(width * 72 / (0.52 * _SMALL)))) for line in text.split("\n"))
    figure.supxlabel(wrapped, fontsize=_SMALL, x=0.02, ha="left", parse_math=False)


def _caption(runs: Mapping[str, xr.Dataset]) -> str:
    """What is common to all runs, then the rest of each."""
    facts = {name: _facts(history) for name, history in runs.items()}
    listed = list(facts.values())
    common = {key: value for key, value in listed[0].items() if all(other.get(key) == value for other in listed)}
    lines = [_sentence("", common)]
    for name, own in facts.items():
        rest = {key: value for key, value in own.items() if key not in common}
        if rest:
            lines.append(_sentence(f"{name}: ", rest))
    return "\n".join(line for line in lines if line)


def _sentence(start: str, facts: Mapping[str, str]) -> str:
    return f"{start}{'; '.join(facts.values())}." if facts else ""


def _facts(history: xr.Dataset) -> dict[str, str]:
    layer = "Exact singular values of the operator"
    if described := describe_operator(history):
        layer = f"Exact singular values of the {described}"
    words = {"penalty": "penalty", "step_rule": "steps by"}
    return {
        "layer": layer,
        **{key: f"{word} {history.attrs[key]}" for key, word in words.items() if key in history.attrs},
    }


def _geometry(history: xr.Dataset) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(history.attrs.get("geometry", "{}"))
    return found


def describe_operator(history: xr.Dataset) -> str:
    """Return the layer of a run in words: padding, kernel, channels, whatever else is not the default, image.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, descend, regularizers
    >>> run = descend(ConvOperator([[[[2.0]]]], (4, 4)), regularizers.Frobenius(), maxiter=0)
    >>> describe_operator(run.history)
    'unpadded operator, kernel 1x1, channels 1 to 1, image 4x4'
    """
    geometry = _geometry(history)
    if not geometry:
        return ""
    mode = _PADDINGS.get(geometry["padding_mode"], geometry["padding_mode"])
    if not any(map(any, geometry["padding"])):
        mode = "unpadded"
    words = [f"{mode}{' transposed' if geometry['transposed'] else ''} operator"]
    words.append(f"kernel {_times(geometry['kernel_size'])}")
    words.append(f"channels {geometry['in_channels']} to {geometry['out_channels']}")
    for name in ("stride", "dilation"):
        if math.prod(geometry[name]) != 1:
            words.append(f"{name} {_times(geometry[name])}")
    if geometry["groups"] != 1:
        words.append(f"{geometry['groups']} groups")
    words.append(f"image {_times(geometry['input_shape'])}")
    return ", ".join(words)


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _has_circulant(history: xr.Dataset) -> bool:
    return "circulant_computed" in history and bool(history["circulant_computed"].values.any())


def _circulant_title(history: xr.Dataset) -> str:
    mode = _geometry(history).get("padding_mode")
    if mode == "circular":
        return "Circulant spectrum: exact, for padding is circular"
    if mode is None:
        return "Circulant spectrum: an estimate of the layer's, unless padding is circular"
    return "Circulant spectrum: an estimate of the layer's spectrum"


def _cell_edges(iterations: NDArray[np.integer]) -> NDArray[np.floating]:
    """Cells around the iterations, each halfway to its neighbours.

    Examples
    --------
    >>> _cell_edges(np.array([0, 10, 20]))
    array([-0.5,  5. , 15. , 20.5])
    """
    between = (iterations[1:] + iterations[:-1]) / 2
    return np.concatenate([[iterations[0] - 0.5], between, [iterations[-1] + 0.5]])
