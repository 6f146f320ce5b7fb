"""Which engine fits an operator, and how the groups of a layer are brought together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import MemoryLimitError, NotApplicableError, SingularTriplets, StopReason
from spectral_conv.spectrum.blocks import block_triplets, falls_apart
from spectral_conv.spectrum.circulant import circulant_triplets, is_circulant
from spectral_conv.spectrum.components import Component, group_components, mixing_components
from spectral_conv.spectrum.dense import dense_bytes, dense_triplets, suits_dense
from spectral_conv.spectrum.flat_axes import at_all_positions, at_one_position, copies
from spectral_conv.spectrum.largest import cheaper_iteration, run_davidson, run_lanczos
from spectral_conv.spectrum.request import Request, too_much
from spectral_conv.spectrum.scale import is_zero, normalized
from spectral_conv.spectrum.smallest import run_circulant, run_factorized, run_smallest

METHODS = ("auto", "dense", "lanczos", "davidson", "factorized", "blocks", "symbol")


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
        single = at_one_position(scaled)
        few = dataclasses.replace(request, k=-(-own // copies(scaled, single)))
        engine = _engine(single, few)
        # A start that vanishes on a part says nothing about it, nor does one for all positions about a single one.
        rows = None if rows is None or single is not scaled or not rows.any(axis=1).all() else rows
        try:
            triplets = engine(single, few, rows)
            triplets = triplets if single is scaled else at_all_positions(triplets, scaled, own)
            found.append(rescaled(triplets, scale))
        except MemoryLimitError as error:
            reached = error.reached
            if reached is not None:
                reached = rescaled(reached if single is scaled else at_all_positions(reached, scaled, own), scale)
            raise MemoryLimitError(str(error), reached) from None
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
    method = suited_method(group, request) if request.method == "auto" else request.method
    if method == "smallest":
        return lambda conv, r, _: run_smallest(conv, r)
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
    if method == "lanczos" and request.smallest:
        raise NotApplicableError(
            "`method='lanczos'` finds the largest values only: for the smallest of a square layer it needs tens of "
            "thousands of applications. Use method='factorized' or 'dense'."
        )
    if method == "factorized" and not request.smallest:
        raise NotApplicableError("`method='factorized'` finds the smallest values only. Use method='lanczos'.")
    if method == "dense":
        require_dense(group, request.memory, vectors=True)
    return {
        "dense": lambda conv, r, _: dense_triplets(conv, r.k, smallest=r.smallest),
        "blocks": lambda conv, r, _: block_triplets(conv, r.k, smallest=r.smallest),
        "symbol": lambda conv, r, _: circulant_triplets(conv, r.k, smallest=r.smallest),
        "lanczos": run_lanczos,
        "davidson": (lambda conv, r, _: run_circulant(conv, r)) if request.smallest else run_davidson,
        "factorized": lambda conv, r, _: run_factorized(conv, r),
    }[method]


def suited_method(group: ConvOperator, request: Request) -> str:
    """Choose a method for a part of a layer; "smallest" leaves the choice between the last two to `run_smallest`."""
    if is_circulant(group):
        return "symbol"
    if falls_apart(group, request.k, smallest=request.smallest):
        return "blocks"
    if suits_dense(group, request.k):
        return "dense"
    return "smallest" if request.smallest else cheaper_iteration(group, request)


def rescaled(part: SingularTriplets, scale: float) -> SingularTriplets:
    """Undo `normalized`: multiply everything that has the size of M."""
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
        raise MemoryLimitError(too_much("the dense decomposition", needed, memory))
