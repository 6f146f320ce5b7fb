"""The largest triplets by an iteration: which one, and from where."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels.threads import numba_threads
from spectral_conv._taps import tap_seconds
from spectral_conv.operator import ConvOperator
from spectral_conv.results import MemoryLimitError, SingularTriplets
from spectral_conv.spectrum.davidson import SURE, davidson_bytes, davidson_triplets
from spectral_conv.spectrum.dense import dense_triplets, suits_dense
from spectral_conv.spectrum.enclose import Iteration, enclosed_largest
from spectral_conv.spectrum.lanczos import lanczos_bytes, largest_triplets
from spectral_conv.spectrum.preconditioner import (
    CirculantPreconditioner,
    preconditioner_bytes,
    preconditioner_seconds,
)
from spectral_conv.spectrum.request import Request, too_much
from spectral_conv.spectrum.start import Start, starting_rows

_MAXITER = {"lanczos": 20_000, "davidson": 5_000}
# Typical counts of random kernels (measured): for rtol = 1e-2, and for each further digit; and the time per entry of
# a vector and application that a basis takes.
_LANCZOS_APPLICATIONS, _DAVIDSON_APPLICATIONS = (100, 250), (22, 16)
_LANCZOS_BASIS_SECONDS, _DAVIDSON_BASIS_SECONDS = 3e-8, 4e-8
_DAVIDSON_CALL_SECONDS = 2e-4  # outside of compiled code, per application


def run_lanczos(conv: ConvOperator, request: Request, start: NDArray[np.floating] | None) -> SingularTriplets:
    """Plain block Lanczos: many cheap steps."""
    needed = lanczos_bytes(conv, request.k)
    if needed > request.memory:
        raise MemoryLimitError(too_much("a Lanczos basis", needed, request.memory))
    seeds = starting_rows(conv, start, request.k, to_rows=conv.shape[0] < conv.shape[1], few=False, rng=request.rng)

    def iterate(rows: NDArray[np.floating], applications: int, enough: float) -> SingularTriplets:
        return largest_triplets(
            conv,
            request.k,
            start=rows,
            applications=applications,
            tolerance=_tolerance(conv, request),
            enough=enough,
            maxiter=request.maxiter or _MAXITER["lanczos"],
            rng=request.rng,
            memory_limit=request.memory,
        )

    return _enclosed(conv, request, seeds, iterate)


def run_davidson(conv: ConvOperator, request: Request, start: NDArray[np.floating] | None) -> SingularTriplets:
    """Davidson with the inverted circulant: few, dear steps."""
    needed = _davidson_bytes(conv, request)
    if needed > request.memory:
        raise MemoryLimitError(too_much("the preconditioner", needed, request.memory) + " Or use 'lanczos'.")
    seeds = starting_rows(conv, start, request.k, to_rows=conv.shape[0] < conv.shape[1], few=True, rng=request.rng)
    tolerance = _tolerance(conv, request)
    precondition = CirculantPreconditioner(
        conv, peak=seeds.peaks[0].value, rtol=2.0 * tolerance, memory=request.memory
    )

    def iterate(rows: NDArray[np.floating], applications: int, enough: float) -> SingularTriplets:
        return davidson_triplets(
            conv,
            request.k,
            smallest=False,
            start=rows,
            applications=applications,
            precondition=precondition,
            tolerance=tolerance,
            largest=None,
            enough=enough,
            maxiter=request.maxiter or _MAXITER["davidson"],
            rng=request.rng,
        )

    return _enclosed(conv, request, seeds, iterate)


def _tolerance(conv: ConvOperator, request: Request) -> float:
    """Half of `rtol`; tighter where the symbol sees little of the layer, which is mostly border."""
    axes = conv.geometry.axes
    mirrored = axes[0].mode in ("reflect", "replicate")
    narrow = any(2 * axis.dilation * (axis.kernel - 1) >= axis.inputs for axis in axes)
    return min(request.rtol / 2, SURE) if mirrored or narrow else request.rtol / 2


def _enclosed(conv: ConvOperator, request: Request, seeds: Start, iterate: Iteration) -> SingularTriplets:
    if request.enclose:
        return enclosed_largest(conv, seeds, request.rtol, iterate)
    return iterate(seeds.rows, seeds.applications, math.inf)


def cheaper_iteration(conv: ConvOperator, request: Request) -> str:
    """Choose the iteration whose estimated time is less, "lanczos" or "davidson"."""
    geometry = conv.geometry
    # Davidson's single vectors may take another value for a further copy of one that has several.
    if request.k > 1 or _davidson_bytes(conv, request) > request.memory:
        return "lanczos"
    application, entries = tap_seconds(geometry), sum(conv.shape) / 2
    setup, preconditioning = preconditioner_seconds(geometry)
    setup /= numba_threads()
    digits = max(0.0, -2.0 - math.log10(request.rtol))
    lanczos_count, davidson_count = (
        first + each * digits for first, each in (_LANCZOS_APPLICATIONS, _DAVIDSON_APPLICATIONS)
    )
    lanczos = lanczos_count * (application + _LANCZOS_BASIS_SECONDS * entries)
    per_application = _DAVIDSON_CALL_SECONDS + application + preconditioning / 2 + _DAVIDSON_BASIS_SECONDS * entries
    return "davidson" if setup + davidson_count * per_application < lanczos else "lanczos"


def rough_largest(conv: ConvOperator, request: Request) -> SingularTriplets:
    """Return the largest triplet to a few per cent, from below: the scale of errors of the smallest ones."""
    if suits_dense(conv, 1):
        return dense_triplets(conv, 1, smallest=False)
    rough = dataclasses.replace(request, k=1, smallest=False, rtol=0.1, method="auto", enclose=False)
    run = run_davidson if cheaper_iteration(conv, rough) == "davidson" else run_lanczos
    return run(conv, rough, None)


def _davidson_bytes(conv: ConvOperator, request: Request) -> int:
    return davidson_bytes(conv, request.k) + preconditioner_bytes(conv.geometry, memory=request.memory)
