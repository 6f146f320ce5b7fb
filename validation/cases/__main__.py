"""Check every claim and print a table; with ``--figures FOLDER`` draw the papers' figures there."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectral_conv import plot_descent
from validation.cases import guo_frobenius, guo_penalties
from validation.cases.claim import Case

MODULES = (guo_frobenius, guo_penalties)


def main(words: list[str]) -> int:
    """Return 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m validation.cases", description=__doc__)
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="where to draw the figures")
    folder = parser.parse_args(words).figures
    console = Console(width=100, highlight=False)
    missed = 0
    for module in MODULES:
        for case in module.run():
            missed += _show(console, case)
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                plot_descent(case.runs).savefig(folder / f"{re.sub(r'[^a-z0-9]+', '_', case.title.lower())}.png")
    console.print("every claim holds" if not missed else f"{missed} claims do not hold")
    return 1 if missed else 0


def _show(console: Console, case: Case) -> int:
    table = Table(title=escape(case.title), caption=escape(case.source), title_justify="left", box=None)
    table.pad_edge, table.caption_justify = False, "left"
    for column in ("claim", "found", "from", "to", ""):
        table.add_column(column, justify="left" if column in ("claim", "") else "right")
    for claim in case.claims:
        numbers = (f"{number:.4g}" for number in (claim.found, claim.low, claim.high))
        table.add_row(escape(claim.text), *numbers, "" if claim.holds else "MISSED")
    console.print(table)
    console.print()
    return sum(not claim.holds for claim in case.claims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
