"""What a command says, where, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

INCOMPLETE, UNUSABLE = 1, 2  # exit codes; 0 where all is fine


@contextmanager
def one_message(words: Callable[[str], str] = str) -> Iterator[None]:
    """Turn an error into one message on standard error and the exit code for it.

    Parameters
    ----------
    words : callable
        From the message of the package to that of the command line, whose options have other names.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        from spectral_conv.report.text import printable
        from spectral_conv.results import CostLimitError, MemoryLimitError, NotConvergedError

        incomplete = isinstance(error, NotConvergedError | MemoryLimitError | CostLimitError)
        if isinstance(error, RuntimeError) and not incomplete:
            raise  # a mistake of ours
        typer.echo(f"spectral-conv: {printable(words(_text_of(error)))}", err=True)
        raise typer.Exit(INCOMPLETE if incomplete else UNUSABLE) from None


def _text_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return str(error)


def new_console() -> Console:
    """Return a console on standard output that takes no text for markup."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def print_json(document: dict[str, Any]) -> None:
    """Print a document on standard output."""
    typer.echo(json.dumps(document, indent=1, allow_nan=False))
