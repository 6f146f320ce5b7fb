"""What is kept of a model while its layers are worked on: names, geometries and loads, but no weights."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spectral_conv.geometry import ConvGeometry
from spectral_conv.inspection._analysis import Settings, layer_cost, layer_record
from spectral_conv.inspection._inspection import Inspection
from spectral_conv.inspection._model_file import ModelFile
from spectral_conv.inspection._records import record_key
from spectral_conv.inspection._tasks import LayerTask
from spectral_conv.models import ConvLayer, Model
from spectral_conv.report.record import LayerReport

# Predicted seconds by geometry: the models of a zoo have few different ones.
Costs = dict[ConvGeometry, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedModel:
    """A model that was read once, and what is needed to have its layers analysed anywhere.

    Attributes
    ----------
    inspection : Inspection
        Without results: its reports say what the layers are.
    file : ModelFile or None
        Where it was read from.
    layers : tuple of ConvLayer or None
        The layers, where they are handed over with their weights; else they are read from the file.
    geometries : tuple of ConvGeometry
        Of the layers.
    seconds : tuple of float
        That they will take; of use where they are divided among workers.
    keys : tuple of str
        What the results are functions of, and are kept under, by `record_key`.
    reading : float
        Seconds that the file took to read.
    """

    inspection: Inspection
    file: ModelFile | None
    layers: tuple[ConvLayer, ...] | None = None
    geometries: tuple[ConvGeometry, ...] = ()
    seconds: tuple[float, ...] = ()
    keys: tuple[str, ...] = ()
    reading: float = 0.0

    def __len__(self) -> int:
        return len(self.geometries)

    @property
    def identity(self) -> str:
        """What tells models of equal names apart: the file, or else the contents."""
        if self.file is not None:
            return str(self.file.path.resolve())
        return hashlib.sha256("".join(self.keys).encode()).hexdigest()

    def task(self, place: int, memory_limit: float | None, records: Path | None) -> LayerTask:
        """Return the task of analysing one of the layers."""
        source = self.file if self.layers is None else self.layers[place]
        assert source is not None
        return LayerTask(
            source=source,
            place=place,
            key=self.keys[place],
            settings=self.inspection.settings,
            memory_limit=memory_limit,
            records=records,
        )

    def named(self, place: int, report: LayerReport) -> LayerReport:
        """Return a result with the name of one of the layers: a kept one may be that of an equal layer elsewhere."""
        blank = self.inspection.reports[place]
        return replace(
            report,
            name=blank.name,
            kernel_shape=blank.kernel_shape,
            layout=blank.layout,
            assumed=blank.assumed,
            folded=blank.folded,
        )

    def finished(self, reports: Sequence[LayerReport]) -> Inspection:
        """Return the inspection with its results."""
        return replace(self.inspection, reports=tuple(reports))


def opened_model(
    read: Callable[[], Model],
    settings: Settings,
    *,
    file: ModelFile | None,
    handed_over: bool,
    held: bool,
    costs: Costs | None,
    input_size: tuple[int, ...] | None,
) -> OpenedModel:
    """Read a model and take note of its layers.

    Parameters
    ----------
    read : callable
        Returns the model.
    settings : Settings
        What will be wanted.
    file : ModelFile or None
        Where it is read from.
    handed_over : bool
        Whether tasks get the weights, rather than the file.
    held : bool
        Whether the inspection keeps the weights, rather than the file.
    costs : dict or None
        The predictions so far, which grow; None where none are needed.
    input_size : tuple of int or None
        What was given.
    """
    start = time.perf_counter()
    model = read()
    reading = time.perf_counter() - start
    inspection = Inspection(
        model=model.name,
        reports=tuple(layer_record(layer) for layer in model.layers),
        skipped=tuple((entry.name, entry.reason) for entry in model.skipped),
        spoiled=frozenset(entry.name for entry in model.skipped if entry.spoiled),
        settings=settings,
        input_size=input_size,
        source=model if held or file is None else file,
    )
    return OpenedModel(
        inspection=inspection,
        file=file,
        layers=model.layers if handed_over or file is None else None,
        geometries=tuple(layer.operator.geometry for layer in model.layers),
        seconds=() if costs is None else tuple(_seconds(layer, settings, costs) for layer in model.layers),
        keys=tuple(record_key(layer.operator, settings) for layer in model.layers),
        reading=reading,
    )


def unread_model(file: ModelFile, settings: Settings, failure: str) -> OpenedModel:
    """Return what is known of a model that cannot be read."""
    found = Inspection(model=file.path.name, reports=(), settings=settings, source=file, failure=failure)
    return OpenedModel(inspection=found, file=file)


def _seconds(layer: ConvLayer, settings: Settings, costs: Costs) -> float:
    geometry = layer.operator.geometry
    if geometry not in costs:
        cost = layer_cost(layer, settings)
        costs[geometry] = 0.0 if cost is None else cost.seconds
    return costs[geometry]
