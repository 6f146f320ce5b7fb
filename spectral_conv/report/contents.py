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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Title, table, notes."""
        yield Text(printable(self.title) + "\n", style="bold")
        if self.reports:
            full = self._table(matrix=True)
            wanted = Measurement.get(console, options.update(width=10_000), full).maximum
            yield full if wanted <= options.max_width else self._table(matrix=False)
            yield Text("")
        for note in assumptions(self.reports):
            yield Text(f"{note.mark} {printable(note.text)}\n", style=note.style)
        if self.skipped:
            yield Text(f"Not taken as convolutions: {len(self.skipped)}", style="bold")
        for reason, names in by_reason(self.skipped).items():
            yield Text(f"- {printable(reason)}:")
            yield Padding(Text(", ".join(map(printable, names)), style="dim"), (0, 0, 0, 2))

    def _table(self, *, matrix: bool) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        table.add_column("layer", overflow="fold")
        for header in ("kernel", "input", "output"):
            table.add_column(header, no_wrap=True)
        table.add_column("geometry", style="dim")
        if matrix:
            table.add_column("matrix", no_wrap=True, justify="right", style="dim")
        for report in self.reports:
            name = Text(printable(report.name), style="bold")
            kernel = _times(report.kernel_shape) + (f" {report.layout}" if matrix else "")
            row: list[RenderableType] = [
                name,
                kernel,
                _times(report.input_shape),
                _times(report.output_shape),
            ]
            geometry = Text(describe_geometry(report) or "stride 1, same")
            row.append(geometry + Text(" *" if report.assumed else "", style="yellow"))
            if matrix:
                row.append(f"{math.prod(report.output_shape)} x {math.prod(report.input_shape)}")
            table.add_row(*row)
        return table


def _times(values: Sequence[int]) -> str:
    return "x".join(map(str, values))
