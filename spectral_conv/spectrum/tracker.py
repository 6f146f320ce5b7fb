"""Extreme triplets of a kernel that changes little by little."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.operator import ConvOperator
from spectral_conv.results import SingularTriplets, StopReason
from spectral_conv.spectrum.blocks import falls_apart
from spectral_conv.spectrum.checks import checked_positive
from spectral_conv.spectrum.circulant import is_circulant
from spectral_conv.spectrum.davidson import Davidson
from spectral_conv.spectrum.dense import suits_dense
from spectral_conv.spectrum.engines import rescaled
from spectral_conv.spectrum.factorized import ShiftedInverse, factorized_flops, smaller_gram
from spectral_conv.spectrum.scale import is_zero, normalized
from spectral_conv.spectrum.triplets import Which, singular_triplets

Rows = NDArray[np.floating]

# More copies of a value than this are not looked for.
_MOST = 16
# Factors of more operations than this (some ten milliseconds) are not kept: the search is then that of
# `singular_triplets`, from the last vectors.
_FLOPS = 1e9
# Ritz vectors kept. A search that takes more applications than this leads to a new factor, one of four times as many
# to a full search, which comes after so many kernels in any case.
_KEPT, _APPLICATIONS, _KERNELS = 6, 40, 50
# A kernel that differs from the anchor by this share needs a new factor too: an old one may not see what has grown.
_CHANGE = 0.03
# tau lies so far above the largest square: a factor outlives kernels that grow by less.
_ABOVE = 1.002


@dataclass(kw_only=True)
class _End:
    """One end of the spectrum: Ritz vectors of the last kernel, and a factor for the anchor, an earlier kernel."""

    rows: Rows
    anchor: ConvOperator
    above: float | None
    kernels: int
    inverse: Callable[[Rows], Rows]


class ExtremeTracker:
    """Extreme singular triplets of one layer after another, each search started from the last result.

    What was found for an operator is kept: asking again for the same object costs nothing. Small operators keep, for
    each end, Ritz vectors and a banded Cholesky factor of an earlier kernel's ``A + mu I`` or ``tau I - A``, an all
    but perfect preconditioner for Davidson's method. It is renewed where it no longer is, or where the kernel has
    moved: for the largest end this proves that no value lies more than 0.1 per cent higher. Every 50 kernels comes
    a full search. Larger operators are searched by `singular_triplets` from the last vectors.

    Parameters
    ----------
    rtol : float
        Width of each error interval, relative to the largest singular value.
    memory_limit : float, optional
        In bytes, as in `singular_triplets`.
    """

    def __init__(self, *, rtol: float = 1e-10, memory_limit: float | None = None) -> None:
        self.rtol = checked_positive("rtol", rtol)
        self.memory_limit = memory_limit
        self._found: dict[str, tuple[ConvOperator, SingularTriplets]] = {}
        self._starts: dict[str, Rows] = {}
        self._ends: dict[str, _End] = {}
        # Both ends work on the same scaled operator.
        self._scaled: tuple[ConvOperator, ConvOperator, float] | None = None

    def __getstate__(self) -> dict[str, object]:
        # Factors are made again where they are needed.
        return {**vars(ExtremeTracker(rtol=self.rtol, memory_limit=self.memory_limit))}

    def triplets(self, conv: ConvOperator, which: Which, k: int = 1) -> SingularTriplets:
        """Return `k` or more extreme triplets (all there are, where they are fewer)."""
        known = self._found.get(which)
        wanted = min(k, *conv.shape)
        if known is not None and known[0] is conv and len(known[1].values) >= wanted:
            return known[1]
        with serial_blas():
            found = self._near(conv, which, wanted) or self._anew(conv, which, wanted)
        self._found[which], self._starts[which] = (conv, found), found.right
        return found

    def cluster(self, conv: ConvOperator, which: Which, rtol: float) -> tuple[SingularTriplets, int]:
        """Return triplets, and how many of them lie within `rtol` times the largest value of the extreme one."""
        k = 2
        while True:
            found = self.triplets(conv, which, k)
            values = found.values
            scale = float(values[0]) if which == "largest" else float(self.triplets(conv, "largest").values[0])
            count = int(np.count_nonzero(np.abs(values - values[0]) <= rtol * scale))
            if count < len(values) or len(values) >= min(_MOST, *conv.shape):
                return found, count
            k = min(2 * k, _MOST)

    def state(self) -> dict[str, NDArray[np.floating]]:
        """What the next searches depend on."""
        state = {f"start_{which}": rows for which, rows in self._starts.items()}
        for which, end in self._ends.items():
            state[f"rows_{which}"], state[f"anchor_{which}"] = end.rows, end.anchor.kernel
            state[f"numbers_{which}"] = np.array([math.nan if end.above is None else end.above, end.kernels])
        return state

    def restore(self, state: dict[str, NDArray[np.floating]], conv: ConvOperator) -> None:
        """Go on as the tracker that `state` was taken from, for layers like `conv`."""
        self._found = {}
        self._starts = {name.removeprefix("start_"): v for name, v in state.items() if name.startswith("start_")}
        self._ends = {}
        for which in ("largest", "smallest"):
            if f"rows_{which}" in state:
                above, kernels = state[f"numbers_{which}"]
                anchor = conv.with_kernel(state[f"anchor_{which}"])
                shift = None if math.isnan(above) else float(above)
                self._ends[which] = _end(state[f"rows_{which}"], anchor, shift, int(kernels))

    def _near(self, conv: ConvOperator, which: Which, k: int) -> SingularTriplets | None:
        """Search near the last vectors, with the factor at hand; None where that does not serve."""
        end = self._ends.get(which)
        if end is None or end.anchor.geometry != conv.geometry or end.kernels >= _KERNELS or is_zero(conv):
            return None
        largest = None if which == "largest" else float(self.triplets(conv, "largest").values[0])
        far = float(np.linalg.norm(conv.kernel - end.anchor.kernel)) > _CHANGE * float(np.linalg.norm(conv.kernel))
        try:
            if far:
                end = _end(end.rows, conv, _above(_stretch(conv, end.rows), which), end.kernels)
            found, rows = self._search(conv, which, k, end, largest)
            if found is None:
                return None
            if not far and found.applications > _APPLICATIONS:
                end = _end(rows, conv, _above(float(found.upper[0]), which), end.kernels)
        except np.linalg.LinAlgError:  # a value lies above the one that was followed
            return None
        self._ends[which] = dataclasses.replace(end, rows=rows, kernels=end.kernels + 1)
        return found

    def _anew(self, conv: ConvOperator, which: Which, k: int) -> SingularTriplets:
        """Search everywhere; then prepare the searches to come."""
        start = self._starts.get(which)
        if start is not None and start.shape[1:] != (conv.in_channels, *conv.input_shape):
            start = None
        found = singular_triplets(conv, k, which, rtol=self.rtol, start=start, memory_limit=self.memory_limit)
        self._ends.pop(which, None)
        if not _keeps_factor(conv, k):
            return found
        largest = float((found if which == "largest" else self.triplets(conv, "largest")).values[0])
        near = found.left if conv.shape[0] < conv.shape[1] else found.right
        end = _end(near.reshape(len(near), -1), conv, _above(float(found.upper[0]), which), 0)
        end.rows = np.concatenate([end.rows, _outsiders(end, _KEPT)])
        rows = self._search(conv, which, k, end, None if which == "largest" else largest)[1]
        self._ends[which] = dataclasses.replace(end, rows=rows)
        return found

    def _search(
        self, conv: ConvOperator, which: Which, k: int, end: _End, largest: float | None
    ) -> tuple[SingularTriplets | None, Rows]:
        """Davidson from the rows of `end`: the triplets, if they converged, and Ritz vectors."""
        if self._scaled is None or self._scaled[0] is not conv:
            self._scaled = (conv, *normalized(conv))
        _, scaled, scale = self._scaled
        top = None if largest is None else largest / scale
        search = Davidson(
            scaled,
            k,
            np.concatenate([end.rows, _outsiders(end, max(1, k + 1 - len(end.rows)))]),
            smallest=which == "smallest",
            precondition=end.inverse,
            rng=np.random.default_rng(0),
        )
        reason = search.run(self.rtol / 2, largest=top, enough=math.inf, most=4 * _APPLICATIONS)
        found = search.triplets(reason, self.rtol / 2, largest=top, applications=0)
        good = found.stop_reason is StopReason.CONVERGED
        return rescaled(found, scale) if good else None, search.subspace(k + _KEPT)


def _end(rows: Rows, anchor: ConvOperator, above: float | None, kernels: int) -> _End:
    inverse = ShiftedInverse(anchor, smaller_gram(anchor), above=above)
    return _End(rows=rows, anchor=anchor, above=above, kernels=kernels, inverse=inverse)


def _outsiders(end: _End, count: int) -> Rows:
    """Random rows, drawn towards this end of the spectrum.

    The Ritz vectors may all lie in one invariant subspace (channels that do not mix): what is about to overtake them
    in another one is most of what the inverse leaves of a random vector.
    """
    rng = np.random.default_rng(end.kernels)
    return end.inverse(end.inverse(rng.standard_normal((count, end.rows.shape[1]))))


def _above(value: float, which: Which) -> float | None:
    """A shift above all squares for the largest end."""
    return _ABOVE * value**2 if which == "largest" else None


def _stretch(conv: ConvOperator, rows: Rows) -> float:
    """The most that a combination of the orthonormal rows, on the smaller side, is stretched."""
    apply = conv.rmatvec if conv.shape[0] < conv.shape[1] else conv.matvec
    images = np.stack([apply(row) for row in rows])
    return math.sqrt(float(np.linalg.eigvalsh(images @ images.T)[-1]))


def _keeps_factor(conv: ConvOperator, k: int) -> bool:
    """Whether the operator is plain and small enough for a factor to be cheap, and large enough to need one."""
    return (
        conv.geometry.groups == 1
        and not is_zero(conv)
        and not is_circulant(conv)
        and not falls_apart(conv, k, smallest=False)
        and not suits_dense(conv, k + _KEPT)
        and factorized_flops(conv) <= _FLOPS
    )
