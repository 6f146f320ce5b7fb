"""The descent on the kernel of one layer, its exact spectrum shown and kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_conv._whole_file import write_whole
from spectral_conv.cli.choices import PENALTIES, in_options, parse_penalty, parse_step, parse_target
from spectral_conv.cli.files import PAGES, PICTURES, check_writable, write_array
from spectral_conv.cli.options import AsJson, File, InputSize, Layer, Layers, parse_size, read
from spectral_conv.cli.output import INCOMPLETE, new_console, one_message, print_json

if TYPE_CHECKING:
    from spectral_conv.models import ConvLayer
    from spectral_conv.results import Descent

_RECORDED = ("penalty", "gradient_norm", "step", "sigma_max", "sigma_min")


def descend_layer(
    file: File,
    layer: Layer,
    penalty: Annotated[
        str, typer.Option(metavar="WORD", help=f"What to minimize: {', '.join(PENALTIES)}.")
    ] = "orthogonality-gap",
    alpha: Annotated[
        float | None,
        typer.Option(help="Wanted square of all singular values, for orthogonality-gap and two-norm-gap; else 1."),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="exact, armijo, barzilai-borwein, a number, or sizes by iteration such as 1:1e-5,10:1e-4. "
            "Default: exact where the penalty allows it, else armijo.",
        ),
    ] = None,
    maxiter: Annotated[int, typer.Option(help="Iterations at most, those before --resume included.")] = 100,
    rtol: Annotated[float, typer.Option(help="Stop where the penalty changes relatively by less; 0: never.")] = 1e-12,
    target: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Stop where all singular values lie in between.")
    ] = None,
    circulant_every: Annotated[
        int, typer.Option(metavar="N", help="Record the circulant spectrum at every N-th iteration; 0: never.")
    ] = 10,
    store: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep every iteration in a zarr store, such as run.zarr.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the store.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the last kernel, .npz, under its name and in its layout."),
    ] = None,
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the course: .png, .pdf or .svg.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page of the run: one .html, no network needed."),
    ] = None,
    input_size: InputSize = None,
    layers: Layers = None,
    as_json: AsJson = False,
) -> None:
    """Descend on the kernel of a layer.

    Gradient descent on a penalty of the layer as a linear operator, with the exact largest and smallest singular
    value of every iteration. The file itself is left as it is.
    """
    size = parse_size(input_size)
    with one_message(in_options):
        term = parse_penalty(penalty, alpha)
        rule, interval = parse_step(step, term), parse_target(target)
        if resume and store is None:
            raise ValueError("`--resume` needs the `--store` to resume from. Name it.")
        outputs = _Outputs(out=out, figure=figure, html=html)
        outputs.check([path for path in (file, layers, store) if path is not None])
        # A mistake in the command is told before a large file is read, and one in the file before any work.
        from spectral_conv.models import find_layer

        model = read(file, size, layers)
        chosen = find_layer(model, layer)
        from spectral_conv.descent import descend

        run = descend(
            chosen.operator,
            term,
            rule,
            maxiter=maxiter,
            rtol=rtol,
            target=interval,
            circulant_every=circulant_every or None,
            store=store,
            resume=resume,
            progress=True,
        )
    if as_json:
        with one_message():
            outputs.write(run, chosen, model.name)
        print_json(_document(run, chosen.name, model.name, repr(rule), store, out))
        if chosen.assumed:
            typer.echo(f"Assumed, to be checked: {', '.join(chosen.assumed)}.", err=True)
    else:
        _print(run, chosen, model.name, repr(rule))
        with one_message():
            outputs.write(run, chosen, model.name)
        for what, path in (("Iterations", store), ("Kernel", out), ("Figure", figure), ("Page", html)):
            if path is not None:
                typer.echo(f"{what} in {path}.")
    if _failed(run):
        raise typer.Exit(INCOMPLETE)


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    """The files to write, None for those that are not wanted."""

    out: Path | None
    figure: Path | None
    html: Path | None

    def check(self, taken: list[Path]) -> None:
        """Refuse what could not be written at the end."""
        wanted = (("--out", self.out, (".npz",)), ("--figure", self.figure, PICTURES), ("--html", self.html, PAGES))
        for option, path, suffixes in wanted:
            if path is not None:
                check_writable(option, path, suffixes, taken)
                taken = [*taken, path]

    def write(self, run: Descent, layer: ConvLayer, model: str) -> None:
        """Write them, each whole."""
        if self.out is not None:
            from spectral_conv.models._layouts import as_stored

            write_array(self.out, layer.name, as_stored(run.kernel, layer.layout, layer.kernel_shape))
        title = f"{model}: {layer.name}"
        if self.figure is not None:
            from spectral_conv.report.plots import draw_course

            drawn, form = draw_course(run.history, title=title), self.figure.suffix[1:].lower()
            write_whole(self.figure, lambda file: drawn.savefig(file, format=form))
        if self.html is not None:
            from spectral_conv.report.html_runs import store_page

            page = store_page({layer.name: run.history}, title=title).encode()
            write_whole(self.html, lambda file: file.write(page))


def _print(run: Descent, layer: ConvLayer, model: str, rule: str) -> None:
    from spectral_conv.inspection import layer_record
    from spectral_conv.report.course import CourseTable
    from spectral_conv.report.text import printable

    console = new_console()
    console.print(CourseTable(layer_record(layer), run.history, model, rule))
    console.print(f"\n{printable(in_options(run.message))}")


def _document(
    run: Descent, layer: str, model: str, rule: str, store: Path | None, out: Path | None
) -> dict[str, Any]:
    history = run.history
    columns = {name: history[name].values.tolist() for name in _RECORDED}
    return {
        "schema": 1,
        "model": model,
        "layer": layer,
        "penalty": history.attrs["penalty"],
        "step": rule,
        "iterations": int(history["iteration"].values[-1]),
        "stop_reason": run.stop_reason.name,
        "message": in_options(run.message),
        "history": {
            "iteration": history["iteration"].values.tolist(),
            # JSON has no infinity: a norm that left the range of numbers is null.
            **{name: [x if math.isfinite(x) else None for x in column] for name, column in columns.items()},
        },
        "store": None if store is None else str(store),
        "out": None if out is None else str(out),
    }


def _failed(run: Descent) -> bool:
    from spectral_conv.results import DescentStop

    # A search that finds no lower point after some steps has found the end; at once, it has found nothing.
    stuck = run.stop_reason is DescentStop.NO_DECREASE and len(run.history["iteration"]) == 1
    return stuck or run.stop_reason in (DescentStop.DIVERGED, DescentStop.INTERRUPTED)
