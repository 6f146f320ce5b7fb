"""The page of descents whose iterations were kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_conv._whole_file import write_whole
from spectral_conv.cli.files import PAGES, check_writable
from spectral_conv.cli.output import one_message

if TYPE_CHECKING:
    import xarray as xr


def show_runs(
    stores: Annotated[
        list[Path], typer.Argument(metavar="STORE", help="Stores of `descend --store`, such as run.zarr.")
    ],
    html: Annotated[
        Path, typer.Option(metavar="FILE", help="The page: one .html, no network needed.", show_default=False)
    ],
    title: Annotated[str, typer.Option(metavar="TEXT", help="Heading of the page.")] = "Descents",
) -> None:
    """Write a page of descents that were kept, side by side.

    Where each began and ended, the exact ends of the spectrum over the iterations, the penalty and the circulant
    spectrum. The stores are left as they are; a run that still goes on is shown as far as it has come.
    """
    with one_message(_as_arguments):
        check_writable("--html", html, PAGES, stores)
        histories = {name: _history(path) for name, path in zip(_names(stores), stores, strict=True)}
        from spectral_conv.report.html_runs import store_page

        page = store_page(histories, title=title).encode()
        write_whole(html, lambda file: file.write(page))
    typer.echo(f"{'1 run' if len(stores) == 1 else f'{len(stores)} runs'} in {html}.")


def _history(path: Path) -> xr.Dataset:
    from spectral_conv.store import SpectrumStore

    history = SpectrumStore(path).open()
    if "penalty" not in history:
        raise ValueError(f"`STORE` must be one of `descend --store`; {path} holds no penalty. Name another.")
    return history


def _names(stores: list[Path]) -> list[str]:
    """Return the name of each store, of those with the same name the path; a store named twice is one too many."""
    counts = Counter(path.name for path in stores)
    names = [path.name if counts[path.name] == 1 else str(path) for path in stores]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`STORE` must name each store once; got {twice} twice. Leave one out.")
    return [name.removesuffix(".zarr") for name in names]


def _as_arguments(message: str) -> str:
    return message.replace("`path`", "`STORE`").replace("Append one first.", "Run `descend --store` first.")
