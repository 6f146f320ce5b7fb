"""P.-C. Guo, "Regularization for convolutional kernel tensors ...": Algorithms 3.1, 3.2, 3.3 with its step sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from spectral_conv import ConvOperator, descend, regularizers, steps
from validation.cases.claim import Case, Claim, near

SOURCE = "Guo, Regularization for convolutional kernel tensors, arXiv:2102.04294, section 4"
SIZE = 20
# Penalty, lambda, iterations, and (sigma_max, sigma_min) of 3x3x3x1 computed densely without this package.
ALGORITHMS = {
    "3.1": (
        regularizers.Frobenius,
        1e-5,
        400,
        {0: (7.966, 0.531), 100: (5.483, 0.368), 200: (3.775, 0.255), 400: (1.790, 0.122)},
    ),
    "3.2": (
        regularizers.SmallestSingularValue,
        1e-4,
        30,
        {10: (7.966, 0.534), 20: (7.966, 0.538), 30: (7.966, 0.541)},
    ),
    "3.3": (
        regularizers.FrobeniusMinusSmallest,
        1e-5,
        45,
        {15: (7.536, 0.693), 30: (7.130, 0.736), 45: (6.746, 0.759)},
    ),
}
# Which way sigma_max and sigma_min go: 0 where the paper shows no clear change.
DIRECTIONS = {"3.1": (-1, -1), "3.2": (0, 1), "3.3": (-1, 1)}


def run() -> Iterator[Case]:
    """Uniform kernels, 3 to 1 channels and 1 to 3."""
    for name, (penalty, size, iterations, stated) in ALGORITHMS.items():
        for shape in ((3, 3, 3, 1), (3, 3, 1, 3)):
            conv = ConvOperator(np.random.default_rng(1).random(shape), (SIZE, SIZE))
            history = descend(conv, penalty(), steps.Fixed(size), maxiter=iterations).history
            claims = list(_directions(history, DIRECTIONS[name]))
            if shape == (3, 3, 3, 1):
                for iteration, pair in stated.items():
                    at = history.sel(iteration=iteration)
                    claims += [
                        near(f"{end} after {iteration}", float(at[end]), value)
                        for end, value in zip(("sigma_max", "sigma_min"), pair, strict=True)
                    ]
            title = f"Algorithm {name}, {'x'.join(map(str, shape))} at {SIZE}x{SIZE}"
            yield Case(title=title, source=SOURCE, claims=tuple(claims), runs={f"Algorithm {name}": history})


def _directions(history: xr.Dataset, signs: tuple[int, int]) -> Iterator[Claim]:
    for end, sign in zip(("sigma_max", "sigma_min"), signs, strict=True):
        change = float(history[end][-1] - history[end][0])
        if sign:
            word = "rises" if sign > 0 else "falls"
            bounds = (0.0, np.inf) if sign > 0 else (-np.inf, 0.0)
            yield Claim(text=f"{end} {word} by", found=change, low=bounds[0], high=bounds[1])
