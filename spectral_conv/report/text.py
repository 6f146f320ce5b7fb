"""Numbers, geometries and names as short text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from spectral_conv.report.record import LayerReport
from spectral_conv.results import Enclosure


def printable(text: str) -> str:
    r"""Text from a file with every character that a terminal would obey written as an escape.

    Control characters, line breaks and the marks that reverse the reading direction all go.

    Examples
    --------
    >>> printable("conv\x1b[31m1")
    'conv\\x1b[31m1'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def elide(name: str, width: int, ellipsis: str = "…") -> str:
    """Cut the middle out of a name that is longer than `width`; its end says more than its start.

    Examples
    --------
    >>> elide("backbone.layer1.0.conv1.weight", 22)
    'backbon…0.conv1.weight'
    """
    if len(name) <= width:
        return name
    kept = max(width - len(ellipsis), 2)
    head = kept // 3
    return name[:head] + ellipsis + name[len(name) - (kept - head) :]


def describe_kernel(report: LayerReport) -> str:
    """Kernel as stored and input size, ``16x16x3x3 in 8x8``."""
    return f"{_times(report.kernel_shape)} in {_times(report.input_shape[1:])}"


def describe_geometry(report: LayerReport) -> str:
    """Everything about the layer that is not the default, ``stride 2, groups 32``; may be empty."""
    words = ["transposed"] if report.transposed else []
    for word, values in (("stride", report.stride), ("dilation", report.dilation)):
        if any(value != 1 for value in values):
            words.append(f"{word} {_uniform(values)}")
    if report.groups != 1:
        words.append(f"groups {report.groups}")
    padding = _describe_padding(report)
    words += [padding] if padding else []
    if report.padding_mode != "zeros":
        words.append(report.padding_mode)
    return ", ".join(words)


def error_of(enclosure: Enclosure) -> float:
    """Distance from the value to the farther end of its enclosure."""
    return max(enclosure.value - enclosure.lower, enclosure.upper - enclosure.value, 0.0)


def exact_text(enclosure: Enclosure, digits: int = 7) -> str:
    """Value with the digits that its error leaves standing, at most `digits` of them.

    A value that cannot be told from zero is written as ``< upper``, a bracket as ``lower..upper``.

    Examples
    --------
    >>> words = dict(basis="residual", method="dense", applications=0)
    >>> exact_text(Enclosure(lower=2.0, value=2.0, upper=2.001, **words))
    '2.000'
    """
    if enclosure.method == "bracket":
        return f"{enclosure.lower:.3g}..{enclosure.upper:.3g}"
    error = error_of(enclosure)
    if enclosure.value <= error:
        return "0" if error == 0 else f"< {enclosure.upper:.1e}"
    if error > 0:
        digits = min(digits, max(2, math.floor(math.log10(enclosure.value / error)) + 1))
    return f"{enclosure.value:#.{digits}g}"


def estimate_text(value: float) -> str:
    """Four significant digits; what is zero but for rounding is 0."""
    return "0" if value < 1e-14 else f"{value:#.4g}"


def off_by(estimate: float, enclosure: Enclosure) -> tuple[str, float]:
    """How far the estimate is from the exact value, as text and as a factor of at least 1.

    Up to a factor of two it is a signed percentage of the exact value, beyond that a factor.

    Examples
    --------
    >>> words = dict(basis="residual", method="dense", applications=0)
    >>> exact = Enclosure(lower=2.0, value=2.0, upper=2.0, **words)
    >>> off_by(2.1, exact)[0], off_by(50.0, exact)[0]
    ('+5.0 %', '25 x')
    """
    if enclosure.method == "bracket":
        if enclosure.lower <= estimate <= enclosure.upper:
            return "inside", 1.0
        # The exact value is on the far side of the nearer end: this is the least that the FFT may be off.
        text, factor = _distance(estimate, enclosure.upper if estimate > enclosure.upper else enclosure.lower)
        return f"> {text}", factor
    error = error_of(enclosure)
    if abs(estimate - enclosure.value) <= max(error, 1e-9 * enclosure.value):
        return "none", 1.0
    if enclosure.value <= error:
        # Zero within its error: the factor is at least the one from the upper end.
        text, factor = _distance(estimate, max(enclosure.upper, 1e-300))
        return f"> {text}", factor
    return _distance(estimate, enclosure.value)


def _distance(estimate: float, reference: float) -> tuple[str, float]:
    ratio = estimate / reference
    if 0.5 <= ratio <= 2.0:
        return _percent(ratio - 1.0), max(ratio, 1.0 / ratio)
    if ratio > 1.0:
        return f"{_factor(ratio)} x", ratio
    factor = 1.0 / max(ratio, 1e-300)
    return f"1/{_factor(factor)}", factor


def seconds_text(seconds: float) -> str:
    """Seconds with two significant digits, 0.01 at least."""
    return f"{seconds:.2f}" if seconds < 9.995 else f"{seconds:.0f}"


def _times(values: Sequence[int]) -> str:
    return "x".join(map(str, values))


def _uniform(values: Sequence[Any]) -> str:
    return str(values[0]) if len(set(values)) == 1 else _times(values)


def _describe_padding(report: LayerReport) -> str:
    reach = [d * (k - 1) for k, d in zip(report.kernel_size, report.dilation, strict=True)]
    if not report.transposed and report.padding == tuple((r // 2, r - r // 2) for r in reach):
        return ""
    if not any(before or after for before, after in report.padding):
        return "" if report.transposed else "valid"
    if all(before == after for before, after in report.padding):
        return f"pad {_uniform([before for before, _ in report.padding])}"
    pairs = [f"{before}+{after}" for before, after in report.padding]
    return f"pad {_uniform(pairs)}"


def _percent(part: float) -> str:
    percent = 100.0 * part
    if abs(percent) < 0.001:
        return f"{percent:+.0e} %"
    digits = 0 if abs(percent) >= 9.95 else 1 if abs(percent) >= 0.995 else 2 if abs(percent) >= 0.0995 else 3
    return f"{percent:+.{digits}f} %"


def _factor(factor: float) -> str:
    if factor >= 99_999.5:
        return f"{factor:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{factor:,.0f}" if factor >= 9.95 else f"{factor:.1f}"
