"""The outcome on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from validation.checks.check import Check
from validation.checks.document import VERDICTS
from validation.checks.run import Outcome

STYLES = {"pass": "green", "fail": "bold red", "skipped": "yellow"}


def show(console: Console, outcome: Outcome) -> None:
    """Print the checks of a case, then notes and sources, each once; what failed stands out without colours too."""
    case = outcome.case
    table = Table(title=escape(f"{case.name}: {case.title}"), title_justify="left", box=None, expand=True)
    table.pad_edge, table.title_style, table.header_style = False, "bold", "dim"
    table.add_column("", no_wrap=True)
    table.add_column("claim", ratio=1)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("wanted", no_wrap=True)
    notes = {note: i for i, note in enumerate(dict.fromkeys(c.note for c in outcome.checks if c.note), 1)}
    for check in outcome.checks:
        mark = f"[{notes[check.note]}]" if check.note else ""
        claim = " ".join(filter(None, (check.claim, mark, f"({check.reason})" if check.reason else "")))
        table.add_row(_word(check), escape(claim), check.found, check.wanted)
    if outcome.error:
        table.add_row(f"[{STYLES['fail']}]FAIL[/]", escape(f"The case broke off: {outcome.error}"), "-", "-")
    console.print(table)
    for note, number in notes.items():
        console.print(escape(f"[{number}] {note}"), style="dim")
    for paper, places in _papers(outcome.checks).items():
        console.print(escape(": ".join(filter(None, (paper, "; ".join(places))))), style="dim")
    console.print()


def summary(outcomes: Sequence[Outcome]) -> str:
    """Say how many checks passed.

    Examples
    --------
    >>> summary([])
    'Nothing was checked.'
    """
    counts = {verdict: sum(outcome.count(verdict) for outcome in outcomes) for verdict in VERDICTS}
    total = sum(counts.values())
    if not total:
        return "Nothing was checked."
    said = "No check failed" if not counts["fail"] else f"{counts['fail']} of {total} checks FAILED"
    rest = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    return f"{said}: {counts['pass']} of {total} passed{rest}."


def _word(check: Check) -> str:
    word = "FAIL" if check.verdict == "fail" else check.verdict
    return f"[{STYLES[check.verdict]}]{word}[/]"


def _papers(checks: Sequence[Check]) -> dict[str, list[str]]:
    """Return the places that are cited, by paper."""
    found: dict[str, list[str]] = {}
    for source in dict.fromkeys(check.source for check in checks):
        found.setdefault(", ".join(filter(None, (source.paper, source.link))), []).append(source.place)
    return {paper: [place for place in places if place] for paper, places in found.items()}
