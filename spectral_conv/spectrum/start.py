"""Where the iterations for the largest values start, and when they may stop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.seeds import right_seeds
from spectral_conv.symbols._peaks import SymbolPeak


@dataclass(frozen=True, kw_only=True)
class Start:
    """Starting vectors, the applications that they took, and the peaks of the symbol."""

    rows: NDArray[np.floating]
    applications: int
    peaks: tuple[SymbolPeak, ...]


# A later Ritz value with a residual of this many times its distance from the wanted ones may overtake them.
_RIVAL = 4.0
# Its square, which bounds the move to second order, counts from this many times the allowed error on.
_FAR = 3.0
# So many later Ritz values are watched.
WATCHED = 4


def starting_rows(
    conv: ConvOperator,
    start: NDArray[np.floating] | None,
    k: int,
    *,
    to_rows: bool,
    few: bool,
    rng: np.random.Generator,
) -> Start:
    """Return starting vectors on the rows of M (`to_rows`) or its columns.

    Seeds from the symbol stand beside a given `start`, which may belong to values that are no longer the largest.
    With `few`, one seed is enough for one value.
    """
    seeds = right_seeds(conv, rng)
    alone = few and k == 1
    rows, applications = _carried(
        conv, seeds.rows[::2] if alone else seeds.rows, on_rows=conv.geometry.transposed, to_rows=to_rows
    )
    if start is not None:
        given, used = _carried(conv, start, on_rows=False, to_rows=to_rows)
        rows, applications = np.concatenate([given, rows]), applications + used
    return Start(
        rows=rows if alone else _with_random_rows(rows, k, rng), applications=applications, peaks=seeds.peaks
    )


def _carried(
    conv: ConvOperator, rows: NDArray[np.floating], *, on_rows: bool, to_rows: bool
) -> tuple[NDArray[np.floating], int]:
    """Carry unit vectors to the side of M where the right basis lives; also the applications that took."""
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if on_rows == to_rows:
        return rows, 0
    carry = conv.matvec if to_rows else conv.rmatvec
    return np.stack([carry(row) for row in rows]), len(rows)


def _with_random_rows(seeds: NDArray[np.floating], k: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Add `k` random rows to the seeds, all of unit length.

    Seeds may all lie in one invariant subspace (channels that do not mix), and a block of b vectors finds at most b
    copies of a multiple value: the random rows stand for all that the seeds do not see.
    """
    rows = np.concatenate([seeds, rng.standard_normal((k, seeds.shape[1]))])
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)


def may_be_overtaken(
    values: NDArray[np.floating], residuals: NDArray[np.floating], k: int, slack: float, *, smallest: bool = False
) -> NDArray[np.bool_]:
    """Which of the next few Ritz values are so far from converged that they may still pass the k-th.

    Only a few: of a value with very many copies there are always some that are only just emerging.

    At the end of ordinary runs residuals of later values are up to 3 times their distance below the k-th, where an
    invariant subspace hid the largest value 12 and more.
    """
    values, residuals = values[: k + WATCHED], residuals[: k + WATCHED]
    apart = (values[k - 1] - values[k:]) * (-1.0 if smallest else 1.0)
    # To second order a value still moves by its squared residual over its distance from others: for the largest, of
    # the size of the values; the smallest may be crowded.
    far = residuals[k:] > slack if smallest else residuals[k:] ** 2 > _FAR * slack * values[0]
    return np.asarray((residuals[k:] > _RIVAL * apart) & far)
