"""The form of a layer's record on disk, and back: nothing is lost, unlike in the public document."""

from __future__ import annotations

import dataclasses
import enum
import math
import operator
from typing import Any

import numpy as np

from spectral_conv.report.record import LayerReport
from spectral_conv.results import Bound, BoundRow, BoundTable, Enclosure, StopReason


def stored_report(report: LayerReport) -> dict[str, Any]:
    """Return a record as plain data for JSON, from which `restored_report` makes the same record again.

    Parameters
    ----------
    report : LayerReport
        An analysed layer.

    Returns
    -------
    dict
        Only str, int, float, bool, None, list and dict. A number that is not finite is its name, such as "inf", for
        JSON has no word for it.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> report = inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).reports[0]
    >>> stored_report(report)["sigma_max"]["stop_reason"]
    'DIRECT'
    >>> restored_report(stored_report(report)) == report
    True
    """
    stored: dict[str, Any] = _plain(dataclasses.asdict(report))
    return stored


def restored_report(stored: dict[str, Any]) -> LayerReport:
    """Return the record that `stored_report` was given.

    Parameters
    ----------
    stored : dict
        As it came back from JSON.

    Returns
    -------
    LayerReport
        Equal to the one that was stored: every float has the same bits.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        Data of another form.

    Examples
    --------
    >>> from spectral_conv.inspection import layer_record
    >>> from spectral_conv import ConvOperator
    >>> from spectral_conv.models import ConvLayer
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> layer = ConvLayer(name="a", operator=conv, assumed=(), kernel_shape=(1, 1, 1, 1), layout="HWIO")
    >>> restored_report(stored_report(layer_record(layer))).output_shape
    (1, 4, 4)
    """
    tuples = {name: _tuples(value) for name, value in stored.items() if isinstance(value, list)}
    circulant, bounds = stored["circulant"], stored["bounds"]
    found: dict[str, Any] = {
        "sigma_max": _enclosure(stored["sigma_max"]),
        "sigma_min": _enclosure(stored["sigma_min"]),
        "circulant": None if circulant is None else (float(circulant[0]), float(circulant[1])),
        "bounds": None if bounds is None else _table(bounds),
        "seconds": float(stored["seconds"]),
    }
    return LayerReport(**(stored | tuples | found))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, np.integer):
        return operator.index(value)
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def _enclosure(stored: dict[str, Any] | None) -> Enclosure | None:
    if stored is None:
        return None
    numbers = {name: float(stored[name]) for name in ("lower", "value", "upper")}
    return Enclosure(**(stored | numbers | {"stop_reason": StopReason[stored["stop_reason"]]}))


def _table(stored: dict[str, Any]) -> BoundTable:
    rows = tuple(_row(row) for row in stored["rows"])
    exact = {"exact": _enclosure(stored["exact"]), "exact_seconds": float(stored["exact_seconds"])}
    return BoundTable(**(stored | exact | {"rows": rows}))


def _row(stored: dict[str, Any]) -> BoundRow:
    bound, ratio = stored["bound"], stored["ratio"]
    if bound is not None:
        bound = Bound(**(bound | {"value": float(bound["value"]), "seconds": float(bound["seconds"])}))
    return BoundRow(**(stored | {"bound": bound, "ratio": None if ratio is None else float(ratio)}))
