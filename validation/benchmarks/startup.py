"""Waiting: help and import within 0.4 s, the second run of the demo within 4 s."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from validation.benchmarks.timing import Row

TITLE = "waiting, whole processes"
CALL = "import sys; sys.argv = ['spectral-conv', {!r}]; from spectral_conv.cli import main; main()"
COMMANDS = [
    ("spectral-conv --help", CALL.format("--help"), 0.4),
    ("import spectral_conv", "import spectral_conv", 0.4),
    ("spectral-conv demo, second run", CALL.format("demo"), 4.0),
]


def run() -> Iterator[Row]:
    """Time every command after one run that compiles."""
    for task, code, limit in COMMANDS:
        seconds = [_seconds(code) for _ in range(8)][1:]
        median = statistics.median(seconds)
        yield Row(
            task=task, rival="limit", ours=median, theirs=limit, ratio=limit / median, wanted=1.0, agreement=0.0
        )


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start
