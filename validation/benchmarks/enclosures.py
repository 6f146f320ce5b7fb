"""Widths of enclosures of the spectral norm that rest on a theorem, and of the certified ones."""

from __future__ import annotations

import time
from collections.abc import Iterator

from spectral_conv import Enclosure, spectral_norm
from validation.benchmarks.layers import Layer, gaussian, he_layer, in_float64, label
from validation.benchmarks.timing import Row, within

TITLE = "enclosures of the spectral norm: relative width against the wanted one, and seconds"
# The width asked for, and the layers of ResNet-50 and ResNet-18 where it is: 7x7 to 112x112 pixels come out.
LAYERS = [
    (0.05, he_layer("7x7", 3, (512, 512), 7)),
    (0.05, he_layer("7x7", 3, (512, 512), 14, 2)),
    (0.05, he_layer("7x7", 3, (256, 512), 14, 2)),
    (0.01, he_layer("14x14", 3, (256, 256), 14)),
    (0.004, he_layer("28x28", 3, (128, 128), 28)),
    (0.001, he_layer("56x56", 3, (64, 64), 56)),
    (0.001, he_layer("112x112", 7, (3, 64), 224, 2)),
]
CERTIFIED = [((3, 3, 16, 16), 32), ((3, 3, 64, 64), 14)]
WIDTH = 1e-8
PROVED = ("theorem", "certified")


def run(*, quick: bool = False) -> Iterator[Row | str]:
    """Check that every enclosure is proved and holds the value; the narrow layers only where `quick`."""
    for wanted, layer in LAYERS[3:] if quick else LAYERS:
        yield from _theorem(wanted, layer)
    for shape, size in CERTIFIED:
        yield from _certified(shape, size)


def _theorem(wanted: float, layer: Layer) -> Iterator[Row | str]:
    found, seconds = _timed(layer, rtol=wanted)
    exact = spectral_norm(in_float64(layer.conv), rtol=1e-8).value
    _must_hold(layer.family, found, exact)
    # A basis that proves nothing is a miss, however narrow.
    width = (found.upper - found.lower) / found.value if found.basis.startswith(PROVED) else float("inf")
    error = abs(found.value / exact - 1.0)
    rival = f"{_ground(found)}, {seconds:.2f} s"
    yield within(layer.family, width, wanted, unit="", agreement=error, rival=rival)


def _certified(shape: tuple[int, ...], size: int) -> Iterator[Row | str]:
    layer = Layer(label(shape, size), "", gaussian(shape, size, 0))
    plain, plain_seconds = _timed(layer)
    found, seconds = _timed(layer, certify=True)
    _must_hold(layer.name, found, plain.value)
    proved = found.basis.startswith("certified")
    width = (found.upper - found.lower) / found.value if proved else float("inf")
    error = abs(found.value / plain.value - 1.0)
    yield within(f"{layer.name}, proved", width, WIDTH, unit="", agreement=error, rival=_ground(found))
    yield Row(
        task=f"{layer.name}: its cost",
        rival=f"without: {_ground(plain)}",
        ours=seconds,
        theirs=plain_seconds,
        ratio=plain_seconds / seconds,
        wanted=0.0,
        agreement=error,
    )


def _timed(layer: Layer, **options: float | bool) -> tuple[Enclosure, float]:
    """Call once to compile, once to time."""
    spectral_norm(layer.conv, **options)
    start = time.perf_counter()
    found = spectral_norm(layer.conv, **options)
    return found, time.perf_counter() - start


def _must_hold(task: str, found: Enclosure, exact: float) -> None:
    """Raise where the value lies outside by more than its own uncertainty."""
    if not found.lower * (1.0 - 1e-8) <= exact <= found.upper * (1.0 + 1e-8):
        raise AssertionError(f"{task}: {exact!r} lies outside [{found.lower!r}, {found.upper!r}]")


def _ground(found: Enclosure) -> str:
    return f"{found.method}, {found.basis.partition(':')[0]}"
