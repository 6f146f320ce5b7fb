"""What a worker is asked to do: a small record that says where the weights are, and what to find out about them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectral_conv._threads import one_thread
from spectral_conv.inspection._analysis import Settings, analyze_layer, bracket_layer, reason_of
from spectral_conv.inspection._model_file import ModelFile
from spectral_conv.inspection._records import keep_record, record_key
from spectral_conv.models import ConvLayer, Model, ModelError
from spectral_conv.report.record import LayerReport

UNREADABLE = (ModelError, OSError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class LayerTask:
    """One layer to be analysed, wherever that may be; picklable.

    Attributes
    ----------
    source : ModelFile or ConvLayer
        The file with the layer, or the layer itself.
    place : int
        Of the layer among those of the file.
    key : str
        What the layer must be, by `record_key`.
    settings : Settings
        What is wanted, as it was asked for.
    memory_limit : float or None
        Bytes that the layer may take here.
    records : Path or None
        The folder where the result is to be kept.
    """

    source: ModelFile | ConvLayer
    place: int
    key: str
    settings: Settings
    memory_limit: float | None
    records: Path | None

    def layer(self) -> ConvLayer:
        """Return the layer with its weights.

        Raises
        ------
        ModelError
            The file cannot be read here, or is not what it was.
        """
        if isinstance(self.source, ConvLayer):
            return self.source
        for _ in range(2):
            layers = _last_opened(self.source).layers
            if self.place < len(layers):
                layer = layers[self.place]
                if record_key(layer.operator, self.settings) == self.key:
                    return layer
            # What this process still has may be from before the file was written again.
            _last_opened.cache_clear()
        raise self.source.changed()

    @property
    def resolved(self) -> Settings:
        """The settings with the memory limit that holds here."""
        return dataclasses.replace(self.settings, memory_limit=self.memory_limit)


def run_task(task: LayerTask) -> LayerReport | str:
    """Analyse a layer and keep the result on disk, if that is wanted; the reason where the layer cannot be had.

    Raises
    ------
    OSError
        The result cannot be kept.
    """
    try:
        layer = task.layer()
    except UNREADABLE as error:
        return reason_of(error)
    report = analyze_layer(layer, task.resolved)
    if task.records is not None:
        keep_record(task.records, task.key, report)
    return report


def run_batch(tasks: Sequence[LayerTask]) -> list[LayerReport | str]:
    """Do `run_task` for each task, in one thread: workers share a machine."""
    with one_thread():
        return [run_task(task) for task in tasks]


def run_bracket(task: LayerTask, seconds: float) -> list[LayerReport | str]:
    """Say what is cheap to say of a layer that reached its time limit."""
    with one_thread():
        try:
            return [bracket_layer(task.layer(), task.resolved, seconds)]
        except UNREADABLE as error:
            return [reason_of(error)]


# The layers of a file follow one another, and one file is as much as a worker should hold.
@functools.lru_cache(maxsize=1)
def _last_opened(file: ModelFile) -> Model:
    return file.open()
