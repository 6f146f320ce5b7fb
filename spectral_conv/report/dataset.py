"""The labelled form of the analysed layers: one xarray dataset over the dimension `layer`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spectral_conv.report.record import LayerReport
from spectral_conv.results import BoundRow, Enclosure

if TYPE_CHECKING:
    import xarray as xr


def layer_dataset(reports: Sequence[LayerReport]) -> xr.Dataset:
    """All numbers and words of the layers; NaN or an empty string where there is none.

    Parameters
    ----------
    reports : sequence of LayerReport
        Analysed layers; their names become the coordinate of the dimension `layer`.

    Returns
    -------
    xarray.Dataset
        Variables over `layer`, each with a `long_name` and, if it is a number, `units` ("1": dimensionless); where
        the layers have bounds, those are variables over `layer` and `bound`.

    Examples
    --------
    >>> dict(layer_dataset([]).sizes)
    {'layer': 0}
    """
    import xarray as xr  # 0.4 s or more: only those who ask for labels wait for it

    variables = {name: ("layer", values, attributes) for name, values, attributes in _columns(reports)}
    names = _texts([report.name for report in reports])
    dataset = xr.Dataset(variables, coords={"layer": ("layer", names)})
    rows = [() if report.bounds is None else report.bounds.rows for report in reports]
    methods = list(dict.fromkeys(row.method for some in rows for row in some))
    if methods:
        by_method = [{row.method: row for row in some} for some in rows]
        table = [[found.get(method) for method in methods] for found in by_method]
        bounds = {name: (("layer", "bound"), values, about) for name, values, about in _bounds(table)}
        dataset = dataset.assign(bounds).assign_coords(bound=("bound", _texts(methods)))
    return dataset


def _bounds(
    table: Sequence[Sequence[BoundRow | None]],
) -> Iterator[tuple[str, np.ndarray[Any, Any], dict[str, str]]]:
    """The variables of the bounds, layer by layer and method by method."""
    found = [[None if row is None else row.bound for row in rows] for rows in table]
    values = [[math.nan if bound is None else bound.value for bound in bounds] for bounds in found]
    yield "bound_value", np.array(values), {"long_name": "bound of the largest singular value", "units": "1"}
    kinds = [["" if bound is None else bound.kind for bound in bounds] for bounds in found]
    yield "bound_kind", _texts(kinds), {"long_name": "upper, lower or exact bound, or estimate (no bound)"}
    ratios = [[math.nan if row is None or row.ratio is None else row.ratio for row in rows] for rows in table]
    yield "bound_ratio", np.array(ratios), {"long_name": "bound by largest singular value", "units": "1"}
    seconds = [[math.nan if bound is None else bound.seconds for bound in bounds] for bounds in found]
    yield "bound_seconds", np.array(seconds), {"long_name": "time of the bound", "units": "s"}
    reasons = [["" if row is None else row.reason for row in rows] for rows in table]
    yield "bound_reason", _texts(reasons), {"long_name": "why there is no bound"}


def _columns(reports: Sequence[LayerReport]) -> Iterator[tuple[str, np.ndarray[Any, Any], dict[str, str]]]:
    """Name, values and attributes of every variable of the dataset."""
    for end, word in (("sigma_max", "largest"), ("sigma_min", "smallest")):
        enclosures: list[Enclosure | None] = [getattr(report, end) for report in reports]
        for part, suffix in (("value", ""), ("lower", "_lower"), ("upper", "_upper")):
            numbers = [math.nan if e is None else getattr(e, part) for e in enclosures]
            label = f"{word} singular value" + (f", {part} bound" if suffix else "")
            yield f"{end}{suffix}", np.array(numbers), {"long_name": label, "units": "1"}
        for part in ("basis", "method"):
            texts = ["" if e is None else getattr(e, part) for e in enclosures]
            yield f"{end}_{part}", _texts(texts), {"long_name": f"{part} of the {word} singular value"}
        reasons = [getattr(report, f"{end}_reason") or "" for report in reports]
        yield f"{end}_reason", _texts(reasons), {"long_name": f"why there is no {word} singular value"}
        index = 0 if end == "sigma_max" else 1
        circulant = [math.nan if report.circulant is None else report.circulant[index] for report in reports]
        label = f"{word} singular value with circular padding, as the FFT gives it"
        yield f"circulant_{end}", np.array(circulant), {"long_name": label, "units": "1"}
    yield (
        "seconds",
        np.array([report.seconds for report in reports]),
        {"long_name": "time taken", "units": "s"},
    )
    for name in ("kernel_shape", "input_shape", "output_shape", "stride", "dilation"):
        shapes = ["x".join(map(str, getattr(report, name))) for report in reports]
        yield name, _texts(shapes), {"long_name": name.replace("_", " ")}
    yield "groups", np.array([report.groups for report in reports], dtype=np.int64), {"long_name": "groups"}
    modes = [report.padding_mode for report in reports]
    yield "padding_mode", _texts(modes), {"long_name": "padding mode"}
    assumed = ["; ".join(report.assumed) for report in reports]
    yield "assumed", _texts(assumed), {"long_name": "what the file does not say and was assumed"}


def _texts(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object)
