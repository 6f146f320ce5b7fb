"""The two ends of the spectrum, enclosed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from spectral_conv.operator import ConvOperator
from spectral_conv.results import CostLimitError, Enclosure, MemoryLimitError, SingularTriplets, StopReason
from spectral_conv.spectrum.bracket import bracket_largest, bracket_smallest, frobenius_norm
from spectral_conv.spectrum.certify import certified
from spectral_conv.spectrum.checks import check_operator, checked_positive, memory_or_half
from spectral_conv.spectrum.embedding import LEAST_RTOL
from spectral_conv.spectrum.engines import solve
from spectral_conv.spectrum.request import Request
from spectral_conv.spectrum.rounding import above, below
from spectral_conv.spectrum.scale import normalized
from spectral_conv.spectrum.triplets import Which, converged
from spectral_conv.spectrum.verify import ROUNDING


def spectral_norm(
    conv: ConvOperator, *, rtol: float = 1e-8, certify: bool = False, memory_limit: float | None = None
) -> Enclosure:
    r"""Largest singular value of the layer: the most that it can stretch a signal.

    Parameters
    ----------
    conv : ConvOperator
        The layer.
    rtol : float
        Work until ``upper - lower <= rtol * value``, above 1e-6 by the cheapest means: an upper bound from the symbol
        (a twisted circulant that contains M, or the supremum over all frequencies) where one is close enough.
    certify : bool
        Prove both bounds, rounding errors included, by such a bound or by a Cholesky factorization of
        ``tau I - M^T M`` (banded, so that memory and time are those of the smallest value). At the default `rtol` the
        width is usually near 1e-11, but no width is promised; where the factor does not fit the upper bound is a wide
        one, and the result a "bracket".
    memory_limit : float, optional
        In bytes; default: half of the memory that is free. Below what a Lanczos basis needs the result is a
        rigorous but wide "bracket".

    Returns
    -------
    Enclosure
        Dimensionless; see its `basis` for what the bounds rest on.

    Raises
    ------
    NotConvergedError
        Where rounding errors or the iteration limit keep the bounds apart; not with `certify`.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.eye(2)[None, None], input_shape=(8, 8))
    >>> spectral_conv.spectral_norm(conv).value
    1.0
    """
    return _extreme(conv, "largest", rtol, certify, memory_limit)


def smallest_singular_value(
    conv: ConvOperator, *, rtol: float = 1e-9, certify: bool = False, memory_limit: float | None = None
) -> Enclosure:
    r"""Least of the ``min(rows, columns)`` singular values: the least that the layer leaves of a signal.

    Of a layer with more inputs than outputs this is the least stretch on the orthogonal complement of the null space.

    Parameters
    ----------
    conv : ConvOperator
        The layer.
    rtol : float
        Work until ``upper - lower`` is at most `rtol` times the **largest** singular value.
    certify : bool
        Prove both bounds, rounding errors included. The check squares M: a value below some 2e-6 of the largest
        cannot be told from 0, and `lower` is then 0, whatever `rtol`.
    memory_limit : float, optional
        In bytes; default: half of the memory that is free. Where the factor does not fit, or would take more than
        several minutes, the result is a "bracket": 0 below, a rigorous upper bound above.

    Returns
    -------
    Enclosure
        Dimensionless. A rank-deficient layer gives 0 within `rtol`.

    Raises
    ------
    NotConvergedError
        Where rounding errors or the iteration limit keep the bounds apart; not with `certify`.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> K = np.random.default_rng(5).standard_normal((3, 3, 1, 1))
    >>> conv = spectral_conv.ConvOperator(K, input_shape=(20, 20))
    >>> round(spectral_conv.smallest_singular_value(conv).value, 6)
    0.000226
    """
    return _extreme(conv, "smallest", rtol, certify, memory_limit)


def condition_number(
    conv: ConvOperator, *, rtol: float = 1e-9, certify: bool = False, memory_limit: float | None = None
) -> Enclosure:
    r"""Condition number ``sigma_max / sigma_min``; infinite where the smallest value's interval holds 0.

    Parameters
    ----------
    conv, certify, memory_limit
        As in `smallest_singular_value`.
    rtol : float
        For both singular values, relative to the largest.

    Returns
    -------
    Enclosure
        Dimensionless; `value` and `upper` may be ``inf``.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.diag([4.0, 1.0])[None, None], input_shape=(8, 8))
    >>> round(spectral_conv.condition_number(conv).value, 12)
    4.0
    """
    top = spectral_norm(conv, rtol=rtol, certify=certify, memory_limit=memory_limit)
    bottom = smallest_singular_value(conv, rtol=rtol, certify=certify, memory_limit=memory_limit)
    safe = bottom.lower > 0.0
    parts = {top.method, bottom.method}
    bases = {top.basis, bottom.basis}
    return Enclosure(
        lower=below(top.lower / bottom.upper) if bottom.upper > 0.0 else math.inf,
        value=top.value / bottom.value if safe else math.inf,
        upper=above(top.upper / bottom.lower) if safe else math.inf,
        basis="residual" if "residual" in bases else "; ".join(sorted(bases)),
        method="bracket" if "bracket" in parts else "+".join(sorted(parts)),
        applications=top.applications + bottom.applications,
        stop_reason=bottom.stop_reason,
    )


def _extreme(conv: ConvOperator, which: Which, rtol: float, certify: bool, memory_limit: float | None) -> Enclosure:
    if certify:
        return certified(conv, which, rtol=rtol, memory_limit=memory_limit)
    memory = memory_or_half(memory_limit)
    check_operator(conv)
    request = Request(
        k=1,
        smallest=which == "smallest",
        rtol=checked_positive("rtol", rtol),
        method="auto",
        maxiter=None,
        memory=memory,
        rng=np.random.default_rng(0),
        enclose=which == "largest" and rtol >= LEAST_RTOL,
    )
    try:
        result = converged(solve(conv, request, None))
    except MemoryLimitError as error:
        return bracket(conv, which, memory) if error.reached is None else _upper_only(conv, error.reached)
    except CostLimitError:
        return bracket(conv, which, memory)
    return result.enclosure()


def _upper_only(conv: ConvOperator, reached: SingularTriplets) -> Enclosure:
    """What is left of a search for the smallest value that memory cut short: no vector is stretched less."""
    value = float(reached.values[0])
    return Enclosure(
        lower=0.0,
        value=value,
        upper=value + ROUNDING * frobenius_norm(conv),
        basis="theorem: Rayleigh quotient above",
        method="bracket",
        applications=reached.applications,
        stop_reason=StopReason.LIMIT,
    )


def bracket(conv: ConvOperator, which: Which, memory: float) -> Enclosure:
    """Bracket every group; the largest of the norms, the least of the smallest values."""
    rng = np.random.default_rng(0)
    parts = []
    for group in conv.split_groups():
        scaled, scale = normalized(group)
        part = bracket_largest(scaled, rng) if which == "largest" else bracket_smallest(scaled, rng, memory)
        ends = {name: getattr(part, name) * scale for name in ("lower", "value", "upper")}
        parts.append(dataclasses.replace(part, **ends))
    pick = max if which == "largest" else min
    chosen = pick(parts, key=lambda part: part.upper)
    return dataclasses.replace(
        chosen,
        lower=pick(part.lower for part in parts),
        value=pick(part.value for part in parts),
        applications=sum(part.applications for part in parts),
    )
