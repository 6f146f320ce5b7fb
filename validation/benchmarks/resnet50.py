"""The largest singular values of all 53 convolutions of ResNet-50 at 224: time and memory on two cores."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from spectral_conv import ConvOperator, spectral_norm
from validation.benchmarks.layers import Layer, in_float64, resnet50
from validation.benchmarks.timing import Row, in_fresh_process, peak_bytes, within

TITLE = "ResNet-50 at 224, 53 convolutions, float32, two cores"
# Accuracy and seconds.
CLAIMS = ((1e-3, 30.0), (1e-6, 150.0))
PEAK = 2e9
_SLOWEST = 5
# Given up after this many times the limit.
_PATIENCE = 3


def run(*, quick: bool = False) -> Iterator[Row | str]:
    """Run one layer and two at a time, each in a fresh process; the faster counts; the first goal only if `quick`."""
    exact: list[float] = []
    for rtol, limit in CLAIMS[: 1 if quick else None]:
        tried = {
            jobs: in_fresh_process("resnet50", f"measure({rtol}, {jobs})", timeout=_PATIENCE * limit)
            for jobs in (1, 2)
        }
        runs = {jobs: found for jobs, found in tried.items() if found is not None}
        if not runs:
            yield within(f"rtol {rtol:.0e}: given up", _PATIENCE * limit, limit)
            continue
        exact = exact or [spectral_norm(in_float64(layer.conv), rtol=1e-8).value for layer in resnet50()]
        errors = {jobs: np.abs(np.array(found["values"]) / exact - 1.0).max() for jobs, found in runs.items()}
        if not max(errors.values()) <= rtol:
            raise AssertionError(f"rtol {rtol:.0e}: off by {max(errors.values()):.1e}")
        best = min(runs, key=lambda jobs: runs[jobs]["seconds"])
        task, error = f"rtol {rtol:.0e}, {best} at a time", float(errors[best])
        yield within(task, runs[best]["seconds"], limit, agreement=error)
        yield within(f"{task}: peak memory", runs[best]["peak"], PEAK, unit="B", agreement=error)
        yield f"rtol {rtol:.0e}: " + _remarks(runs[best])
        other = runs.get(3 - best)
        spent = f"{other['seconds']:.1f} s, {other['peak'] / 1e6:.0f} MB" if other else "given up"
        yield f"rtol {rtol:.0e}, {3 - best} at a time: {spent}"


def measure(rtol: float, jobs: int) -> dict[str, Any]:
    """Compute every norm in this process."""
    layers = resnet50()
    for layer in layers[:4]:  # what is compiled at the first call
        small = ConvOperator(layer.conv.kernel[..., :8, :8], (28, 28), stride=layer.conv.geometry.stride)
        spectral_norm(small, rtol=rtol)
    start = time.perf_counter()
    if jobs == 1:
        found = [_norm(layer, rtol) for layer in layers]
    else:
        with ThreadPoolExecutor(jobs) as pool:
            found = list(pool.map(lambda layer: _norm(layer, rtol), layers))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": peak_bytes(), "values": [one["value"] for one in found], "layers": found}


def _norm(layer: Layer, rtol: float) -> dict[str, Any]:
    start = time.perf_counter()
    found = spectral_norm(layer.conv, rtol=rtol)
    seconds = time.perf_counter() - start
    basis = found.basis.partition(":")[0]
    return {"name": layer.name, "value": found.value, "seconds": seconds, "method": f"{found.method} ({basis})"}


def _remarks(found: dict[str, Any]) -> str:
    """Methods with what their bounds rest on, and the slowest layers."""
    methods = Counter(layer["method"] for layer in found["layers"])
    slowest = sorted(found["layers"], key=lambda layer: -layer["seconds"])[:_SLOWEST]
    return (
        ", ".join(f"{count} {method}" for method, count in methods.most_common())
        + "; slowest: "
        + ", ".join(f"{layer['name']} {layer['seconds']:.1f} s" for layer in slowest)
    )
