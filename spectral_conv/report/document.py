"""The JSON form of a layer: plain data that any JSON reader takes, with no NaN and no Infinity."""

from __future__ import annotations

import math
from typing import Any

from spectral_conv.report.record import LayerReport
from spectral_conv.results import Enclosure


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
    document["bounds"] = {}
    document["seconds"] = round(report.seconds, 6)
    return document


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
