"""All circular singular values: against NumPy's FFT and SVD in time and in peak memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from spectral_conv import ConvOperator, circulant_singular_values
from validation.benchmarks.timing import Row, compare

TITLE = "circular singular values"
# Wanted on two idle cores and on one thread; aim for 6 at 16 channels.
WANTED = {1: 1.8, 2: 3.3}


def numpy_values(kernel: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Formula of Sedghi, Gupta and Long, as their paper prints it."""
    return np.linalg.svd(np.fft.fft2(kernel, grid, axes=(0, 1)), compute_uv=False)


def run() -> Iterator[Row]:
    """Run the timings here and on one thread in a process of its own, then the memory of both."""
    threads = min(2, len(os.sched_getaffinity(0)))
    for channels in (16, 64):
        yield _timed(channels, threads)
    if threads > 1:
        yield from _one_thread()
    yield _memory()


def _timed(channels: int, threads: int) -> Row:
    kernel = np.random.default_rng(0).standard_normal((3, 3, channels, channels))
    conv = ConvOperator(kernel, (32, 32))
    return compare(
        f"{channels}x{channels}x3x3 at 32x32, {threads} thread{'s' * (threads > 1)}",
        "numpy fft2 + svd",
        lambda: circulant_singular_values(conv),
        lambda: numpy_values(kernel, (32, 32)),
        wanted=WANTED[threads],
        seconds=0.2,
    )


def _one_thread() -> Iterator[Row]:
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    code = (
        "import json\nfrom validation.benchmarks import circulant_spectrum as b\n"
        "for c in (16, 64): print(json.dumps(vars(b._timed(c, 1))))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        yield Row(**json.loads(line))


def _memory() -> Row:
    """Peak memory of a whole process, 128 x 128 channels on a 64 x 64 grid."""
    peaks = {}
    for which in ("ours", "theirs"):
        code = f"from validation.benchmarks import circulant_spectrum as b; print(b.peak({which!r}))"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        peaks[which] = float(done.stdout)
    return Row(
        task="128x128x3x3 at 64x64: peak memory",
        rival="numpy fft2 + svd",
        ours=peaks["ours"],
        theirs=peaks["theirs"],
        ratio=peaks["theirs"] / peaks["ours"],
        wanted=2.0,
        agreement=0.0,
    )


def peak(which: str) -> float:
    """Peak resident bytes of this process after one of the two has computed."""
    kernel = np.random.default_rng(0).standard_normal((3, 3, 128, 128))
    if which == "ours":
        circulant_singular_values(ConvOperator(kernel, (64, 64)))
    else:
        with threadpool_limits(1):
            numpy_values(kernel, (64, 64))
    # Not getrusage: it counts the peak of the process that this one was forked from.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024.0 * float(re.search(r"VmHWM:\s+(\d+)", status)[1])
