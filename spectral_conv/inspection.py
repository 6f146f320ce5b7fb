"""A whole model: every convolution's exact extreme singular values beside what the FFT says."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from spectral_conv import bounds as bounding
from spectral_conv.geometry import checked_word
from spectral_conv.models import ConvLayer, Model, find_layer, read_model
from spectral_conv.operator import ConvOperator
from spectral_conv.progress import work_bar
from spectral_conv.report.dataset import layer_dataset
from spectral_conv.report.document import layer_document
from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.report.text import printable
from spectral_conv.results import BoundTable, Enclosure
from spectral_conv.spectrum import smallest_singular_value, spectral_norm
from spectral_conv.spectrum.cost import Cost, predicted_cost
from spectral_conv.symbols import circulant_singular_values

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

Result = TypeVar("Result")
SCHEMA = 1
TIGHTEST_SMALLEST = 1e-9  # the smallest value is wanted at least this well, in units of the largest
LIBRARIES = ("numpy", "scipy", "numba", "pyfftw")

# What a layer may fail with and still be listed: a limit, no convergence, an overflow. Anything else is a
# mistake in this package and is raised.
FAILURES = (ValueError, RuntimeError, ArithmeticError, MemoryError, OSError)


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


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The analysed convolutions of one model.

    Attributes
    ----------
    model : str
        Name of the model.
    reports : tuple of LayerReport
        One per convolution, in the order of the model; layers that failed are among them, with the reason.
    skipped : tuple of (str, str)
        Name and reason of the tensors that were not taken as convolutions.
    spoiled : frozenset of str
        Names of those that are convolutions, but cannot be analysed.
    settings : Settings
        What was asked for.
    input_size : tuple of int or None
        ``(channels, *spatial)`` of the model's input, where it was given.
    source : Model
        The layers themselves; what figures show of them is computed when it is asked for.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> inspection = inspect_model([ConvOperator([[[[2.0]]]], (4, 4)), ConvOperator([[[[3.0]]]], (4, 4))])
    >>> inspection.dataset["sigma_max"].values
    array([2., 3.])
    """

    model: str
    reports: tuple[LayerReport, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    spoiled: frozenset[str] = frozenset()
    settings: Settings = Settings()
    input_size: tuple[int, ...] | None = None
    source: Model = field(repr=False, compare=False)

    @property
    def complete(self) -> bool:
        """Whether every convolution could be analysed and has all values that were asked for."""
        return not self.spoiled and all(report.complete for report in self.reports)

    @functools.cached_property
    def dataset(self) -> xr.Dataset:
        """The numbers over the dimension `layer`, bounds also over `bound`; NaN or an empty string where none is."""
        attributes = {"model": self.model, "schema": SCHEMA, "version": _version("spectral-conv")}
        return layer_dataset(self.reports).assign_attrs(attributes)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per layer, the columns of `dataset` but the bounds: ``dataset["bound_value"].to_pandas()``."""
        return self.dataset.drop_dims("bound", errors="ignore").to_dataframe()

    def document(self) -> dict[str, Any]:
        """Plain data for JSON, as ``spectral-conv inspect --json`` prints it; no NaN, no Infinity."""
        settings = self.settings
        return {
            "model": self.model,
            "schema": SCHEMA,
            "version": _version("spectral-conv"),
            "libraries": {name: _version(name) for name in LIBRARIES} | {"python": sys.version.split()[0]},
            "settings": {
                "input_size": None if self.input_size is None else list(self.input_size),
                "rtol": settings.rtol,
                "smallest": settings.smallest,
                "memory_limit": settings.memory_limit,
                "certify": settings.certify,
                "bounds": settings.bounds,
            },
            "layers": [layer_document(report) for report in self.reports],
            "skipped": [{"name": name, "reason": reason} for name, reason in self.skipped],
        }

    def page(self, *, progress: bool = False) -> str:
        """Return the report as one HTML document that needs no network; see `to_html`.

        Parameters
        ----------
        progress : bool
            Show a bar on standard error where that is a terminal.
        """
        from spectral_conv.report.figures import layer_figures
        from spectral_conv.report.findings import network_finding
        from spectral_conv.report.html import inspection_page

        settings = self.settings
        figures = []
        with work_bar(len(self.reports), "figures", wanted=progress) as step:
            for layer in self.source.layers:
                conv, limit = _in_double(layer.operator), settings.memory_limit
                figures.append(layer_figures(conv, memory_limit=limit, smallest=settings.smallest))
                step()
        memory = "half of what is free" if settings.memory_limit is None else f"{settings.memory_limit:g} bytes"
        size = "as the file or the layers document says" if self.input_size is None else _times(self.input_size)
        facts = [
            ("spectral_conv", _version("spectral-conv")),
            *((name, _version(name)) for name in LIBRARIES),
            ("input size", size),
            ("wanted error (rtol)", f"{settings.rtol:g}"),
            ("bounds certified", "yes" if settings.certify else "no"),
            ("memory limit", memory),
        ]
        return inspection_page(
            self.model,
            self.reports,
            figures,
            skipped=self.skipped,
            lipschitz=network_finding(self.source),
            facts=facts,
        )

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report: what to know first, the table, and every layer with its figures.

        Computes the singular vectors for the figures, which takes about as long as the inspection.

        Parameters
        ----------
        path : path
            The file; one that exists is replaced.

        Raises
        ------
        OSError
            The file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from spectral_conv import ConvOperator
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).to_html(f"{folder}/report.html")
        ...     Path(folder, "report.html").read_text(encoding="utf-8")[:15]
        '<!doctype html>'
        """
        page = self.page()  # before the file is touched
        Path(path).write_text(page, encoding="utf-8")

    def plot(self, kind: str = "extremes", layer: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw one of the report's figures.

        Parameters
        ----------
        kind : str
            "extremes" for the largest and smallest value of all layers; of one layer "values", "histogram",
            "largest_over_frequency", "smallest_over_frequency", "bounds", or its singular vectors "largest_signal",
            "largest_input", "largest_output", "smallest_signal", "smallest_input", "smallest_output".
        layer : str, optional
            Its name, for all kinds but the first; a model of one layer needs none.
        ax : Axes, optional
            Where to draw; default: axes of a new figure, not known to pyplot.

        Returns
        -------
        Axes
            With labels and units.

        Raises
        ------
        ValueError
            No such kind or layer, or the figure does not apply to it; the message says why.

        Examples
        --------
        >>> from spectral_conv import ConvOperator
        >>> inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).plot("values").get_ylabel()
        'singular value (dimensionless)'
        """
        from spectral_conv.report.plots_layers import KINDS, plot_extremes, plot_layer

        if checked_word("kind", kind, KINDS) == "extremes":
            return plot_extremes(self.reports, ax=ax)
        if layer is None and len(self.reports) != 1:
            raise ValueError(
                f"`layer` must name a layer for kind={kind!r}; the model has {len(self.reports)}. Their names are "
                "those of `reports`."
            )
        chosen = self.source.layers[0] if layer is None else find_layer(self.source, layer)
        report = self.reports[self.source.layers.index(chosen)]
        conv, limit = _in_double(chosen.operator), self.settings.memory_limit
        return plot_layer(kind, report, conv, memory_limit=limit, ax=ax)

    def to_csv(self) -> str:
        """Return the table as text for a spreadsheet, as ``spectral-conv inspect --csv`` prints it."""
        from spectral_conv.report.spreadsheet import layers_csv

        return layers_csv([(self.model, self.reports)])

    def _repr_html_(self) -> str:
        from spectral_conv.report.html import notebook_table

        return notebook_table(self.model, self.reports)


def inspect_model(
    model: Model | str | os.PathLike[str] | Sequence[ConvOperator],
    *,
    input_size: Sequence[int] | None = None,
    layers: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    bounds: bool = False,
    memory_limit: float | None = None,
    rtol: float = 1e-8,
    certify: bool = False,
    smallest: bool = True,
    executor: Executor | None = None,
    progress: bool = False,
) -> Inspection:
    """Largest and smallest singular value of every convolution of a model, in float64.

    Parameters
    ----------
    model : Model, path or sequence of ConvOperator
        What to inspect; a path is read with `spectral_conv.models.read_model`.
    input_size : sequence of int, optional
        ``(channels, *spatial)`` of the model's input.
    layers : path or dict, optional
        A ``layers.json`` with the geometry that the file of weights does not tell.
    bounds : bool
        Every method of `spectral_conv.bounds` beside the exact value: its value, ratio and time.
    memory_limit : float, optional
        Bytes that one layer may take; a layer beyond it is reported with a bracket.
    rtol : float
        Wanted error relative to a layer's largest singular value; the smallest value is found to 1e-9 of it
        or better, whatever `rtol`.
    certify : bool
        Prove the bounds, rounding errors included: the basis is then "certified", and takes a factorization more per
        value. See `spectral_conv.spectral_norm`.
    smallest : bool
        Whether the smallest singular value is wanted.
    executor : concurrent.futures.Executor, optional
        Runs the layers, the costliest first; by default one after the other in this thread.
    progress : bool
        Show a bar on standard error where that is a terminal.

    Returns
    -------
    Inspection
        Every convolution in the order of the model. A layer that fails is in it with the reason.

    Raises
    ------
    ValueError
        The model cannot be read, or a parameter does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator
    >>> inspection = inspect_model([ConvOperator(np.ones((3, 3, 1, 1)) / 9, (8, 8))])
    >>> report = inspection.reports[0]
    >>> round(report.sigma_max.value, 6), round(report.circulant[0], 6)
    (0.921207, 1.0)
    """
    source = _opened(model, input_size, layers)
    name, convolutions = source.name, source.layers
    settings = Settings(
        rtol=_checked_rtol(rtol),
        smallest=bool(smallest),
        memory_limit=memory_limit,
        certify=bool(certify),
        bounds=bool(bounds),
    )
    with work_bar(len(convolutions), printable(name), wanted=progress) as step:
        if executor is None:
            reports = []
            for layer in convolutions:
                reports.append(analyze_layer(layer, settings))
                step()
        else:
            reports = _map_on_executor(executor, convolutions, settings, step)
    return Inspection(
        model=name,
        reports=tuple(reports),
        skipped=tuple((entry.name, entry.reason) for entry in source.skipped),
        spoiled=frozenset(entry.name for entry in source.skipped if entry.spoiled),
        settings=settings,
        input_size=None if input_size is None else tuple(int(n) for n in input_size),
        source=source,
    )


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
    conv = _in_double(layer.operator)
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
        return None, _reason(error)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"Out of memory ({error or 'no details'}): set a `memory_limit`, or use a smaller `input_size`."
    return str(error) or type(error).__name__


def _circulant_ends(conv: ConvOperator) -> tuple[float, float]:
    values = circulant_singular_values(conv)
    return float(values[..., 0].max()), float(values[..., -1].min())


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


def _in_double(conv: ConvOperator) -> ConvOperator:
    return conv if conv.dtype == np.float64 else conv.with_kernel(conv.kernel.astype(np.float64))


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _opened(model: Any, input_size: Any, layers: Any) -> Model:
    if isinstance(model, str | os.PathLike):
        return read_model(model, input_size=input_size, layers=layers)
    if input_size is not None or layers is not None:
        raise ValueError(
            "`input_size` and `layers` go with a path: a Model or a ConvOperator knows its geometry already."
        )
    if isinstance(model, Model):
        return model
    if not isinstance(model, Sequence) or not all(isinstance(conv, ConvOperator) for conv in model):
        raise ValueError(
            "`model` must be a path, a Model or a sequence of ConvOperator; got "
            f"{type(model).__name__}. Read a file with read_model(path), wrap one operator as [operator]."
        )
    wrapped = (
        ConvLayer(name=f"layer{i}", operator=conv, assumed=(), kernel_shape=conv.kernel.shape, layout=_hwio(conv))
        for i, conv in enumerate(model)
    )
    return Model(path=Path("operators"), format="operators", layers=tuple(wrapped), skipped=())


def _hwio(conv: ConvOperator) -> str:
    return {1: "WIO", 2: "HWIO", 3: "DHWIO"}[conv.geometry.ndim]


def _checked_rtol(rtol: float) -> float:
    if not 0.0 < rtol < 1.0:
        raise ValueError(f"`rtol` must lie between 0 and 1; got {rtol!r}. The default is 1e-8.")
    return float(rtol)


def _map_on_executor(
    executor: Executor, layers: Sequence[ConvLayer], settings: Settings, step: Callable[[], None]
) -> list[LayerReport]:
    # The costliest first: a long one that starts last would leave the other workers idle.
    costs = [layer_cost(layer, settings) for layer in layers]
    seconds = [0.0 if cost is None else cost.seconds for cost in costs]
    order = sorted(range(len(layers)), key=seconds.__getitem__, reverse=True)
    futures: dict[Future[LayerReport], int] = {executor.submit(analyze_layer, layers[i], settings): i for i in order}
    reports: dict[int, LayerReport] = {}
    for future in as_completed(futures):
        i = futures[future]
        try:
            reports[i] = future.result()
        except FAILURES as error:
            # The worker itself died: its layer stays in the list, the others go on.
            reason = _reason(error)
            reports[i] = layer_record(
                layers[i],
                sigma_max_reason=reason,
                sigma_min_reason=reason,
                circulant_reason=reason,
                bounds_reason=reason if settings.bounds else NOT_ASKED,
            )
        step()
    return [reports[i] for i in range(len(layers))]


def _version(package: str) -> str:
    return importlib.metadata.version(package)
