"""A run over several models: here or on workers, what was found before taken from the store, tables written to it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from spectral_conv.inspection._analysis import failed_report
from spectral_conv.inspection._inspection import Inspection
from spectral_conv.inspection._opened import OpenedModel
from spectral_conv.inspection._records import find_record
from spectral_conv.inspection._schedule import Schedule
from spectral_conv.inspection._store import InspectionStore
from spectral_conv.inspection._tasks import run_task
from spectral_conv.inspection._workers import Workers
from spectral_conv.report.record import LayerReport


def run(
    models: Iterable[OpenedModel],
    step: Callable[[], None],
    *,
    workers: Workers | None,
    store: InspectionStore | None,
    time_limit: float | None,
) -> Iterator[Inspection]:
    """Yield the inspections of models, in order.

    Parameters
    ----------
    models : iterable of OpenedModel
        Opened as they are needed.
    step : callable
        Called for each layer that is done.
    workers : Workers or None
        Who does it; None for this thread.
    store : InspectionStore or None
        Where results are kept.
    time_limit : float or None
        Seconds that one layer may take.
    """
    records = None if store is None else store.records
    done: Generator[tuple[OpenedModel, list[LayerReport]]]
    if workers is None:
        done = ((opened, _analyzed_here(opened, records, step)) for opened in models)
    else:
        done = Schedule(workers, records=records, time_limit=time_limit, step=step).run(models)
    try:
        for opened, reports in done:
            found = opened.finished(reports)
            if store is not None and found.failure is None:
                where = {} if opened.file is None else {"path": str(opened.file.path)}
                store.write_table(found.model, opened.identity, found.dataset.assign_attrs(where))
            yield found
    finally:
        # The workers end before the last word in the store is said.
        done.close()
        if store is not None:
            store.consolidate()


def _analyzed_here(opened: OpenedModel, records: Path | None, step: Callable[[], None]) -> list[LayerReport]:
    reports = []
    for place, blank in enumerate(opened.inspection.reports):
        settings = opened.inspection.settings
        known = None if records is None else find_record(records, opened.keys[place])
        outcome = known or run_task(opened.task(place, settings.memory_limit, records))
        report = outcome if isinstance(outcome, LayerReport) else failed_report(blank, settings, outcome)
        reports.append(opened.named(place, report))
        step()
    return reports
