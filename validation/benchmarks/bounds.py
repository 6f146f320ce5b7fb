"""Bounds of the norm: how close, how dear, and above the exact value wherever they say so; with a figure over N."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from spectral_conv import ConvOperator, Enclosure, bounds, circulant_singular_values, read_model, spectral_norm
from spectral_conv.models import find_layer
from validation.benchmarks.layers import MISSING, gaussian, resnet20
from validation.benchmarks.timing import Row, within

if TYPE_CHECKING:
    import xarray as xr

TITLE = "bounds of the largest singular value, float64, one thread"
# Image sizes and the median excess wanted of circulant embedding there; the largest excess anywhere.
CLOSE = {12: 0.02, 16: 0.01, 24: 0.005}
FARTHEST = 0.05
# Image sizes at which embedding and all circular values are timed; how many times dearer it may be than those, or
# than itself at the smallest size.
TIMED, DEAR = (12, 24, 48, 96, 192), 2.0
# Gaussian 64x64x5x5, N = 12, circular: least and largest ratio to the norm.
PAPER = {"gram (frequencies)": (1.0, 1.002), "fantastic_four": (2.0, 2.3), "lipbound (outputs)": (4.4, 4.8)}
WHOLE = 60.0  # seconds for all bounds and exact values of ResNet-20
EXACT = 1e-7  # relative error of the exact values of the figure
SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def run(*, quick: bool = False, figure: Path | None = None) -> Iterator[Row | str]:
    """Check closeness, cost, the numbers of the papers and a whole network; draw tightness over N into `figure`."""
    with threadpool_limits(1):
        yield from _close(4 if quick else 20)
        yield from _cost(3 if quick else 9)
        yield from _paper()
        yield from _network()
        if figure is not None:
            yield from _draw(figure, SIZES[:6] if quick else SIZES)


def _close(seeds: int) -> Iterator[Row]:
    for size, wanted in CLOSE.items():
        found = [_excess(gaussian((3, 3, 8, 8), size, seed)) for seed in range(seeds)]
        task, rival = f"excess at {size}", f"embedding, 3x3x8x8, {seeds} seeds"
        yield within(f"{task}, median", statistics.median(found), wanted, unit="", rival=rival)
        yield within(f"{task}, largest", max(found), FARTHEST, unit="", rival="the same")


def _excess(conv: ConvOperator) -> float:
    exact, bound = spectral_norm(conv), bounds.circulant_embedding(conv)
    _check(bound, exact, f"3x3x8x8 at {conv.input_shape[0]}")
    return bound.value / exact.value - 1.0


def _cost(rounds: int) -> Iterator[Row]:
    """Embedding against all circular values, in turn; dear only where it is dearer than both limits."""
    first = 0.0
    for size in TIMED:
        conv = gaussian((3, 3, 8, 8), size, 0)
        pairs = [
            (_seconds(bounds.circulant_embedding, conv), _seconds(circulant_singular_values, conv))
            for _ in range(rounds + 1)
        ]
        ours, circular = (statistics.median(pair[i] for pair in pairs[1:]) for i in (0, 1))  # the first is warming up
        first = first or ours
        task = f"time at {size}"
        rival = f"{ours / circular:.1f} x circular values; {ours / first:.1f} x N = {TIMED[0]}"
        yield within(task, ours, DEAR * max(circular, first), rival=rival)


def _paper() -> Iterator[Row]:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((5, 5, 64, 64)), (12, 12), padding_mode="circular")
    table = bounds.table(conv)
    _check_all(table, "5x5x64x64 at 12, circular")
    for method, (least, most) in PAPER.items():
        ratio, task = table[method].ratio, f"excess of {method}"
        if not ratio >= least:
            raise AssertionError(f"{task} is {ratio:.4f} of the norm, below {least}")
        rival = f"{least} to {most} x the norm, 5x5x64x64 at 12, circular"
        yield within(task, ratio - 1.0, most - 1.0, unit="", rival=rival)


def _network() -> Iterator[Row | str]:
    layers = resnet20()
    if not layers:
        yield f"without ResNet-20: {MISSING}"
        return
    start = time.perf_counter()
    tables = {layer.name: bounds.table(layer.conv) for layer in layers}
    seconds = time.perf_counter() - start
    for name, table in tables.items():
        _check_all(table, name)
    yield within("all bounds of ResNet-20", seconds, WHOLE, rival=f"{len(layers)} layers, with the exact values")
    methods = list(dict.fromkeys(row.method for table in tables.values() for row in table.rows))
    for method in methods:
        rows = [table[method] for table in tables.values() if table[method].bound is not None]
        if not rows:
            continue
        ratios, times = [row.ratio for row in rows], [row.bound.seconds for row in rows]
        yield (
            f"ResNet-20, {method} ({rows[0].bound.kind}): ratio {statistics.median(ratios):.4f} in the median, "
            f"{min(ratios):.4f} to {max(ratios):.4f}; {1e3 * statistics.median(times):.3g} ms a layer"
        )


def tightness(kernels: dict[str, np.ndarray], sizes: tuple[int, ...]) -> xr.Dataset:
    """Ratio of every bound to the exact value over kernel, method and image size; padding "same", zeros."""
    import xarray as xr

    found: dict[tuple[str, str, int], float] = {}
    kinds: dict[str, str] = {}
    for name, kernel in kernels.items():
        for size in sizes:
            table = bounds.table(ConvOperator(kernel, (size, size)), rtol=EXACT)
            _check_all(table, f"{name} at {size}")
            for row in table.rows:
                if row.bound is not None:
                    kinds[row.method] = row.bound.kind
                    found[name, row.method, size] = row.ratio
    ratio = [[[found.get((name, method, size), np.nan) for size in sizes] for method in kinds] for name in kernels]
    return xr.Dataset(
        {"ratio": (("kernel", "bound", "size"), ratio), "kind": ("bound", list(kinds.values()))},
        {"kernel": list(kernels), "bound": list(kinds), "size": list(sizes)},
    )


def _draw(folder: Path, sizes: tuple[int, ...]) -> Iterator[str]:
    from spectral_conv.report.plots import new_figure
    from spectral_conv.report.plots_bounds import plot_tightness

    kernels = {f"Gaussian, {n} channels": gaussian((3, 3, n, n), 8, 0).kernel for n in (8, 16)}
    kernels["a trained layer, 16 channels"] = _trained()
    data = tightness(kernels, sizes)
    drawn = new_figure(8.0, 5.5)
    plot_tightness(data, ax=drawn.add_subplot())
    drawn.supxlabel(f"Median and range of 3x3 kernels, zero-padded: {'; '.join(kernels)}.", fontsize=8.5)
    folder.mkdir(parents=True, exist_ok=True)
    drawn.savefig(folder / "tightness.png")
    yield f"tightness over the image size drawn in {folder / 'tightness.png'}"


def _trained() -> np.ndarray:
    data = files("spectral_conv") / "data"
    model = read_model(data / "digits.safetensors", layers=data / "digits.layers.json")
    return find_layer(model, "square.weight").operator.kernel.astype(np.float64)


def _check_all(table: bounds.BoundTable, name: str) -> None:
    """Raise where an upper bound is below the exact value, or a lower one above it."""
    if table.exact is None or table.exact.method == "bracket":
        raise AssertionError(f"{name}: no exact value; {table.exact_reason}")
    for row in table.rows:
        if row.bound is not None:
            _check(row.bound, table.exact, f"{name}: {row.method}")


def _check(bound: bounds.Bound, exact: Enclosure, name: str) -> None:
    if bound.kind in ("exact", "upper") and not bound.value >= exact.lower:
        raise AssertionError(f"{name} says {bound.value!r}, below the exact {exact.lower!r}")
    if bound.kind == "lower" and not bound.value <= exact.upper:
        raise AssertionError(f"{name} says {bound.value!r}, above the exact {exact.upper!r}")


def _seconds(function: Callable[[ConvOperator], object], conv: ConvOperator) -> float:
    start = time.perf_counter()
    function(conv)
    return time.perf_counter() - start
