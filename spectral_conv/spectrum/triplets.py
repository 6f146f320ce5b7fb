"""The front door: exact singular triplets and extremes, by the engine that fits the operator."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import ArrayLike, NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.results import (
    Enclosure,
    MemoryLimitError,
    NotApplicableError,
    NotConvergedError,
    SingularTriplets,
    StopReason,
)
from spectral_conv.spectrum.blocks import block_triplets, falls_apart
from spectral_conv.spectrum.bracket import bracket_largest, bracket_smallest
from spectral_conv.spectrum.circulant import circulant_triplets, is_circulant
from spectral_conv.spectrum.dense import dense_bytes, dense_triplets, dense_values
from spectral_conv.spectrum.factorized import factorized_bytes, smallest_triplets
from spectral_conv.spectrum.lanczos import lanczos_bytes, largest_triplets

Which = Literal["largest", "smallest"]

METHODS = ("auto", "dense", "lanczos", "factorized", "blocks", "symbol")
# Below this the dense decomposition takes a few milliseconds, less than the others need to set up.
_DENSE_SIDE, _DENSE_ENTRIES = 160, 160 * 1600
_MAXITER = {"lanczos": 20_000, "factorized": 2_000}
_BASES = {
    "dense": "theorem: Weyl's inequality, backward error of LAPACK's singular values",
    "blocks": "theorem: direct sum of blocks, Weyl's inequality",
    "symbol": "theorem: block circulant matrices are diagonalized by the Fourier matrix, Weyl's inequality",
    "lanczos": "residual",
    "factorized": "residual",
}


def singular_triplets(
    conv: ConvOperator,
    k: int = 1,
    which: Which = "largest",
    *,
    rtol: float = 1e-8,
    method: str = "auto",
    start: ArrayLike | SingularTriplets | None = None,
    maxiter: int | None = None,
    memory_limit: float | None = None,
    rng: np.random.Generator | int | None = None,
    on_failure: Literal["raise", "return"] = "raise",
) -> SingularTriplets:
    r"""Exact singular triplets of the layer as it is, padding and image size included.

    ``M v = s u`` and ``M^T u = s v`` for the k largest, or the k least of the ``min(rows, columns)``, values s.

    Parameters
    ----------
    conv : ConvOperator
        The layer.
    k : int
        Number of triplets, at most ``min(rows, columns)``.
    which : {"largest", "smallest"}
        Which end of the spectrum.
    rtol : float
        Work until each error interval, ``upper - lower``, is at most `rtol` times the largest singular value, for
        the smallest triplets too.
    method : {"auto", "dense", "lanczos", "factorized", "blocks", "symbol"}
        "auto" takes "symbol" for circular padding and "blocks" where no pixel is read twice (both without
        iteration), "dense" for small operators, else "lanczos" for the largest and "factorized" for the smallest.
    start : array_like or SingularTriplets, optional
        Right vectors ``(b, in_channels, *input_shape)`` from which "lanczos" starts instead of its own seeds, for
        example those of a slightly different kernel. The other methods need none.
    maxiter : int, optional
        Most applications of M and M^T, per group; default 20,000 for "lanczos", 2,000 for "factorized".
    memory_limit : float, optional
        In bytes; default: half of the memory that is free.
    rng : numpy.random.Generator or int, optional
        For the random parts of starting vectors; the default is a fixed seed, so that results repeat.
    on_failure : {"raise", "return"}
        What to do where the error bounds do not meet `rtol`.

    Returns
    -------
    SingularTriplets
        Values descending for the largest, ascending for the smallest. Guarantee: the residual theorem puts some
        singular value in each ``[lower, upper]``; for "dense", "blocks" and "symbol" it is the stated one.

    Raises
    ------
    NotConvergedError
        With the best result, unless ``on_failure="return"``.
    NotApplicableError
        A `method` that does not apply to this geometry or to this end of the spectrum.
    MemoryLimitError
        Where every method needs more memory than the limit.
    ValueError
        Any other parameter that does not fit.

    References
    ----------
    G. Golub, W. Kahan, "Calculating the singular values and pseudo-inverse of a matrix", SIAM J. Numer. Anal. 2
    (1965), doi:10.1137/0702016. Residual bound: B. N. Parlett, "The Symmetric Eigenvalue Problem",
    doi:10.1137/1.9781611971163, Theorem 4.5.1.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> K = np.random.default_rng(1).standard_normal((3, 3, 3, 1))
    >>> conv = spectral_conv.ConvOperator(K, input_shape=(20, 20))
    >>> spectral_conv.singular_triplets(conv).values.round(6)
    array([6.289969])
    """
    _check_operator(conv)
    total = min(conv.shape)
    if not isinstance(k, int | np.integer) or not 1 <= k <= total:
        raise ValueError(f"`k` must be an int from 1 to {total}, the number of singular values; got {k!r}.")
    _check_word("which", which, ("largest", "smallest"))
    _check_word("method", method, METHODS)
    _check_word("on_failure", on_failure, ("raise", "return"))
    request = _Request(
        k=int(k),
        smallest=which == "smallest",
        rtol=_positive("rtol", rtol),
        method=method,
        maxiter=maxiter if maxiter is None else int(_positive("maxiter", maxiter)),
        memory=_memory(memory_limit),
        rng=np.random.default_rng(0 if rng is None else rng),
    )
    result = _solve(conv, request, _start_rows(conv, start))
    if result.stop_reason not in (StopReason.CONVERGED, StopReason.DIRECT) and on_failure == "raise":
        raise NotConvergedError(result)
    return result


def singular_values(conv: ConvOperator, *, memory_limit: float | None = None) -> NDArray[np.floating]:
    r"""All ``min(rows, columns)`` singular values, by dense singular value decomposition.

    Parameters
    ----------
    conv : ConvOperator
        The layer; groups are decomposed one by one.
    memory_limit : float, optional
        In bytes; default: half of the memory that is free.

    Returns
    -------
    (min(rows, columns),) ndarray
        Descending; exact, each within ``max(rows, columns) * 2.2e-16 * largest``.

    Raises
    ------
    MemoryLimitError
        Above the limit; says how much it would take.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.array([1.0, -1.0]).reshape(2, 1, 1), input_shape=3, layout="WIO")
    >>> spectral_conv.singular_values(conv).round(4)  # 2 cos(pi j / 7)
    array([1.8019, 1.247 , 0.445 ])
    """
    _check_operator(conv)
    scaled, scale = _normalized(conv)
    groups = scaled.split_groups()
    _require_dense(groups[0], _memory(memory_limit), vectors=False)
    values = np.concatenate([dense_values(group) for group in groups])
    return np.asarray(-np.sort(-values) * scale)


def spectral_norm(conv: ConvOperator, *, rtol: float = 1e-8, memory_limit: float | None = None) -> Enclosure:
    r"""Largest singular value of the layer: the most that it can stretch a signal.

    Parameters
    ----------
    conv : ConvOperator
        The layer.
    rtol : float
        Work until ``upper - lower <= rtol * value``.
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
        Where rounding errors or the iteration limit keep the bounds apart.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.eye(2)[None, None], input_shape=(8, 8))
    >>> spectral_conv.spectral_norm(conv).value
    1.0
    """
    return _extreme(conv, "largest", rtol, memory_limit)


def smallest_singular_value(
    conv: ConvOperator, *, rtol: float = 1e-9, memory_limit: float | None = None
) -> Enclosure:
    r"""Least of the ``min(rows, columns)`` singular values: the least that the layer leaves of a signal.

    Of a layer with more inputs than outputs this is the least stretch on the orthogonal complement of the null space.

    Parameters
    ----------
    conv : ConvOperator
        The layer.
    rtol : float
        Work until ``upper - lower`` is at most `rtol` times the **largest** singular value.
    memory_limit : float, optional
        In bytes; default: half of the memory that is free. Where the factor does not fit, the result is a "bracket":
        0 below, a rigorous upper bound above.

    Returns
    -------
    Enclosure
        Dimensionless. A rank-deficient layer gives 0 within `rtol`.

    Raises
    ------
    NotConvergedError
        Where rounding errors or the iteration limit keep the bounds apart.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> K = np.random.default_rng(5).standard_normal((3, 3, 1, 1))
    >>> conv = spectral_conv.ConvOperator(K, input_shape=(20, 20))
    >>> round(spectral_conv.smallest_singular_value(conv).value, 6)
    0.000229
    """
    return _extreme(conv, "smallest", rtol, memory_limit)


def condition_number(conv: ConvOperator, *, rtol: float = 1e-9, memory_limit: float | None = None) -> Enclosure:
    r"""Condition number ``sigma_max / sigma_min``; infinite where the smallest value's interval holds 0.

    Parameters
    ----------
    conv, memory_limit
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
    top = spectral_norm(conv, rtol=rtol, memory_limit=memory_limit)
    bottom = smallest_singular_value(conv, rtol=rtol, memory_limit=memory_limit)
    safe = bottom.lower > 0.0
    parts = {top.method, bottom.method}
    bases = {top.basis, bottom.basis}
    return Enclosure(
        lower=top.lower / bottom.upper if bottom.upper > 0.0 else math.inf,
        value=top.value / bottom.value if safe else math.inf,
        upper=top.upper / bottom.lower if safe else math.inf,
        basis="residual" if "residual" in bases else "; ".join(sorted(bases)),
        method="bracket" if "bracket" in parts else "+".join(sorted(parts)),
        applications=top.applications + bottom.applications,
        stop_reason=bottom.stop_reason,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Request:
    """Checked parameters of a search."""

    k: int
    smallest: bool
    rtol: float
    method: str
    maxiter: int | None
    memory: float
    rng: np.random.Generator


def _extreme(conv: ConvOperator, which: Which, rtol: float, memory_limit: float | None) -> Enclosure:
    memory = _memory(memory_limit)
    try:
        result = singular_triplets(conv, 1, which, rtol=rtol, memory_limit=memory)
    except MemoryLimitError:
        return _bracket(conv, which, memory)
    return Enclosure(
        lower=float(result.lower[0]),
        value=float(result.values[0]),
        upper=float(result.upper[0]),
        basis=_BASES[result.method],
        method=result.method,
        applications=result.applications,
        stop_reason=result.stop_reason,
    )


def _bracket(conv: ConvOperator, which: Which, memory: float) -> Enclosure:
    """Bracket every group; the largest of the norms, the least of the smallest values."""
    scaled, scale = _normalized(conv)
    rng = np.random.default_rng(0)
    groups = scaled.split_groups()
    if which == "largest":
        parts = [bracket_largest(group, rng) for group in groups]
        chosen, pick = max(parts, key=lambda part: part.upper), max
    else:
        parts = [bracket_smallest(group, rng, memory) for group in groups]
        chosen, pick = min(parts, key=lambda part: part.upper), min
    return dataclasses.replace(
        chosen,
        lower=scale * pick(part.lower for part in parts),
        value=scale * pick(part.value for part in parts),
        upper=scale * pick(part.upper for part in parts),
        applications=sum(part.applications for part in parts),
    )


def _solve(conv: ConvOperator, request: _Request, start: NDArray[np.floating] | None) -> SingularTriplets:
    """Scale, split into groups, run an engine on each, merge."""
    if not conv.kernel.any():
        return _zero_triplets(conv, request.k)
    scaled, scale = _normalized(conv)
    groups = scaled.split_groups()
    own = min(request.k, min(groups[0].shape))
    engine = _engine(groups[0], request)
    parts = []
    for i, group in enumerate(groups):
        rows = None if start is None else np.split(start, len(groups), axis=1)[i].reshape(len(start), -1)
        parts.append(engine(group, dataclasses.replace(request, k=own), rows))
    return _merge(conv, parts, request, scale)


Engine = Callable[[ConvOperator, _Request, "NDArray[np.floating] | None"], SingularTriplets]


def _engine(group: ConvOperator, request: _Request) -> Engine:
    """Choose the engine for the groups of a layer, all of one shape; refuse what does not apply or does not fit."""
    rows, columns = group.shape
    method = request.method
    if method == "auto":
        if is_circulant(group):
            method = "symbol"
        elif falls_apart(group):
            method = "blocks"
        elif min(rows, columns) <= max(_DENSE_SIDE, 4 * request.k) and rows * columns <= _DENSE_ENTRIES:
            method = "dense"
        else:
            method = "factorized" if request.smallest else "lanczos"
    if method == "symbol" and not is_circulant(group):
        raise NotApplicableError(
            "`method='symbol'` is for circular padding with output = input / stride; elsewhere the circulant "
            "spectrum is an estimate (circulant_singular_values). Use method='auto'."
        )
    if method == "blocks" and not falls_apart(group):
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
        _require_dense(group, request.memory, vectors=True)
    if method == "factorized" and factorized_bytes(group) > request.memory:
        raise MemoryLimitError(_too_much("the banded Cholesky factor", factorized_bytes(group), request.memory))
    if method == "lanczos" and lanczos_bytes(group, request.k) > request.memory:
        raise MemoryLimitError(_too_much("a Lanczos basis", lanczos_bytes(group, request.k), request.memory))
    return {
        "dense": lambda conv, r, _: dense_triplets(conv, r.k, smallest=r.smallest),
        "blocks": lambda conv, r, _: block_triplets(conv, r.k, smallest=r.smallest),
        "symbol": lambda conv, r, _: circulant_triplets(conv, r.k, smallest=r.smallest),
        "lanczos": _run_lanczos,
        "factorized": lambda conv, r, _: _run_factorized(conv, r),
    }[method]


def _run_lanczos(conv: ConvOperator, request: _Request, start: NDArray[np.floating] | None) -> SingularTriplets:
    return largest_triplets(
        conv,
        request.k,
        tolerance=request.rtol / 2,
        start=start,
        maxiter=request.maxiter or _MAXITER["lanczos"],
        rng=request.rng,
        memory_limit=request.memory,
    )


def _run_factorized(conv: ConvOperator, request: _Request) -> SingularTriplets:
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


def _merge(
    conv: ConvOperator, parts: list[SingularTriplets], request: _Request, scale: float
) -> SingularTriplets:
    """Merge the groups' triplets, the channels of the others zero, and undo the scaling."""
    values = np.concatenate([part.values for part in parts])
    owner = np.repeat(np.arange(len(parts)), [len(part.values) for part in parts])
    order = np.argsort(values if request.smallest else -values, kind="stable")[: request.k]
    left = np.zeros((len(order), conv.out_channels, *conv.output_shape))
    right = np.zeros((len(order), conv.in_channels, *conv.input_shape))
    h, g = conv.out_channels // len(parts), conv.in_channels // len(parts)
    first = np.concatenate([[0], np.cumsum([len(part.values) for part in parts])])
    for row, index in enumerate(order):
        i = owner[index]
        left[row, i * h : (i + 1) * h] = parts[i].left[index - first[i]]
        right[row, i * g : (i + 1) * g] = parts[i].right[index - first[i]]
    reasons = {part.stop_reason for part in parts}
    failed = reasons - {StopReason.CONVERGED, StopReason.DIRECT}
    return SingularTriplets(
        values=values[order] * scale,
        left=left,
        right=right,
        residuals=np.concatenate([part.residuals for part in parts])[order] * scale,
        lower=np.concatenate([part.lower for part in parts])[order] * scale,
        upper=np.concatenate([part.upper for part in parts])[order] * scale,
        applications=sum(part.applications for part in parts),
        method=parts[0].method,
        stop_reason=next(iter(failed)) if failed else parts[0].stop_reason,
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
        stop_reason=StopReason.DIRECT,
    )


def _normalized(conv: ConvOperator) -> tuple[ConvOperator, float]:
    """Scale the weights by a power of two to at most 1: no digit changes, and no square overflows."""
    largest = float(np.abs(conv.kernel).max())
    if largest == 0.0:
        return conv, 1.0
    exponent = int(np.frexp(largest)[1])
    weights = np.ldexp(conv.kernel.astype(np.float64), -exponent)
    return conv.with_kernel(weights), math.ldexp(1.0, exponent)


def _check_operator(conv: Any) -> None:
    if not isinstance(conv, ConvOperator):
        raise ValueError(
            f"`conv` must be a ConvOperator; got {type(conv).__name__}. Wrap the weights: "
            "ConvOperator(kernel, input_shape=..., layout=...)."
        )


def _check_word(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        close = difflib.get_close_matches(str(value), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}; got {value!r}.{hint}")


def _positive(name: str, value: Any) -> float:
    if not isinstance(value, int | float | np.integer | np.floating) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be a positive number; got {value!r}.")
    return float(value)


def _memory(limit: float | None) -> float:
    return psutil.virtual_memory().available / 2 if limit is None else _positive("memory_limit", limit)


def _require_dense(conv: ConvOperator, memory: float, *, vectors: bool) -> None:
    needed = dense_bytes(conv, vectors=vectors)
    if needed > memory:
        raise MemoryLimitError(_too_much("the dense decomposition", needed, memory))


def _too_much(what: str, needed: float, limit: float) -> str:
    return (
        f"`memory_limit` must be at least {needed / 1e9:.2f} GB for {what} of this layer; it is {limit / 1e9:.2f} GB. "
        "Raise it, or use a smaller `input_shape`."
    )


def _start_rows(
    conv: ConvOperator, start: ArrayLike | SingularTriplets | None
) -> NDArray[np.floating] | None:
    if start is None:
        return None
    rows = np.asarray(start.right if isinstance(start, SingularTriplets) else start, dtype=np.float64)
    shape = (conv.in_channels, *conv.input_shape)
    if rows.shape[1:] != shape or rows.ndim != len(shape) + 1 or not rows.any() or not np.isfinite(rows).all():
        raise ValueError(
            f"`start` must be finite, not all zero, of shape (b, {', '.join(map(str, shape))}); got {rows.shape}."
        )
    return rows


