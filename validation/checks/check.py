"""A claim with its source, the interval it puts a number in, and the number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from validation.checks.papers import Source
from validation.checks.picture import Picture

Verdict = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One claim, checked.

    Attributes
    ----------
    claim : str
        What is claimed of the number, in plain words.
    source : Source
        Who says so, and where.
    measured : float or None
        What was found; None where the check was skipped.
    low, high : float
        Where it must lie: what the source says, with the tolerance.
    stated : float or None
        The number that the source states, in the middle of the interval.
    reason : str
        Why the check was skipped.
    note : str
        What else is to be known: that it is a timing, that results are cached, that the paper says otherwise.
    picture : Picture, optional
        The figure that shows it.
    """

    claim: str
    source: Source
    measured: float | None
    low: float = -math.inf
    high: float = math.inf
    stated: float | None = None
    reason: str = ""
    note: str = ""
    picture: Picture | None = None

    def __post_init__(self) -> None:
        if (self.measured is None) != bool(self.reason):
            raise ValueError(
                f"`reason` must be given where and only where nothing was measured; got {self.measured!r} and "
                f"{self.reason!r} for {self.claim!r}."
            )
        if not self.low <= self.high:
            raise ValueError(
                f"`low` must not be above `high`; got {self.low!r} and {self.high!r} for {self.claim!r}."
            )

    @property
    def verdict(self) -> Verdict:
        """Whether the number lies in the interval; one that is no number does not."""
        if self.measured is None:
            return "skipped"
        return "pass" if self.low <= self.measured <= self.high else "fail"

    @property
    def found(self) -> str:
        """The number as a person reads it; a dash where there is none."""
        return "-" if self.measured is None else _text(self.measured)

    @property
    def wanted(self) -> str:
        """The interval as a person reads it."""
        if self.reason:
            return "-"
        if math.isinf(self.low):
            return f"≤ {_text(self.high)}"
        if math.isinf(self.high):
            return f"≥ {_text(self.low)}"
        if self.low == self.high:
            return _text(self.low)
        if self.stated is not None:
            return f"{_text(self.stated)} ± {self.high - self.stated:.1g}"
        return f"{_text(self.low)} to {_text(self.high)}"


def at_most(claim: str, source: Source, measured: float, limit: float, **more: Any) -> Check:
    """Claim that a number is at most `limit`."""
    return Check(claim=claim, source=source, measured=float(measured), high=limit, **more)


def at_least(claim: str, source: Source, measured: float, limit: float, **more: Any) -> Check:
    """Claim that a number is at least `limit`."""
    return Check(claim=claim, source=source, measured=float(measured), low=limit, **more)


def between(claim: str, source: Source, measured: float, low: float, high: float, **more: Any) -> Check:
    """Claim that a number lies between `low` and `high`."""
    return Check(claim=claim, source=source, measured=float(measured), low=low, high=high, **more)


def near(claim: str, source: Source, measured: float, stated: float, tolerance: float, **more: Any) -> Check:
    """Claim that a number is `stated`, to `tolerance`."""
    return between(claim, source, measured, stated - tolerance, stated + tolerance, stated=stated, **more)


def none_of(claim: str, source: Source, count: int, **more: Any) -> Check:
    """Claim that a count of exceptions is 0."""
    return between(claim, source, count, 0, 0, **more)


def skipped(claim: str, source: Source, reason: str, **more: Any) -> Check:
    """Say why a claim was not checked."""
    return Check(claim=claim, source=source, measured=None, reason=reason, **more)


def _text(value: float) -> str:
    if value == int(value) if math.isfinite(value) else False:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.2g}"
