"""The table of a model in the terminal: exact singular values beside what the FFT says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from spectral_conv.report.bounds import tightest
from spectral_conv.report.notes import basis_word, footnotes
from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.report.text import (
    describe_geometry,
    describe_kernel,
    elide,
    error_of,
    estimate_text,
    exact_text,
    off_by,
    printable,
    seconds_text,
)
from spectral_conv.results import Enclosure

NARROWEST_NAME = 16  # names give way down to this width, then the terminal is too narrow for the table
WIDEST_GEOMETRY = 26  # beyond it the geometry under a name wraps
STARTLING = 10.0  # the FFT is off by this factor: red
NOTEWORTHY = 1.1  # and by this: yellow


@dataclass(frozen=True)
class LayerTable:
    """A renderable for rich: the analysed layers of one model with footnotes, in 80 columns or more.

    One line per layer where the terminal is wide enough, else one line per singular value. Without a terminal
    rich prints it as plain text.

    Attributes
    ----------
    reports : sequence of LayerReport
        The layers, in the order of the file.
    title : str
        Heading, such as the name of the file.
    skipped : sequence of (str, str)
        Name and reason of the tensors that were not taken as convolutions.

    Examples
    --------
    >>> from rich.console import Console
    >>> from spectral_conv import ConvOperator
    >>> from spectral_conv.inspection import inspect_model
    >>> inspection = inspect_model([ConvOperator([[[[2.0]]]], (4, 4))])
    >>> Console(width=80).print(LayerTable(inspection.reports, "one layer"))  # doctest: +SKIP
    """

    reports: Sequence[LayerReport]
    title: str = ""
    skipped: Sequence[tuple[str, str]] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Choose the widest form that fits, then the footnotes."""
        if self.title:
            yield Text(printable(self.title) + "\n", style="bold")
        if self.reports:
            yield self._fitting(console, options)
            yield Text("")
        for note in footnotes(self.reports, self.skipped):
            line = Table.grid(padding=(0, 1), pad_edge=False)
            line.add_row(Text(note.mark, style=note.style), Text(printable(note.text), style=note.style))
            yield line

    def _fitting(self, console: Console, options: ConsoleOptions) -> Table:
        def excess(table: Table) -> int:
            wanted = Measurement.get(console, options.update(width=10_000), table).maximum
            return wanted - options.max_width

        names = [printable(report.name) for report in self.reports]
        for table in (_one_line(self.reports, names), _stacked(self.reports, names, full=True)):
            if excess(table) <= 0:
                return table
        # Only the column of names can give way.
        excess_width = max(excess(_stacked(self.reports, names)), 0)
        width = max(_natural_width(self.reports, names) - excess_width, NARROWEST_NAME)
        cut = [
            elide(name, width - bool(report.assumed), "..." if options.ascii_only else "…")
            for name, report in zip(names, self.reports, strict=True)
        ]
        # Names that became alike tell nothing: then they wrap in full.
        return _stacked(self.reports, cut if len(set(cut)) == len(set(names)) else names, width=width)


def _new_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")


def _one_line(reports: Sequence[LayerReport], names: Sequence[str]) -> Table:
    """One line per layer: the form for wide terminals."""
    table = _new_table()
    table.add_column("layer", no_wrap=True)
    for header in ("kernel", "geometry"):
        table.add_column(header, no_wrap=True, style="dim")
    smallest = any(report.sigma_min_reason != NOT_ASKED for report in reports)
    for word in ("max", "min") if smallest else ("max",):
        for header in (word, "by FFT", "FFT is off"):
            table.add_column(header, no_wrap=True, justify="right")
    bounds = any(report.bounds is not None for report in reports)
    if bounds:
        table.add_column("bound", no_wrap=True, justify="right")
    table.add_column("how sure", no_wrap=True, style="dim")
    table.add_column("s", no_wrap=True, justify="right", style="dim")
    for report, name in zip(reports, names, strict=True):
        ends = _ends(report)
        cells = [cell for _, enclosure, estimate in ends for cell in _numbers(enclosure, estimate)]
        found = [enclosure for _, enclosure, _ in ends if enclosure is not None]
        table.add_row(
            _name(name, report),
            describe_kernel(report),
            describe_geometry(report),
            *cells,
            *([""] * (3 * (1 + smallest) - len(cells))),
            *([_bound(report, " ")] if bounds else []),
            ", ".join(dict.fromkeys(map(basis_word, found))),
            seconds_text(report.seconds),
        )
    return table


def _stacked(
    reports: Sequence[LayerReport], names: Sequence[str], *, full: bool = False, width: int | None = None
) -> Table:
    """One line per singular value, the geometry under the name; `full` adds error, method and seconds."""
    width = width or _natural_width(reports, names)
    table = _new_table()
    table.add_column("layer", overflow="fold", width=width)
    table.add_column("", no_wrap=True, style="dim")
    for header in ("exact", "by FFT", "FFT is off"):
        # In a terminal that is too narrow even so, a number goes on in the next line: cut, it would mislead.
        table.add_column(header, overflow="fold", justify="right")
    bounds = any(report.bounds is not None for report in reports)
    if bounds:
        table.add_column("bound", overflow="fold", justify="right")
    table.add_column("how sure", overflow="fold", style="dim")
    if full:
        table.add_column("error", no_wrap=True, justify="right", style="dim")
        table.add_column("found by", no_wrap=True, style="dim")
        table.add_column("s", no_wrap=True, justify="right", style="dim")
    for report, name in zip(reports, names, strict=True):
        ends = _ends(report)
        numbers = zip(*(_numbers(enclosure, estimate) for _, enclosure, estimate in ends), strict=True)
        cells = [Text("\n").join(column) for column in numbers]
        found = [enclosure for _, enclosure, _ in ends]
        sure = _lines("-" if e is None else basis_word(e) for e in found)
        row = [_heading(name, report, width), _lines(word for word, _, _ in ends), *cells]
        row += [_bound(report, "\n"), sure] if bounds else [sure]
        if full:
            row.append(_lines("-" if e is None else f"{error_of(e):.0e}" for e in found))
            row.append(_lines("-" if e is None else e.method for e in found))
            row.append(Text(seconds_text(report.seconds)))
        table.add_row(*row)
    return table


def _ends(report: LayerReport) -> list[tuple[str, Enclosure | None, float | None]]:
    """Name, exact value and estimate of each end of the spectrum."""
    largest, smallest = report.circulant or (None, None)
    ends = [("max", report.sigma_max, largest)]
    if report.sigma_min_reason != NOT_ASKED:
        ends.append(("min", report.sigma_min, smallest))
    return ends


def _numbers(enclosure: Enclosure | None, estimate: float | None) -> tuple[Text, Text, Text]:
    exact = Text("not found", style="red") if enclosure is None else Text(exact_text(enclosure), style="bold")
    fft = Text("-" if estimate is None else estimate_text(estimate))
    if enclosure is None or estimate is None:
        return exact, fft, Text("-")
    text, factor = off_by(estimate, enclosure)
    style = "bold red" if factor >= STARTLING else "yellow" if factor >= NOTEWORTHY else ""
    return exact, fft, Text(text, style=style)


def _bound(report: LayerReport, joint: str) -> Text:
    text, method, factor = tightest(report)
    style = "bold red" if factor >= STARTLING else "yellow" if factor >= NOTEWORTHY else ""
    return Text(text, style=style).append(joint + method, style="dim not bold")


def _name(name: str, report: LayerReport) -> Text:
    return Text(name, style="bold") + Text("*" if report.assumed else "", style="yellow")


def _natural_width(reports: Sequence[LayerReport], names: Sequence[str]) -> int:
    lengths = (cell_len(name) + bool(report.assumed) for name, report in zip(names, reports, strict=True))
    return max(WIDEST_GEOMETRY, *lengths)


def _heading(name: str, report: LayerReport, width: int) -> Text:
    kernel, geometry = describe_kernel(report), describe_geometry(report)
    # "dilation 2" is not torn apart: what does not fit beside the kernel goes to a line of its own.
    joint = ", " if len(kernel) + 2 + len(geometry) <= width else "\n"
    text = _name(name, report)
    text.append("\n" + kernel + (joint + geometry if geometry else ""), style="dim")
    return text


def _lines(words: Iterable[str]) -> Text:
    return Text("\n".join(words))
