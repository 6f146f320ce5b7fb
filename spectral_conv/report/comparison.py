"""The table of two models in the terminal: what became of each layer's singular values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spectral_conv.report.change import QUANTILES, LayerChange
from spectral_conv.report.notes import by_reason, footnotes
from spectral_conv.report.record import NOT_ASKED, is_reached
from spectral_conv.report.text import describe_kernel, elide, error_of, exact_text, printable
from spectral_conv.results import Enclosure

NARROWEST_NAME = 16  # names give way down to this width
DIGITS = 4  # of the values: the table is about how they moved
NOTEWORTHY, STARTLING = 1.1, 2.0  # factors from which a change is yellow, and red


@dataclass(frozen=True)
class ComparisonTable:
    """A renderable for rich: the layers of two models side by side, in 80 columns or more.

    Attributes
    ----------
    changes : sequence of LayerChange
        The layers, in the order in which they are shown.
    names : (str, str)
        The two models.
    unmatched : sequence of (str, str)
        Name and reason of the layers that could not be compared.

    Examples
    --------
    >>> from rich.console import Console
    >>> Console(width=80, color_system=None).print(ComparisonTable([], ("a.npz", "b.npz")))
    A: a.npz
    B: b.npz
    <BLANKLINE>
    """

    changes: Sequence[LayerChange]
    names: tuple[str, str] = ("A", "B")
    unmatched: Sequence[tuple[str, str]] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Title, table, what was not compared, footnotes."""
        yield Text(f"A: {printable(self.names[0])}\nB: {printable(self.names[1])}\n", style="bold")
        if self.changes:
            yield from self._fitting(console, options)
            yield Text("")
        if self.unmatched:
            yield Text(f"Not compared: {len(self.unmatched)}", style="bold yellow")
        for reason, names in by_reason(self.unmatched).items():
            yield Text(f"- {printable(reason)}:")
            yield Padding(Text(", ".join(map(printable, names)), style="dim"), (0, 0, 0, 2))
        for mark, text, style in self._notes():
            line = Table.grid(padding=(0, 1), pad_edge=False)
            line.add_row(Text(mark, style=style), Text(printable(text), style=style))
            yield line

    def _fitting(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        def excess(table: Table) -> int:
            wanted = Measurement.get(console, options.update(width=10_000), table).maximum
            return wanted - options.max_width

        names = [printable(change.name) for change in self.changes]
        for digits in (3, 2):
            table = self._table(names, digits)
            if excess(table) <= 0:
                yield table
                return
        # First what all names share goes, then the middle of each.
        before, after = _shared(names)
        short = [name[len(before) : len(name) - len(after)] for name in names]
        table = self._table(short, 2)
        width = max(_width(self.changes, short) - max(excess(table), 0), NARROWEST_NAME)
        room = width - any(change.before.assumed for change in self.changes)
        cut = [elide(name, room, "..." if options.ascii_only else "…") for name in short]
        # Names that became alike tell nothing: then they wrap in full.
        yield self._table(cut if len(set(cut)) == len(set(names)) else short, 2, width)
        if before or after:
            ends = " and ".join(f"...{end}" if end is after else f"{end}..." for end in (before, after) if end)
            yield Text(f"(names are {ends} in full)", style="dim")

    def _table(self, names: Sequence[str], digits: int, width: int | None = None) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        table.add_column("layer", overflow="fold", width=width or _width(self.changes, names))
        table.add_column("", no_wrap=True, style="dim")
        for header in ("A", "B", "change"):
            table.add_column(header, overflow="fold", justify="right")
        spectra = any(change.quantiles_before or change.quantiles_after for change in self.changes)
        if spectra:
            percents = " ".join(f"{100 * share:.0f}" for share in QUANTILES)
            table.add_column(f"by FFT, {percents} %", no_wrap=True, style="dim")
        for change, name in zip(self.changes, names, strict=True):
            heading = Text(name, style="bold") + Text("*" if change.before.assumed else "", style="yellow")
            heading.append("\n" + "\n".join(_below(change)), style="dim")
            rows = list(_ends(change))
            cells = [Text("\n".join(row[0] for row in rows))]
            cells.append(Text("\n").join([_value(before) for _, before, _ in rows]))
            cells.append(Text("\n").join([_value(after) for _, _, after in rows]))
            cells.append(Text("\n").join([_change(before, after) for _, before, after in rows]))
            if spectra:
                cells.append(Text("\n".join(_spectrum(change, digits))))
            table.add_row(heading, *cells)
        return table

    def _notes(self) -> Iterator[tuple[str, str, str]]:
        if not self.changes:
            return
        yield "-", "sorted by how much the largest singular value moved, up or down.", "dim"
        yield "-", "weights: Frobenius norm of the difference, relative to that of A.", "dim"
        if any(change.quantiles_before or change.quantiles_after for change in self.changes):
            shares = ", ".join(f"{100 * share:.0f}" for share in QUANTILES)
            text = f"by FFT: an estimate of the distribution; below each value lie {shares} % of them (A above B)."
            yield "-", text, "dim"
        reports = [report for change in self.changes for report in (change.before, change.after)]
        for note in footnotes(reports):
            # That of the FFT's two ends is about columns that this table does not have.
            if not note.text.startswith("by FFT:"):
                yield note.mark, note.text.replace("exact:", "max and min:", 1), note.style
        yield "-", "tensors that are no convolutions are not compared; `spectral-conv describe` lists them.", "dim"


def change_text(before: Enclosure | None, after: Enclosure | None) -> tuple[str, float]:
    """How far a value moved, as text and as a factor of at least 1.

    Up to a factor of two it is a signed percentage of the first value, beyond that a factor; "same" is within the
    errors, and "-" where either is missing or no more than a bracket.

    Examples
    --------
    >>> words = dict(basis="residual", method="dense", applications=0)
    >>> one, three = (Enclosure(lower=v, value=v, upper=v, **words) for v in (1.0, 3.0))
    >>> change_text(one, three), change_text(one, one)
    (('3.0 x', 3.0), ('same', 1.0))
    """
    if before is None or after is None or not (is_reached(before) and is_reached(after)):
        return "-", 1.0
    if before.lower <= after.upper and after.lower <= before.upper and math.isfinite(before.value + after.value):
        return "same", 1.0
    if not math.isfinite(before.value + after.value):  # condition numbers of layers that may be singular
        if before.value == after.value:
            return "-", 1.0
        return ("to inf" if math.isinf(after.value) else "from inf"), math.inf
    first, second = before.value, after.value
    sign = ""
    if first <= error_of(before):
        first, sign = before.upper, "> "
    if second <= error_of(after):
        second, sign = after.upper, "< "
    if first == 0.0 or second == 0.0:
        return ("from 0" if first == 0.0 else "to 0"), math.inf
    ratio = second / first
    return sign + ratio_text(ratio), max(ratio, 1.0 / ratio)


def ratio_text(ratio: float) -> str:
    """Write a ratio as a signed percentage up to a factor of two, else as a factor.

    Examples
    --------
    >>> ratio_text(1.05), ratio_text(25.0), ratio_text(0.1), ratio_text(1.0000001)
    ('+5.0 %', '25 x', '1/10', '+1e-05 %')
    """
    if 0.5 <= ratio <= 2.0:
        percent = 100.0 * (ratio - 1.0)
        if abs(percent) < 0.01:
            return f"{percent:+.0e} %"
        return f"{percent:+.{1 if abs(percent) >= 1 else 2}f} %"
    factor = ratio if ratio > 1.0 else 1.0 / ratio
    text = f"{factor:.0e}".replace("e+0", "e").replace("e+", "e") if factor >= 99_999.5 else f"{factor:,.0f}"
    text = text if factor >= 9.95 else f"{factor:.1f}"
    return f"{text} x" if ratio > 1.0 else f"1/{text}"


def _width(changes: Sequence[LayerChange], names: Sequence[str]) -> int:
    """Width that the names and the lines below them take."""
    headings = (cell_len(name) + bool(c.before.assumed) for name, c in zip(names, changes, strict=True))
    return max(*headings, *(cell_len(line) for change in changes for line in _below(change)))


def _shared(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin and end with, in whole parts: ``("module.", ".weight")``."""
    if len(names) < 2:
        return "", ""
    parts = [name.split(".") for name in names]
    least = min(map(len, parts)) - 1  # a part of its own stays
    first = next((i for i in range(least) if len({part[i] for part in parts}) > 1), least)
    most = least - first
    last = next((i for i in range(most) if len({part[-1 - i] for part in parts}) > 1), most)
    before = "".join(f"{part}." for part in parts[0][:first])
    return before, "".join(f".{part}" for part in parts[0][len(parts[0]) - last :])


def _below(change: LayerChange) -> tuple[str, str]:
    """Lines under the name of a layer."""
    weights = change.weight_change
    if weights == 0.0:
        moved = "same weights"
    elif math.isinf(weights):
        moved = "weights were zero"
    else:
        percent = 100.0 * weights
        moved = f"weights {percent:.0f} %" if 9.95 <= percent < 1e5 else f"weights {percent:.2g} %"
    return describe_kernel(change.before), moved


def _ends(change: LayerChange) -> Iterator[tuple[str, Enclosure | None, Enclosure | None]]:
    yield "max", change.before.sigma_max, change.after.sigma_max
    if change.before.sigma_min_reason != NOT_ASKED:
        yield "min", change.before.sigma_min, change.after.sigma_min
        yield "cond", change.condition_before, change.condition_after


def _value(enclosure: Enclosure | None) -> Text:
    if enclosure is None:
        return Text("not found", style="red")
    if not math.isfinite(enclosure.upper):
        at_least = f"> {enclosure.lower:.1e}" if math.isfinite(enclosure.lower) else "inf"
        return Text(at_least, style="bold")
    digits = DIGITS if enclosure.value < 1e5 else 3
    text = exact_text(enclosure, digits).rstrip(".")
    return Text(text if "e+" not in text else f"{enclosure.value:.1e}", style="bold")


def _change(before: Enclosure | None, after: Enclosure | None) -> Text:
    text, factor = change_text(before, after)
    return Text(text, style="bold red" if factor >= STARTLING else "yellow" if factor >= NOTEWORTHY else "")


def _spectrum(change: LayerChange, digits: int) -> list[str]:
    """Two lines of quantiles, in columns."""
    rows = [
        ["-"] * len(QUANTILES) if values is None else [_short(value, digits) for value in values]
        for values in (change.quantiles_before, change.quantiles_after)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]


def _short(value: float, digits: int) -> str:
    if value < 1e-14:
        return "0"
    text = f"{value:#.{digits}g}".rstrip(".")
    return text if 1e-3 <= value < 10.0**digits else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
