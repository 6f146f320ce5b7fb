"""Run every benchmark, or those named, and print one table each.

``--quick`` takes fewer random kernels, ``--full`` adds what takes many minutes, ``--figure=FOLDER`` draws what was
measured; not every benchmark knows them. ``--page=FILE`` keeps the results as a page and, with the suffix .json, as
data; of what ran before and not now, the older results stay.
"""

from __future__ import annotations

import importlib
import inspect
import platform
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from validation.benchmarks.record import keep, kept, record
from validation.benchmarks.timing import Row
from validation.checks.page import amount

BENCHMARKS = (
    "startup",
    "matvec",
    "circulant_spectrum",
    "largest",
    "resnet50",
    "enclosures",
    "smallest",
    "bounds",
    "orthogonal",
    "penalties",
    "descent",
    "training",
    "scale",
)
OPTIONS = {"quick": "", "full": "", "figure": "FOLDER", "page": "FILE"}  # and what is to follow them
WIDTH = 100


def main(words: list[str]) -> int:
    """Print the tables; 1 where a claim was missed or void, 2 for an unknown name."""
    names = [word for word in words if not word.startswith("--")]
    given = [word.removeprefix("--").partition("=") for word in words if word.startswith("--")]
    options = {option: Path(value) if value else True for option, _, value in given}
    unknown = sorted(set(names) - set(BENCHMARKS)) + sorted(options.keys() - set(OPTIONS))
    unknown += [f"--{option}" for option, value in options.items() if (value is True) == bool(OPTIONS.get(option))]
    if unknown:
        shown = (f"--{option}={value}".rstrip("=") for option, value in OPTIONS.items())
        known = ", ".join((*BENCHMARKS, *shown))
        print(f"unknown benchmark or option {', '.join(unknown)}; known are {known}", file=sys.stderr)
        return 2
    page = options.pop("page", None)
    if page is not None:
        try:
            kept(page)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
    console = Console(width=WIDTH, highlight=False)
    console.print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}")
    failed = 0
    for name in names or BENCHMARKS:
        found = _show(console, name, options)
        failed += found["void"] or any(row["verdict"] == "missed" for row in found["rows"])
        if page is not None:
            keep(page, {name: found})  # after each, for the next may take long
    return 1 if failed else 0


def _show(console: Console, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run one benchmark, print its table and its remarks; return it as data."""
    module = importlib.import_module(f"validation.benchmarks.{name}")
    table = Table(title=module.TITLE, title_justify="left", header_style="bold", box=None)
    table.pad_edge, table.padding = False, (0, 2, 0, 0)
    for column in ("task", "ours", "theirs", "ratio", "wanted", "agreement", "rival"):
        table.add_column(column, justify="left" if column in ("task", "rival") else "right")
    known = inspect.signature(module.run).parameters
    rows, remarks, void, start = [], [], False, time.perf_counter()
    used = {option: value for option, value in options.items() if option in known}
    try:
        for row in module.run(**used):
            if isinstance(row, str):
                remarks.append(row)
            else:
                rows.append(row)
                table.add_row(*_cells(row))
    except AssertionError as error:
        void = True
        remarks.append(f"VOID, and the rest was not run: {error}")
    seconds = time.perf_counter() - start
    console.print(table)
    for remark in (*remarks, f"took {seconds:.0f} s"):
        console.print(f"  {escape(remark)}")
    console.print()
    words = [option for option, value in used.items() if value is True]
    return record(module.TITLE, rows, remarks, void=void, seconds=seconds, options=words)


def _cells(row: Row) -> tuple[str, ...]:
    mark = " !" if row.verdict == "missed" else ""
    return (
        escape(row.task),
        amount(row.ours, row.unit),
        amount(row.theirs, row.unit),
        f"{row.ratio:.2f}{mark}" if row.ratio < 1000.0 else f"{row.ratio:.0e}{mark}",
        f"{row.wanted:.2g}" if row.wanted else "",
        f"{row.agreement:.0e}" if row.agreement else "",
        escape(row.rival),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
