"""P.-C. Guo, "A Frobenius norm regularization method for convolutional kernels ...": Figure 4.1, all four kernels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spectral_conv import ConvOperator, descend, regularizers, steps
from validation.cases.claim import Case, Claim, near

SOURCE = "Guo, A Frobenius norm regularization method for convolutional kernels, section 4, Figure 4.1"
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
AT_20 = {(3, 3, 3, 1): 1.048, (3, 3, 3, 6): 1.131, (3, 3, 6, 3): 1.096}


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


def run() -> Iterator[Case]:
    """Algorithm 3.1 with the paper's schedule, and beside it the exact line search."""
    for shape in KERNELS:
        conv = layer(shape)
        paper = descend(conv, PaperGap(), steps.Schedule(SCHEDULE), maxiter=ITERATIONS).history
        exact = descend(
            conv, regularizers.OrthogonalityGap(), steps.ExactLineSearch(), maxiter=ITERATIONS // 5
        ).history
        top, bottom = paper.sigma_max.values, paper.sigma_min.values
        claims = [
            Claim(text="sigma_max after 20 iterations", found=float(top[20]), low=1.0, high=1.15),
            Claim(text="sigma_min falls at first", found=float(bottom[20] - bottom[0]), low=-np.inf, high=0.0),
            Claim(text="then rises", found=float(bottom[ITERATIONS] - bottom[20]), low=0.0, high=np.inf),
            Claim(
                text="penalty: exact line search, 40 iterations, over the schedule's, 200",
                found=float(exact.penalty[-1] / paper.penalty[ITERATIONS]),
                low=0.0,
                high=1.0,
            ),
        ]
        if shape in AT_20:
            claims.append(near("sigma_max after 20, to three digits", float(top[20]), AT_20[shape]))
        if shape == KERNELS[0]:
            for iteration, pair in STATED.items():
                for name, found, stated in zip(("max", "min"), (top, bottom), pair, strict=True):
                    if stated is not None:
                        claims.append(near(f"sigma_{name} after {iteration}", float(found[iteration]), stated))
        title = f"Frobenius norm, {'x'.join(map(str, shape))} at {SIZE}x{SIZE}"
        yield Case(
            title=title,
            source=SOURCE,
            claims=tuple(claims),
            runs={"schedule of the paper": paper, "exact line search": exact},
        )
