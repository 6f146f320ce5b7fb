"""Guo, three penalties: Figures 4.1, 4.2 and 4.3.

Algorithms 3.1, 3.2 and 3.3 with the paper's step sizes, on uniform kernels of 3 to 1 and of 1 to 3 channels: the
first shrinks the whole spectrum, the second raises the smallest value, the third brings both ends together. The
paper's kernels are MATLAB's random numbers; ours are others of the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from spectral_conv import ConvOperator, descend, plot_descent, regularizers, steps
from validation.checks.check import Check, at_least, at_most, near
from validation.checks.papers import GUO_PENALTIES, INDEPENDENT
from validation.checks.picture import Picture

SIZE = 20
SHAPES = ((3, 3, 3, 1), (3, 3, 1, 3))
DIGITS = 6e-4
SIGNS = {"sigma_max": "σ_max", "sigma_min": "σ_min"}


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One of the three: penalty, lambda, iterations, and what is to be seen.

    `directions` says which way each end goes, in the figure; `stated` has (sigma_max, sigma_min) of 3x3x3x1 by
    iteration, computed densely without this package; `remark` is for the caption.
    """

    name: str
    figure: str
    penalty: regularizers.Penalty
    size: float
    iterations: int
    directions: dict[str, int]
    stated: dict[int, tuple[float, float]]
    remark: str = ""


ALGORITHMS = (
    Algorithm(
        name="3.1",
        figure="Figure 4.1",
        penalty=regularizers.Frobenius(),
        size=1e-5,
        iterations=400,
        directions={"sigma_max": -1, "sigma_min": -1},
        stated={0: (7.966, 0.531), 100: (5.483, 0.368), 200: (3.775, 0.255), 400: (1.790, 0.122)},
        remark=" Both shrink by nearly the same factor, so that the lines lie on each other, each on its own axis.",
    ),
    Algorithm(
        name="3.2",
        figure="Figure 4.2",
        penalty=regularizers.SmallestSingularValue(),
        size=1e-4,
        iterations=30,
        directions={"sigma_min": 1},
        stated={10: (7.966, 0.534), 20: (7.966, 0.538), 30: (7.966, 0.541)},
    ),
    Algorithm(
        name="3.3",
        figure="Figure 4.3",
        penalty=regularizers.FrobeniusMinusSmallest(),
        size=1e-5,
        iterations=45,
        directions={"sigma_max": -1, "sigma_min": 1},
        stated={15: (7.536, 0.693), 30: (7.130, 0.736), 45: (6.746, 0.759)},
    ),
)


def run() -> list[Check]:
    """Run every algorithm on both kernels."""
    return [check for algorithm in ALGORITHMS for shape in SHAPES for check in _run(algorithm, shape)]


def _run(algorithm: Algorithm, shape: tuple[int, ...]) -> list[Check]:
    conv = ConvOperator(np.random.default_rng(1).random(shape), (SIZE, SIZE))
    history = descend(conv, algorithm.penalty, steps.Fixed(algorithm.size), maxiter=algorithm.iterations).history
    source = GUO_PENALTIES.at(f"section 4, {algorithm.figure}")
    name = f"Algorithm {algorithm.name}, {'x'.join(map(str, shape))}"
    picture = Picture(
        title=f"{algorithm.figure} again, {'x'.join(map(str, shape))}",
        text=f"The exact ends of the spectrum over the iterations of Algorithm {algorithm.name}, λ = "
        f"{algorithm.size:g}.{algorithm.remark}",
        # Figure 4.2 has the smallest value alone.
        draw=lambda figure: plot_descent(_shown(history, algorithm), figure=figure),
        size=(6.0, 4.0),
    )
    checks = []
    for end, sign in algorithm.directions.items():
        change = float(history[end][-1] - history[end][0])
        word, claim = ("rises", at_least) if sign > 0 else ("falls", at_most)
        checks.append(claim(f"{name}: {SIGNS[end]} {word}; its change", source, change, 0.0, picture=picture))
    if shape == SHAPES[0]:
        checks += [
            near(
                f"{name}: {SIGNS[end]} after {iteration}",
                INDEPENDENT,
                history[end][iteration],
                value,
                DIGITS,
            )
            for iteration, pair in algorithm.stated.items()
            for end, value in zip(SIGNS, pair, strict=True)
        ]
    return checks


def _shown(history: xr.Dataset, algorithm: Algorithm) -> xr.Dataset:
    hidden = [
        name
        for name in history
        if str(name).startswith("sigma_") and not str(name).startswith(tuple(algorithm.directions))
    ]
    return history.drop_vars(hidden)
