"""Layers of several models on workers: the costliest first, none lost with a worker that dies, models in order."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectral_conv.inspection._analysis import failed_report, reason_of
from spectral_conv.inspection._batches import Load, batches
from spectral_conv.inspection._opened import OpenedModel
from spectral_conv.inspection._records import find_record
from spectral_conv.inspection._tasks import LayerTask, run_batch, run_bracket
from spectral_conv.inspection._workers import Workers, worker_was_lost
from spectral_conv.report.record import LayerReport

# So many layers wait for workers before no further file is opened: enough to order them by cost, and to keep many
# workers busy while the next files are read.
AHEAD = 1000
AHEAD_PER_WORKER = 20
# A batch is expected to take less than this share of the time that one layer may take.
SAFE = 0.25
# What a bracket may take, however short the time limit: the file has to be read for it.
BRACKET_SECONDS = 30.0


@dataclass(eq=False)
class _Model:
    opened: OpenedModel
    reports: dict[int, LayerReport] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return len(self.reports) == len(self.opened)

    def in_order(self) -> list[LayerReport]:
        return [self.reports[place] for place in range(len(self.opened))]


@dataclass(eq=False)
class _Layer:
    model: _Model
    place: int
    lost: bool = False  # its worker died once
    late: bool = False  # it reached the time limit

    @property
    def key(self) -> str:
        return self.model.opened.keys[self.place]


class Schedule:
    """One run.

    Parameters
    ----------
    workers : Workers
        Who does the work.
    records : Path or None
        Where results are kept.
    time_limit : float or None
        Seconds that one layer may take.
    step : callable
        Called for each layer that is done.
    """

    def __init__(
        self,
        workers: Workers,
        *,
        records: Path | None,
        time_limit: float | None,
        step: Callable[[], None],
    ) -> None:
        self._workers, self._records, self._time_limit, self._step = workers, records, time_limit, step
        self._ahead = max(AHEAD, AHEAD_PER_WORKER * workers.count)
        self._flying: dict[Future[Any], list[_Layer]] = {}
        self._answered: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        # Layers whose result is being found already, for an equal one.
        self._same: dict[str, list[_Layer]] = {}
        self._unfinished = 0
        self._broken: str | None = None

    def run(self, models: Iterable[OpenedModel]) -> Generator[tuple[OpenedModel, list[LayerReport]]]:
        """Yield the models with the reports of their layers, in order.

        Raises
        ------
        RuntimeError
            The caller's executor broke before all models were opened.
        """
        rest, waiting, more = iter(models), deque[_Model](), True
        try:
            while True:
                if more and self._broken is None and self._unfinished <= self._ahead // 2:
                    fresh = list(self._next(rest))
                    more = bool(fresh)
                    waiting.extend(fresh)
                    self._start(fresh)
                while waiting and waiting[0].finished:
                    model = waiting.popleft()
                    yield model.opened, model.in_order()
                if self._flying:
                    self._receive()
                elif not more or (self._broken is not None and next(rest, None) is None):
                    return
                elif self._broken is not None:
                    raise RuntimeError(self._broken)
        finally:
            for future in self._flying:
                future.cancel()
            self._workers.close()

    def _next(self, rest: Iterator[OpenedModel]) -> Iterator[_Model]:
        layers = self._unfinished
        while layers < self._ahead and (opened := next(rest, None)) is not None:
            layers += len(opened)
            yield _Model(opened)

    def _start(self, models: Sequence[_Model]) -> None:
        """Hand over all layers of new models but those whose result is known, or on its way."""
        layers, loads = [], []
        for number, model in enumerate(models):
            opened = model.opened
            self._unfinished += len(opened)
            for place in range(len(opened)):
                layer = _Layer(model, place)
                if not self._known(layer):
                    reading = opened.reading if opened.layers is None else 0.0
                    layers.append(layer)
                    loads.append(Load(file=number, seconds=opened.seconds[place], reading=reading))
        longest = None if self._time_limit is None else SAFE * self._time_limit
        for batch in batches(loads, self._workers.count, longest):
            self._submit([layers[i] for i in batch])

    def _known(self, layer: _Layer) -> bool:
        report = None if self._records is None else find_record(self._records, layer.key)
        if report is not None:
            self._finish(layer, report)
        elif layer.key in self._same:
            self._same[layer.key].append(layer)
        else:
            self._same[layer.key] = []
            return False
        return True

    def _submit(self, layers: Sequence[_Layer]) -> None:
        tasks = [self._task(layer) for layer in layers]
        order: tuple[Any, ...] = (run_batch, tasks)
        limit = self._time_limit
        if limit is not None and layers[0].late:
            order, limit = (run_bracket, tasks[0], limit), max(limit, BRACKET_SECONDS)
        try:
            future = self._workers.submit(*order, time_limit=limit)
        except BrokenExecutor as error:
            self._broken = f"The executor broke ({reason_of(error)}). {self._workers.remedy}"
            for layer in layers:
                self._fail(layer, self._broken)
            return
        self._flying[future] = list(layers)
        future.add_done_callback(self._answered.put)

    def _task(self, layer: _Layer) -> LayerTask:
        opened = layer.model.opened
        asked = opened.inspection.settings.memory_limit
        return opened.task(layer.place, self._workers.memory if asked is None else asked, self._records)

    def _receive(self) -> None:
        try:
            future = self._answered.get(timeout=1.0)
        except queue.Empty:  # so that Ctrl-C is heard on Windows, too
            return
        layers = self._flying.pop(future)
        try:
            outcomes = future.result()
        except Exception as error:
            if self._time_limit is not None and isinstance(error, TimeoutError):
                self._out_of_time(layers)
            elif worker_was_lost(error):
                self._worker_died(layers, error)
            else:
                raise
            return
        for layer, outcome in zip(layers, outcomes, strict=True):
            if isinstance(outcome, LayerReport):
                self._finish(layer, outcome)
            else:
                self._unreadable(layer, outcome)

    def _unreadable(self, layer: _Layer, reason: str) -> None:
        """List a layer as failed, and have an equal one, whose file may be well, analysed in its place."""
        others = self._same.pop(layer.key, [])
        self._fail(layer, reason)
        if others:
            self._same[layer.key] = others[1:]
            self._submit(others[:1])

    def _out_of_time(self, layers: Sequence[_Layer]) -> None:
        for layer in layers:
            if layer.late:
                limit = f"{self._time_limit:g} s"
                self._fail(layer, f"The time limit of {limit} was reached, by the bracket also: raise `time_limit`.")
                continue
            # Of several one was slow, and each has a right to the whole time.
            layer.late = len(layers) == 1
            self._submit([layer])

    def _worker_died(self, layers: Sequence[_Layer], error: BaseException) -> None:
        for layer in layers:
            if layer.lost:
                self._fail(layer, f"The worker died twice ({reason_of(error)}). {self._workers.remedy}")
            else:
                layer.lost = True
                self._submit([layer])

    def _fail(self, layer: _Layer, reason: str) -> None:
        inspection = layer.model.opened.inspection
        self._finish(layer, failed_report(inspection.reports[layer.place], inspection.settings, reason))

    def _finish(self, layer: _Layer, report: LayerReport) -> None:
        for one in (layer, *self._same.pop(layer.key, ())):
            one.model.reports[one.place] = one.model.opened.named(one.place, report)
            self._unfinished -= 1
            self._step()
