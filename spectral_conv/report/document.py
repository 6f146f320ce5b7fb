"""The JSON form of a layer: plain data that any JSON reader takes, with no NaN and no Infinity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.results import Bound, BoundRow, BoundTable, Enclosure


def layer_document(report: LayerReport) -> dict[str, Any]:
    """One entry of ``layers`` in the document that ``spectral-conv inspect --json`` prints.

    Parameters
    ----------
    report : LayerReport
        An analysed layer.

    Returns
    -------
    dict
        Only str, int, float, bool, None, list and dict; a number that is not finite is None.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> from spectral_conv.inspection import inspect_model
    >>> document = layer_document(inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).reports[0])
    >>> document["sigma_max"]["value"], document["stride"]
    (2.0, [1, 1])
    """
    document: dict[str, Any] = {
        "name": report.name,
        "kernel_shape": list(report.kernel_shape),
        "layout": report.layout,
        "input_shape": list(report.input_shape),
        "output_shape": list(report.output_shape),
        "stride": list(report.stride),
        "padding": [list(pair) for pair in report.padding],
        "dilation": list(report.dilation),
        "groups": report.groups,
        "padding_mode": report.padding_mode,
        "transposed": report.transposed,
        "assumed": list(report.assumed),
    }
    if report.folded:
        document["folded"] = list(report.folded)
    document |= _value("sigma_max", _enclosure(report.sigma_max), report.sigma_max_reason)
    document |= _value("sigma_min", _enclosure(report.sigma_min), report.sigma_min_reason)
    circulant = report.circulant
    pair = None if circulant is None else dict(zip(("sigma_max", "sigma_min"), circulant, strict=True))
    document |= _value("circulant", pair, report.circulant_reason)
    rows = () if report.bounds is None else report.bounds.rows
    document["bounds"] = {row.method: _row(row, ("kind", "seconds")) for row in rows}
    if report.bounds is None and report.bounds_reason != NOT_ASKED:
        document["bounds_reason"] = report.bounds_reason
    document["seconds"] = round(report.seconds, 6)
    return document


def bounds_document(table: BoundTable) -> dict[str, Any]:
    """Return the part of the document of ``spectral-conv bounds --json`` that holds the numbers.

    Parameters
    ----------
    table : BoundTable
        The bounds of one layer.

    Returns
    -------
    dict
        "exact" (None with an "exact_reason") and "bounds", in the order of the table; plain data, as of
        `layer_document`.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, bounds
    >>> document = bounds_document(bounds.table(ConvOperator([[[[2.0]]]], (4, 4))))
    >>> document["exact"]["value"], round(document["bounds"][0]["ratio"], 6)
    (2.0, 1.0)
    """
    exact = _enclosure(table.exact)
    if exact is not None:
        exact["seconds"] = table.exact_seconds
    words = ("kind", "seconds", "scope", "source", "notes")
    rows = [{"method": row.method} | _row(row, words) for row in table.rows]
    return _value("exact", exact, table.exact_reason) | {"bounds": rows}


def _row(row: BoundRow, fields: Sequence[str]) -> dict[str, Any]:
    bound: Bound | None = row.bound
    if bound is None:
        return {"reason": row.reason}
    value = _finite(bound.value)
    ratio = None if row.ratio is None else _finite(row.ratio)
    found = {"value": value, "ratio": ratio} | {field: getattr(bound, field) for field in fields}
    return found if value is not None else found | {"reason": "the value is beyond the range of numbers"}


def _value(key: str, value: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
    return {key: value} if value is not None else {key: None, f"{key}_reason": reason}


def _enclosure(enclosure: Enclosure | None) -> dict[str, Any] | None:
    if enclosure is None:
        return None
    return {
        "value": _finite(enclosure.value),
        "lower": _finite(enclosure.lower),
        "upper": _finite(enclosure.upper),
        "basis": enclosure.basis,
        "method": enclosure.method,
        "applications": int(enclosure.applications),
    }


def _finite(number: float) -> float | None:
    # The upper end of a bracket may be infinite; JSON has no word for it.
    return float(number) if math.isfinite(number) else None
