"""Time two implementations of one task fairly: in turn, in one process, after their answers agreed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
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
        Medians, in seconds (or bytes).
    ratio : float
        Median over the pairs of theirs / ours: above 1 we are better.
    wanted : float
        The ratio that the claim asks for.
    agreement : float
        Largest difference of the answers, relative to the largest entry.
    """

    task: str
    rival: str
    ours: float
    theirs: float
    ratio: float
    wanted: float
    agreement: float


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
