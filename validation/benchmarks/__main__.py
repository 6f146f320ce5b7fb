"""Run every benchmark, or those named, and print one table each.

``--quick`` takes fewer random kernels, ``--full`` adds what takes many minutes, ``--figure=FOLDER`` draws what was
measured; not every benchmark knows them.
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

from validation.benchmarks.timing import Row

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
)
OPTIONS = ("quick", "full", "figure")
WIDTH = 100


def main(words: list[str]) -> int:
    """Print the tables; 1 where a claim was missed or void, 2 for an unknown name."""
    names = [word for word in words if not word.startswith("--")]
    given = [word.removeprefix("--").partition("=") for word in words if word.startswith("--")]
    options = {option: Path(value) if value else True for option, _, value in given}
    unknown = sorted(set(names) - set(BENCHMARKS)) + sorted(options.keys() - set(OPTIONS))
    unknown += [f"--{option}" for option, value in options.items() if (value is True) == (option == "figure")]
    if unknown:
        known = ", ".join((*BENCHMARKS, *(f"--{option}" for option in OPTIONS[:-1]), "--figure=FOLDER"))
        print(f"unknown benchmark or option {', '.join(unknown)}; known are {known}", file=sys.stderr)
        return 2
    console = Console(width=WIDTH, highlight=False)
    console.print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}")
    return 1 if sum(_show(console, name, options) for name in names or BENCHMARKS) else 0


def _show(console: Console, name: str, options: dict[str, Any]) -> int:
    """Run one benchmark, print its table and its remarks; return how many claims were missed."""
    module = importlib.import_module(f"validation.benchmarks.{name}")
    table = Table(title=module.TITLE, title_justify="left", header_style="bold", box=None)
    table.pad_edge, table.padding = False, (0, 2, 0, 0)
    for column in ("task", "ours", "theirs", "ratio", "wanted", "agreement", "rival"):
        table.add_column(column, justify="left" if column in ("task", "rival") else "right")
    known = inspect.signature(module.run).parameters
    missed, remarks, start = 0, [], time.perf_counter()
    try:
        for row in module.run(**{option: value for option, value in options.items() if option in known}):
            if isinstance(row, str):
                remarks.append(row)
                continue
            # Also a ratio that is not a number is a miss.
            bad = row.wanted > 0.0 and not row.ratio >= row.wanted
            missed += bad
            table.add_row(*_cells(row, " !" if bad else ""))
    except AssertionError as error:
        missed += 1
        remarks.append(f"VOID, and the rest was not run: {error}")
    console.print(table)
    for remark in (*remarks, f"took {time.perf_counter() - start:.0f} s"):
        console.print(f"  {escape(remark)}")
    console.print()
    return missed


def _cells(row: Row, mark: str) -> tuple[str, ...]:
    return (
        escape(row.task),
        _amount(row.ours, row.unit),
        _amount(row.theirs, row.unit),
        f"{row.ratio:.2f}{mark}" if row.ratio < 1000.0 else f"{row.ratio:.0e}{mark}",
        f"{row.wanted:.2g}" if row.wanted else "",
        f"{row.agreement:.0e}" if row.agreement else "",
        escape(row.rival),
    )


def _amount(value: float, unit: str) -> str:
    if unit == "":
        return f"{value:.4g}" if value >= 1.0 else f"{value:.1e}"
    # Nothing here takes hours, nothing fits in 10 kB.
    if unit == "B" or 1e4 < value < float("inf"):
        return f"{value / 1e6:.0f} MB"
    return f"{value:.2f} s" if value >= 1.0 else f"{1e3 * value:.4g} ms"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
