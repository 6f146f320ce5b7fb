"""From approximate vectors to triplets whose residuals were computed afresh on the operator itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.results import SingularTriplets, StopReason

EPS = float(np.finfo(np.float64).eps)
# Rounding of a residual and of a value, relative to the largest value.
ROUNDING = 8 * EPS


def checked_triplets(
    conv: ConvOperator,
    vectors: NDArray[np.floating],
    applications: int,
    method: str,
    *,
    tolerance: float,
    reason: StopReason,
    transposed: bool,
    largest: float | None = None,
    grams: NDArray[np.floating] | None = None,
) -> SingularTriplets:
    """Form triplets from rows of unit right vectors (`transposed`: left vectors) and measure their residuals.

    `largest` is the scale of errors; default: the largest of the values. `grams` holds ``M^T M x`` where it is known.
    """
    forward, backward = (conv.rmatvec, conv.matvec) if transposed else (conv.matvec, conv.rmatvec)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / norms
    images = np.stack([forward(x) for x in vectors])
    values = np.linalg.norm(images, axis=1)
    divisors = np.where(values > 0, values, 1.0)[:, None]
    images /= divisors
    back = np.stack([backward(y) for y in images]) if grams is None else grams / (norms * divisors)
    residuals = np.linalg.norm(back - values[:, None] * vectors, axis=1)
    left, right = (vectors, images) if transposed else (images, vectors)
    return assemble_triplets(
        conv,
        values,
        left,
        right,
        residuals,
        applications + (2 if grams is None else 1) * len(values),
        method,
        tolerance=tolerance,
        reason=reason,
        largest=float(values.max(initial=0.0)) if largest is None else largest,
    )


def assemble_triplets(
    conv: ConvOperator,
    values: NDArray[np.floating],
    left: NDArray[np.floating],
    right: NDArray[np.floating],
    residuals: NDArray[np.floating],
    applications: int,
    method: str,
    *,
    tolerance: float,
    reason: StopReason,
    largest: float,
) -> SingularTriplets:
    """Shape the vectors and bound the error: some singular value lies within the residual of each value."""
    error = residuals + ROUNDING * largest
    if reason is StopReason.CONVERGED and np.any(error > tolerance * largest):
        reason = StopReason.STAGNATED
    return _shaped(conv, values, left, right, residuals, error, applications, method, "residual", reason)


def direct_triplets(
    conv: ConvOperator,
    values: NDArray[np.floating],
    left: NDArray[np.floating],
    right: NDArray[np.floating],
    margin: float,
    method: str,
    theorem: str,
) -> SingularTriplets:
    """Wrap triplets of a direct method, each value right to `margin`; the residuals are measured all the same."""
    u, v = left.reshape(len(values), -1), right.reshape(len(values), -1)
    images, back = np.stack([conv.matvec(x) for x in v]), np.stack([conv.rmatvec(y) for y in u])
    residuals = np.maximum(
        np.linalg.norm(images - values[:, None] * u, axis=1),
        np.linalg.norm(back - values[:, None] * v, axis=1),
    )
    error = np.full(len(values), margin)
    return _shaped(conv, values, u, v, residuals, error, 0, method, f"theorem: {theorem}", StopReason.DIRECT)


def _shaped(
    conv: ConvOperator,
    values: NDArray[np.floating],
    left: NDArray[np.floating],
    right: NDArray[np.floating],
    residuals: NDArray[np.floating],
    error: NDArray[np.floating],
    applications: int,
    method: str,
    basis: str,
    reason: StopReason,
) -> SingularTriplets:
    return SingularTriplets(
        values=values,
        left=left.reshape(-1, conv.out_channels, *conv.output_shape),
        right=right.reshape(-1, conv.in_channels, *conv.input_shape),
        residuals=residuals,
        lower=np.maximum(values - error, 0.0),
        upper=values + error,
        applications=applications,
        method=method,
        basis=basis,
        stop_reason=reason,
    )
