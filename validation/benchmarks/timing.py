"""Time two implementations of one task fairly: in turn, in one process, after their answers agreed."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison of a claim.

    Attributes
    ----------
    task : str
        What was computed.
    rival : str
        What it was compared with.
    ours, theirs : float
        Medians; of a claim without a rival, theirs is the limit.
    ratio : float
        Median over the pairs of theirs / ours: above 1 we are better.
    wanted : float
        The ratio that the claim asks for; 0 where it is only reported.
    agreement : float
        Largest difference of the answers, relative to the largest entry.
    unit : str
        Of ours and theirs: "s", "B", or "" for numbers.
    """

    task: str
    rival: str
    ours: float
    theirs: float
    ratio: float
    wanted: float
    agreement: float
    unit: str = "s"

    @property
    def verdict(self) -> str:
        """Whether the claim is "met" or "missed"; without one the row is only "shown"."""
        if self.wanted <= 0.0:
            return "shown"
        # Also a ratio that is not a number is a miss.
        return "met" if self.ratio >= self.wanted else "missed"


def within(
    task: str, found: float, limit: float, *, unit: str = "s", agreement: float = 0.0, rival: str = "limit"
) -> Row:
    """Row of a claim without a rival: `found` is at most `limit`; `rival` then says what else is to be known."""
    ratio = limit / found if found else float("inf")
    return Row(
        task=task, rival=rival, ours=found, theirs=limit, ratio=ratio, wanted=1.0, agreement=agreement, unit=unit
    )


def compare(
    task: str,
    rival: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    *,
    wanted: float,
    tolerance: float = 1e-10,
    rounds: int = 9,
    seconds: float = 0.05,
) -> Row:
    """Run both in turn `rounds` times; raise where the answers differ by more than `tolerance`."""
    a, b = np.asarray(ours()), np.asarray(theirs())
    agreement = float(np.abs(a - b).max() / np.abs(b).max())
    if not agreement <= tolerance:
        raise AssertionError(f"{task}: the answers differ by {agreement:.1e}, more than {tolerance:.0e}: void")
    pairs = [(_time(ours, seconds), _time(theirs, seconds)) for _ in range(rounds)]
    return Row(
        task=task,
        rival=rival,
        ours=statistics.median(pair[0] for pair in pairs),
        theirs=statistics.median(pair[1] for pair in pairs),
        ratio=statistics.median(pair[1] / pair[0] for pair in pairs),
        wanted=wanted,
        agreement=agreement,
    )


def in_fresh_process(module: str, call: str, *, timeout: float | None = None, cores: int = 2) -> Any:
    """Call a function of a benchmark on at most `cores` cores in a process of its own; what it returns, by JSON.

    None where it takes longer than `timeout` seconds.
    """
    code = (
        f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])\n"
        f"import json; from validation.benchmarks import {module} as b; print(json.dumps(b.{call}))"
    )
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise AssertionError(f"{module}.{call} ended with exit code {done.returncode}")
    return json.loads(done.stdout)


def peak_bytes() -> float:
    """Peak resident bytes of this process."""
    # Not getrusage: it counts the peak of the process that this one was forked from.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024.0 * float(re.search(r"VmHWM:\s+(\d+)", status)[1])


def _time(function: Callable[[], Any], seconds: float) -> float:
    """Mean time of a call over about `seconds`."""
    start = time.perf_counter()
    calls = 0
    while True:
        function()
        calls += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return elapsed / calls
