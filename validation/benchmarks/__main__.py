"""Run every benchmark, or those named, and print one table each."""

from __future__ import annotations

import importlib
import platform
import sys

from rich.console import Console
from rich.table import Table

BENCHMARKS = ("startup", "matvec", "circulant_spectrum")


def main(names: list[str]) -> int:
    """Print the tables; 1 where a claim was missed, 2 for an unknown name."""
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    console, missed = Console(), 0
    console.print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}")
    for name in names or BENCHMARKS:
        module = importlib.import_module(f"validation.benchmarks.{name}")
        table = Table(title=module.TITLE, box=None, title_justify="left", header_style="bold")
        for column in ("task", "ours", "theirs", "ratio", "wanted", "agreement", "rival"):
            table.add_column(column, justify="left" if column in ("task", "rival") else "right")
        for row in module.run():
            missed += row.ratio < row.wanted
            table.add_row(
                row.task,
                _amount(row.ours),
                _amount(row.theirs),
                f"{row.ratio:.2f}" + (" !" if row.ratio < row.wanted else ""),
                f"{row.wanted:.1f}",
                f"{row.agreement:.0e}" if row.agreement else "",
                row.rival,
            )
        console.print(table)
    return 1 if missed else 0


def _amount(value: float) -> str:
    return f"{value / 1e6:.0f} MB" if value > 1e4 else f"{1e3 * value:.3f} ms"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
