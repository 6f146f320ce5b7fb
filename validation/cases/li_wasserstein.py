"""Wasserstein distances: the tightest estimates come from BCOP.

Critics that stretch nothing give lower bounds of the distance of two sets of images. The paper compares digits and
pictures made by a GAN, whose distance nobody knows; here one set is the other one moved by a fixed image, and the
distance is known.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from validation.checks.cached import cached, ordered, provenance
from validation.checks.check import Check, at_least, at_most
from validation.checks.papers import LI
from validation.checks.picture import LINES, Picture

TABLE = LI.at("Table 4")
DUALITY = LI.at("equation (3)")
METHODS, ACTIVATIONS = ("BCOP", "RKO", "OSSN"), ("MaxMin", "ReLU")  # estimates in the table, falling


def run() -> list[Check]:
    """Compare every pair that the table orders, then estimates with the distance."""
    results = cached("wasserstein_digits")
    kinds, note = results["kinds"], provenance(results)
    values = {name: found["estimate"]["values"] for name, found in kinds.items()}
    picture = Picture(
        title="Estimates of a known distance",
        text=f"Mean and deviation of {len(results['seeds'])} runs; the line is the distance itself.",
        draw=lambda figure: _draw(figure, results),
    )
    pairs = [(f"{a} {word}", f"{b} {word}") for word in ACTIVATIONS for a, b in pairwise(METHODS)]
    pairs += [(f"{method} MaxMin", f"{method} ReLU") for method in METHODS]
    checks = [
        ordered(
            f"{first} above {second}; difference of the means",
            TABLE,
            values[first],
            values[second],
            note=note,
            picture=picture,
        )
        for first, second in pairs
    ]
    highest = max(max(found) for found in values.values())
    others = max(found["estimate"]["mean"] for name, found in kinds.items() if name != "BCOP MaxMin")
    checks += [
        at_most(
            "No estimate is above the distance; the highest of all runs over the distance",
            DUALITY,
            highest / results["distance"],
            1.0,
            note=note,
            picture=picture,
        ),
        at_least(
            "BCOP with MaxMin is best: its mean over that of the next kind",
            TABLE,
            kinds["BCOP MaxMin"]["estimate"]["mean"] / others,
            1.0,
            note=note,
            picture=picture,
        ),
    ]
    return checks


def _draw(figure: Figure, results: dict[str, Any]) -> None:
    ax = figure.add_subplot()
    for colour, marker, shift, word in zip(LINES, ("o", "s"), (-0.1, 0.1), ACTIVATIONS, strict=False):
        found = [results["kinds"][f"{method} {word}"]["estimate"] for method in METHODS]
        places = [place + shift for place in range(len(METHODS))]
        means, deviations = ([one[key] for one in found] for key in ("mean", "deviation"))
        ax.errorbar(places, means, deviations, fmt=marker, color=colour, capsize=4, markersize=5, label=word)
    ax.axhline(results["distance"], color="black", linewidth=0.9, label="distance")
    ax.set_xticks(range(len(METHODS)), METHODS)
    ax.set(xlabel="method", ylabel="estimate (units of the images)")
    ax.grid(alpha=0.35, axis="y")
    ax.legend(frameon=False, fontsize="small")
