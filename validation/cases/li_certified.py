"""Certified robustness on MNIST: the small table, BCOP first and SVCM last.

Trained with far fewer images and updates than in the paper, so accuracies are lower; what is compared is the order,
and only where two methods lie farther apart than two deviations. Radii are certified by the exact norms of the
layers.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from validation.checks.cached import cached, ordered, provenance
from validation.checks.check import Check, at_least, at_most
from validation.checks.papers import LI
from validation.checks.picture import LINES, Picture

TABLE = LI.at("Table 1, MNIST, Small")
CERTIFICATE = LI.at("section 2.3 and Appendix P")
ORDER = ("BCOP", "RKO", "OSSN", "SVCM")  # certified accuracy in the table, falling


def run() -> list[Check]:
    """Compare every pair that the table orders, then certificates with attacks."""
    results = cached("certified_mnist")
    note, methods = provenance(results), results["methods"]
    picture = Picture(
        title=f"Accuracy certified within {results['radius']}, by method",
        text=f"Mean and deviation of {len(results['seeds'])} runs here (MNIST's test file alone, split), and in the "
        "paper, which trained with all of MNIST.",
        draw=lambda figure: _draw(figure, results),
    )
    checks = []
    for first, second in itertools.combinations(ORDER, 2):
        values = (methods[name]["certified"]["values"] for name in (first, second))
        text = f"Certified accuracy: {first} above {second}; difference of the means"
        checks.append(ordered(text, TABLE, *values, note=note, picture=picture))
    margins = [
        stands - certified
        for found in methods.values()
        for attack in ("pgd", "fgsm")
        for stands, certified in zip(found[attack]["values"], found["certified"]["values"], strict=True)
    ]
    checks.append(
        at_least(
            "No attack of that length breaks a certificate: least difference of the accuracy under attack and the "
            "certified one",
            CERTIFICATE,
            min(margins),
            0.0,
            note=note,
        )
    )
    constants = max(value for found in methods.values() for value in found["lipschitz"]["values"])
    text = "The networks' certified Lipschitz constants are at most 1; the largest excess"
    checks.append(at_most(text, CERTIFICATE, constants - 1.0, 1e-5, note=note))
    return checks


def _draw(figure: Figure, results: dict[str, Any]) -> None:
    ax = figure.add_subplot()
    ours = [
        (results["methods"][name]["certified"]["mean"], results["methods"][name]["certified"]["deviation"])
        for name in ORDER
    ]
    paper = [tuple(results["certified_in_the_paper"][name]) for name in ORDER]
    for colour, marker, shift, pairs, label in zip(
        LINES, ("o", "s"), (-0.1, 0.1), (ours, paper), ("here, fewer images", "in the paper"), strict=False
    ):
        mean, deviation = np.array(pairs).T
        places = np.arange(len(ORDER)) + shift
        ax.errorbar(places, mean, deviation, fmt=marker, color=colour, capsize=4, markersize=5, label=label)
    ax.set_xticks(range(len(ORDER)), ORDER)
    ax.set(xlabel="method", ylabel="certified accuracy (share of the images)", ylim=(0.0, 0.5))
    ax.grid(alpha=0.35, axis="y")
    ax.legend(frameon=False, fontsize="small")
