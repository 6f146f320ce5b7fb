"""An iteration from below and an upper bound from the symbol, until they meet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.results import SingularTriplets, StopReason
from spectral_conv.spectrum.embedding import Embedding, embeddings
from spectral_conv.spectrum.start import Start
from spectral_conv.spectrum.verify import ROUNDING

# The value stops short of the bound by this share of `rtol`, so that the bound, proved afterwards, may be larger.
_SLACK = 0.2
# A proof that takes more operations than this (a few seconds) is left to `certify`.
_MOST_FLOPS = 1e11

Iteration = Callable[[NDArray[np.floating], int, float], SingularTriplets]


def enclosed_largest(conv: ConvOperator, seeds: Start, rtol: float, iterate: Iteration) -> SingularTriplets:
    r"""Enclose the largest value of an operator with one group by a Rayleigh quotient and a bound from the symbol.

    The iteration ends as soon as the two are within `rtol`, or its residual is small enough, whichever comes first.
    Where no bound is close enough the result rests on the residual.

    Parameters
    ----------
    iterate : callable
        Starting rows, applications so far and a value that is enough, to triplets.
    """

    def affordable(target: float) -> list[Embedding]:
        return [e for e in embeddings(conv, seeds.peaks, target) if e.symbol.flops <= _MOST_FLOPS]

    candidates = affordable(seeds.peaks[0].value * (1.0 + rtol))
    enough = min((e.seen for e in candidates), default=math.inf) / (1.0 + (1.0 - _SLACK) * rtol)
    found = iterate(seeds.rows, seeds.applications, enough)
    value = float(found.values[0])
    lower = value * (1.0 - ROUNDING)
    if value > seeds.peaks[0].value:  # the search for peaks missed the highest
        candidates = affordable(lower + rtol * value)
    for embedding in candidates:
        upper = embedding.prove(lower + rtol * value, seeds.peaks[0].vector, least=lower)
        if upper is not None:
            return dataclasses.replace(
                found,
                lower=np.array([lower]),
                upper=np.array([max(upper, value)]),
                basis=f"theorem: Rayleigh quotient below, {embedding.theorem} above",
                stop_reason=StopReason.ENCLOSED,
            )
    if found.stop_reason is not StopReason.ENCLOSED:
        return found
    near = (found.left if conv.shape[0] < conv.shape[1] else found.right).reshape(1, -1)
    # The vector that was reached, and where it came from: what it has lost may be missing.
    return iterate(np.concatenate([near, seeds.rows]), found.applications, math.inf)
