"""A picture of the penalty over a descent: Axes in, Axes out, and never the state of pyplot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from spectral_conv.report.plots import new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_STYLES = ("-", "--", ":", "-.")
_LINEAR = 50.0  # up to this ratio of largest and least the axis is linear


def plot_penalty(histories: Mapping[str, xr.Dataset], *, ax: Axes | None = None) -> Axes:
    """Draw the penalty over the iterations.

    Parameters
    ----------
    histories : mapping of str to Dataset
        Runs by name: ``Descent.history`` or ``SpectrumStore.open()``. Told apart by line style.
    ax : Axes, optional
        Where to draw; default: axes of a new figure, not known to pyplot.

    Returns
    -------
    Axes
        Logarithmic where all values are positive and far apart.

    Raises
    ------
    ValueError
        No run.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator, descend, regularizers
    >>> conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 3, 1)), (8, 8))
    >>> run = descend(conv, regularizers.OrthogonalityGap(), maxiter=2)
    >>> plot_penalty({"a run": run.history}).get_xlabel()
    'iteration'
    """
    from matplotlib.ticker import MaxNLocator

    if not histories:
        raise ValueError("`histories` must hold at least one run; got none. Pass {name: descent.history}.")
    if ax is None:
        ax = new_figure(7.0, 3.4).add_subplot()
    for i, (name, history) in enumerate(histories.items()):
        iterations, values = history["iteration"].values, history["penalty"].values
        style, marker = _STYLES[i % len(_STYLES)], "o" if len(values) == 1 else ""
        ax.plot(iterations, values, style, marker=marker, color="black", label=name)
    every = np.concatenate([history["penalty"].values for history in histories.values()])
    if every.min() > 0.0 and every.max() > _LINEAR * every.min():
        ax.set_yscale("log")
    ax.set(xlabel="iteration", ylabel="penalty (dimensionless)")
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    ax.grid(alpha=0.3)
    if len(histories) > 1:
        for text in ax.legend(frameon=False, fontsize="small").get_texts():
            text.set_parse_math(False)
    return ax
