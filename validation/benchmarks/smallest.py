"""The smallest singular values of a trained network, of one 64x64 layer, and of layers beyond the memory limit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from spectral_conv import ConvOperator, singular_triplets, smallest_singular_value, spectral_norm
from validation.benchmarks.layers import MISSING, gaussian, label, resnet20, resnet20_reference
from validation.benchmarks.timing import Row, in_fresh_process, peak_bytes, within

TITLE = "smallest singular values, two cores"
TRAINED_SECONDS = 15.0
# Relative to the largest value; the reference values below `SMALL` are only good to `SMALL_ACCURACY`, as they say.
ACCURACY, SMALL, SMALL_ACCURACY = 1e-9, 1e-6, 1e-8
WIDE = ((3, 3, 64, 64), 32)
WIDE_SECONDS, WIDE_PEAK = 40.0, 3e9
# Layers of `--full`, and the limits of each: seconds, and bytes in all.
LARGE = [((3, 3, 64, 128), 56), ((3, 3, 64, 64), 56)]
LARGE_SECONDS, LARGE_PEAK = 300.0, 7e9
_PATIENCE = 3


def run(*, quick: bool = False, full: bool = False) -> Iterator[Row | str]:
    """Run the trained network, the wide layer (not where `quick`), and where `full` the large ones."""
    if resnet20():
        yield from _trained()
    else:
        yield f"without ResNet-20: {MISSING}"
    if not quick:
        yield from _single(*WIDE, WIDE_SECONDS, WIDE_PEAK)
    for shape, size in LARGE if full else ():
        yield from _single(shape, size, LARGE_SECONDS, LARGE_PEAK, memory_limit=LARGE_PEAK)


def _trained() -> Iterator[Row | str]:
    """Compare with the values of sparse Cholesky inverse iteration that lie in `shared`."""
    found = in_fresh_process("smallest", "trained()", timeout=_PATIENCE * TRAINED_SECONDS)
    if found is None:
        yield within("ResNet-20, 19 layers: given up", float("inf"), TRAINED_SECONDS)
        return
    reference = resnet20_reference()
    errors = {}
    for name, layer in found["layers"].items():
        if name in reference:
            largest, smallest = reference[name]
            errors[name] = abs(layer["value"] - smallest) / largest
            allowed = ACCURACY if smallest > SMALL * largest else SMALL_ACCURACY
            if not errors[name] <= allowed:
                raise AssertionError(f"{name}: off by {errors[name]:.1e} of the largest value, {allowed:.0e} allowed")
    worst = max(errors.values(), default=0.0)
    yield within("ResNet-20, 19 layers", found["seconds"], TRAINED_SECONDS, agreement=worst, rival="sparse Cholesky")
    slowest = sorted(found["layers"], key=lambda name: -found["layers"][name]["seconds"])[:3]
    yield "slowest: " + ", ".join(
        f"{name} {found['layers'][name]['seconds']:.1f} s ({found['layers'][name]['method']})" for name in slowest
    )
    if not reference:
        yield f"ResNet-20 is not checked: {MISSING}"


def trained() -> dict[str, Any]:
    """Compute all smallest values in this process."""
    layers = resnet20()
    smallest_singular_value(gaussian((3, 3, 4, 4), 16, 0))  # what is compiled at the first call
    found, start = {}, time.perf_counter()
    for layer in layers:
        began = time.perf_counter()
        one = smallest_singular_value(layer.conv)
        found[layer.name] = {"value": one.value, "method": one.method, "seconds": time.perf_counter() - began}
    return {"seconds": time.perf_counter() - start, "layers": found}


def _single(
    shape: tuple[int, ...], size: int, seconds: float, peak: float, memory_limit: float | None = None
) -> Iterator[Row | str]:
    """Compute one layer in a fresh process: its time and its peak memory."""
    found = in_fresh_process("smallest", f"single({shape}, {size}, {memory_limit})", timeout=_PATIENCE * seconds)
    task = label(shape, size)
    if found is None:
        yield within(f"{task}: given up", float("inf"), seconds)
        return
    if not found["error"] <= ACCURACY:
        raise AssertionError(f"{task}: another run differs by {found['error']:.1e} of the largest value")
    yield within(task, found["seconds"], seconds, agreement=found["error"], rival=found["method"])
    yield within(f"{task}: peak memory", found["peak"], peak, unit="B", rival=found["method"])
    yield f"{task}: " + found["text"]


def single(shape: tuple[int, ...], size: int, memory_limit: float | None) -> dict[str, Any]:
    """Enclose one smallest value in this process, then check it."""
    conv = gaussian(shape, size, 0)
    start = time.perf_counter()
    found = smallest_singular_value(conv, memory_limit=memory_limit)
    seconds, peak = time.perf_counter() - start, peak_bytes()
    return {
        "seconds": seconds,
        "peak": peak,
        "method": found.method,
        "error": _error(conv, found.value, memory_limit) if found.method != "bracket" else 0.0,
        "text": f"{found.value:.6e} in [{found.lower:.6e}, {found.upper:.6e}], {found.basis}",
    }


def _error(conv: ConvOperator, value: float, memory_limit: float | None) -> float:
    """Difference from a run from other random vectors, or that run's residuals if larger, to the largest value."""
    other = singular_triplets(conv, 1, "smallest", rtol=ACCURACY, memory_limit=memory_limit, rng=1)
    u, v, s = other.left.ravel(), other.right.ravel(), float(other.values[0])
    residuals = (np.linalg.norm(conv.matvec(v) - s * u), np.linalg.norm(conv.rmatvec(u) - s * v))
    return float(max(abs(s - value), *residuals) / spectral_norm(conv, rtol=1e-3).value)
