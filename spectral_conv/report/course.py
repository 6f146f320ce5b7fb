"""The course of a descent in the terminal: a few of its iterations, more of them at the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from spectral_conv.report.notes import assumptions
from spectral_conv.report.record import LayerReport
from spectral_conv.report.text import describe_geometry, describe_kernel, exact_text, printable
from spectral_conv.results import Enclosure

if TYPE_CHECKING:
    import xarray as xr

_ENDS = {"sigma_max": "max", "sigma_min": "min"}


@dataclass(frozen=True)
class CourseTable:
    """A renderable for rich: the layer, what was minimized, then some iterations.

    Attributes
    ----------
    report : LayerReport
        The layer; only its name and geometry are shown.
    history : xarray.Dataset
        As `descend` returns it.
    model : str
        Name of the file.
    rule : str
        The step rule.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, descend, inspect_model, regularizers, steps
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> report = inspect_model([conv]).reports[0]
    >>> run = descend(conv, regularizers.Frobenius(), steps.Fixed(0.01), maxiter=1, track=())
    >>> Console(width=80, color_system=None).print(CourseTable(report, run.history, "a model", "Fixed(t=0.01)"))
    a model: layer0
    1x1x1x1 in 4x4
    Frobenius(), steps by Fixed(t=0.01)
    <BLANKLINE>
    iteration   penalty  gradient    step
    ─────────────────────────────────────
            0  32.00000     32.00       -
            1  22.57920     26.88  0.0100
    <BLANKLINE>
    """

    report: LayerReport
    history: xr.Dataset
    model: str
    rule: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Heading, table, footnotes."""
        name = Text(printable(f"{self.model}: {self.report.name}"), style="bold")
        yield name + Text("*" if self.report.assumed else "", style="yellow")
        geometry = describe_geometry(self.report)
        yield Text(describe_kernel(self.report) + (f", {geometry}" if geometry else ""), style="dim")
        penalty = self.history.attrs.get("penalty", "penalty")
        yield Text(printable(f"{penalty}, steps by {self.rule}") + "\n", style="dim")
        yield self._table()
        yield Text("")
        if any(end in self.history for end in _ENDS):
            yield Text("- max, min: exact, with the layer's own padding and input size.", style="dim")
        for note in assumptions([self.report]):
            yield Text(f"{note.mark} {printable(note.text)}", style=note.style)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        ends = [end for end in _ENDS if end in self.history]
        table.add_column("iteration", justify="right")
        for header in ("penalty", "gradient", "step", *(_ENDS[end] for end in ends)):
            # In a terminal that is too narrow a number goes on in the next line: cut, it would mislead.
            table.add_column(header, justify="right", overflow="fold")
        iterations = self.history["iteration"].values
        for row in selected_rows(len(iterations)):
            at = self.history.isel(iteration=row)
            step = float(at["step"])
            table.add_row(
                str(int(iterations[row])),
                f"{float(at['penalty']):#.7g}",
                _rounded(float(at["gradient_norm"]), 4),
                _rounded(step, 3) if step else "-",
                *(Text(exact_text(_enclosure(at, end)), style="bold") for end in ends),
            )
        return table


def selected_rows(count: int) -> list[int]:
    """Rows 0, 1, 2, 5, 10, 20, 50, ... of `count`, and the last.

    Examples
    --------
    >>> selected_rows(31)
    [0, 1, 2, 5, 10, 20, 30]
    """
    last, rows = count - 1, [0]
    unit = 1
    while unit < last:
        rows += [factor * unit for factor in (1, 2, 5) if factor * unit < last]
        unit *= 10
    return [*rows, last] if last > 0 else rows


def _rounded(value: float, digits: int) -> str:
    return f"{value:#.{digits}g}" if value else "0"


def _enclosure(at: xr.Dataset, end: str) -> Enclosure:
    lower, value, upper = (float(at[f"{end}{suffix}"]) for suffix in ("_lower", "", "_upper"))
    return Enclosure(lower=lower, value=value, upper=upper, basis="stored", method="stored", applications=0)
