"""Pictures of bounds: Axes in, Axes out, and never the state of pyplot.

plot_bounds -- how close each bound of a layer is, over its time
plot_tightness -- how close each bound is, over the size of the image
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.report.plots import new_figure
from spectral_conv.report.record import is_reached

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from spectral_conv.results import BoundTable

_CLOSEST = 1e-6  # what is closer than this is drawn there: below it the exact value is no surer
_SMALL = 8.5  # points
_LOOKS: dict[str, tuple[str, Any, str]] = {  # marker, line, word
    "exact": ("o", "-", "upper bound, attained"),
    "upper": ("o", "-", "upper bound"),
    "lower": ("v", "--", "lower bound: 1 - ratio"),
    "estimate": ("x", ":", "estimate, no bound"),
}
_COLOURS = [*(f"C{i}" for i in range(10)), "black", "darkblue", "darkgreen", "darkred"]
_TITLE = "Bounds of the largest singular value"
_DISTANCE = "distance from the exact value, |ratio - 1| (dimensionless)"


def plot_bounds(table: BoundTable, *, ax: Axes | None = None) -> Axes:
    """Draw how far each bound of a layer is from the exact value, over the time that it takes; both axes logarithmic.

    Parameters
    ----------
    table : BoundTable
        From `spectral_conv.bounds.table`.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        One labelled point per method; ratio - 1, of a lower bound 1 - ratio with another marker. A vertical line is
        the time of the exact value.

    Raises
    ------
    ValueError
        The table has no exact value, or no method applies.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator, bounds
    >>> conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 2, 2)), (8, 8))
    >>> plot_bounds(bounds.table(conv)).get_xlabel()
    'time (ms)'
    """
    rated = [(row.method, row.bound, row.ratio) for row in table.rows if row.bound is not None and row.ratio]
    if not is_reached(table.exact) or not rated:
        raise ValueError(
            "`table` must hold an exact value above 0 and bounds with a ratio to it; got "
            f"{len(rated)} ratios. {table.exact_reason or 'Pass exact=True to bounds.table.'}"
        )
    if ax is None:
        ax = new_figure(8.0, 5.0).add_subplot()
    ax.set(xscale="log", yscale="log", xlabel="time (ms)", ylabel=_DISTANCE)
    heights = [_distance(ratio) for _, _, ratio in rated]
    for number, ((_, bound, _), height) in enumerate(zip(rated, heights, strict=True)):
        ax.plot(1e3 * bound.seconds, height, _LOOKS[bound.kind][0], color=_colour(number))
    seconds = 1e3 * table.exact_seconds
    ax.axvline(seconds, color="0.6", linewidth=1.0, zorder=0)
    ax.set_ylim(min(heights) / 1.6, max(heights) * 1.6)
    ends = [(1e3 * bound.seconds, height) for (_, bound, _), height in zip(rated, heights, strict=True)]
    _label_right(ax, ends, [method for method, _, _ in rated], [_colour(i) for i in range(len(rated))])
    _legend(ax, {bound.kind for _, bound, _ in rated}, exact=f"exact value ({seconds:.3g} ms)")
    ax.grid(alpha=0.3)
    _note_closest(ax, heights)
    return ax


def plot_tightness(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how far each bound is from the exact value, over the size of the image; both axes logarithmic.

    Parameters
    ----------
    data : Dataset
        `ratio` over `kernel`, `bound` and `size`: bound by exact value, dimensionless, NaN where a method does not
        apply; `kind` over `bound`; `size` in pixels per axis.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        One labelled line per method: the median over the kernels, in a band from the closest to the farthest.

    Raises
    ------
    ValueError
        `ratio` or `kind` is missing.

    Examples
    --------
    >>> import xarray as xr
    >>> ratio = ("kernel", "bound", "size"), [[[1.1, 1.01, 1.001]]]
    >>> data = xr.Dataset({"ratio": ratio, "kind": ("bound", ["upper"])}, {"bound": ["some"], "size": [8, 16, 32]})
    >>> plot_tightness(data).get_xlabel()
    'image size N (pixels per axis)'
    """
    missing = [name for name in ("ratio", "kind", "size") if name not in data]
    if missing:
        raise ValueError(
            f"`data` must hold `ratio` over kernel, bound and size, and `kind`; {', '.join(missing)} is missing."
        )
    if ax is None:
        ax = new_figure(8.0, 5.5).add_subplot()
    ax.set(xscale="log", yscale="log", xlabel="image size N (pixels per axis)", ylabel=_DISTANCE)
    sizes = data["size"].values
    distances = np.maximum(np.abs(data["ratio"].transpose("bound", "kernel", "size").values - 1.0), _CLOSEST)
    ends, names, colours = [], [], []
    rows = zip(data["bound"].values, data["kind"].values, distances, strict=True)
    for number, (method, kind, some) in enumerate(rows):
        known = ~np.isnan(some).any(axis=0)
        if not known.any():
            continue
        marker, line, _ = _LOOKS[kind]
        middle = np.median(some[:, known], axis=0)
        look: dict[str, Any] = {"color": _colour(number)}
        ax.plot(sizes[known], middle, line, marker=marker, markersize=3.5, **look)
        if len(some) > 1:
            low, high = some[:, known].min(axis=0), some[:, known].max(axis=0)
            ax.fill_between(sizes[known], low, high, alpha=0.08, linewidth=0, **look)
        ends.append((float(sizes[known][-1]), float(middle[-1])))
        names.append(str(method))
        colours.append(look["color"])
    ax.set_xticks(sizes, [str(n) for n in sizes], fontsize=_SMALL)
    ax.set_xticks([], minor=True)
    _label_right(ax, ends, names, colours)
    _legend(ax, set(data["kind"].values.tolist()))
    ax.grid(alpha=0.3)
    _note_closest(ax, distances[~np.isnan(distances)])
    return ax


def _distance(ratio: float) -> float:
    return max(abs(ratio - 1.0), _CLOSEST)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _label_right(ax: Axes, ends: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str]) -> None:
    """Write the names in a column right of the axes, in the order of the points, each with a line to its point."""
    low, high = np.log(ax.get_ylim())
    heights = (np.log([y for _, y in ends]) - low) / (high - low)
    # Of points at one height those on the left are labelled above: so their lines do not cross.
    order = np.lexsort(([-x for x, _ in ends], heights))
    places = _spread(heights[order], 1.0 / max(len(names) - 1, 14))
    for i, place in zip(order, places, strict=True):
        ax.annotate(
            names[i],
            ends[i],
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            fontsize=_SMALL,
            color=colours[i],
            arrowprops={
                "arrowstyle": "-",
                "color": colours[i],
                "alpha": 0.45,
                "linewidth": 0.7,
                "shrinkB": 3,
                "relpos": (0.0, 0.5),
            },
        )


def _spread(wanted: NDArray[np.floating], gap: float) -> NDArray[np.floating]:
    """Places in [0, 1] at least `gap` apart, close to the wanted ones, which increase.

    Examples
    --------
    >>> _spread(np.array([0.5, 0.5]), 0.25)
    array([0.5 , 0.75])
    """
    places = np.clip(wanted, 0.0, 1.0)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    # What was pushed over the upper end is pushed back down.
    top = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top)
        top = places[i] - gap
    return places


def _legend(ax: Axes, kinds: set[str], **lines: str) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color="0.3", marker=marker, linestyle="" if lines else line, label=word)
        for kind, (marker, line, word) in _LOOKS.items()
        if kind in kinds
    ]
    handles += [Line2D([], [], color="0.6", linewidth=1.0, label=word) for word in lines.values()]
    ax.set_title(_TITLE, fontsize="medium", pad=22)  # the legend stands between the axes and their title
    ax.legend(
        handles=handles,
        ncols=len(handles),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
        fontsize=_SMALL,
    )


def _note_closest(ax: Axes, distances: Sequence[float] | NDArray[np.floating]) -> None:
    if np.min(distances) <= _CLOSEST:
        ax.set_ylabel(f"{_DISTANCE};\ncloser than {_CLOSEST:.0e} is drawn there")
