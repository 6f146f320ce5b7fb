"""A figure that shows some checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart on white and on black, with and without colours of their own in the page: lines, and their markers.
LINES = ("#b3410e", "#1d4ed8", "#2e9e4f", "#9467bd", "#8c6d1f", "#d6569f")
MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What is drawn, and how, once a page asks for it; several checks may share one.

    Attributes
    ----------
    title : str
        Its heading.
    text : str
        What is seen; the page adds the claims and the verdicts.
    draw : callable
        Draws it into a figure.
    size : (float, float)
        Inches.
    """

    title: str
    text: str
    draw: Callable[[Figure], object]
    size: tuple[float, float] = (5.4, 3.6)
