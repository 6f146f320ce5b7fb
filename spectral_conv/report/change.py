"""The record of one layer in two models: what a comparison's table, document and frame are made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spectral_conv.report.record import LayerReport, is_reached
from spectral_conv.results import Enclosure

# Shares of the circulant singular values that lie below the quantiles.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """One convolution layer in two models.

    Attributes
    ----------
    before, after : LayerReport
        The layer in the first and in the second model.
    weight_change : float
        ``||K_B - K_A||_F / ||K_A||_F``, dimensionless; infinite where the first kernel is zero and the second is not.
    quantiles_before, quantiles_after : tuple of float or None
        The quantiles `QUANTILES` of the singular values with circular padding, dimensionless: an **estimate** of the
        layer's distribution. None where there is no circulant spectrum.

    Examples
    --------
    >>> from spectral_conv.comparison import compare_models
    >>> from spectral_conv.report.change import LayerChange
    >>> LayerChange.__dataclass_params__.frozen
    True
    """

    before: LayerReport
    after: LayerReport
    weight_change: float
    quantiles_before: tuple[float, ...] | None = None
    quantiles_after: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the weight in the first model."""
        return self.before.name

    @property
    def condition_before(self) -> Enclosure | None:
        """Condition number in the first model."""
        return condition(self.before)

    @property
    def condition_after(self) -> Enclosure | None:
        """Condition number in the second model."""
        return condition(self.after)

    @property
    def ratios(self) -> dict[str, float | None]:
        """Second by first of "sigma_max", "sigma_min" and "condition"; None where either is missing or a bracket."""
        return {
            "sigma_max": _ratio(self.before.sigma_max, self.after.sigma_max),
            "sigma_min": _ratio(self.before.sigma_min, self.after.sigma_min),
            "condition": _ratio(self.condition_before, self.condition_after),
        }

    @property
    def movement(self) -> float:
        """How much the norm moved: the absolute logarithm of its ratio; infinite from or to zero, NaN if unknown."""
        ratio = self.ratios["sigma_max"]
        if ratio is None:
            largest = (self.before.sigma_max, self.after.sigma_max)
            zeros = [enclosure is not None and enclosure.upper == 0.0 for enclosure in largest]
            return 0.0 if all(zeros) else math.inf if any(zeros) and None not in largest else math.nan
        return math.inf if ratio == 0.0 else abs(math.log(ratio))

    @property
    def complete(self) -> bool:
        """Whether all that was asked for was found in both."""
        return self.before.complete and self.after.complete


def condition(report: LayerReport) -> Enclosure | None:
    """Return the condition number of a layer from its two ends; infinite where the smallest may be zero.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> report = inspect_model([ConvOperator([[[[4.0, 0.0], [0.0, 2.0]]]], (4, 4))]).reports[0]
    >>> round(condition(report).value, 12)
    2.0
    """
    largest, smallest = report.sigma_max, report.sigma_min
    if largest is None or smallest is None:
        return None
    safe = smallest.lower > 0.0
    bracket = not (is_reached(largest) and is_reached(smallest))
    bases = dict.fromkeys((largest.basis, smallest.basis))
    return Enclosure(
        lower=largest.lower / smallest.upper if smallest.upper > 0.0 else math.inf,
        value=largest.value / smallest.value if safe else math.inf,
        upper=largest.upper / smallest.lower if safe else math.inf,
        basis="residual" if "residual" in bases else "; ".join(bases),
        method="bracket" if bracket else "+".join(dict.fromkeys((largest.method, smallest.method))),
        applications=largest.applications + smallest.applications,
    )


def _ratio(before: Enclosure | None, after: Enclosure | None) -> float | None:
    if before is None or after is None or not (is_reached(before) and is_reached(after)):
        return None
    if before.value == 0.0 or not (math.isfinite(before.value) and math.isfinite(after.value)):
        return None
    return after.value / before.value
