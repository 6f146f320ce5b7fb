"""The table of layers as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

from spectral_conv.report.record import LayerReport
from spectral_conv.report.text import printable

_COMMANDS = ("=", "+", "-", "@")  # what starts like this is a formula to a spreadsheet
_SHAPES = ("kernel_shape", "input_shape", "output_shape", "stride", "dilation")


def layers_csv(models: Sequence[tuple[str, Sequence[LayerReport]]]) -> str:
    """Write the layers of one or more models as comma-separated values.

    Parameters
    ----------
    models : sequence of (str, sequence of LayerReport)
        Name and layers of each.

    Returns
    -------
    str
        A line of headers, then a line per layer; numbers in full, empty where there is none. Text that a spreadsheet
        would take for a formula has an apostrophe before it, control characters are written as escapes.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> reports = inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).reports
    >>> layers_csv([("=1+1", reports)]).splitlines()[1][:20]
    "'=1+1,layer0,1x1x1x1"
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = True
    for model, reports in models:
        for report in reports:
            cells = {"model": model, **dict(_cells(report))}
            if header:
                writer.writerow(cells)
                header = False
            writer.writerow([_cell(value) for value in cells.values()])
    return buffer.getvalue()


def _cells(report: LayerReport) -> Iterator[tuple[str, str | float | int | None]]:
    yield "name", report.name
    for name in _SHAPES:
        yield name, "x".join(map(str, getattr(report, name)))
    yield "padding", " ".join(f"{before}:{after}" for before, after in report.padding)
    yield "groups", report.groups
    yield "padding_mode", report.padding_mode
    yield "transposed", str(report.transposed).lower()
    yield "assumed", "; ".join(report.assumed)
    for end, side in (("sigma_max", 0), ("sigma_min", 1)):
        enclosure = getattr(report, end)
        yield end, None if enclosure is None else enclosure.value
        for part in ("lower", "upper", "basis", "method"):
            yield f"{end}_{part}", None if enclosure is None else getattr(enclosure, part)
        yield f"{end}_reason", getattr(report, f"{end}_reason")
        yield f"circulant_{end}", None if report.circulant is None else report.circulant[side]
    yield "circulant_reason", report.circulant_reason
    yield "seconds", round(report.seconds, 6)


def _cell(value: str | float | int | None) -> str | int:
    if value is None:
        return ""
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if text.startswith(_COMMANDS) else text
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return value
