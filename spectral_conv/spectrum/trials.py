"""Trials of the verified check: where to put it, and what to make of its answers."""

from __future__ import annotations

import math

from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.rounding import UNIT, above
from spectral_conv.spectrum.smallest import MOST_FLOPS
from spectral_conv.spectrum.verified import Verified

# The first trial is this far from the value's square, in units of rounding, of the expected error, of `rtol`; each
# further trial is so much farther.
_UNITS, _OF_ERROR, _OF_RTOL = 50.0, 0.01, 1e-3
_GROWTH, _TRIALS_ABOVE, _TRIALS_BELOW = 100.0, 7, 3
# The check fails for squares this far below the expected error (which is usually fifty times too large).
_HOPELESS = 0.002


def affordable(parts: list[Verified], memory: float) -> bool:
    """Whether a trial of every part keeps to the limits on memory and time."""
    return max(p.nbytes for p in parts) <= memory and sum(p.flops for p in parts) <= MOST_FLOPS


def norm_of_parts(parts: list[Verified], estimate: float, rtol: float) -> float | None:
    """Certify an upper bound of the norm a little above `estimate`; None where all trials fail."""
    bounds = [_square_at_most(part, estimate**2, rtol) for part in parts]
    proved = [bound for bound in bounds if bound is not None]
    return above(math.sqrt(max(proved))) if len(proved) == len(bounds) else None


def _square_at_most(part: Verified, square: float, rtol: float) -> float | None:
    margin = max(_UNITS * UNIT * square, _OF_ERROR * part.likely_error(square), _OF_RTOL * rtol * square)
    for _ in range(_TRIALS_ABOVE):
        bound = part.at_most(square + margin)
        if bound is not None:
            return bound
        margin *= _GROWTH
    return None


def square_at_least(parts: list[Verified], conv: ConvOperator, square: float, *, owner: bool) -> float:
    """Certify that the eigenvalues of all parts are at least a little below `square`; 0 where that fails.

    `owner` says that the smallest eigenvalue is expected there, not in a part of another group.
    """
    kernel = conv.plain_kernel
    side = -1 if kernel.shape[-1] > kernel.shape[-2] else -2
    diagonal = float((kernel**2).sum(axis=(*range(kernel.ndim - 2), side)).max())  # about that of A
    least = math.inf
    for part in parts:
        error = part.likely_error(diagonal)
        if owner and square < _HOPELESS * error:
            return 0.0
        margin = max(_UNITS * UNIT * diagonal, _OF_ERROR * error)
        trials = [square - margin * _GROWTH**i for i in range(_TRIALS_BELOW)]
        if not owner:  # its smallest value is larger: so much, perhaps, that the error of the check does not show
            trials.insert(0, square + error)
        bounds = (part.at_least(t) for t in trials if t > 0.0)
        least = min(least, next((max(bound, 0.0) for bound in bounds if bound is not None), 0.0))
        if least == 0.0:
            break
    return least
