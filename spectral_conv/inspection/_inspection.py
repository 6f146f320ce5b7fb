"""The analysed convolutions of one model, and the forms they are handed out in."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectral_conv._whole_file import write_whole
from spectral_conv.geometry import checked_word
from spectral_conv.inspection._analysis import Settings, in_double
from spectral_conv.inspection._model_file import ModelFile
from spectral_conv.models import Model, find_layer
from spectral_conv.progress import work_bar
from spectral_conv.report.dataset import layer_dataset
from spectral_conv.report.document import layer_document
from spectral_conv.report.record import LayerReport

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

SCHEMA = 1
LIBRARIES = ("numpy", "scipy", "numba", "pyfftw")


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
    source : Model or ModelFile
        The layers themselves, or the file that they are read from again; what figures show of them is computed when
        it is asked for.
    failure : str or None
        Why the model could not be read, where that did not stop the others; it then has no layers.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> inspection = inspect_model([ConvOperator([[[[2.0]]]], (4, 4)), ConvOperator([[[[3.0]]]], (4, 4))])
    >>> inspection.dataset["sigma_max"].values
    array([2., 3.])
    """

    model: str
    reports: tuple[LayerReport, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    spoiled: frozenset[str] = frozenset()
    settings: Settings = field(default_factory=Settings)
    input_size: tuple[int, ...] | None = None
    source: Model | ModelFile = field(repr=False, compare=False)
    failure: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every convolution could be analysed and has all values that were asked for."""
        return self.failure is None and not self.spoiled and all(report.complete for report in self.reports)

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
        failure = {} if self.failure is None else {"failure": self.failure}
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
            **failure,
        }

    def opened(self) -> Model:
        """Return the layers with their weights, read again from their file if need be.

        Raises
        ------
        ModelError
            The file is not what it was, or cannot be read any more.
        """
        return self.source if isinstance(self.source, Model) else self.source.open()

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

        settings, source = self.settings, self.opened()
        figures = []
        with work_bar(len(self.reports), "figures", wanted=progress) as step:
            for layer in source.layers:
                conv, limit = in_double(layer.operator), settings.memory_limit
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
            lipschitz=network_finding(source),
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
        >>> from spectral_conv import ConvOperator, inspect_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).to_html(f"{folder}/report.html")
        ...     Path(folder, "report.html").read_text(encoding="utf-8")[:15]
        '<!doctype html>'
        """
        page = self.page().encode()
        write_whole(Path(path), lambda file: file.write(page))

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
        >>> from spectral_conv import ConvOperator, inspect_model
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
        source = self.opened()
        chosen = source.layers[0] if layer is None else find_layer(source, layer)
        report = self.reports[source.layers.index(chosen)]
        conv, limit = in_double(chosen.operator), self.settings.memory_limit
        return plot_layer(kind, report, conv, memory_limit=limit, ax=ax)

    def to_csv(self) -> str:
        """Return the table as text for a spreadsheet, as ``spectral-conv inspect --csv`` prints it."""
        from spectral_conv.report.spreadsheet import layers_csv

        return layers_csv([(self.model, self.reports)])

    def _repr_html_(self) -> str:
        from spectral_conv.report.html import notebook_table

        return notebook_table(self.model, self.reports)


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _version(package: str) -> str:
    return importlib.metadata.version(package)
