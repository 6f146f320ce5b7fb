"""Results of trainings that take minutes: committed as JSON by the scripts of `examples`, with their command."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from math import hypot
from pathlib import Path
from typing import Any

from validation.checks.check import Check, at_least, skipped
from validation.checks.papers import Source

RESULTS = Path(__file__).resolve().parents[2] / "examples" / "results"


def cached(name: str) -> dict[str, Any]:
    """Read ``examples/results/<name>.json``."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def provenance(results: dict[str, Any]) -> str:
    """Say that the numbers are not computed now, and the command that makes them."""
    return f"cached; `{results['command']}` makes it anew in {results['minutes']:.0f} minutes, with PyTorch"


def ordered(claim: str, source: Source, first: Sequence[float], second: Sequence[float], **more: Any) -> Check:
    """Claim that the first values are larger in the mean, by more than twice the deviation of the difference.

    Where the means lie nearer than that, whichever is the larger, the order is undecided and the check is skipped.
    """
    gap = statistics.mean(first) - statistics.mean(second)
    decisive = 2.0 * hypot(statistics.stdev(first), statistics.stdev(second))
    if abs(gap) <= decisive:
        return skipped(claim, source, f"undecided: {gap:.3g} apart, within two deviations, {decisive:.3g}", **more)
    return at_least(claim, source, gap, decisive, **more)
