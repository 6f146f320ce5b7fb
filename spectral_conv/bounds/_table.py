"""Every bound of one layer beside the exact value."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from spectral_conv.bounds._circulant_embedding import circulant_embedding
from spectral_conv.bounds._gram import gram
from spectral_conv.bounds._lipbound import lipbound
from spectral_conv.bounds._power_iteration import power_iteration
from spectral_conv.bounds._reshaped import fantastic_four, reshaped
from spectral_conv.bounds._reshaped_norm import reshaped_norm
from spectral_conv.bounds._supremum import supremum
from spectral_conv.bounds._tensor_norm import tensor_norm
from spectral_conv.operator import ConvOperator
from spectral_conv.results import (
    Bound,
    BoundRow,
    BoundTable,
    Enclosure,
    MemoryLimitError,
    NotApplicableError,
    NotConvergedError,
)
from spectral_conv.spectrum import spectral_norm
from spectral_conv.spectrum.checks import check_operator

METHODS: dict[str, Callable[[ConvOperator], Bound]] = {
    "circulant_embedding": circulant_embedding,
    "supremum": supremum,
    "gram (frequencies)": lambda conv: gram(conv, domain="frequencies"),
    "gram (pixels)": lambda conv: gram(conv, domain="pixels"),
    "tensor_norm": tensor_norm,
    "fantastic_four": fantastic_four,
    "reshaped": reshaped,
    "lipbound (outputs)": lambda conv: lipbound(conv, version="outputs"),
    "lipbound (inputs)": lambda conv: lipbound(conv, version="inputs"),
    "lipbound (frobenius)": lambda conv: lipbound(conv, version="frobenius"),
    "power_iteration": power_iteration,
    "reshaped_norm": reshaped_norm,
}


def table(
    conv: ConvOperator, exact: bool | Enclosure = True, *, rtol: float = 1e-8, memory_limit: float | None = None
) -> BoundTable:
    """Every bound of a layer, its ratio to the exact value, and its time.

    Parameters
    ----------
    conv : ConvOperator
        Any layer; its weights are taken to float64.
    exact : bool or Enclosure
        The largest singular value, or whether to compute it: to `rtol` and within `memory_limit`, as
        `spectral_conv.spectral_norm` does.

    Returns
    -------
    BoundTable
        Upper bounds, the tightest first, then estimates and lower bounds, then the methods that do not apply
        with the reason.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 4, 4)), (16, 16))
    >>> found = spectral_conv.bounds.table(conv)
    >>> found.rows[0].method, found.rows[0].bound.kind, round(found.rows[0].ratio, 2)
    ('circulant_embedding', 'upper', 1.01)
    """
    check_operator(conv)
    if not isinstance(exact, bool | Enclosure):
        raise ValueError(f"`exact` must be True, False or an Enclosure; got {exact!r}.")
    if conv.dtype != np.float64:
        conv = conv.with_kernel(conv.kernel.astype(np.float64))
    start = time.perf_counter()
    truth, reason = (exact, "") if isinstance(exact, Enclosure) else (None, "not asked for")
    if exact is True:
        truth, reason = _exact(conv, rtol, memory_limit)
    seconds = time.perf_counter() - start
    rows = [_row(name, method, conv, truth) for name, method in METHODS.items()]
    return BoundTable(exact=truth, exact_seconds=seconds, exact_reason=reason, rows=tuple(sorted(rows, key=_order)))


def _exact(conv: ConvOperator, rtol: float, memory_limit: float | None) -> tuple[Enclosure | None, str]:
    try:
        return spectral_norm(conv, rtol=rtol, memory_limit=memory_limit), ""
    except (MemoryLimitError, NotConvergedError) as error:
        return None, str(error)


def _row(name: str, method: Callable[[ConvOperator], Bound], conv: ConvOperator, exact: Enclosure | None) -> BoundRow:
    try:
        bound = method(conv)
    except (NotApplicableError, MemoryError, np.linalg.LinAlgError) as error:  # the others go on
        return BoundRow(method=name, bound=None, ratio=None, reason=str(error) or type(error).__name__)
    known = exact is not None and exact.method != "bracket" and exact.value > 0.0
    ratio = bound.value / exact.value if known and exact is not None else None
    return BoundRow(method=name, bound=bound, ratio=ratio, reason="")


def _order(row: BoundRow) -> tuple[int, float]:
    if row.bound is None:
        return 2, 0.0
    return (0 if row.bound.kind in ("exact", "upper") else 1), row.bound.value
