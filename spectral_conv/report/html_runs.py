"""The page of one or more descents that needs nothing but itself: data in, a string out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from spectral_conv.report.html_layers import Drawing, Number
from spectral_conv.report.html_shared import share
from spectral_conv.report.html_svg import inline_svg
from spectral_conv.report.html_templates import render
from spectral_conv.report.plots import describe_operator, new_figure, plot_circulant, plot_descent
from spectral_conv.report.plots_penalty import plot_penalty
from spectral_conv.report.text import printable

if TYPE_CHECKING:
    import xarray as xr

_DIGITS = 7
_QUANTITIES = {
    "penalty": "penalty",
    "sigma_max": "largest singular value",
    "sigma_min": "smallest singular value",
}


def store_page(histories: Mapping[str, xr.Dataset], *, title: str = "Descents") -> str:
    """Write the page of some runs: where each began and ended, spectrum and penalty over the iterations.

    Parameters
    ----------
    histories : mapping of str to Dataset
        Runs by name, side by side: ``Descent.history`` or ``SpectrumStore.open()``.
    title : str
        Heading.

    Returns
    -------
    str
        HTML without anything from elsewhere; names are shown, never obeyed. Every number of the table is a ``<data>``
        element with the recorded value.

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
    >>> "first &lt;run&gt;" in store_page({"first <run>": run.history})
    True
    """
    if not histories:
        raise ValueError("`histories` must hold at least one run; got none. Pass {name: descent.history}.")
    runs = {printable(name): history for name, history in histories.items()}
    page = render(
        "runs.html",
        title=printable(title),
        quantities=[
            word for variable, word in _QUANTITIES.items() if any(variable in history for history in runs.values())
        ],
        runs=[_run(name, history) for name, history in runs.items()],
        drawings=list(_common(runs)),
        each=[
            (name, list(_own(i, history, alone=len(runs) == 1))) for i, (name, history) in enumerate(runs.items(), 1)
        ],
    )
    return share(page)


def _run(name: str, history: xr.Dataset) -> dict[str, Any]:
    words = ("penalty", "step_rule", "direction")
    layer = describe_operator(history)
    about = [("layer", layer)] if layer else []
    about += [(word.replace("_", " "), str(history.attrs[word])) for word in words if word in history.attrs]
    return {
        "name": name,
        "about": [(word, printable(text)) for word, text in about],
        "iterations": int(history["iteration"].values[-1]),
        "seconds": float(history["seconds"].values.sum()),
        "ends": {word: _ends(history, variable) for variable, word in _QUANTITIES.items()},
    }


def _ends(history: xr.Dataset, variable: str) -> tuple[Number, Number]:
    """First and last value; no number where it was not recorded."""
    if variable not in history:
        return Number.of(None, "not tracked"), Number.of(None, "not tracked")
    values = history[variable].values
    return _number(float(values[0])), _number(float(values[-1]))


def _number(value: float) -> Number:
    return Number.of(value, f"{value:#.{_DIGITS}g}")


def _common(runs: Mapping[str, xr.Dataset]) -> Iterator[Drawing]:
    tracked = {name: history for name, history in runs.items() if "sigma_max" in history or "sigma_min" in history}
    if tracked:
        title = "Exact ends of the spectrum over the iterations"
        figure = new_figure(6.0, 3.9 + 0.3 * len(tracked))
        plot_descent(tracked, figure=figure)
        caption = (
            "The exact largest singular value on the left axis, the smallest on the right one, of the layer with its "
            "own padding and image size; each run has its line style."
        )
        yield Drawing(title=title, svg=inline_svg(figure, "ends", title), caption=caption)
    figure = new_figure(6.0, 3.4)
    plot_penalty(runs, ax=figure.add_subplot())
    title = "Penalty over the iterations"
    caption = "The value that the descent makes smaller, at every iteration; each run has its line style."
    yield Drawing(title=title, svg=inline_svg(figure, "penalty", title), caption=caption)


def _own(place: int, history: xr.Dataset, *, alone: bool) -> Iterator[Drawing]:
    if not alone and ("sigma_max" in history or "sigma_min" in history):
        title = "Exact ends of the spectrum"
        figure = new_figure(5.0, 3.9)
        plot_descent(history, figure=figure)
        caption = "The exact largest singular value on the left axis, the smallest on the right one."
        yield Drawing(title=title, svg=inline_svg(figure, f"ends-{place}", title), caption=caption)
    if "circulant_computed" in history and bool(history["circulant_computed"].values.any()):
        title = "Circulant spectrum over the iterations"
        figure = new_figure(5.0, 3.9)
        plot_circulant(history, ax=figure.add_subplot())
        caption = (
            "All singular values of the circular layer, as the FFT gives them: the darker, the more of them. The "
            "lines are the exact ends, which the circular layer may miss."
        )
        yield Drawing(title=title, svg=inline_svg(figure, f"circulant-{place}", title), caption=caption)
