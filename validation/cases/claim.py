"""One claim."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number and the interval that the source, or a computation without this package, puts it in.

    Attributes
    ----------
    text : str
        What the number is.
    found : float
        What this package finds.
    low, high : float
        Where it must lie.
    """

    text: str
    found: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the number lies in the interval; one that is no number does not."""
        return self.low <= self.found <= self.high


def near(text: str, found: float, stated: float, digits: float = 6e-4) -> Claim:
    """Claim that `found` is `stated` to its printed digits."""
    return Claim(text=text, found=found, low=stated - digits, high=stated + digits)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The claims of one run or figure, and the runs to draw."""

    title: str
    source: str
    claims: tuple[Claim, ...]
    runs: dict[str, xr.Dataset]
