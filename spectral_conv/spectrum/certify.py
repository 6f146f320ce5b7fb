"""Certified enclosures of the two ends of the spectrum: proved, rounding errors included.

One end is a quotient ``||M x|| / ||x||`` of the vector that the engines found, the other rests on verified Cholesky
factorizations of the Gram matrices of all groups. Neither trusts the engines: a poor vector gives a wide enclosure,
never a wrong one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import CostLimitError, Enclosure, MemoryLimitError, SingularTriplets, StopReason
from spectral_conv.spectrum.checks import check_operator, checked_positive, memory_or_half
from spectral_conv.spectrum.crude import POWER_STEPS, corner_quotient, crude_norm, mean_square, power_vector
from spectral_conv.spectrum.embedding import LEAST_RTOL, tightest_embedding
from spectral_conv.spectrum.rounding import absolute_norm, below, stretch, times_scale
from spectral_conv.spectrum.scale import is_zero
from spectral_conv.spectrum.trials import affordable, norm_of_parts, square_at_least
from spectral_conv.spectrum.triplets import Which, singular_triplets
from spectral_conv.spectrum.verified import verified_parts

# Widths tried for bounds from the symbol where no factorization fits.
_WIDTHS = (1e-3, 1e-2, 0.1)
_CHOLESKY = "Rump's verified Cholesky factorization (BIT 46, 2006)"


@dataclass(frozen=True, kw_only=True)
class _Group:
    """One group of a layer, its weights divided by the power of two `scale`."""

    operator: ConvOperator
    scale: float
    inputs: slice
    outputs: slice

    def near(self, found: SingularTriplets, *, outer: bool) -> NDArray[np.floating]:
        """Part of the vector that the plain convolution (`outer`: its adjoint) is applied to."""
        left = outer != self.operator.geometry.transposed
        return found.left[0][self.outputs] if left else found.right[0][self.inputs]


@serial_blas()
def certified(conv: ConvOperator, which: Which, *, rtol: float, memory_limit: float | None) -> Enclosure:
    """Enclose the largest or the smallest singular value of a layer, rounding errors included."""
    check_operator(conv)
    rtol, memory = checked_positive("rtol", rtol), memory_or_half(memory_limit)
    groups = _groups(conv, together=which == "largest")
    zeros = [is_zero(group.operator) for group in groups]
    if all(zeros) or (which == "smallest" and any(zeros)):
        basis = "certified: zero weights"
        return Enclosure(lower=0.0, value=0.0, upper=0.0, basis=basis, method="blocks", applications=0)
    groups = [group for group, zero in zip(groups, zeros, strict=True) if not zero]
    try:
        found = singular_triplets(conv, 1, which, rtol=rtol, memory_limit=memory, on_failure="return")
    except (MemoryLimitError, CostLimitError):
        found = None
    bounds = (_largest if which == "largest" else _smallest)(groups, found, rtol, memory)
    complete = found is not None and bounds.complete
    if found is None:
        value = bounds.lower if which == "largest" else bounds.upper
    else:
        value = min(max(float(found.values[0]), bounds.lower), bounds.upper)
    return Enclosure(
        lower=bounds.lower,
        value=value,
        upper=bounds.upper,
        basis=f"certified: {bounds.basis}",
        method=found.method if found is not None and complete else "bracket",
        applications=bounds.applications + (0 if found is None else found.applications),
        stop_reason=found.stop_reason if found is not None and complete else StopReason.LIMIT,
    )


def _groups(conv: ConvOperator, *, together: bool) -> list[_Group]:
    """Groups, scaled so that the largest weight is in [1, 2): of the layer (`together`), or of each group."""
    # Weights that only ever meet the padding are no part of M; a huge one would make all others underflow.
    kernel = np.where(conv.geometry.read_taps[..., None, None], conv.kernel.astype(np.float64), 0.0)
    layer = conv.with_kernel(kernel)
    parts = layer.split_groups()
    whole = _exponent(kernel)
    exponents = [whole if together else _exponent(part.kernel) for part in parts]
    inner, outer = conv.in_channels // len(parts), conv.out_channels // len(parts)
    return [
        _Group(
            operator=part.with_kernel(np.ldexp(part.kernel, -exponent)),
            scale=math.ldexp(1.0, exponent),
            inputs=slice(i * inner, (i + 1) * inner),
            outputs=slice(i * outer, (i + 1) * outer),
        )
        for i, (part, exponent) in enumerate(zip(parts, exponents, strict=True))
    ]


def _exponent(kernel: NDArray[np.floating]) -> int:
    largest = float(np.abs(kernel).max())
    return int(np.frexp(largest)[1]) - 1 if largest > 0.0 else 0


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """Bounds of a layer's value; `complete` where none of them is a wide one for want of memory or time."""

    lower: float
    upper: float
    basis: str
    complete: bool
    applications: int


def _largest(groups: list[_Group], found: SingularTriplets | None, rtol: float, memory: float) -> _Bounds:
    if found is None:
        quotients = [stretch(g.operator, power_vector(g.operator), adjoint=False) for g in groups]
        applications = (2 * POWER_STEPS + 1) * len(groups)
    else:
        owner = _owner(groups, found, outer=False)
        quotients = [stretch(owner.operator, owner.near(found, outer=False), adjoint=False)]
        applications = 1
        rtol = 0.0 if found.stop_reason is StopReason.DIRECT else rtol  # such a vector is right to rounding
    lower, estimate = max(quotients)
    upper, complete, theorems = lower, True, set()
    for group in groups:
        if absolute_norm(group.operator) <= lower:
            continue  # its norm is not the largest
        proved, theorem, narrow = _norm_above(group.operator, lower, estimate, rtol, memory)
        complete = complete and narrow
        upper = max(upper, proved)
        theorems.add(theorem)
    lower, upper = times_scale(lower, upper, groups[0].scale)
    above = " and ".join(sorted(theorems)) or "Schur's test"
    return _Bounds(
        lower=lower,
        upper=upper,
        basis=f"Rayleigh quotient below, {above} above",
        complete=complete,
        applications=applications,
    )


def _norm_above(
    conv: ConvOperator, lower: float, estimate: float, rtol: float, memory: float
) -> tuple[float, str, bool]:
    """Bound the norm of a group, by the cheapest theorem that suffices; also its name, and whether that is narrow."""
    if rtol >= LEAST_RTOL:
        found = tightest_embedding(conv, lower, [rtol])
        if found is not None:
            return *found, True
    _, parts = verified_parts(conv, smallest=False)
    if affordable(parts, memory):
        proved = norm_of_parts(parts, estimate, rtol)
        if proved is not None:
            return proved, _CHOLESKY, True
    found = tightest_embedding(conv, lower, _WIDTHS)
    if found is not None:
        return *found, False
    return crude_norm(conv), "triangle inequality over the taps, Schur's test", False


def _smallest(groups: list[_Group], found: SingularTriplets | None, rtol: float, memory: float) -> _Bounds:
    if found is None:
        return _smallest_from_above(groups, memory)
    outer, _ = verified_parts(groups[0].operator, smallest=True)
    owner = _owner(groups, found, outer=outer)
    quotient = stretch(owner.operator, owner.near(found, outer=outer), adjoint=outer)
    _, upper = times_scale(*quotient, owner.scale)
    lower, complete = math.inf, True
    for group in sorted(groups, key=lambda g: g is not owner):
        if lower == 0.0:
            break
        _, parts = verified_parts(group.operator, smallest=True)
        complete = complete and affordable(parts, memory)
        relative = quotient[0] * (owner.scale / group.scale)  # may be infinite: then the check fails
        proved = 0.0
        if complete:
            proved = square_at_least(parts, group.operator, relative * relative, owner=group is owner)
        lower = min(lower, times_scale(below(math.sqrt(proved)), 0.0, group.scale)[0])
    basis = "Rayleigh quotient above"
    return _Bounds(
        lower=lower,
        upper=upper,
        basis=basis if lower == 0.0 else f"{_CHOLESKY} below, {basis}",
        complete=complete,
        applications=1,
    )


def _owner(groups: list[_Group], found: SingularTriplets, *, outer: bool) -> _Group:
    """The group whose channels the vector lives on."""
    return max(groups, key=lambda group: float(np.abs(group.near(found, outer=outer)).max()))


def _smallest_from_above(groups: list[_Group], memory: float) -> _Bounds:
    """Where nothing fits: a quotient on a corner of the image, or the root mean square of the values."""
    uppers = []
    for group in groups:
        conv = group.operator
        uppers.append((times_scale(0.0, mean_square(conv), group.scale)[1], "least <= root mean square"))
        corner = corner_quotient(conv, memory)
        if corner is not None:
            uppers.append((times_scale(0.0, corner, group.scale)[1], "Rayleigh quotient on a corner of the image"))
    upper, theorem = min(uppers)
    return _Bounds(lower=0.0, upper=upper, basis=f"{theorem} above", complete=False, applications=len(groups))
