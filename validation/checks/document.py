"""The outcome as JSON: no NaN, no infinity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from validation.checks.check import Check
from validation.checks.machine import machine
from validation.checks.run import Outcome

SCHEMA = 1
VERDICTS = ("pass", "fail", "skipped")


def document(outcomes: Sequence[Outcome], *, full: bool) -> dict[str, Any]:
    """Return plain data: the machine, how many checks passed, every case with its checks."""
    return {
        "schema": SCHEMA,
        "set": "full" if full else "quick",
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 2),
        "machine": machine(),
        "counts": {verdict: sum(outcome.count(verdict) for outcome in outcomes) for verdict in VERDICTS},
        "cases": [
            {
                "name": outcome.case.name,
                "title": outcome.case.title,
                "about": outcome.case.about,
                "seconds": round(outcome.seconds, 2),
                "error": outcome.error or None,
                "checks": [_check(check) for check in outcome.checks],
            }
            for outcome in outcomes
        ],
    }


def finite(value: float | None) -> float | None:
    """Return the number, or None where JSON has none."""
    return value if value is not None and math.isfinite(value) else None


def _check(check: Check) -> dict[str, Any]:
    return {
        "claim": check.claim,
        "source": {"paper": check.source.paper, "place": check.source.place, "link": check.source.link},
        "low": finite(check.low),
        "high": finite(check.high),
        "stated": check.stated,
        "measured": finite(check.measured),
        "verdict": check.verdict,
        "reason": check.reason,
        "note": check.note,
        "figure": check.picture.title if check.picture else None,
    }
