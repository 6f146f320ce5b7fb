"""The largest singular value by FFT is off by about 1/N².

With zero padding the largest value of the N x N circular layer is an estimate only. It and the exact value approach
the supremum of the symbol's norm over all frequencies, both from below, at a distance that falls as 1/N²; where the
grid happens to meet the best frequency the estimate has no error of its own, and the constant varies: a power fitted
to one kernel came out between -2.5 and -1.8. The median over kernels, as they come, shows the rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectral_conv import ConvOperator, circulant_singular_values, spectral_norm
from validation.checks.check import Check, between
from validation.checks.papers import BOTTCHER_GRUDSKY, REFUSED
from validation.checks.picture import LINES, MARKERS, Picture
from validation.symbol_search import supremum

RATE = BOTTCHER_GRUDSKY.at("the extreme eigenvalues approach those of the symbol as 1/N²")
SIZES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
FITTED_FROM = 16
MEDIAN_OF, MEDIAN_SIZES = 25, (12, 16, 20, 24, 28, 32, 40, 48, 56, 64)
KERNELS = {
    "averaging, 3 x 3": np.full((3, 3, 1, 1), 1 / 9),
    "Gaussian, 3 x 3": np.random.default_rng(1).standard_normal((3, 3, 1, 1)),
    "Gaussian, 5 x 5": np.random.default_rng(0).standard_normal((5, 5, 1, 1)),
    "Gaussian, 3 x 3, 3 to 1": np.random.default_rng(1).standard_normal((3, 3, 3, 1)),
    "Gaussian, 3 x 3, 2 to 2": np.random.default_rng(2).standard_normal((3, 3, 2, 2)),
}
LARGE_KERNELS = {
    "Gaussian, 3 x 3, 8 to 8": np.random.default_rng(0).standard_normal((3, 3, 8, 8)),
    "Gaussian, 5 x 5, 4 to 4": np.random.default_rng(0).standard_normal((5, 5, 4, 4)),
}


@dataclass(frozen=True, kw_only=True)
class Course:
    """Over `SIZES`: the exact value, the circular one, and what both approach."""

    exact: NDArray[np.floating]
    circular: NDArray[np.floating]
    supremum: float

    @property
    def off(self) -> NDArray[np.floating]:
        """Error of the FFT, relative."""
        return np.abs(self.circular / self.exact - 1.0)

    @property
    def below(self) -> NDArray[np.floating]:
        """Distance of the exact value from the supremum, relative to it."""
        return 1.0 - self.exact / self.supremum


def run(full: bool = False) -> list[Check]:
    """Fit the rates; eight channels at 256 x 256 only in the full set."""
    courses = {name: course(kernel) for name, kernel in (KERNELS | (LARGE_KERNELS if full else {})).items()}
    errors = Picture(
        title="Error of the largest singular value by FFT over N",
        text="Relative error of the N x N circular layer's norm; the dashed line falls as 1/N².",
        draw=lambda figure: _draw(figure, courses, "off"),
    )
    distances = Picture(
        title="Distance of the exact norm from the symbol's supremum over N",
        text="The exact norm of the zero-padded layer grows with the image towards the supremum; the dashed line "
        "falls as 1/N².",
        draw=lambda figure: _draw(figure, courses, "below"),
    )
    checks = []
    for name, found in courses.items():
        text = f"{name}: power of N by which the FFT's error falls, fitted from N = {FITTED_FROM}"
        checks.append(between(text, REFUSED, rate(found.off), -2.3, -1.7, picture=errors))
    text = f"Median over {MEDIAN_OF} Gaussian kernels, 3 x 3: power of N by which the FFT's error falls, N = 12 to 64"
    checks.append(between(text, REFUSED, median_rate(), -2.2, -1.8))
    for name, found in courses.items():
        text = f"{name}: power of N by which the exact norm nears the supremum, fitted from N = {FITTED_FROM}"
        checks.append(between(text, RATE, rate(found.below), -2.1, -1.9, picture=distances))
    return checks


def course(kernel: NDArray[np.floating]) -> Course:
    """Compute both norms at every size."""
    convs = [ConvOperator(kernel, (size, size)) for size in SIZES]
    return Course(
        exact=np.array([spectral_norm(conv, rtol=1e-8).value for conv in convs]),
        circular=np.array([circulant_singular_values(conv).max() for conv in convs]),
        supremum=supremum(kernel),
    )


def rate(errors: NDArray[np.floating]) -> float:
    """Slope of a line through the errors, both axes logarithmic."""
    sizes = np.array(SIZES)
    fitted = sizes >= FITTED_FROM
    return float(np.polyfit(np.log(sizes[fitted]), np.log(errors[fitted]), 1)[0])


def median_rate() -> float:
    """Slope of the median of the FFT's error over random kernels of one channel, seeds 0, 1, 2, ..."""
    medians = []
    for size in MEDIAN_SIZES:
        kernels = (np.random.default_rng(seed).standard_normal((3, 3, 1, 1)) for seed in range(MEDIAN_OF))
        convs = [ConvOperator(kernel, (size, size)) for kernel in kernels]
        errors = [
            circulant_singular_values(conv).max() / spectral_norm(conv, rtol=1e-7).value - 1.0 for conv in convs
        ]
        medians.append(np.median(np.abs(errors)))
    return float(np.polyfit(np.log(MEDIAN_SIZES), np.log(medians), 1)[0])


def _draw(figure: Figure, courses: dict[str, Course], quantity: str) -> None:
    ax = figure.add_subplot()
    sizes = np.array(SIZES)
    for i, (name, found) in enumerate(courses.items()):
        values = getattr(found, quantity)
        ax.plot(
            sizes,
            values,
            color=LINES[i % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=4.5,
            markerfacecolor="none",
            linewidth=0.9,
            label=f"{name}: slope {rate(values):.2f}",
        )
    ax.plot(sizes, 12.0 / sizes**2, "--", color="black", linewidth=0.9, label="12 / N²")
    ax.set(xscale="log", yscale="log", xlabel="N (pixels per axis)")
    ax.set_ylabel("relative error (dimensionless)" if quantity == "off" else "relative distance (dimensionless)")
    ax.set_xticks([4, 8, 16, 32, 64, 128, 256], ["4", "8", "16", "32", "64", "128", "256"])
    ax.minorticks_off()
    ax.grid(alpha=0.35)
    ax.legend(frameon=False, fontsize="x-small")
