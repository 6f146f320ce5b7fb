"""A bar over the layers of a model, on standard error and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spectral_conv.report.text import printable


@contextmanager
def layer_bar(total: int, name: str, *, wanted: bool = True) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs; the function it gives moves the bar on by one layer.

    Parameters
    ----------
    total : int
        Number of layers.
    name : str
        What is worked on.
    wanted : bool
        False for no bar at all.

    Examples
    --------
    >>> with layer_bar(1, "model", wanted=False) as step:
    ...     step()
    """
    if not wanted or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    label = TextColumn("{task.description}", markup=False)
    columns = (label, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(name), total=total)
        yield lambda: progress.advance(task)
