"""Guo, Frobenius norm: Figure 4.1, all four kernels.

Gradient descent on ``||M^T M - I||_F^2`` with the paper's step sizes: within about 20 steps both ends of the
spectrum fall and the largest value comes close to 1; then it stays, and the smallest rises towards 1. The paper's
open question, how to choose the step size, has an answer: along a line the penalty is a polynomial of degree four,
whose minimum is exact. The paper's kernels are MATLAB's random numbers; ours are others of the same distribution.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from spectral_conv import ConvOperator, descend, plot_descent, regularizers, steps
from validation.checks.check import Check, at_most, between, near
from validation.checks.papers import GUO_FROBENIUS, INDEPENDENT
from validation.checks.picture import Picture

FIGURE = GUO_FROBENIUS.at("section 4, Figure 4.1")
QUESTION = GUO_FROBENIUS.at("section 5, the open question of the step size")
KERNELS = ((3, 3, 3, 1), (3, 3, 1, 3), (3, 3, 3, 6), (3, 3, 6, 3))
# lambda of iterations 1 to 9, 10 to 19, and from 20 on.
SCHEDULE = {1: 1e-5, 10: 1e-4, 20: 1e-3}
SIZE, ITERATIONS = 20, 200
# (sigma_max, sigma_min) by iteration, computed densely without this package, for the first kernel.
STATED = {
    0: (6.290, None),
    1: (5.126, None),
    20: (1.048, 0.250),
    30: (None, 0.351),
    50: (None, 0.485),
    100: (None, 0.701),
    200: (None, 0.893),
}
AT_20 = {(3, 3, 3, 6): 1.131, (3, 3, 6, 3): 1.096}
DIGITS = 6e-4  # half a unit of the third decimal, and a little
READ = "the figure states no number; the interval is our reading of it"


class PaperGap(regularizers.OrthogonalityGap):
    """``||M^T M - alpha I||_F^2`` with the G of formula (3.2), which is half of its gradient.

    The paper's step sizes are meant for that G.
    """

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the value and the tensor G."""
        value, gradient = super().value_and_grad(conv)
        return value, gradient / 2


def layer(shape: tuple[int, ...]) -> ConvOperator:
    """Return a layer like the paper's: normally distributed weights, N = 20."""
    return ConvOperator(np.random.default_rng(1).standard_normal(shape), (SIZE, SIZE))


def run() -> list[Check]:
    """Algorithm 3.1 with the paper's schedule, and beside it the exact line search."""
    return [check for shape in KERNELS for check in _kernel(shape)]


def _kernel(shape: tuple[int, ...]) -> list[Check]:
    conv = layer(shape)
    paper = descend(conv, PaperGap(), steps.Schedule(SCHEDULE), maxiter=ITERATIONS).history
    exact = descend(conv, regularizers.OrthogonalityGap(), steps.ExactLineSearch(), maxiter=ITERATIONS // 5).history
    name = "x".join(map(str, shape))
    picture = Picture(
        title=f"Figure 4.1 again, {name}",
        text="The exact ends of the spectrum over the iterations of Algorithm 3.1, and of the exact line search.",
        draw=lambda figure: plot_descent({"schedule of the paper": paper, "exact line search": exact}, figure=figure),
        size=(6.0, 4.5),
    )
    top, bottom = paper.sigma_max.values, paper.sigma_min.values
    checks = [
        between(
            f"{name}: σ_max after 20 iterations is very close to 1",
            FIGURE,
            top[20],
            1.0,
            1.15,
            note=READ,
            picture=picture,
        ),
        at_most(
            f"{name}: σ_min falls in the first 20 iterations; its change",
            FIGURE,
            bottom[20] - bottom[0],
            0.0,
            picture=picture,
        ),
        at_most(
            f"{name}: then σ_max is almost unchanged; largest change after iteration 20",
            FIGURE,
            np.abs(top[20:] - top[20]).max(),
            0.15,
            note=READ,
            picture=picture,
        ),
        between(
            f"{name}: σ_min rises to be close to 1; after {ITERATIONS}",
            FIGURE,
            bottom[-1],
            0.8,
            1.0,
            note=READ,
            picture=picture,
        ),
        at_most(
            f"{name}: penalty after 40 steps of the exact line search over that after the schedule's 200",
            QUESTION,
            exact.penalty[-1] / paper.penalty[ITERATIONS],
            1.0,
        ),
    ]
    if shape in AT_20:
        checks.append(near(f"{name}: σ_max after 20", INDEPENDENT, top[20], AT_20[shape], DIGITS))
    return checks + (list(_stated(paper)) if shape == KERNELS[0] else [])


def _stated(history: xr.Dataset) -> list[Check]:
    return [
        near(f"3x3x3x1: {sign} after {iteration}", INDEPENDENT, history[end][iteration], value, DIGITS)
        for iteration, pair in STATED.items()
        for end, sign, value in zip(("sigma_max", "sigma_min"), ("σ_max", "σ_min"), pair, strict=True)
        if value is not None
    ]
