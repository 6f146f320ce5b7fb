"""Bounds in the terminal: every method for one layer, and how the methods did over all layers of a model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from spectral_conv.report.notes import BASES, assumptions, basis_word, by_reason
from spectral_conv.report.record import LayerReport, is_reached, is_upper
from spectral_conv.report.text import describe_geometry, describe_kernel, exact_text, off_by, printable
from spectral_conv.results import Bound, BoundRow, BoundTable

LOOSE = 2.0  # an upper bound that is this factor too large is yellow
NARROWEST_BAR, WIDEST_BAR = 6, 30
LONGEST_REASON = 160  # letters; the whole is in the JSON document
_NO_BOUND = {"lower": "! lower", "estimate": "! estimate"}


@dataclass(frozen=True)
class BoundsTable:
    """A renderable for rich: the bounds of one layer beside the exact value, in 80 columns or more.

    Attributes
    ----------
    report : LayerReport
        The layer; only its name and geometry are shown.
    table : BoundTable
        Its bounds, as `spectral_conv.bounds.table` returns them.
    model : str
        Name of the file.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, bounds, inspect_model
    >>> conv = ConvOperator([[[[2.0]]]], (4, 4))
    >>> report = inspect_model([conv]).reports[0]
    >>> Console(width=80).print(BoundsTable(report, bounds.table(conv), "a model"))  # doctest: +SKIP
    """

    report: LayerReport
    table: BoundTable
    model: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Heading, exact value, the methods, those that do not apply, footnotes."""
        name = Text(printable(f"{self.model}: {self.report.name}"), style="bold")
        yield name + Text("*" if self.report.assumed else "", style="yellow")
        geometry = describe_geometry(self.report)
        yield Text(describe_kernel(self.report) + (f", {geometry}" if geometry else ""), style="dim")
        yield self._exact()
        yield Text("")
        found = [(row, row.bound) for row in self.table.rows if row.bound is not None]
        if found:
            yield _methods(found, options)
            yield Text("")
        missing = [(row.method, row.reason) for row in self.table.rows if row.bound is None]
        for mark, text, style in (*_remarks([bound for _, bound in found]), *_missing(missing)):
            yield _line(mark, text, style)
        for note in assumptions([self.report]):
            yield _line(note.mark, note.text, note.style)

    def _exact(self) -> Text:
        exact = self.table.exact
        if exact is None:
            return Text(printable(f"exact: not found. {self.table.exact_reason}"), style="red")
        if not is_reached(exact):
            return Text(f"exact: only a bracket, {exact_text(exact)}. {exact.stop_reason.value}", style="yellow")
        word = basis_word(exact)
        found = f" by {exact.method}, {_milliseconds(self.table.exact_seconds)} ms; {word}: {BASES[word]}."
        return Text("exact: ").append(exact_text(exact), style="bold").append(found)


def bounds_summary(reports: Sequence[LayerReport]) -> Table:
    """Return a renderable for rich: ratio of each method to the exact value over the layers, and its time.

    Parameters
    ----------
    reports : sequence of LayerReport
        Layers with bounds; a layer without an exact value adds its time only.

    Returns
    -------
    rich.table.Table
        One row per method, the tightest upper bounds first.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> inspection = inspect_model([ConvOperator([[[[2.0]]]], (4, 4))], bounds=True)
    >>> bounds_summary(inspection.reports).columns[0].header
    'bound'
    """
    table = _new_table("bound", "kind", "layers", "smallest", "median", "largest", "ms", words=2)
    rows = [row for report in reports if report.bounds is not None for row in report.bounds.rows]
    by_method: dict[str, list[BoundRow]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    lines: list[tuple[tuple[bool, bool, float], list[str | Text]]] = []
    for method, some in by_method.items():
        bounds = [row.bound for row in some if row.bound is not None]
        ratios = [row.ratio for row in some if row.ratio is not None]
        no_bound = not all(map(is_upper, bounds))
        median = statistics.median(ratios) if ratios else math.inf
        kinds = "/".join(dict.fromkeys(_NO_BOUND.get(bound.kind, bound.kind) for bound in bounds))
        style = "bold yellow" if no_bound else ""
        cells = [ratio_text(value) for value in (min(ratios), median, max(ratios))] if ratios else ["-"] * 3
        line: list[str | Text] = [method, Text(kinds or "-", style=style), f"{len(bounds)} of {len(reports)}"]
        line += [Text(cell, style=style) for cell in cells]
        lines.append(((not bounds, no_bound, median), [*line, _milliseconds(sum(bound.seconds for bound in bounds))]))
    for _, line in sorted(lines, key=lambda pair: pair[0]):
        table.add_row(*line)
    return table


def tightest(report: LayerReport) -> tuple[str, str, float]:
    """How far the tightest upper bound of a layer is off, its method in a word, and the factor.

    Without an exact value the bound itself is given.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> kernel = [[[[2.0]]], [[[1.0]]]]
    >>> report = inspect_model([ConvOperator(kernel, (4, 4), padding="valid")], bounds=True).reports[0]
    >>> tightest(report)[1]
    'circulant'
    """
    rows = () if report.bounds is None else report.bounds.rows
    uppers = [(row.bound.value, row.method) for row in rows if row.bound is not None and is_upper(row.bound)]
    if not uppers:
        return "-", "", 1.0
    value, method = min(uppers)
    word = method.replace("_", " ").split()[0]
    exact = report.sigma_max
    if exact is None or not is_reached(exact) or not math.isfinite(value):
        return f"<= {value:.4g}", word, 1.0
    text, factor = off_by(value, exact)
    return "exact" if text == "none" else text, word, factor


def ratio_text(ratio: float | None) -> str:
    """Write a ratio with four decimals, a large one with three digits.

    Examples
    --------
    >>> ratio_text(1.01214), ratio_text(12.345), ratio_text(None)
    ('1.0121', '12.3', '-')
    """
    if ratio is None:
        return "-"
    return f"{ratio:.4f}" if ratio < 9.9995 else f"{ratio:.3g}"


def _methods(found: Sequence[tuple[BoundRow, Bound]], options: ConsoleOptions) -> Table:
    headers = ("method", "kind", "value", "by exact", "ms")
    table = _new_table(*headers, words=2)
    cells = []
    for row, bound in found:
        kind, numbers = _NO_BOUND.get(bound.kind, bound.kind), (f"{bound.value:#.7g}", ratio_text(row.ratio))
        cells.append((row.method, kind, *numbers, _milliseconds(bound.seconds)))
    # Beside each column there is its padding, and the rule that this box leaves blank.
    taken = sum(2 + max(map(cell_len, column)) for column in zip(headers, *cells, strict=True))
    room = min(options.max_width - taken - 1, WIDEST_BAR)
    excesses = [abs(row.ratio - 1.0) if row.ratio is not None else 0.0 for row, _ in found]
    full = max((excess for excess in excesses if math.isfinite(excess)), default=0.0)
    bars = room >= NARROWEST_BAR and full > 0.0
    if bars:
        table.add_column("off by", no_wrap=True)
    for i, ((row, bound), words, excess) in enumerate(zip(found, cells, excesses, strict=True)):
        style = _style(row, bound)
        method, *texts, milliseconds = words
        line: list[str | Text] = [
            method,
            *(Text(text, style=style) for text in texts),
            Text(milliseconds, style="dim"),
        ]
        if bars:
            block = "#" if options.ascii_only else "█" if is_upper(bound) else "░"
            line.append(Text(block * math.floor(room * min(excess / full, 1.0) + 0.5), style=style))
        # A rule between the bounds and what is none.
        last = is_upper(bound) and not all(is_upper(later) for _, later in found[i + 1 : i + 2])
        table.add_row(*line, end_section=last)
    return table


def _new_table(*headers: str, words: int) -> Table:
    """Columns, all but the first `words` of which are numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for i, header in enumerate(headers):
        table.add_column(header, no_wrap=i >= words, overflow="fold", justify="left" if i < words else "right")
    return table


def _style(row: BoundRow, bound: Bound) -> str:
    if not is_upper(bound):
        return "bold yellow"
    return "yellow" if row.ratio is not None and row.ratio >= LOOSE else "green"


def _remarks(bounds: Sequence[Bound]) -> Iterator[tuple[str, str, str]]:
    """What the marks and the words mean; no name of a method is known here."""
    for kind, meaning in (
        ("lower", "lower: at most the exact value, so no upper bound."),
        ("estimate", "estimate: no bound at all, above or below."),
    ):
        some = [bound for bound in bounds if bound.kind == kind]
        if some:
            notes = "; ".join(f"{bound.method}: {bound.notes}" for bound in some if bound.notes)
            yield "!", f"{meaning} {notes}.".replace(" .", ""), "yellow"
    if any(bound.kind == "exact" for bound in bounds):
        yield "-", "exact: an upper bound that is attained.", "dim"
    scopes = by_reason((bound.method, bound.scope) for bound in bounds)
    for scope, methods in scopes.items():
        yield "-", f"for {scope}: {', '.join(dict.fromkeys(methods))}.", "dim"


def _missing(missing: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    # "X does not apply to such layers: why" and the same of Y are one line.
    pairs = [(method, reason.rpartition(" does not apply to ")[2]) for method, reason in missing]
    for reason, methods in by_reason(pairs).items():
        short = reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 4] + " ..."
        yield "-", f"not for {short} Left out: {', '.join(methods)}.", "dim"


def _line(mark: str, text: str, style: str) -> Table:
    line = Table.grid(padding=(0, 1), pad_edge=False)
    line.add_row(Text(mark, style=style), Text(printable(text), style=style))
    return line


def _milliseconds(seconds: float) -> str:
    text = f"{1e3 * seconds:.3g}"
    return text if "e" not in text else f"{1e3 * seconds:.0f}"
