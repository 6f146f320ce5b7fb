"""Frozen results: every number says what it is, how it was found and how far it may be off."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr


class NotApplicableError(ValueError):
    """The method does not apply to this geometry; the message says why and what does."""


class MemoryLimitError(ValueError):
    """The work would need more memory than `memory_limit` allows; the message says how much.

    Attributes
    ----------
    reached : SingularTriplets or None
        What less memory could do: for the smallest value a vector, whose stretch is an upper bound.
    """

    def __init__(self, message: str, reached: SingularTriplets | None = None) -> None:
        super().__init__(message)
        self.reached = reached

    def __reduce__(self) -> tuple[type[MemoryLimitError], tuple[str, SingularTriplets | None]]:
        return type(self), (str(self), self.reached)


class CostLimitError(ValueError):
    """The work would take so long that it is done on request only; the message says how long."""


class StopReason(enum.Enum):
    """Why an iteration ended; the value is a sentence that names the remedy."""

    DIRECT = "Computed directly; nothing was iterated."
    CONVERGED = "The error bounds met `rtol`."
    ENCLOSED = "The value came close enough to an upper bound."
    MAXITER = "`maxiter` was reached before the error bounds met `rtol`: raise `maxiter` or `rtol`."
    STAGNATED = (
        "The error bounds stopped shrinking above `rtol`: rounding errors allow no less. Raise `rtol`, "
        "or pass float64 weights."
    )
    LIMIT = (
        "The exact method needs more memory than `memory_limit` allows, or many minutes: raise "
        "`memory_limit`, use a smaller `input_shape`, or ask for it by name with "
        "singular_triplets(..., method='factorized'). The enclosure shown is what cheap means give."
    )
    TIME_LIMIT = "`time_limit` was reached: raise it. The enclosure shown is what cheap means give."


@dataclass(frozen=True, kw_only=True)
class SingularTriplets:
    """Singular triplets of a convolution operator: ``M right = value left``, ``M^T left = value right``.

    Attributes
    ----------
    values : (k,) ndarray
        Singular values, descending for the largest, ascending for the smallest; dimensionless.
    left : (k, out_channels, *output_shape) ndarray
        Unit left singular vectors.
    right : (k, in_channels, *input_shape) ndarray
        Unit right singular vectors.
    residuals : (k,) ndarray
        ``max(||M v - s u||, ||M^T u - s v||)``.
    lower, upper : (k,) ndarray
        Error intervals; see `basis`.
    applications : int
        Every use of M or M^T, seeds and residuals included.
    method : str
        The engine that found them.
    basis : str
        "residual": some singular value lies in each interval (residual theorem for the augmented symmetric matrix).
        "theorem: <name>": it is the stated one, proved in exact arithmetic, with a margin for rounding.
    stop_reason : StopReason
        Why the engine stopped.
    """

    values: NDArray[np.floating]
    left: NDArray[np.floating]
    right: NDArray[np.floating]
    residuals: NDArray[np.floating]
    lower: NDArray[np.floating]
    upper: NDArray[np.floating]
    applications: int
    method: str
    basis: str
    stop_reason: StopReason

    def enclosure(self, i: int = 0) -> Enclosure:
        """Return the i-th value with its bounds."""
        return Enclosure(
            lower=float(self.lower[i]),
            value=float(self.values[i]),
            upper=float(self.upper[i]),
            basis=self.basis,
            method=self.method,
            applications=self.applications,
            stop_reason=self.stop_reason,
        )

    def to_xarray(self) -> xr.Dataset:
        """Label the arrays: dimensions `rank`, channels and spatial axes."""
        from spectral_conv.labels import label_triplets

        return label_triplets(self)


@dataclass(frozen=True, kw_only=True)
class Enclosure:
    """A number between two bounds, and the ground on which the bounds rest.

    Attributes
    ----------
    lower, value, upper : float
        ``lower <= value <= upper``; dimensionless.
    basis : str
        "certified: <theorem>" (proved, rounding errors included), "theorem: <name>" (proved in exact arithmetic,
        with a margin for rounding) or "residual" (some singular value lies in the interval; that it is the extreme
        one is not proved).
    method : str
        "dense", "lanczos", "davidson", "factorized", "blocks", "symbol", or "bracket" where a limit was reached.
    applications : int
        Every use of M or M^T.
    stop_reason : StopReason
        Why the engine stopped.
    """

    lower: float
    value: float
    upper: float
    basis: str
    method: str
    applications: int
    stop_reason: StopReason = StopReason.DIRECT

    def to_xarray(self) -> xr.Dataset:
        """Label the numbers: dimension `end` for lower, value and upper."""
        from spectral_conv.labels import label_enclosure

        return label_enclosure(self)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What one method says about the largest singular value of the operator that it was given.

    Attributes
    ----------
    method : str
        Name of the method: that of the function in `spectral_conv.bounds`.
    value : float
        Dimensionless; an upper or a lower bound is one in floating point too.
    kind : str
        "exact" (an upper bound that is attained, up to rounding), "upper", "lower" or "estimate" (no bound).
    scope : str
        The paddings and image sizes for which the value holds.
    source : str
        Where the method comes from, with a DOI or an arXiv number.
    seconds : float
        Time that it took.
    notes : str
        What else to know of this value; may be empty.
    """

    method: str
    value: float
    kind: str
    scope: str
    source: str
    seconds: float
    notes: str


@dataclass(frozen=True, kw_only=True)
class BoundRow:
    """A row of a `BoundTable`.

    Attributes
    ----------
    method : str
        Name of the method.
    bound : Bound or None
        What it says; None where it does not apply.
    ratio : float or None
        ``bound.value / exact``; None where one of them is missing or the exact value is 0.
    reason : str
        Why there is no bound; empty where there is one.
    """

    method: str
    bound: Bound | None
    ratio: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class BoundTable:
    """Every method for one operator, beside the exact value.

    Attributes
    ----------
    exact : Enclosure or None
        The largest singular value; None where it was not asked for or could not be found.
    exact_seconds : float
        Time that it took.
    exact_reason : str
        Why there is none; empty where there is one.
    rows : tuple of BoundRow
        Upper bounds, the tightest first; then what is no upper bound; then what does not apply.
    """

    exact: Enclosure | None
    exact_seconds: float
    exact_reason: str
    rows: tuple[BoundRow, ...]

    def __getitem__(self, method: str) -> BoundRow:
        """Return the row of a method."""
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(f"no method {method!r}; there are {', '.join(row.method for row in self.rows)}")

    def to_xarray(self) -> xr.Dataset:
        """Label the numbers: dimension `bound`; NaN where a method does not apply."""
        from spectral_conv.labels import label_bounds

        return label_bounds(self)


@dataclass(frozen=True, kw_only=True)
class SpectralDensity:
    """A histogram of all singular values: an **estimate** with error bars, or exact counts where `method` says so.

    Attributes
    ----------
    edges : (bins + 1,) ndarray
        Edges of the bins, increasing; dimensionless.
    counts : (bins,) ndarray
        Expected number of singular values in each bin, never negative; over edges that take in the whole spectrum
        (the default ones do) they sum to `total`.
    error : (bins,) ndarray
        Error bar: two standard errors over the random vectors, whose distribution is known, plus an estimate of how
        far the finite resolution may shift values across the two edges. No bound: see `spectral_density`. Of exact
        counts: how many values are so close to an edge that rounding decides.
    total : int
        Number of singular values, ``min(rows, columns)``.
    resolution : float
        What is closer together than this, in singular values, is not told apart; 0 for exact counts, and where the
        Krylov spaces were exhausted.
    vectors, moments : int
        Random vectors, and moments of the density from each; 0 for exact counts.
    applications : int
        Every use of M or M^T.
    method : str
        "lanczos" (estimate), "dense" or "symbol" (exact).
    """

    edges: NDArray[np.floating]
    counts: NDArray[np.floating]
    error: NDArray[np.floating]
    total: int
    resolution: float
    vectors: int
    moments: int
    applications: int
    method: str

    @property
    def density(self) -> NDArray[np.floating]:
        """Share of the singular values per unit of singular value, ``(bins,)``; it integrates to 1."""
        return self.counts / (self.total * np.diff(self.edges))

    def to_xarray(self) -> xr.Dataset:
        """Label the arrays: dimension `bin`, with centres and edges as coordinates."""
        from spectral_conv.labels import label_density

        return label_density(self)


class NotConvergedError(RuntimeError):
    """An iteration stopped early; `result` carries the best that was reached.

    Attributes
    ----------
    result : SingularTriplets
        What was reached, with its error bounds.
    """

    def __init__(self, result: SingularTriplets) -> None:
        self.result = result
        width = float(np.max(result.upper - result.lower))
        super().__init__(
            f"{result.stop_reason.value} Reached after {result.applications} applications: values "
            f"{np.array2string(result.values[:4], precision=10)}, widest error interval {width:.1e}. "
            "Pass on_failure='return' to get this result instead of the error."
        )

    def __reduce__(self) -> tuple[type[NotConvergedError], tuple[SingularTriplets]]:
        return type(self), (self.result,)


class DescentStop(enum.Enum):
    """Why a descent ended; the value is a sentence."""

    MAXITER = "`maxiter` was reached."
    CHANGE = "The penalty changed by at most `rtol` times its value."
    GRADIENT = "The gradient was at most `gtol`: a stationary point."
    TARGET = "The singular values lie in the `target` interval."
    NO_DECREASE = "No step size decreased the penalty."
    DIVERGED = "The penalty grew, or left the range of numbers."
    CALLBACK = "The callback asked to stop."
    INTERRUPTED = "Interrupted; everything before is kept."


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything recorded of one iteration of a descent.

    Attributes
    ----------
    iteration : int
        Number of steps taken before.
    kernel : ndarray
        The HWIO kernel.
    penalty, gradient_norm : float
        Of this kernel; dimensionless.
    terms : dict
        The terms of the penalty by name, if it has several.
    step : float
        Size of the step that led here; 0 at the start.
    seconds : float
        That this iteration took.
    multiplicity : int
        Of the extreme value that the penalty is about: above 1 there is no gradient; 0 where none is reported.
    extremes : dict
        Enclosures of "sigma_max" and "sigma_min", as far as they are tracked.
    circulant : (*grid, rank) ndarray or None
        All values of the circular layer, if they were computed at this iteration.
    """

    iteration: int
    kernel: NDArray[np.floating]
    penalty: float
    gradient_norm: float
    terms: dict[str, float]
    step: float
    seconds: float
    multiplicity: int
    extremes: dict[str, Enclosure]
    circulant: NDArray[np.floating] | None


@dataclass(frozen=True, kw_only=True)
class Descent:
    """The course of a descent and where it ended.

    Attributes
    ----------
    kernel : ndarray
        The last kernel, HWIO; of a descent that diverged the last one that was finite.
    history : xarray.Dataset
        Kernel, penalty, exact extremes and circulant spectrum over `iteration`.
    stop_reason : DescentStop
        Why it ended.
    message : str
        The same in words, with numbers and the remedy.
    """

    kernel: NDArray[np.floating]
    history: xr.Dataset
    stop_reason: DescentStop
    message: str
