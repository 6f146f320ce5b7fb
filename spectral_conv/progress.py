"""A bar over long work, on standard error and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def work_bar(total: int, name: str, *, done: int = 0, wanted: bool = True) -> Iterator[Callable[..., None]]:
    """Show a bar while the block runs; the function it gives moves the bar on by one, and may rename it.

    Parameters
    ----------
    total : int
        Amount of work: layers, iterations.
    name : str
        What is worked on, printable.
    done : int
        Where the bar starts.
    wanted : bool
        False for no bar at all.

    Examples
    --------
    >>> with work_bar(1, "model", wanted=False) as step:
    ...     step()
    """
    if not wanted or not sys.stderr.isatty():
        yield lambda name=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    label = TextColumn("{task.description}", markup=False)
    columns = (label, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total, completed=done)

        def step(name: str | None = None) -> None:
            progress.update(task, advance=1, description=name)

        yield step
