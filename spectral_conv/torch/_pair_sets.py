"""The sets of tap pairs that make the blocks of a Gram matrix, as small matrices on a table of products of taps."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from spectral_conv.geometry import Axis
from spectral_conv.gram import AxisPairs, axis_pairs

# Sets of all axes together are one matrix where it has so few entries; else there is one matrix per axis.
_JOINT = 1 << 13


@dataclass(frozen=True, kw_only=True)
class PairSets:
    """Sets of tap pairs along one axis, or along several together.

    Attributes
    ----------
    size : int
        Number of taps.
    taps : (pairs, 2) int64 ndarray
        The pairs that occur.
    member : (sets, pairs) sparse array
        How often each pair is in each set.
    counts : (sets,) ndarray
        How often each set occurs.
    diagonal : (sets,) bool ndarray
        Whether it joins a pixel with itself.
    mirror : (sets,) int64 ndarray
        The set with the taps of all pairs exchanged: its block is the transpose.
    """

    size: int
    taps: NDArray[np.int64]
    member: scipy.sparse.csr_array
    counts: NDArray[np.float64]
    diagonal: NDArray[np.bool_]
    mirror: NDArray[np.int64]

    @classmethod
    def create(cls, pairs: AxisPairs, size: int) -> PairSets:
        """All sets along an axis with `size` taps."""
        names = [
            (bool(own), tuple(map(tuple, taps.tolist())))
            for own, taps in zip(pairs.diagonal, pairs.sets, strict=True)
        ]
        place = {name: i for i, name in enumerate(names)}
        mirror = [place[own, tuple(sorted((b, a) for a, b in taps))] for own, taps in names]
        taps, column = np.unique(np.concatenate(pairs.sets), axis=0, return_inverse=True)
        row = np.repeat(np.arange(len(names)), [len(taps_of_set) for taps_of_set in pairs.sets])
        # Entries of one place are added: padding may read a pixel twice.
        member = scipy.sparse.coo_array((np.ones(len(row)), (row, column.ravel())), shape=(len(names), len(taps)))
        return cls(
            size=size,
            taps=taps,
            member=member.tocsr(),
            counts=pairs.counts.astype(np.float64),
            diagonal=pairs.diagonal,
            mirror=np.array(mirror, np.int64),
        )

    def joined(self, other: PairSets) -> PairSets:
        """The sets of both axes together, the other one running faster."""
        return PairSets(
            size=self.size * other.size,
            taps=(self.taps[:, None] * other.size + other.taps).reshape(-1, 2),
            member=scipy.sparse.kron(self.member, other.member, format="csr"),
            counts=np.multiply.outer(self.counts, other.counts).ravel(),
            diagonal=np.logical_and.outer(self.diagonal, other.diagonal).ravel(),
            mirror=(self.mirror[:, None] * len(other.mirror) + other.mirror).ravel(),
        )

    def halved(self) -> PairSets:
        """Of two mirrored sets the one whose first tap comes first, counted twice."""
        itself = np.arange(len(self.mirror))
        example = self.taps[self.member.indices[self.member.indptr[:-1]]]
        order = np.where(example[:, 0] == example[:, 1], itself - self.mirror, example[:, 0] - example[:, 1])
        # The mirrored set has the opposite order, unless its pairs are listed otherwise: then the index decides.
        order = np.where(np.sign(order) == -np.sign(order[self.mirror]), order, itself - self.mirror)
        kept = np.nonzero(order <= 0)[0]
        member = self.member[kept]
        used = np.unique(member.indices)
        return PairSets(
            size=self.size,
            taps=self.taps[used],
            member=member[:, used],
            counts=self.counts[kept] * np.where(self.mirror[kept] == kept, 1.0, 2.0),
            diagonal=self.diagonal[kept],
            mirror=self.mirror[kept],
        )


def pair_sets(axes: tuple[Axis, ...], *, outer: bool) -> tuple[PairSets, ...]:
    """The sets of `spectral_conv.gram`, in one matrix or one per axis; of mirrored sets of the first, one."""
    sets = [PairSets.create(axis_pairs(axis, outer=outer), axis.kernel) for axis in axes]
    if math.prod(math.prod(part.member.shape) for part in sets) <= _JOINT:
        sets = [functools.reduce(PairSets.joined, sets)]
    sets[0] = sets[0].halved()
    return tuple(sets)
