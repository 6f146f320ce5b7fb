"""The smallest triplets: which factor or preconditioner, in which precision."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spectral_conv._taps import tap_seconds
from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import CostLimitError, MemoryLimitError, NotApplicableError, SingularTriplets, StopReason
from spectral_conv.spectrum.davidson import davidson_bytes, davidson_triplets
from spectral_conv.spectrum.factorized import (
    ShiftedInverse,
    factorized_bytes,
    factorized_flops,
    inverse_bytes,
    smaller_gram,
    smallest_triplets,
)
from spectral_conv.spectrum.largest import rough_largest
from spectral_conv.spectrum.preconditioner import (
    CirculantPreconditioner,
    preconditioner_bytes,
    preconditioner_seconds,
)
from spectral_conv.spectrum.request import Request, too_much

# More than this (several minutes) is factored on request only.
MOST_FLOPS = 2.4e13
_MAXITER_BLOCKS, _MAXITER_FACTOR = 2_000, 240
# Where one side has this many times the channels of the other, no modes at the border spoil the circulant
# preconditioner: it then takes 80 to 250 applications at rtol = 1e-9, 560 at worst (measured).
_CHANNEL_RATIO, _APPLICATIONS, _MAXITER_CIRCULANT = 1.5, 300, 800
# Operations per second of a factorization and of solutions with it, and the rows solved for on the way to values of
# such layers (measured: 190 to 350).
_FLOPS_PER_SECOND, _SOLVED_PER_SECOND, _FACTOR_ROWS = 8e10, 1.6e10, 200
# Random rows beside those wanted.
_EXTRA_ROWS = 2

Rows = NDArray[np.floating]


def run_smallest(conv: ConvOperator, request: Request) -> SingularTriplets:
    """Take the circulant preconditioner where it is cheap, and a factor where that fails."""
    if suits_circulant(conv, request):
        found = run_circulant(conv, dataclasses.replace(request, maxiter=_MAXITER_CIRCULANT))
        if found.stop_reason is StopReason.CONVERGED:
            return found
    if factorized_flops(conv) > MOST_FLOPS:
        raise CostLimitError(
            f"The banded Cholesky factor of this layer takes about {factorized_flops(conv):.0e} operations, "
            "several minutes. Use a smaller `input_shape`, or ask for it by name: method='factorized'."
        )
    return run_factorized(conv, request)


@serial_blas()
def run_factorized(conv: ConvOperator, request: Request) -> SingularTriplets:
    """Take a float64 factor where memory allows, else a float32 factor and refinement in float64."""
    if factorized_bytes(conv) <= request.memory:
        scale = rough_largest(conv, request)
        found = smallest_triplets(
            conv,
            request.k,
            tolerance=request.rtol / 2,
            largest=float(scale.values[0]),
            maxiter=request.maxiter or _MAXITER_BLOCKS,
            rng=request.rng,
        )
        return dataclasses.replace(found, applications=found.applications + scale.applications)
    needed = inverse_bytes(conv, np.float32) + davidson_bytes(conv, request.k)
    if needed > request.memory:
        raise MemoryLimitError(too_much("the banded Cholesky factor, in single precision,", needed, request.memory))
    scale = rough_largest(conv, request)
    inverse = ShiftedInverse(conv, smaller_gram(conv), np.float32)
    found = _refined(conv, request, inverse, float(scale.values[0]), request.maxiter or _MAXITER_FACTOR)
    found = dataclasses.replace(found, applications=found.applications + scale.applications, method="factorized")
    if found.stop_reason is not StopReason.CONVERGED:
        what = "the banded Cholesky factor in double precision, single precision being too coarse,"
        raise MemoryLimitError(too_much(what, factorized_bytes(conv), request.memory), found)
    return found


def run_circulant(conv: ConvOperator, request: Request) -> SingularTriplets:
    """Davidson with the inverted circulant: for layers with more channels on one side than on the other."""
    few, many = sorted(conv.shape)
    if many < _CHANNEL_RATIO * few:
        raise NotApplicableError(
            f"`method='davidson'` finds the smallest values where the longer side of M is at least {_CHANNEL_RATIO} "
            f"times the other; M is {conv.shape[0]} x {conv.shape[1]}, and modes at the border would take thousands "
            "of applications. Use method='factorized'."
        )
    needed = _circulant_bytes(conv, request)
    if needed > request.memory:
        raise MemoryLimitError(too_much("the preconditioner", needed, request.memory) + " Or use 'factorized'.")
    scale = rough_largest(conv, request)
    largest = float(scale.values[0])
    precondition = CirculantPreconditioner(conv, peak=largest, smallest=True)
    found = _refined(conv, request, precondition, largest, request.maxiter or _MAXITER_CIRCULANT)
    return dataclasses.replace(found, applications=found.applications + scale.applications)


def _refined(
    conv: ConvOperator, request: Request, precondition: Callable[[Rows], Rows], largest: float, maxiter: int
) -> SingularTriplets:
    """Davidson from random rows that the preconditioner has taken nearer to the smallest vectors."""
    rows = precondition(request.rng.standard_normal((request.k + _EXTRA_ROWS, min(conv.shape))))
    return davidson_triplets(
        conv,
        request.k,
        smallest=True,
        start=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        applications=0,
        precondition=precondition,
        tolerance=request.rtol / 2,
        largest=largest,
        enough=math.inf,
        maxiter=maxiter,
        rng=request.rng,
    )


def suits_circulant(conv: ConvOperator, request: Request) -> bool:
    """Whether the circulant preconditioner promises less time than a factor."""
    few, many = sorted(conv.shape)
    if many < _CHANNEL_RATIO * few or _circulant_bytes(conv, request) > request.memory:
        return False
    if smaller_gram(conv).unread:  # null vectors, which a factor finds at once and this never
        return False
    setup, preconditioning = preconditioner_seconds(conv.geometry)
    seconds = setup + _APPLICATIONS * (tap_seconds(conv.geometry) + preconditioning / 2 + 8e-8 * few)
    table = smaller_gram(conv)
    solution = 4.0 * _FACTOR_ROWS * table.size * (table.bandwidth + 1) / _SOLVED_PER_SECOND
    return seconds < factorized_flops(conv) / _FLOPS_PER_SECOND + solution


def _circulant_bytes(conv: ConvOperator, request: Request) -> int:
    return davidson_bytes(conv, request.k) + preconditioner_bytes(conv.geometry, smallest=True)
