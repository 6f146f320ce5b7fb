"""Inspections as they come: tables, rows or documents on standard output, what is wrong on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from spectral_conv.cli.output import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from spectral_conv.cli.condition import Condition
    from spectral_conv.inspection import Inspection


class Showing:
    """Shows one inspection after the other, keeps none, and remembers whether all is well.

    Parameters
    ----------
    form : str
        "table", "csv" or "json".
    condition : Condition, optional
        What must hold of no layer.

    Attributes
    ----------
    well : bool
        Whether all layers were analysed and the condition held of none.
    """

    def __init__(self, form: str, condition: Condition | None = None) -> None:
        self.well = True
        self._form, self._condition = form, condition
        self._documents: list[dict[str, Any]] = []
        self._header = True
        self._stream = sys.stdout

    def show(self, inspection: Inspection) -> None:
        """Show an inspection, or why there is none."""
        from spectral_conv.report.text import printable

        self.well = self.well and inspection.complete
        if inspection.failure is not None:
            typer.echo(f"spectral-conv: {printable(inspection.failure)}", err=True)
        elif self._form == "table":
            self._table(inspection)
        elif self._form == "csv":
            self._rows(inspection)
        if self._form == "json":
            self._documents.append(inspection.document())
        try:
            held = [] if self._condition is None else self._condition.layers(inspection.reports)
        except ValueError as error:
            self.well = False
            typer.echo(f"`--fail-if` of {printable(inspection.model)}: {printable(str(error))}", err=True)
            return
        if held:
            self.well = False
            count = "1 layer" if len(held) == 1 else f"{len(held)} layers"
            names = ", ".join(map(printable, held))
            typer.echo(f"`--fail-if` holds for {count} of {printable(inspection.model)}: {names}.", err=True)

    def finish(self) -> None:
        """Print what can be printed only now."""
        if self._form == "json":
            single = len(self._documents) == 1
            print_json(self._documents[0] if single else {"schema": 1, "models": self._documents})

    def _rows(self, inspection: Inspection) -> None:
        header, _, rows = inspection.to_csv().partition("\n")
        text = f"{header}\n{rows}" if self._header and header else rows
        self._header = self._header and not header
        self._write(text)

    def _table(self, inspection: Inspection) -> None:
        from rich.console import Console

        console = Console(file=self._stream, markup=False, highlight=False, emoji=False)
        with console.capture() as captured:
            print_inspection(console, inspection)
        self._write(captured.get())

    def _write(self, text: str) -> None:
        # A bar takes the place of standard output: on a terminal to print above itself, elsewhere that is not wanted.
        typer.echo(text, nl=False, file=sys.stdout if self._stream.isatty() else self._stream)


def print_inspection(console: Console, inspection: Inspection) -> None:
    """Print the table of a model and what goes with it."""
    from spectral_conv.report.contents import folded_note
    from spectral_conv.report.table import LayerTable

    console.print(LayerTable(inspection.reports, inspection.model, inspection.skipped))
    if any(report.bounds is not None for report in inspection.reports):
        from spectral_conv.report.bounds import bounds_summary

        console.print("\nBounds of the largest singular values: ratio to the exact ones, and time", style="bold")
        console.print(bounds_summary(inspection.reports))
    for note in folded_note(inspection.reports):
        console.print(note)
