"""The bound of a network and the chain of evidence for it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Link:
    """One operation of a network.

    Attributes
    ----------
    name, op : str
        Of the node; of a sequence of operators their place in it, and "Conv" or "ConvTranspose".
    constant : float
        Lipschitz constant of the operation by itself; of several inputs the largest factor of one of them.
    kind : str
        "exact" (no smaller constant holds, up to the width of an enclosure), "upper" or "estimate" (not proved).
    theorem : str
        Why it holds.
    reach : float
        Lipschitz constant of what the operation writes, as a function of all inputs of the network.
    """

    name: str
    op: str
    constant: float
    kind: str
    theorem: str
    reach: float


@dataclass(frozen=True, kw_only=True)
class NetworkLipschitz:
    """A Lipschitz constant of a network in the Euclidean norms of its inputs and outputs.

    Attributes
    ----------
    value : float
        ``||f(x) - f(y)|| <= value ||x - y||``, rounded upwards.
    kind : str
        "upper", or "estimate" where a link is no proved upper bound.
    links : tuple of Link
        In the order of the computation.
    critical : tuple of str
        Names of the links along the way from an input to an output whose factors weigh most.
    notes : tuple of str
        What was taken for granted.
    """

    value: float
    kind: str
    links: tuple[Link, ...]
    critical: tuple[str, ...]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Return the chain of evidence as a table: a star stands before the links of `critical`."""
        critical = set(self.critical)
        head = ("", "link", "op", "constant", "kind", "reach", "theorem")
        rows = [
            (
                "*" if link.name in critical else "",
                link.name,
                link.op,
                f"{link.constant:.6g}",
                link.kind,
                f"{link.reach:.6g}",
                link.theorem,
            )
            for link in self.links
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]
        sign = "<=" if self.kind == "upper" else "~"
        return "\n".join([f"Lipschitz constant {sign} {self.value:.6g} ({self.kind})", "", *lines, "", *self.notes])

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON; a number beyond the range of floating point is None."""
        return {
            "value": _finite(self.value),
            "kind": self.kind,
            "critical": list(self.critical),
            "notes": list(self.notes),
            "links": [
                {key: _finite(entry) for key, entry in dataclasses.asdict(link).items()} for link in self.links
            ],
        }


def _finite(entry: Any) -> Any:
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry
