"""The table of a model whose kernels were clipped: the norm of every layer before and after, and how far it moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from spectral_conv.report.notes import BASES, assumptions, basis_word, by_reason
from spectral_conv.report.record import LayerReport
from spectral_conv.report.text import describe_kernel, elide, exact_text, printable, seconds_text

_NARROWEST_NAME = 16  # names give way down to this width


@dataclass(frozen=True, kw_only=True)
class LayerClip:
    """One layer before and after.

    Attributes
    ----------
    before : LayerReport
        With the norm that the stored kernel has; None there with a reason where it could not be found.
    after : LayerReport or None
        The same layer with the kernel as it is written; None where it could not be brought below the maximum.
    dtype : str
        Number format of the stored kernel.
    changed : bool
        Whether the kernel is another one.
    distance : float
        Frobenius norm of the change relative to that of the kernel before; dimensionless.
    gap : float or None
        How much farther than necessary the kernel may have moved, relative to the distance; None for a kernel that
        did not move, or whose smallest value was raised, too.
    reason : str or None
        Why there is no `after`.
    seconds : float
        Time that it took.

    Examples
    --------
    >>> from spectral_conv.report.clipping import LayerClip
    >>> LayerClip.__dataclass_params__.frozen
    True
    """

    before: LayerReport
    after: LayerReport | None
    dtype: str
    changed: bool = False
    distance: float = 0.0
    gap: float | None = None
    reason: str | None = None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Full name of the weight in its file."""
        return self.before.name


@dataclass(frozen=True)
class ClippingTable:
    """A renderable for rich, in 80 columns or more.

    Attributes
    ----------
    layers : sequence of LayerClip
        In the order of the model.
    title : str
        Heading.
    minimum : float or None
        Where smallest values were to be raised: how far.
    left_out : sequence of (str, str)
        What the file holds and the new one does not, with the reason.

    Examples
    --------
    >>> from rich.console import Console
    >>> Console(width=80, color_system=None).print(ClippingTable([], "a.npz"))
    a.npz
    <BLANKLINE>
    """

    layers: Sequence[LayerClip]
    title: str = ""
    minimum: float | None = None
    left_out: Sequence[tuple[str, str]] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Title, table, notes."""
        yield Text(f"{printable(self.title)}\n", style="bold")
        if self.layers:
            yield self._fitting(console, options)
            yield Text("")
        for mark, text, style in self._notes():
            line = Table.grid(padding=(0, 1), pad_edge=False)
            line.add_row(Text(mark, style=style), Text(printable(text), style=style))
            yield line

    def _fitting(self, console: Console, options: ConsoleOptions) -> Table:
        names = [printable(layer.name) for layer in self.layers]
        widest = max(
            *(cell_len(name) + bool(layer.before.assumed) for name, layer in zip(names, self.layers, strict=True)),
            *(cell_len(describe_kernel(layer.before)) for layer in self.layers),
        )
        table = self._table(names, widest)
        wanted = console.measure(table, options=options.update(width=10_000)).maximum
        width = max(widest - max(wanted - options.max_width, 0), _NARROWEST_NAME)
        room = width - any(layer.before.assumed for layer in self.layers)
        cut = [elide(name, room, "..." if options.ascii_only else "…") for name in names]
        # Names that became alike tell nothing: then they wrap in full.
        return self._table(cut if len(set(cut)) == len(set(names)) else names, width)

    def _table(self, names: Sequence[str], width: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        table.add_column("layer", overflow="fold", width=width)
        if self.minimum is not None:
            table.add_column("", no_wrap=True, style="dim")
        for header in ("before", "after", "moved", "gap"):
            table.add_column(header, no_wrap=True, justify="right")
        table.add_column("how sure", no_wrap=True, style="dim")
        table.add_column("s", no_wrap=True, justify="right", style="dim")
        for layer, name in zip(self.layers, names, strict=True):
            heading = Text(name, style="bold") + Text("*" if layer.before.assumed else "", style="yellow")
            heading.append(f"\n{describe_kernel(layer.before)}", style="dim")
            lines = [self._line(layer, end) for end in ("max", "min")[: 1 if self.minimum is None else 2]]
            cells = [Text("\n").join(column) for column in zip(*lines, strict=True)]
            table.add_row(heading, *cells, seconds_text(layer.seconds))
        return table

    def _line(self, layer: LayerClip, end: str) -> list[Text]:
        """The cells of one end of the spectrum, those between the name and the time."""
        value = layer.before.sigma_max if end == "max" else layer.before.sigma_min
        cells = [] if self.minimum is None else [Text(end)]
        cells.append(Text("-" if value is None else exact_text(value, 6)))
        if layer.after is None:
            failed = Text("not clipped" if end == "max" else "", style="red")
            return [*cells, failed, Text(""), Text(""), Text("")]
        reached = layer.after.sigma_max if end == "max" else layer.after.sigma_min
        cells.append(Text("-" if reached is None else exact_text(reached, 6), style="bold"))
        if end == "max":
            moved = _percent(layer.distance) if layer.changed else "unchanged"
            cells += [Text(moved), Text("" if layer.gap is None else _percent(layer.gap))]
        else:
            cells += [Text(""), Text("")]
        return [*cells, Text("" if reached is None else basis_word(reached))]

    def _notes(self) -> Iterator[tuple[str, str, str]]:
        for reason, names in by_reason((layer.name, layer.reason) for layer in self.layers if layer.reason).items():
            yield "!", f"{', '.join(names)}: {reason}", "red"
        for note in assumptions([layer.before for layer in self.layers]):
            yield note.mark, note.text, note.style
        if self.minimum is not None:
            below = sum(
                layer.after is not None
                and layer.after.sigma_min is not None
                # What is as near as the iteration comes is no news.
                and layer.after.sigma_min.value < self.minimum * (1.0 - 1e-3)
                for layer in self.layers
            )
            if below:
                text = f"{below} of {len(self.layers)} layers stayed below the minimum {self.minimum:g}: "
                yield "!", text + "raising smallest values is a local heuristic.", "yellow"
        if any(layer.changed for layer in self.layers):
            yield "-", "moved: Frobenius norm of the change, relative to that of the kernel.", "dim"
        if any(layer.gap is not None for layer in self.layers):
            yield (
                "-",
                "gap: at most so much of the way was a detour: no such kernel is nearer than the rest.",
                "dim",
            )
        ends = [layer.after.sigma_max for layer in self.layers if layer.after is not None]
        words = {basis_word(end) for end in ends if end is not None}
        for word in BASES:
            if word in words:
                yield "-", f"{word}: {BASES[word]}.", "dim"
        for reason, names in by_reason(self.left_out).items():
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            yield "-", f"not in the new file: {shown}: {reason}", "dim"


def _percent(share: float) -> str:
    percent = 100.0 * share
    if percent >= 9.95:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 0.05 or percent == 0.0 else f"{percent:.0e} %".replace("e-0", "e-")
