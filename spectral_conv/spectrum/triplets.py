"""Exact singular triplets, by the engine that fits the operator."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv.geometry import as_integer, checked_word
from spectral_conv.operator import ConvOperator
from spectral_conv.results import NotConvergedError, SingularTriplets, StopReason
from spectral_conv.spectrum.checks import check_operator, checked_positive, memory_or_half
from spectral_conv.spectrum.dense import dense_values
from spectral_conv.spectrum.engines import METHODS, require_dense, solve
from spectral_conv.spectrum.request import Request

Which = Literal["largest", "smallest"]
# More rows of a start than this (or than the triplets wanted) only make every step dearer.
_MOST_START_ROWS = 8


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
    method : {"auto", "dense", "lanczos", "davidson", "factorized", "blocks", "symbol"}
        "auto" takes "symbol" for circular padding and "blocks" where no pixel is read twice (both without
        iteration), "dense" for small operators; else for the largest "davidson" (few, dear steps) or "lanczos"
        (many, cheap ones), whichever is estimated to take less time ("lanczos" for several, as "davidson" may take
        another value for a further copy of one); and for the smallest "factorized", or
        "davidson" for layers that widen or narrow, where that is cheaper. "factorized" has a factor in double
        precision, or, where `memory_limit` asks for it, in single precision and refines in double precision.
    start : array_like or SingularTriplets, optional
        Right vectors ``(b, in_channels, *input_shape)`` from which "lanczos" and "davidson" start beside their own
        seeds, for example those of a slightly different kernel; the first max(k, 8) are used. The other methods
        need none.
    maxiter : int, optional
        About how many applications of M and M^T to make at most, per group; default 20,000 for
        "lanczos", 5,000 for "davidson".
        "factorized" ends after 40 blocks of vectors at the latest.
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
    CostLimitError
        Where "auto" would factor for several minutes (2.4e13 operations); ``method="factorized"`` does so all the
        same.
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
    array([6.290228])
    """
    check_operator(conv)
    total = min(conv.shape)
    if not isinstance(k, int | np.integer) or not 1 <= k <= total:
        raise ValueError(f"`k` must be an int from 1 to {total}, the number of singular values; got {k!r}.")
    checked_word("which", which, ("largest", "smallest"))
    checked_word("method", method, METHODS)
    checked_word("on_failure", on_failure, ("raise", "return"))
    request = Request(
        k=int(k),
        smallest=which == "smallest",
        rtol=checked_positive("rtol", rtol),
        method=method,
        maxiter=None if maxiter is None else as_integer("maxiter", maxiter, minimum=1),
        memory=memory_or_half(memory_limit),
        rng=np.random.default_rng(0 if rng is None else rng),
    )
    result = solve(conv, request, _start_rows(conv, start, int(k)))
    return converged(result) if on_failure == "raise" else result


def converged(result: SingularTriplets) -> SingularTriplets:
    """Return `result` if its error bounds are met; raise otherwise."""
    if result.stop_reason not in (StopReason.CONVERGED, StopReason.DIRECT, StopReason.ENCLOSED):
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
    check_operator(conv)
    groups = conv.split_groups()
    require_dense(groups[0], memory_or_half(memory_limit), vectors=False)
    # LAPACK scales by itself.
    values = np.concatenate([dense_values(group) for group in groups])
    return np.asarray(-np.sort(-values))


def _start_rows(
    conv: ConvOperator, start: ArrayLike | SingularTriplets | None, k: int
) -> NDArray[np.floating] | None:
    if start is None:
        return None
    rows = np.asarray(start.right if isinstance(start, SingularTriplets) else start)
    shape = (conv.in_channels, *conv.input_shape)
    fits = rows.dtype.kind in "fiu" and rows.ndim == len(shape) + 1 and rows.shape[1:] == shape
    if not fits or not np.isfinite(rows).all() or not rows.reshape(len(rows), -1).any(axis=1).all():
        raise ValueError(
            f"`start` must hold real, finite vectors, none of them zero, of shape (b, {', '.join(map(str, shape))}); "
            f"got {rows.dtype} of shape {rows.shape}."
        )
    return rows[: max(k, _MOST_START_ROWS)].astype(np.float64)
