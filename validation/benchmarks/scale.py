"""Layers on workers: the speed-up beside that of independent copies, and what handing layers over costs.

Void unless every run finds the same numbers, bit for bit.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from spectral_conv import ConvOperator, inspect_model
from spectral_conv._threads import one_thread
from spectral_conv.inspection import Inspection
from spectral_conv.report.stored import stored_report
from validation.benchmarks.timing import Row, within

TITLE = "layers on workers, one thread each, float64"
# ResNet-56 at 32: convolutions of 3 x 3 by channels and image.
STAGES = ((16, 32, 19), (32, 16, 18), (64, 8, 18))
QUICK_STAGES = ((16, 16, 10), (32, 8, 10), (64, 4, 10))
SHARE = 0.9  # of the copies' speed-up
MANY, OVERHEAD, ROUNDS = 1000, 0.05, 3
ENVIRONMENT = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run(*, quick: bool = False) -> Iterator[Row | str]:
    """Time two workers, two copies and one warm worker."""
    yield from _speed_up(QUICK_STAGES if quick else STAGES)
    yield from _overhead(MANY // 5 if quick else MANY)


def serial(path: str) -> list[str]:
    """Inspect a file in this process, in one thread; a copy of the benchmark does this in a process of its own."""
    with one_thread():
        return _texts(inspect_model(path, layers=_document(path)))


def _speed_up(stages: tuple[tuple[int, int, int], ...]) -> Iterator[Row | str]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(_saved(Path(folder), stages))
        wanted = serial(path)  # compiles what is not compiled yet

        def workers(count: int) -> float:
            found, seconds = _timed(lambda: inspect_model(path, layers=_document(path), jobs=count))
            _check(_texts(found), wanted)
            return seconds

        def copies(count: int) -> float:
            found, seconds = _timed(lambda: _copies(path, count))
            for texts in found:
                _check(texts, wanted)
            return seconds

        ours = workers(1), workers(2)
        theirs = copies(1), copies(2)
    gain, independent = ours[0] / ours[1], 2.0 * theirs[0] / theirs[1]
    layers = sum(count for _, _, count in stages)
    yield Row(
        task=f"{layers} layers of a ResNet-56: speed-up of 2 workers",
        rival="that of 2 serial copies at one time",
        ours=gain,
        theirs=independent,
        ratio=gain / independent,
        wanted=SHARE,
        agreement=0.0,
        unit="",
    )
    yield (
        f"whole calls, start of the processes included: 1 worker {ours[0]:.1f} s, 2 workers {ours[1]:.1f} s; "
        f"1 serial copy {theirs[0]:.1f} s, 2 at one time {theirs[1]:.1f} s"
    )


def _overhead(count: int) -> Iterator[Row | str]:
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)  # for the child
    try:
        with one_thread(), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            inspect_model(_many(20))
            _, start = _timed(lambda: inspect_model(_many(20), executor=pool))
            alone, warm = [], []
            for _ in range(ROUNDS):
                # New operators each time: those that were used hold on to tables.
                convs, same = _many(count), _many(count)
                here, seconds = _timed(lambda convs=convs: inspect_model(convs))
                alone.append(seconds)
                there, seconds = _timed(lambda convs=same: inspect_model(convs, executor=pool))
                warm.append(seconds)
                _check(_texts(there), _texts(here))
    finally:
        os.environ.clear()
        os.environ.update(before)
    extra = statistics.median(w / a for w, a in zip(warm, alone, strict=True)) - 1.0
    yield within(
        f"{count} layers of 16 channels, {1e3 * min(alone) / count:.0f} ms each: overhead of 1 warm worker",
        max(extra, 1e-4),
        OVERHEAD,
        unit="",
    )
    rounds = ", ".join(f"{100 * (w / a - 1.0):+.1f} %" for a, w in zip(alone, warm, strict=True))
    yield f"overhead by round: {rounds}; the first call, with the start of the process, took {start:.1f} s"


def _many(count: int) -> list[ConvOperator]:
    rng = np.random.default_rng(0)
    return [ConvOperator(rng.standard_normal((3, 3, 16, 16)) / 12.0, (4, 4)) for _ in range(count)]


def _saved(folder: Path, stages: tuple[tuple[int, int, int], ...]) -> Path:
    """Write random kernels of that network, and what the file does not tell of them."""
    rng = np.random.default_rng(0)
    kernels, layers = {}, []
    for channels, size, count in stages:
        for number in range(count):
            name = f"{channels}.{number}.weight"
            kernels[name] = rng.standard_normal((channels, channels, 3, 3)).astype(np.float32) / (3.0 * channels**0.5)
            entry = {"weight": name, "stride": 1, "padding": 1, "dilation": 1, "groups": 1}
            layers.append(entry | {"input_size": [size, size]})
    path = folder / "resnet56.safetensors"
    save_file(kernels, path)
    Path(_document(path)).write_text(json.dumps({"layers": layers}), encoding="utf-8")
    return path


def _document(path: str | Path) -> str:
    return str(Path(path).with_suffix(".layers.json"))


def _copies(path: str, count: int) -> list[list[str]]:
    code = "import json, sys; from validation.benchmarks import scale; print(json.dumps(scale.serial(sys.argv[1])))"
    command = [sys.executable, "-c", code, path]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT)
        for _ in range(count)
    ]
    return [json.loads(one.communicate()[0]) for one in running]


def _texts(inspection: Inspection) -> list[str]:
    return [json.dumps(stored_report(replace(report, seconds=0.0))) for report in inspection.reports]


def _check(found: list[str], wanted: list[str]) -> None:
    if found != wanted:
        wrong = sum(one != other for one, other in zip(found, wanted, strict=True))
        raise AssertionError(f"{wrong} of {len(wanted)} layers differ")


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start
