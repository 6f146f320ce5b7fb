"""Which engine fits an operator, and how the groups of a layer are brought together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spectral_conv._kernels.threads import numba_threads
from spectral_conv._taps import tap_seconds
from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import CostLimitError, MemoryLimitError, NotApplicableError, SingularTriplets, StopReason
from spectral_conv.spectrum.blocks import block_triplets, falls_apart
from spectral_conv.spectrum.circulant import circulant_triplets, is_circulant
from spectral_conv.spectrum.components import Component, group_components, mixing_components
from spectral_conv.spectrum.davidson import davidson_bytes, davidson_triplets
from spectral_conv.spectrum.dense import dense_bytes, dense_triplets
from spectral_conv.spectrum.enclose import enclosed_largest
from spectral_conv.spectrum.factorized import factorized_bytes, factorized_flops, smallest_triplets
from spectral_conv.spectrum.lanczos import lanczos_bytes, largest_triplets
from spectral_conv.spectrum.preconditioner import (
    CirculantPreconditioner,
    preconditioner_bytes,
    preconditioner_seconds,
)
from spectral_conv.spectrum.scale import is_zero, normalized
from spectral_conv.spectrum.start import starting_rows

METHODS = ("auto", "dense", "lanczos", "davidson", "factorized", "blocks", "symbol")
# Up to these, the dense decomposition takes a few milliseconds, less than the others need to set up; an operator of
# so few rows or columns leaves an iteration nothing to do.
_DENSE_SIDE, _DENSE_PRODUCTS, _DENSE_ALWAYS = 160, 160**2 * 1600, 24
# More than this (ten minutes at 40 GFLOP/s) is factored on request only.
_MOST_FLOPS = 2.4e13
_MAXITER = {"lanczos": 20_000, "davidson": 5_000, "factorized": 2_000}
# Typical counts of random kernels (measured): for rtol = 1e-2, and for each further digit; and the time per entry of
# a vector and application that a basis takes.
_LANCZOS_APPLICATIONS, _DAVIDSON_APPLICATIONS = (80, 120), (22, 16)
_LANCZOS_BASIS_SECONDS, _DAVIDSON_BASIS_SECONDS = 3e-8, 4e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Checked parameters of a search."""

    k: int
    smallest: bool
    rtol: float
    method: str
    maxiter: int | None
    memory: float
    rng: np.random.Generator
    enclose: bool = False  # look for an upper bound of the largest value that makes its enclosure a theorem


@serial_blas()
def solve(conv: ConvOperator, request: Request, start: NDArray[np.floating] | None) -> SingularTriplets:
    """Split into parts that share no channel, scale each, run an engine on it, merge."""
    parts = _parts(conv, request)
    found = []
    for part in parts:
        group = part.operator
        own = min(request.k, min(group.shape))
        if is_zero(group):
            found.append(_zero_triplets(group, own))
            continue
        rows = None if start is None else start[:, part.inputs].reshape(len(start), -1)
        scaled, scale = normalized(group)
        engine = _engine(scaled, request)
        # A start that vanishes on a part says nothing about it.
        rows = None if rows is None or not rows.any(axis=1).all() else rows
        found.append(_rescaled(engine(scaled, dataclasses.replace(request, k=own), rows), scale))
    return _merge(conv, parts, found, request)


def _parts(conv: ConvOperator, request: Request) -> list[Component]:
    """Groups; for the largest values also what zero weights keep apart, as long as that leaves enough values."""
    groups = group_components(conv)
    if request.smallest:
        return groups
    parts = [part for group in groups for part in mixing_components(group)]
    return parts if sum(min(part.operator.shape) for part in parts) >= request.k else groups


Engine = Callable[[ConvOperator, Request, "NDArray[np.floating] | None"], SingularTriplets]


def _engine(group: ConvOperator, request: Request) -> Engine:
    """Choose the engine for a part of a layer; refuse what does not apply or does not fit."""
    rows, columns = group.shape
    method = request.method
    if method == "auto":
        if is_circulant(group):
            method = "symbol"
        elif falls_apart(group, request.k, smallest=request.smallest):
            method = "blocks"
        elif _suits_dense(min(rows, columns), max(rows, columns), request.k):
            method = "dense"
        else:
            method = "factorized" if request.smallest else _iteration(group, request)
    if method == "symbol" and not is_circulant(group):
        raise NotApplicableError(
            "`method='symbol'` is for circular padding with output = input / stride; elsewhere the circulant "
            "spectrum is an estimate (circulant_singular_values). Use method='auto'."
        )
    if method == "blocks" and not falls_apart(group, request.k, smallest=request.smallest):
        raise NotApplicableError(
            "`method='blocks'` is for layers that read no pixel twice (kernel size 1, stride >= kernel). "
            "Use method='auto'."
        )
    if method in ("lanczos", "davidson") and request.smallest:
        raise NotApplicableError(
            f"`method={method!r}` finds the largest values only: for the smallest of a square layer it needs tens of "
            "thousands of applications. Use method='factorized' or 'dense'."
        )
    if method == "factorized" and not request.smallest:
        raise NotApplicableError("`method='factorized'` finds the smallest values only. Use method='lanczos'.")
    if method == "dense":
        require_dense(group, request.memory, vectors=True)
    if method == "factorized" and factorized_bytes(group) > request.memory:
        raise MemoryLimitError(_too_much("the banded Cholesky factor", factorized_bytes(group), request.memory))
    if request.method == "auto" and method == "factorized" and factorized_flops(group) > _MOST_FLOPS:
        raise CostLimitError(
            f"The banded Cholesky factor of this layer takes about {factorized_flops(group):.0e} operations, "
            "more than ten minutes. Use a smaller `input_shape`, or ask for it by name: method='factorized'."
        )
    if method == "lanczos" and lanczos_bytes(group, request.k) > request.memory:
        raise MemoryLimitError(_too_much("a Lanczos basis", lanczos_bytes(group, request.k), request.memory))
    if method == "davidson" and _davidson_bytes(group, request) > request.memory:
        raise MemoryLimitError(
            _too_much("the preconditioner", _davidson_bytes(group, request), request.memory) + " Or use 'lanczos'."
        )
    return {
        "dense": lambda conv, r, _: dense_triplets(conv, r.k, smallest=r.smallest),
        "blocks": lambda conv, r, _: block_triplets(conv, r.k, smallest=r.smallest),
        "symbol": lambda conv, r, _: circulant_triplets(conv, r.k, smallest=r.smallest),
        "lanczos": _run_lanczos,
        "davidson": _run_davidson,
        "factorized": lambda conv, r, _: _run_factorized(conv, r),
    }[method]


def _suits_dense(small: int, large: int, k: int) -> bool:
    """Whether LAPACK takes a few milliseconds, or the triplets leave an iteration no room to converge."""
    return (small <= _DENSE_SIDE and small**2 * large <= _DENSE_PRODUCTS) or small <= max(_DENSE_ALWAYS, 8 * k)


def _run_lanczos(conv: ConvOperator, request: Request, start: NDArray[np.floating] | None) -> SingularTriplets:
    return largest_triplets(
        conv,
        request.k,
        tolerance=request.rtol / 2,
        start=start,
        maxiter=request.maxiter or _MAXITER["lanczos"],
        rng=request.rng,
        memory_limit=request.memory,
    )


def _run_davidson(conv: ConvOperator, request: Request, start: NDArray[np.floating] | None) -> SingularTriplets:
    seeds = starting_rows(conv, start, request.k, to_rows=conv.shape[0] < conv.shape[1], few=True, rng=request.rng)
    precondition = CirculantPreconditioner(conv, peak=seeds.peaks[0].value, memory=request.memory)

    def iterate(rows: NDArray[np.floating], applications: int, enough: float) -> SingularTriplets:
        return davidson_triplets(
            conv,
            request.k,
            smallest=False,
            start=rows,
            applications=applications,
            precondition=precondition,
            tolerance=request.rtol / 2,
            largest=None,
            enough=enough,
            maxiter=request.maxiter or _MAXITER["davidson"],
            rng=request.rng,
        )

    if request.enclose:
        return enclosed_largest(conv, seeds, request.rtol, iterate)
    return iterate(seeds.rows, seeds.applications, math.inf)


def _iteration(group: ConvOperator, request: Request) -> str:
    """Choose the iteration for the largest values whose estimated time is less."""
    geometry = group.geometry
    if _davidson_bytes(group, request) > request.memory:
        return "lanczos"
    application, entries = tap_seconds(geometry), sum(group.shape) / 2
    setup, preconditioning = preconditioner_seconds(geometry)
    setup /= numba_threads()
    digits = max(0.0, -2.0 - math.log10(request.rtol))
    lanczos_count, davidson_count = (
        first + each * digits for first, each in (_LANCZOS_APPLICATIONS, _DAVIDSON_APPLICATIONS)
    )
    lanczos = lanczos_count * (application + _LANCZOS_BASIS_SECONDS * entries)
    per_application = application + preconditioning / 2 + _DAVIDSON_BASIS_SECONDS * entries
    return "davidson" if setup + davidson_count * per_application < lanczos else "lanczos"


def _davidson_bytes(group: ConvOperator, request: Request) -> int:
    return davidson_bytes(group, request.k) + preconditioner_bytes(group.geometry)


def _run_factorized(conv: ConvOperator, request: Request) -> SingularTriplets:
    # The scale of the errors: a value of the norm from below, to a few per cent.
    rough = dataclasses.replace(request, k=1, smallest=False, rtol=0.1, method="auto")
    scale = _engine(conv, rough)(conv, rough, None)
    found = smallest_triplets(
        conv,
        request.k,
        tolerance=request.rtol / 2,
        largest=float(scale.values[0]),
        maxiter=request.maxiter or _MAXITER["factorized"],
        rng=request.rng,
    )
    return dataclasses.replace(found, applications=found.applications + scale.applications)


def _rescaled(part: SingularTriplets, scale: float) -> SingularTriplets:
    return dataclasses.replace(
        part,
        values=part.values * scale,
        residuals=part.residuals * scale,
        lower=part.lower * scale,
        upper=part.upper * scale,
    )


def _merge(
    conv: ConvOperator, parts: list[Component], found: list[SingularTriplets], request: Request
) -> SingularTriplets:
    """Merge the triplets of the parts; on the channels of the others the vectors are zero."""
    values = np.concatenate([part.values for part in found])
    owner = np.repeat(np.arange(len(found)), [len(part.values) for part in found])
    first = np.cumsum([0, *(len(part.values) for part in found)])
    order = np.argsort(values if request.smallest else -values, kind="stable")[: request.k]
    left = np.zeros((len(order), conv.out_channels, *conv.output_shape))
    right = np.zeros((len(order), conv.in_channels, *conv.input_shape))
    for row, index in enumerate(order):
        i = owner[index]
        left[row, parts[i].outputs] = found[i].left[index - first[i]]
        right[row, parts[i].inputs] = found[i].right[index - first[i]]
    reasons = {part.stop_reason for part in found}
    failed = reasons - {StopReason.CONVERGED, StopReason.DIRECT, StopReason.ENCLOSED}
    residual = any(part.basis == "residual" for part in found)
    chosen = next((part for part in found if part.values.any()), found[0])

    def ordered(ends: list[NDArray[np.floating]]) -> NDArray[np.floating]:
        # The j-th largest value lies between the j-th largest of the lower bounds and of the upper ones.
        every = np.sort(np.concatenate(ends))
        return (every if request.smallest else every[::-1])[: request.k]

    return SingularTriplets(
        values=values[order],
        left=left,
        right=right,
        residuals=np.concatenate([part.residuals for part in found])[order],
        lower=ordered([part.lower for part in found]),
        upper=ordered([part.upper for part in found]),
        applications=sum(part.applications for part in found),
        method=chosen.method,
        basis="residual" if residual else chosen.basis,
        stop_reason=next(iter(failed)) if failed else found[0].stop_reason,
    )


def _zero_triplets(conv: ConvOperator, k: int) -> SingularTriplets:
    """Triplets of the zero operator: any orthonormal vectors."""
    zeros = np.zeros(k)
    return SingularTriplets(
        values=zeros,
        left=np.eye(k, conv.shape[0]).reshape(k, conv.out_channels, *conv.output_shape),
        right=np.eye(k, conv.shape[1]).reshape(k, conv.in_channels, *conv.input_shape),
        residuals=zeros,
        lower=zeros,
        upper=zeros,
        applications=0,
        method="blocks",
        basis="theorem: zero weights",
        stop_reason=StopReason.DIRECT,
    )


def require_dense(conv: ConvOperator, memory: float, *, vectors: bool) -> None:
    """Refuse a dense decomposition that does not fit in `memory` bytes."""
    needed = dense_bytes(conv, vectors=vectors)
    if needed > memory:
        raise MemoryLimitError(_too_much("the dense decomposition", needed, memory))


def _too_much(what: str, needed: float, limit: float) -> str:
    return (
        f"`memory_limit` must be at least {needed / 1e9:.2f} GB for {what} of this layer; it is {limit / 1e9:.2f}. "
        "Raise it, or use a smaller `input_shape`."
    )
