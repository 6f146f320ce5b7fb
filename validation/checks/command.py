"""Run the cases, show them, write the report: what ``spectral-conv validate`` does in a checkout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from spectral_conv._whole_file import write_whole
from validation.checks.document import document
from validation.checks.page import cases_page
from validation.checks.run import find_cases, run_cases
from validation.checks.table import show, summary

REPORT = Path(__file__).resolve().parents[1] / "report"


def validate(
    names: Sequence[str] = (), *, full: bool = False, folder: Path | None = None, as_json: bool = False
) -> int:
    """Return 0 where every claim holds, 1 where one does not, 2 where a name or the folder is no good.

    Parameters
    ----------
    names : sequence of str
        The cases; all of them without.
    full : bool
        More layers, sizes and random kernels.
    folder : Path, optional
        Where ``index.html`` and ``report.json`` go. By default ``validation/report`` of the checkout, if all cases
        run; of some cases there is no report then.
    as_json : bool
        Print the JSON document in place of tables.
    """
    cases = {case.name: case for case in find_cases()}
    unknown = [name for name in names if name not in cases]
    if unknown:
        got = ", ".join(map(repr, unknown))
        return _refused(f"`CASE` must be the name of a case; got {got}. Known are {', '.join(cases)}.")
    chosen = [cases[name] for name in dict.fromkeys(names)] or list(cases.values())
    if folder is None and not names:
        folder = REPORT
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _refused(f"`--output` must be a folder; {error.strerror}: {folder}.")
    console = Console(highlight=False)
    outcomes = []
    for outcome in run_cases(chosen, full=full):
        outcomes.append(outcome)
        if not as_json:
            show(console, outcome)
    found = document(outcomes, full=full)
    text = json.dumps(found, indent=1, allow_nan=False)
    if as_json:
        print(text)
    else:
        console.print(summary(outcomes))
    if folder is not None:
        try:
            _write(folder / "report.json", f"{text}\n")
            _write(folder / "index.html", cases_page(outcomes, found))
        except OSError as error:
            return _refused(str(error.strerror))
        print(f"Report with figures: {folder / 'index.html'}", file=sys.stderr if as_json else sys.stdout)
    return 1 if found["counts"]["fail"] else 0


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


def _refused(message: str) -> int:
    print(f"spectral-conv: {message}", file=sys.stderr)
    return 2
