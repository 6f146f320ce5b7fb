"""The parts of the page about single layers: rows of the table, and a section with figures for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectral_conv.report.bounds import ratio_text, tightest
from spectral_conv.report.figures import LayerFigures, Mode
from spectral_conv.report.findings import explodes, misleads, vanishes
from spectral_conv.report.html_svg import inline_svg
from spectral_conv.report.notes import BASES, basis_word, by_reason
from spectral_conv.report.plots_images import plot_frequencies, plot_mode
from spectral_conv.report.plots_layers import plot_histogram, plot_values
from spectral_conv.report.record import NOT_ASKED, LayerReport, is_reached, is_upper
from spectral_conv.report.text import (
    describe_geometry,
    describe_kernel,
    error_of,
    estimate_text,
    exact_text,
    off_by,
    printable,
    seconds_text,
)
from spectral_conv.results import Enclosure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {
    "dense": "LAPACK's singular value decomposition of the whole matrix",
    "lanczos": "block Golub-Kahan-Lanczos iteration on the layer itself",
    "davidson": "Davidson iteration with an inverted circulant on the layer itself",
    "factorized": "inverse iteration with a Cholesky factor of the layer's Gram matrix",
    "blocks": "no pixel is read twice: one small decomposition per kind of window",
    "symbol": "circular padding: one small decomposition per frequency, exact",
    "bracket": "a limit was reached: cheap bounds that hold for sure, nothing nearer",
}
# Width and height, then the margins left, bottom, right and top, in inches: on the page as wide as their column.
# Fixed, for working margins out takes as long as the drawing.
_CURVE = (3.9, 3.1, 0.8, 0.5, 0.18, 0.5)
_MAP = (3.9, 3.1, 0.55, 0.5, 0.5, 0.2)
_VECTOR = (2.7, 2.1, 0.42, 0.42, 0.6, 0.2)
_PROFILE = (2.7, 2.1, 0.65, 0.42, 0.1, 0.2)


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number as it stands in the record, and as a person reads it; no value where there is no number."""

    value: float | None
    text: str

    @classmethod
    def of(cls, value: float | None, text: str) -> Number:
        """The number, which is none in the record, either, where it is not finite.

        Examples
        --------
        >>> Number.of(math.inf, "inf")
        Number(value=None, text='inf')
        """
        return cls(value=None if value is None or not math.isfinite(value) else float(value), text=text)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure: its heading, the ``<svg>`` and the caption."""

    title: str
    svg: str
    caption: str
    small: bool = False


def row(report: LayerReport, number: int) -> dict[str, Any]:
    """Cells of a layer in the table.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> row(inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).reports[0], 1)["largest"]["exact"].text
    '2.000000'
    """
    flags = {"explodes": explodes(report), "vanishes": vanishes(report), "misleads": misleads(report)}
    flags |= {"assumed": bool(report.assumed), "incomplete": not report.complete}
    bound, method, factor = tightest(report)
    ends = list(_ends(report))
    return {
        "number": number,
        "name": printable(report.name),
        "kernel": describe_kernel(report),
        "geometry": describe_geometry(report),
        "assumed": bool(report.assumed),
        "flags": " ".join(flag for flag, holds in flags.items() if holds),
        **{word: _cells(enclosure, reason, estimate) for word, enclosure, reason, estimate in ends},
        "bound": {"text": bound, "method": method, "factor": factor},
        "sure": list(dict.fromkeys(basis_word(end) for _, end, _, _ in ends if end is not None)),
        "seconds": Number.of(round(report.seconds, 6), seconds_text(report.seconds)),
    }


def section(report: LayerReport, figures: LayerFigures, number: int) -> dict[str, Any]:
    """Everything that the section of a layer shows.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> from spectral_conv.report.figures import layer_figures
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> shown = section(inspect_model([conv]).reports[0], layer_figures(conv), 1)
    >>> shown["facts"][0]
    ('kernel', '1 x 1 x 1 x 1 (HWIO)')
    """
    facts = [
        ("kernel", f"{_times(report.kernel_shape)} ({report.layout})"),
        ("input", _times(report.input_shape)),
        ("output", _times(report.output_shape)),
        ("matrix", f"{math.prod(report.output_shape)} x {math.prod(report.input_shape)}"),
        ("geometry", describe_geometry(report) or "stride 1, padding same"),
    ]
    facts += [("batch norm in the kernel", ", ".join(report.folded))] if report.folded else []
    assumed = ", ".join(report.assumed)
    facts.append(("assumed", f"{assumed}: the file does not say" if assumed else "nothing"))
    return {
        "number": number,
        "name": printable(report.name),
        "facts": [(word, printable(text)) for word, text in facts],
        "ends": [_provenance(*end) for end in _ends(report)],
        "estimates": report.circulant is not None,
        "no_estimates": printable(report.circulant_reason or ""),
        "largest": "which is missing" if report.sigma_max is None else exact_text(report.sigma_max),
        "bounds": _bounds(report),
        "not_applied": _not_applied(report),
        "no_bounds": "" if report.bounds_reason == NOT_ASKED else printable(report.bounds_reason or ""),
        "drawings": list(_drawings(report, figures, number)),
        "missing": [(word, printable(reason)) for word, reason in _missing(figures)],
    }


def _ends(report: LayerReport) -> Iterator[tuple[str, Enclosure | None, str | None, float | None]]:
    largest, smallest = report.circulant or (None, None)
    yield "largest", report.sigma_max, report.sigma_max_reason, largest
    yield "smallest", report.sigma_min, report.sigma_min_reason, smallest


def _cells(enclosure: Enclosure | None, reason: str | None, estimate: float | None) -> dict[str, Any]:
    off, factor = ("-", 1.0) if enclosure is None or estimate is None else off_by(estimate, enclosure)
    missing = "-" if reason == NOT_ASKED else "not found"
    return {
        "exact": Number.of(None, missing) if enclosure is None else _exact(enclosure),
        "order": None if enclosure is None else enclosure.value,
        "fft": Number.of(estimate, "-" if estimate is None else estimate_text(estimate)),
        "off": off,
        "factor": factor if math.isfinite(factor) else 1e300,
        "grave": factor >= 2.0,
    }


def _exact(enclosure: Enclosure) -> Number:
    return Number.of(enclosure.value, exact_text(enclosure))


def _provenance(word: str, enclosure: Enclosure | None, reason: str | None, estimate: float | None) -> dict[str, Any]:
    """How a number was obtained."""
    shown = {"word": word, **_cells(enclosure, reason, estimate), "reason": printable(reason or "")}
    if enclosure is None:
        return shown | {"found": False}
    sure = basis_word(enclosure)
    theorem = enclosure.basis.partition(": ")[2]
    meaning = BASES.get(sure, "the layer was too large for more")
    return shown | {
        "found": True,
        "lower": Number.of(enclosure.lower, f"{enclosure.lower:.10g}"),
        "upper": Number.of(enclosure.upper, f"{enclosure.upper:.10g}"),
        "error": f"{error_of(enclosure):.1e}",
        "sure": sure,
        "meaning": f"{meaning} ({theorem})" if theorem else meaning,
        "method": METHODS[enclosure.method],
        "applications": enclosure.applications,
        "stopped": "" if is_reached(enclosure) else enclosure.stop_reason.value,
    }


def _bounds(report: LayerReport) -> list[dict[str, Any]]:
    rows = () if report.bounds is None else report.bounds.rows
    excess = [abs(r.ratio - 1.0) for r in rows if r.ratio is not None and math.isfinite(r.ratio)]
    widest = max(excess, default=0.0) or 1.0
    shown: list[dict[str, Any]] = []
    for entry in rows:
        bound = entry.bound
        if bound is None:
            continue
        ratio = entry.ratio
        bar = 0.0 if ratio is None else min(abs(ratio - 1.0) / widest, 1.0)
        shown.append(
            {
                "method": entry.method,
                "kind": bound.kind,
                "upper": is_upper(bound),
                "value": Number.of(bound.value, f"{bound.value:#.7g}"),
                "ratio": Number.of(ratio, ratio_text(ratio)),
                "bar": f"{100.0 * bar:.1f}",
                "seconds": Number.of(bound.seconds, f"{1e3 * bound.seconds:.3g}"),
            }
        )
    return shown


def _not_applied(report: LayerReport) -> list[tuple[str, str]]:
    """Methods that have no bound for the layer, and why, each reason once."""
    rows = () if report.bounds is None else report.bounds.rows
    # "X does not apply to such layers: why" and the same of Y are one line.
    pairs = ((r.method, r.reason.rpartition(" does not apply to ")[2]) for r in rows if r.bound is None)
    return [(", ".join(methods), printable(reason)) for reason, methods in by_reason(pairs).items()]


def _drawings(report: LayerReport, figures: LayerFigures, number: int) -> Iterator[Drawing]:
    if figures.circulant is not None or figures.exact is not None:
        yield _spectrum_drawing(report, figures, number, histogram=False)
        yield _spectrum_drawing(report, figures, number, histogram=True)
    found = figures.frequencies
    if found is not None:
        # A line shows no more than an image, and both ends of it.
        for end in ("largest", "smallest"):
            figure = _figure(*(_CURVE if found.largest.ndim == 1 else _MAP))
            plot_frequencies(found, end, ax=figure.add_subplot())
            title = f"{end.capitalize()} singular value over frequency"
            caption = (
                f"The {end} singular value of the kernel's symbol at each frequency: what waves of that frequency "
                "meet far from the border. Zero, a constant image, is in the middle; ±π is the finest pattern."
            )
            caption += " Over the first of the three axes the extreme is shown." if found.folded else ""
            yield Drawing(title=title, svg=inline_svg(figure, f"f{number}-{end}", title), caption=caption)
    for end, mode in (("largest", figures.largest), ("smallest", figures.smallest)):
        if mode is not None:
            yield from _mode_drawings(mode, end, number, report)


def _spectrum_drawing(report: LayerReport, figures: LayerFigures, number: int, *, histogram: bool) -> Drawing:
    figure = _figure(*_CURVE)
    draw = plot_histogram if histogram else plot_values
    draw(report, figures.circulant, figures.exact, ax=figure.add_subplot())
    curves = [
        f"the {spectrum.total} values {of}"
        for spectrum, of in (
            (figures.circulant, "of the circular layer, as the FFT gives them (dashed)"),
            (figures.exact, "of the layer itself (full line)"),
        )
        if spectrum is not None
    ]
    drawn = " and ".join(curves)
    if histogram:
        title, start = "How the singular values are spread", "Share of the values in each of 40 bins: "
    else:
        title, start = "Singular values in order", "All singular values, the largest first: "
    caption = f"{start}{drawn}. Triangles: the exact ends, with the layer's own padding and image size."
    return Drawing(
        title=title, svg=inline_svg(figure, f"f{number}-{'h' if histogram else 'v'}", title), caption=caption
    )


def _mode_drawings(mode: Mode, end: str, number: int, report: LayerReport) -> Iterator[Drawing]:
    if end == "largest":
        which = "The input that grows most"
    elif math.prod(report.output_shape) >= math.prod(report.input_shape):
        which = "The input of which least is left"
    else:
        # Of a layer that narrows, many inputs vanish entirely; the smallest value is about the way back.
        which = "What is left of the gradient of which least is left on its way back"
    captions = {
        "signal": f"{which}, in the channel where it is strongest.",
        "input": "The same, all channels together.",
        "output": "What the layer makes of it, all channels together, scaled to norm 1.",
    }
    if mode.slices is not None:
        captions["input"] += f" Slice {mode.slices[0]} of the first axis."
        captions["output"] += f" Slice {mode.slices[1]} of the first axis."
    for part, caption in captions.items():
        figure = _figure(*(_PROFILE if mode.signal.ndim == 1 else _VECTOR))
        ax = plot_mode(mode, part, ax=figure.add_subplot())
        title = f"{end.capitalize()} value: {ax.get_title()}"
        ax.set_title("")
        yield Drawing(
            title=title, svg=inline_svg(figure, f"f{number}-{end}-{part}", title), caption=caption, small=True
        )


def _figure(width: float, height: float, left: float, bottom: float, right: float, top: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=left / width, bottom=bottom / height, right=1.0 - right / width, top=1.0 - top / height
    )
    return figure


def _missing(figures: LayerFigures) -> list[tuple[str, str]]:
    words = {
        "circulant": "values by FFT",
        "exact": "curve of all exact values",
        "frequencies": "maps over frequency",
        "largest": "largest singular vectors",
        "smallest": "smallest singular vectors",
    }
    pairs = ((words[name], reason) for name, reason in figures.reasons.items())
    return [(", no ".join(missing), reason) for reason, missing in by_reason(pairs).items()]


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
