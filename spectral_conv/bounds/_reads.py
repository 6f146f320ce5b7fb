r"""How often pixels are read: norms of the selections S_a, where ``M = sum_a S_a (x) K[a]^T`` along an axis.

The stack of the S_a has the norm ``max_p sqrt(reads of pixel p)``, their row at most
``max_r sqrt(sum_a outputs that read through a the pixel that r reads)``: for zero padding the root of the number of
taps of r that meet the image.
"""

from __future__ import annotations

import numpy as np

from spectral_conv.geometry import NOTHING, Axis


def stack_of_reads(axis: Axis) -> int:
    """``|| sum_a S_a^T S_a ||``, a diagonal matrix."""
    return int(np.bincount(axis.reads[axis.reads != NOTHING], minlength=1).max())


def row_of_reads(axis: Axis) -> int:
    """Bound ``|| sum_a S_a S_a^T ||`` by the largest row sum."""
    total = np.zeros(axis.outputs, np.int64)
    for taps in axis.reads.T:
        met = taps != NOTHING
        total[met] += np.bincount(taps[met])[taps[met]]
    return int(total.max())
