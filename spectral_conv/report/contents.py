"""What is in a model file, before anything is computed: convolutions and the tensors that are none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spectral_conv.report.notes import assumptions, by_reason
from spectral_conv.report.record import LayerReport
from spectral_conv.report.text import describe_geometry, printable


@dataclass(frozen=True)
class ContentsTable:
    """A renderable for rich: the layers of a model with their geometry, then what was left out and why.

    Attributes
    ----------
    reports : sequence of LayerReport
        The layers; only their geometry is shown.
    title : str
        Heading.
    skipped : sequence of (str, str)
        Name and reason of the tensors that were not taken as convolutions.
    costs : sequence of (float, float) or None
        Predicted seconds and bytes of the analysis of each layer; empty for no such columns.

    Examples
    --------
    >>> from rich.console import Console
    >>> Console(width=80, color_system=None).print(ContentsTable([], "nothing.npz"))
    nothing.npz
    <BLANKLINE>
    """

    reports: Sequence[LayerReport]
    title: str = ""
    skipped: Sequence[tuple[str, str]] = ()
    costs: Sequence[tuple[float, float] | None] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Title, table, notes."""
        yield Text(printable(self.title) + "\n", style="bold")
        if self.reports:
            yield self._fitting(console, options)
            yield Text("")
        yield from self._totals()
        for line in folded_note(self.reports):
            yield Text(f"{line}\n", style="dim")
        for note in assumptions(self.reports):
            yield Text(f"{note.mark} {printable(note.text)}\n", style=note.style)
        if self.skipped:
            yield Text(f"Not taken as convolutions: {len(self.skipped)}", style="bold")
        for reason, names in by_reason(self.skipped).items():
            yield Text(f"- {printable(reason)}:")
            yield Padding(Text(", ".join(map(printable, names)), style="dim"), (0, 0, 0, 2))

    def _fitting(self, console: Console, options: ConsoleOptions) -> Table:
        """The fullest form that fits; in the last one names wrap."""
        for matrix, layout in ((True, True), (False, True)):
            table = self._table(matrix=matrix, layout=layout)
            if Measurement.get(console, options.update(width=10_000), table).maximum <= options.max_width:
                return table
        return self._table(matrix=False, layout=False)

    def _table(self, *, matrix: bool, layout: bool) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        table.add_column("layer", overflow="fold")
        for header in ("kernel", "input", "output"):
            table.add_column(header, no_wrap=True)
        table.add_column("geometry", style="dim")
        if matrix:
            table.add_column("matrix", no_wrap=True, justify="right", style="dim")
        if self.costs:
            for header in ("time", "memory"):
                table.add_column(header, no_wrap=True, justify="right")
        for i, report in enumerate(self.reports):
            name = Text(printable(report.name), style="bold")
            kernel = _times(report.kernel_shape) + (f" {report.layout}" if layout else "")
            row: list[RenderableType] = [
                name,
                kernel,
                _times(report.input_shape),
                _times(report.output_shape),
            ]
            words = describe_geometry(report) or ("stride 1, same" if layout else "same")
            geometry = Text(f"{words}, batch norm" if report.folded else words)
            row.append(geometry + Text(" *" if report.assumed else "", style="yellow"))
            if matrix:
                row.append(f"{math.prod(report.output_shape)} x {math.prod(report.input_shape)}")
            if self.costs:
                cost = self.costs[i]
                row += ["-", "-"] if cost is None else [rough_seconds(cost[0]), rough_bytes(cost[1])]
            table.add_row(*row)
        return table

    def _totals(self) -> Iterator[Text]:
        known = [cost for cost in self.costs if cost is not None]
        if known:
            seconds, most = sum(cost[0] for cost in known), max(cost[1] for cost in known)
            yield Text(
                f"inspect will take {rough_seconds(seconds)} and {rough_bytes(most)}: estimates, on an idle machine "
                "right within a factor of two as a rule.\n",
                style="dim",
            )


def folded_note(reports: Sequence[LayerReport]) -> list[str]:
    """Return a line on the batch norms in the kernels, if there are any.

    Examples
    --------
    >>> folded_note([])
    []
    """
    count = sum(bool(report.folded) for report in reports)
    if not count:
        return []
    return [
        f"- batch norm: folded into {count} of {len(reports)} layers, whose kernels it scales channel by channel."
    ]


def rough_seconds(seconds: float) -> str:
    """Write a time with the digits that an estimate has.

    Examples
    --------
    >>> rough_seconds(0.012), rough_seconds(0.64), rough_seconds(17.3), rough_seconds(400.0)
    ('~0.01 s', '~0.6 s', '~17 s', '~7 min')
    """
    if seconds < 0.01:
        return "<0.01 s"
    if seconds < 90.0:
        return f"~{seconds:.0f} s" if seconds >= 9.5 else f"~{seconds:.{1 if seconds >= 0.095 else 2}f} s"
    return f"~{seconds / 60:.0f} min" if seconds < 5400 else f"~{seconds / 3600:.0f} h"


def rough_bytes(size: float) -> str:
    """Write an amount of memory with the digits that an estimate has.

    Examples
    --------
    >>> rough_bytes(2e5), rough_bytes(123.4e6), rough_bytes(1.93e9)
    ('<1 MB', '~120 MB', '~1.9 GB')
    """
    if size < 1e6:
        return "<1 MB"
    if size < 9.5e8:
        return f"~{float(f'{size / 1e6:.2g}'):.0f} MB"
    return f"~{size / 1e9:.1f} GB" if size < 9.5e9 else f"~{size / 1e9:.0f} GB"


def _times(values: Sequence[int]) -> str:
    return "x".join(map(str, values))
